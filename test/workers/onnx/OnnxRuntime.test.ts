import { assert } from "@effect/vitest"
import { existsSync, mkdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { describe, it } from "vitest"
import { floatsOf, integers } from "../../../src/workers/onnx/OnnxDecoder.ts"
import type { Importers, Library, OnnxDevice } from "../../../src/workers/onnx/OnnxRuntime.ts"
import { importRuntime, openSession, wordsOf } from "../../../src/workers/onnx/OnnxRuntime.ts"
import { embedding, tinyChat, vectorGraph } from "../../support/OnnxModels.ts"
import { bytesOf, writeOnnx } from "../../support/OnnxWriter.ts"
import { temporaryFolder } from "../../support/Service.ts"

const missing = (name: string): Promise<never> =>
  Promise.reject(Object.assign(new Error(`Cannot find package '${name}' imported from a thread`), {
    code: "ERR_MODULE_NOT_FOUND"
  }))

const noBinary = (): Promise<never> =>
  Promise.reject(Object.assign(new Error("Cannot find module '../bin/napi-v6/plan9/mips/onnxruntime_binding.node'"), {
    code: "MODULE_NOT_FOUND"
  }))

const library = (name: string) => ({ name, env: { wasm: {} } }) as unknown as Library & { readonly name: string }

const have: Importers = {
  native: () => Promise.resolve(library("native")),
  wasm: () => Promise.resolve(library("wasm"))
}

const bare: Importers = { native: () => missing("onnxruntime-node"), wasm: () => missing("onnxruntime-web") }

const importFor = (device: OnnxDevice | undefined, from: Importers) => importRuntime({ device, threads: 3 }, from)

const failureOf = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(() => undefined, (cause: unknown) => cause)

describe("OnnxRuntime", () => {
  it("uses the library of the device", async () => {
    const taken = async (device: OnnxDevice | undefined, from: Importers) => {
      const runtime = await importFor(device, from)
      return [(runtime.library as Library & { readonly name: string }).name, runtime.device]
    }
    assert.deepStrictEqual(await taken(undefined, have), ["native", "cpu"])
    assert.deepStrictEqual(await taken("cpu", have), ["native", "cpu"])
    assert.deepStrictEqual(await taken("cuda", have), ["native", "cuda"])
    assert.deepStrictEqual(await taken("webgpu", have), ["native", "webgpu"])
    assert.deepStrictEqual(await taken("wasm", { ...have, native: bare.native }), ["wasm", "wasm"])
    assert.deepStrictEqual(await taken(undefined, { ...have, native: bare.native }), ["wasm", "wasm"])
    assert.deepStrictEqual(await taken(undefined, { ...have, native: noBinary }), ["wasm", "wasm"])
  })

  it("gives WASM as many threads as the deployment has", async () => {
    assert.strictEqual((await importFor("wasm", have)).library.env.wasm.numThreads, 3)
  })

  it("names a missing package", async () => {
    for (const device of [undefined, "cpu", "webgpu", "cuda"] as const) {
      assert.deepStrictEqual(await failureOf(importFor(device, bare)), {
        kind: "package_missing",
        packageName: "onnxruntime-node"
      })
    }
    assert.deepStrictEqual(await failureOf(importFor("wasm", bare)), {
      kind: "package_missing",
      packageName: "onnxruntime-web"
    })
  })

  it("explains a missing native library for this machine", async () => {
    const failure = await failureOf(importFor("cpu", { ...have, native: noBinary }))
    assert.match(JSON.stringify(failure), /load_failed.*onnxruntime-node does not work on.*Set device: wasm/)
  })

  it("cleans the runtime's messages", () => {
    const escape = String.fromCharCode(27)
    assert.strictEqual(
      wordsOf(new Error(`${escape}[1;31mLoad model from /a/b failed:Bad\u0007 node${escape}[m\nmore`)),
      "Bad? node"
    )
    assert.strictEqual(
      wordsOf(new Error("/onnxruntime_src/onnxruntime/core/graph/model.cc:181 Unknown version")),
      "Unknown version"
    )
    assert.isAtMost(wordsOf(new Error("x".repeat(5000))).length, 310)
  })

  it("explains the problem of a model file, with its path", async () => {
    using folder = temporaryFolder()
    const good = writeOnnx(vectorGraph(4, "last_hidden_state"))
    const files: Record<string, Uint8Array> = {
      empty: new Uint8Array(),
      garbage: Buffer.from("This is no model at all, whatever its name says."),
      truncated: good.subarray(0, good.length / 2)
    }
    mkdirSync(join(folder.path, "folder"))
    for (const [name, content] of Object.entries(files)) writeFileSync(join(folder.path, name), content)
    for (const device of ["cpu", "wasm"] as const) {
      const runtime = await importRuntime({ device, threads: 1 })
      for (const name of ["missing", "folder", ...Object.keys(files)]) {
        const failure = await failureOf(openSession(runtime, join(folder.path, name), 1))
        assert.deepInclude(failure, { kind: "load_failed" })
        assert.include((failure as { readonly message: string }).message, join(folder.path, name))
      }
    }
  })

  it("finds weights in separate files", async () => {
    using folder = temporaryFolder()
    const file = join(folder.path, "model.onnx")
    const graph = vectorGraph(2, "last_hidden_state")
    const [weights] = graph.constants
    for (const external of ["model.onnx_data", "model.onnx.data"]) {
      writeFileSync(join(folder.path, external), bytesOf(weights!))
      writeFileSync(file, writeOnnx({ ...graph, constants: [{ ...weights!, external }] }))
      for (const device of ["cpu", "wasm"] as const) {
        const runtime = await importRuntime({ device, threads: 1 })
        const session = await openSession(runtime, file, 1)
        const ids = integers(runtime.library, [5], [1, 1])
        const results = await session.run({ input_ids: ids, attention_mask: ids }, ["last_hidden_state"])
        assert.deepStrictEqual([...floatsOf(results["last_hidden_state"]!)], [embedding(5, 0), embedding(5, 1)])
        await session.release()
      }
    }
  })

  it("computes on an available device, and explains a missing one", async () => {
    const model = join(tinyChat, "onnx", "model.onnx")
    // Both a driver and the library's own part of it are needed.
    for (const device of ["webgpu", "cuda"] as const) {
      const runtime = await importRuntime({ device, threads: 1 })
      const failure = await failureOf(openSession(runtime, model, 1).then((session) => session.release()))
      if (device === "cuda" && !existsSync("/dev/nvidia0")) assert.isDefined(failure)
      if (failure === undefined) continue
      assert.match(JSON.stringify(failure), /load_failed.*(?:no WebGPU adapter|cannot use CUDA).*device: cpu/)
      assert.notMatch(JSON.stringify(failure), /onnxruntime_src|node_modules/)
    }
  })
})
