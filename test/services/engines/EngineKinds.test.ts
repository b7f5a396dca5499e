import { assert, describe, it } from "@effect/vitest"
import { existsSync, globSync, readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import * as EngineKinds from "../../../src/services/engines/EngineKinds.ts"
import { fake } from "../../../src/services/engines/FakeKind.ts"
import { llama } from "../../../src/services/engines/LlamaKind.ts"
import { onnx } from "../../../src/services/engines/OnnxKind.ts"
import type { FakeSpec } from "../../../src/workers/fake/FakeTasks.ts"
import type { LlamaSpec } from "../../../src/workers/llama/LlamaLoad.ts"
import type { OnnxSpec } from "../../../src/workers/onnx/OnnxRuntime.ts"

const root = fileURLToPath(new URL("../../../src/", import.meta.url))

const { engineKinds } = EngineKinds

/** Where the name of an engine may stand besides its record and its worker: files of the model store name its formats. */
const formats = new Set([
  "cli/Models.ts",
  "layers/store/LocalFiles.ts",
  "layers/store/Quarantine.ts",
  "services/store/ModelSource.ts",
  "services/store/ModelStore.ts"
])

const withoutComments = (text: string): string => text.replaceAll(/\/\*[^]*?\*\/|\/\/[^\n]*/g, "")

describe("an engine kind", () => {
  it("is named in its record and its worker only, so that a new one is a record, a worker and a line of the table", () => {
    const isName = new RegExp(`["'\`](?:${engineKinds.map(({ name }) => name).join("|")})["'\`]`)
    const naming = globSync("**/*.ts", { cwd: root })
      .filter((file) => !file.startsWith("workers/") && !/^services\/engines\/\w+Kind\.ts$/.test(file))
      .filter((file) => isName.test(withoutComments(readFileSync(root + file, "utf8"))))
    assert.deepStrictEqual(naming.filter((file) => !formats.has(file)), [])
  })

  for (const kind of engineKinds) {
    it(`${kind.name} has a worker if it runs on threads, and a test load if the store has files for it`, () => {
      assert.strictEqual(existsSync(`${root}workers/${kind.name}.worker.ts`), "spec" in kind)
      assert.strictEqual(existsSync(`${root}workers/${kind.name}/Inspect.ts`), "inspection" in kind)
      assert.strictEqual("inspection" in kind, "format" in kind)
    })
  }

  it("starts its worker with the fields that the worker reads", () => {
    const llamaSpec: LlamaSpec = llama.spec({ engine: "llama", file: "/a.gguf", variants: ["/b.gguf"], replicas: 2 })
    const adapted = llama.spec({ engine: "llama", file: "/a.gguf", lora: "/b.gguf" })
    assert.deepStrictEqual(adapted.lora, [{ path: "/b.gguf", scale: 1 }])
    const prefixFiles = { folder: "/p", maxBytes: 1, idleMs: 1 }
    const specOf = (keeps: boolean | undefined, folder?: typeof prefixFiles) =>
      llama.spec({ engine: "llama", file: "/a.gguf", ...(keeps === undefined ? {} : { prefixFiles: keeps }) }, folder)
    assert.deepStrictEqual(specOf(undefined, prefixFiles).prefixFiles, prefixFiles)
    assert.deepStrictEqual(specOf(true, prefixFiles).prefixFiles, prefixFiles)
    for (const spec of [specOf(false, prefixFiles), specOf(true)]) assert.notProperty(spec, "prefixFiles")
    const onnxSpec: OnnxSpec = onnx.spec({ engine: "onnx", folder: "/a", replicas: 2 })
    const fakeSpec: FakeSpec = fake.spec({ engine: "fake", memory: 1, replicas: 2, fault: { kind: "hang" } })
    assert.deepStrictEqual<unknown>([llamaSpec, onnxSpec, fakeSpec], [
      { engine: "llama", file: "/a.gguf", slots: 4, replicas: 2 },
      { engine: "onnx", folder: "/a", model: "model", slots: 4, threads: 1 },
      {
        engine: "fake",
        contextSize: 4096,
        slots: 4,
        loadDelayMs: 0,
        promptDelayMs: 0,
        tokenDelayMs: 0,
        fault: { kind: "hang", afterTokens: 0 }
      }
    ])
  })
})

describe("paths of a deployment", () => {
  const options = { engine: "llama", file: "a.gguf", variants: ["b.gguf"] }
  const remote = { engine: "remote", provider: "openai", model: "m" } as const

  it("are listed with their fields, the model's own first", () => {
    assert.deepStrictEqual(EngineKinds.pathsOf(options), [[["file"], "a.gguf"], [["variants", 0], "b.gguf"]])
    assert.deepStrictEqual(EngineKinds.pathsOf({ engine: "onnx", folder: "a" }), [[["folder"], "a"]])
    for (const none of [{ engine: "fake" }, { engine: "language-model", name: "a" }, remote]) {
      assert.deepStrictEqual(EngineKinds.pathsOf(none), [])
    }
  })

  it("have those of LoRA adapters beside the model's, which the alternatives share", () => {
    const list = { ...options, lora: [{ path: "c.gguf", scale: 0.5 }, { path: "d.gguf" }] }
    assert.deepStrictEqual(EngineKinds.filesOf(list).slice(2), [[["lora", 0, "path"], "c.gguf"], [[
      "lora",
      1,
      "path"
    ], "d.gguf"]])
    assert.deepStrictEqual(EngineKinds.filesOf({ ...options, lora: "c.gguf" }).slice(2), [[["lora"], "c.gguf"]])
    assert.deepStrictEqual(EngineKinds.filesOf(remote), [])
    assert.deepStrictEqual(EngineKinds.pathsOf(list), EngineKinds.pathsOf(options))
    assert.deepStrictEqual(EngineKinds.adaptersOf(EngineKinds.mapPaths(list, (path) => `/${path}`)), [
      { path: "/c.gguf", scale: 0.5 },
      { path: "/d.gguf", scale: 1 }
    ])
    assert.deepStrictEqual(
      EngineKinds.alternativesOf(list).map((one) => EngineKinds.adaptersOf(one.options).length),
      [2, 2]
    )
  })

  it("are changed together, and one by one for its alternatives", () => {
    assert.deepStrictEqual<unknown>(EngineKinds.mapPaths(options, (path) => `/${path}`), {
      engine: "llama",
      file: "/a.gguf",
      variants: ["/b.gguf"]
    })
    assert.deepStrictEqual<unknown>(EngineKinds.mapPaths({ engine: "llama", file: "a" }, (path) => `/${path}`), {
      engine: "llama",
      file: "/a"
    })
    assert.deepStrictEqual(EngineKinds.mapPaths(remote, (path) => `/${path}`), remote)
    assert.deepStrictEqual(EngineKinds.alternativesOf(options).map((one) => EngineKinds.pathOf(one.options)), [
      "a.gguf",
      "b.gguf"
    ])
  })

  it("choose the kind: by extension, else a folder", () => {
    assert.deepStrictEqual(EngineKinds.fromPath("/a.gguf"), { engine: "llama", file: "/a.gguf" })
    assert.deepStrictEqual(EngineKinds.fromPath("/a"), { engine: "onnx", folder: "/a" })
    assert.deepStrictEqual(EngineKinds.fromFormat("onnx", "/a"), { engine: "onnx", folder: "/a" })
  })
})
