import { assert, describe, it } from "@effect/vitest"
import { fileURLToPath } from "node:url"
import { setEnvironmentData } from "node:worker_threads"
import { engineProcess } from "../../../src/domain/EngineProtocol.ts"
import { loadBinary, ramPadding } from "../../../src/workers/llama/LlamaBinary.ts"
import * as parts from "../../../src/workers/llama/LlamaLibrary.ts"

const bundle = fileURLToPath(new URL("../../../dist/workers/llama/LlamaLibrary.js", import.meta.url))

describe.runIf(process.platform === "linux")("the binary of an engine process", () => {
  it("is loaded without getLlama", async () => {
    const started = await loadBinary(() => {})
    assert.isDefined(started)
    assert.strictEqual(started.library.GgmlType, parts.GgmlType)
    assert.isFalse(started.llama.gpu)
    await started.llama.dispose()
  })

  it("is left to getLlama in another process", async () => {
    setEnvironmentData(engineProcess, undefined)
    try {
      assert.isUndefined(await loadBinary(() => {}))
    } finally {
      setEnvironmentData(engineProcess, true)
    }
  })

  it("leaves as much memory free as getLlama does", async () => {
    const file = new URL("bindings/getLlama.js", import.meta.resolve("node-llama-cpp"))
    const { defaultLlamaRamPadding } = await import(file.href) as { readonly defaultLlamaRamPadding: typeof ramPadding }
    for (const total of [1e9, 4e9, 64e9]) assert.strictEqual(ramPadding(total), defaultLlamaRamPadding(total))
  })
})

describe("the build of the library", () => {
  it("has what the engine uses", async () => {
    const built = await import(bundle) as typeof parts
    assert.sameMembers(Object.keys(built), Object.keys(parts))
    assert.deepStrictEqual(built.GgmlType, parts.GgmlType)
    assert.strictEqual(new built.GeneralChatWrapper().wrapperName, new parts.GeneralChatWrapper().wrapperName)
  })
})
