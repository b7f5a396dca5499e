/** Headers of files on the disk. */
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import { appendFileSync, copyFileSync, cpSync, statSync, truncateSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { describe } from "vitest"
import type { DeploymentOptions } from "../../../src/domain/Deployment.ts"
import * as ModelFiles from "../../../src/layers/engines/ModelFiles.ts"
import { ModelFiles as Service } from "../../../src/services/engines/ModelFiles.ts"
import { writeLora } from "../../support/LoraFiles.ts"
import { temporaryFolder } from "../../support/Service.ts"

const models = fileURLToPath(new URL("../../../models/", import.meta.url))
const file = join(models, "tiny-chat-q8_0.gguf")

const withFiles = <A, E>(use: (files: Service["Service"], folder: string) => Effect.Effect<A, E>) =>
  Effect.scoped(Effect.gen(function*() {
    const folder = yield* Effect.acquireDisposable(Effect.sync(temporaryFolder))
    return yield* use(yield* Service, folder.path)
  })).pipe(Effect.provide(ModelFiles.layer))

describe("ModelFiles", () => {
  it.effect("reads a header once, and again when the file has changed", () =>
    withFiles((files, folder) =>
      Effect.gen(function*() {
        const path = join(folder, "model.gguf")
        copyFileSync(file, path)
        const first = yield* files.inspectFile(path)
        assert.strictEqual(yield* files.inspectFile(path), first)
        appendFileSync(path, "more")
        const second = yield* files.inspectFile(path)
        assert.strictEqual(second.bytes, first.bytes + 4)
      })
    ))

  it.effect("reports a missing, empty, truncated or different file", () =>
    withFiles((files, folder) =>
      Effect.gen(function*() {
        const path = join(folder, "model.gguf")
        const problem = () => Effect.map(Effect.flip(files.inspectFile(path)), ({ message }) => message)
        assert.strictEqual(yield* problem(), `${path} cannot be read: There is no such file`)
        writeFileSync(path, "")
        assert.include(yield* problem(), "it is empty")
        writeFileSync(path, "hello, world")
        assert.include(yield* problem(), "Expected the bytes \"GGUF\"")
        copyFileSync(file, path)
        truncateSync(path, 9000)
        assert.include(yield* problem(), "the file has 9000 in all")
      })
    ))

  it.effect("reads a header that is longer than the first piece", () =>
    withFiles((files, folder) =>
      Effect.gen(function*() {
        const path = join(folder, "model.gguf")
        writeFileSync(path, longHeader(2_000_000))
        const { header } = yield* files.inspectFile(path)
        assert.strictEqual((header.metadata.get("note") as string).length, 2_000_000)
      })
    ))

  it.effect("describes what a model can do as its loaded engine does", () =>
    withFiles((files, folder) =>
      Effect.gen(function*() {
        const able = (options: DeploymentOptions) =>
          Effect.map(files.describe(options), ({ capabilities }) => capabilities)
        const chat = ["generate", "complete", "format", "logprobs", "tools"] as const
        assert.deepStrictEqual(yield* able({ engine: "llama", file }), [
          ...chat,
          "echo",
          "embed",
          "embedTokens",
          "tokenize"
        ])
        assert.deepStrictEqual(yield* able({ engine: "onnx", folder: join(models, "tiny-chat-onnx") }), [
          ...chat,
          "tokenize"
        ])
        assert.deepStrictEqual(yield* able({ engine: "onnx", folder: join(models, "tiny-embed") }), [
          "embed",
          "embedTokens",
          "tokenize"
        ])
        const damaged = join(folder, "damaged")
        cpSync(join(models, "tiny-embed"), damaged, { recursive: true })
        truncateSync(join(damaged, "onnx/model.onnx"), 5_000)
        assert.isUndefined(yield* able({ engine: "onnx", folder: damaged }))
      })
    ))

  it.effect("counts the memory of LoRA adapters for each engine thread, and refuses those of other models", () =>
    withFiles((files, folder) =>
      Effect.gen(function*() {
        const path = join(folder, "adapter.gguf")
        const options = { engine: "llama", file, replicas: 2, lora: [{ path, scale: 0.5 }] }
        const problem = () => Effect.map(Effect.flip(files.describe(options)), ({ message }) => message)
        assert.strictEqual(yield* problem(), `${path} cannot be read: There is no such file`)
        writeLora(path, { metadata: { "general.architecture": "qwen2" } })
        assert.match(
          yield* problem(),
          /adapter\.gguf is not a LoRA adapter of this model\. It is for models of the arch/
        )
        writeLora(path)
        const [plain, adapted] = [
          yield* files.describe({ engine: "llama", file, replicas: 2 }),
          yield* files.describe(options)
        ]
        assert.strictEqual(adapted.weightsBytes - plain.weightsBytes, 2 * statSync(path).size)
      })
    ))

  it.effect("describes a GGUF file, an ONNX folder and a fake", () =>
    withFiles((files, folder) =>
      Effect.gen(function*() {
        const llama = yield* files.describe({ engine: "llama", file })
        const fake = yield* files.describe({ engine: "fake" })
        assert.isAbove(llama.totalBytes, 3_000_000)
        assert.strictEqual(fake.totalBytes, 0)
        const onnxFolder = join(folder, "onnx")
        cpSync(join(models, "tiny-chat-onnx"), onnxFolder, { recursive: true })
        const whole = yield* files.describe({ engine: "onnx", folder: onnxFolder })
        writeFileSync(join(onnxFolder, "onnx/model.onnx_data"), new Uint8Array(1000))
        const external = yield* files.describe({ engine: "onnx", folder: onnxFolder })
        assert.strictEqual(external.weightsBytes, whole.weightsBytes + 1000)
      })
    ))
})

/** A GGUF file with one long text and no tensors. */
const longHeader = (length: number): Uint8Array => {
  const bytes = new Uint8Array(24 + 8 + 4 + 4 + 8 + length)
  const view = new DataView(bytes.buffer)
  view.setUint32(0, 0x46554747, true)
  view.setUint32(4, 3, true)
  view.setBigUint64(16, 1n, true)
  view.setBigUint64(24, 4n, true)
  bytes.set(new TextEncoder().encode("note"), 32)
  view.setUint32(36, 8, true)
  view.setBigUint64(40, BigInt(length), true)
  bytes.fill(97, 48)
  return bytes
}
