/** The store in a folder: the results of pulls, concurrent pulls, and inspections. */
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import { assert, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Redacted, Schedule, Stream } from "effect"
import {
  appendFileSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  utimesSync,
  writeFileSync
} from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { describe } from "vitest"
import * as ModelFiles from "../../../src/layers/engines/ModelFiles.ts"
import * as ModelStoreLayer from "../../../src/layers/store/ModelStore.ts"
import type {
  ModelStore,
  ModelStoreError,
  Progress,
  PullOptions,
  StoredModel
} from "../../../src/services/store/ModelStore.ts"
import type { Fault, ModelServer, Paging } from "../../support/ModelServer.ts"
import { sha256Of, startModelServer } from "../../support/ModelServer.ts"
import { temporaryFolder } from "../../support/Service.ts"

const models = fileURLToPath(new URL("../../../models/", import.meta.url))
const tinyChat = join(models, "tiny-chat-q8_0.gguf")
const bytes = new Uint8Array(readFileSync(tinyChat))
const repository = {
  "README.md": new TextEncoder().encode("# model"),
  "tiny-Q8_0.gguf": bytes,
  "tiny-F16.gguf": new Uint8Array(readFileSync(join(models, "tiny-chat-f16.gguf")))
}

interface Try {
  readonly store: ModelStore["Service"]
  readonly folder: string
  /** A folder for files to pull. */
  readonly sources: string
  readonly server: ModelServer
  /** Runs a pull; returns the model, and every event before. */
  readonly pull: (
    source: string,
    options?: PullOptions
  ) => Effect.Effect<{ readonly model: StoredModel; readonly events: ReadonlyArray<Progress> }, ModelStoreError>
}

const withStore = (
  use: (it: Try) => Effect.Effect<void, unknown>,
  options: {
    readonly files?: Record<string, Uint8Array>
    readonly faultOf?: (index: number) => Fault | undefined
    readonly maxBytes?: number
    readonly paging?: Paging
    readonly token?: string
  } = {}
) =>
  Effect.scoped(Effect.gen(function*() {
    const { path: sources } = yield* Effect.acquireDisposable(Effect.sync(temporaryFolder))
    const folder = join(sources, "store")
    const server = yield* Effect.acquireRelease(
      Effect.promise(() => startModelServer(options.files ?? repository, options.faultOf, options.paging)),
      (server) => Effect.promise(server.close)
    )
    const store = yield* ModelStoreLayer.make({
      folder,
      maxBytes: options.maxBytes,
      endpoint: { url: server.url, token: Redacted.make(options.token ?? "hush") },
      retry: Schedule.upTo(Schedule.spaced("1 millis"), { times: 3 })
    })
    const pull: Try["pull"] = (source, given) =>
      Effect.gen(function*() {
        const events = yield* Stream.runCollect(store.pull(source, given))
        const last = events.at(-1)
        assert(last?.type === "done")
        return { model: last.model, events }
      })
    yield* use({ store, folder, sources, server, pull })
  })).pipe(Effect.provide(Layer.merge(NodeHttpClient.layerNodeHttp, ModelFiles.layer)))

const reasonOf = <A>(effect: Effect.Effect<A, ModelStoreError>) =>
  Effect.map(
    Effect.flip(effect),
    ({ reason }): Readonly<Record<string, unknown>> => Object.fromEntries(Object.entries(reason))
  )

describe("pull", () => {
  it.live("adds a local file, tests that it loads, and lists it", () =>
    withStore(({ folder, pull, store }) =>
      Effect.gen(function*() {
        const { events, model } = yield* pull(tinyChat)
        assert.strictEqual(model.path, join(folder, "tiny-chat-q8_0", "tiny-chat-q8_0.gguf"))
        assert.strictEqual(model.manifest.files[0].sha256, sha256Of(bytes))
        assert.isTrue(model.manifest.inspected !== undefined && events.some(({ type }) => type === "inspecting"))
        assert.deepStrictEqual(yield* store.list, [model])
        assert.deepStrictEqual(yield* store.get("tiny-chat-q8_0"), model)
        assert.deepStrictEqual(readdirSync(model.path.replace(/[^/]+$/, "")).sort(), [
          "model.json",
          "tiny-chat-q8_0.gguf"
        ])
        const again = yield* pull(tinyChat)
        assert.deepStrictEqual(again.events.map(({ type }) => type), ["done"])
        assert.deepInclude(yield* reasonOf(pull(tinyChat, { sha256: "0".repeat(64) })), { _tag: "ChecksumMismatch" })
        yield* store.remove("tiny-chat-q8_0")
        assert.deepInclude(yield* reasonOf(store.get("tiny-chat-q8_0")), { _tag: "NotInStore", available: [] })
        assert.deepStrictEqual(readdirSync(folder), [])
      })
    ))

  it.live("finds a repository's quantization, and sends the token", () =>
    withStore(({ pull, server }) =>
      Effect.gen(function*() {
        const { model } = yield* pull("hf:org/model", { name: "default" })
        assert.strictEqual(model.manifest.files[0].path, "tiny-Q8_0.gguf")
        assert.strictEqual(model.manifest.revision, "0123456789abcdef")
        const other = yield* pull("hf:org/model:f16")
        assert.strictEqual(other.model.manifest.name, "tiny-F16")
        assert.isTrue(server.seen.every(({ headers }) => headers.authorization === "Bearer hush"))
        assert.include((yield* Effect.flip(pull("hf:org/model:q2_k"))).message, "tiny-Q8_0.gguf, tiny-F16.gguf")
        assert.deepInclude(yield* reasonOf(pull("hf:org/nothing")), { _tag: "SourceNotFound" })
        assert.deepInclude(yield* reasonOf(pull("hf:org/model:f16", { name: "default" })), { _tag: "NameTaken" })
      })
    ))

  const small = new TextEncoder().encode("{}")
  const manyFiles: Record<string, Uint8Array> = {
    ...Object.fromEntries(Array.from({ length: 2500 }, (_, index) => [`part-${index}.json`, small])),
    "tiny-Q8_0.gguf": bytes
  }

  it.live("reads every page of a repository's list", () =>
    withStore(({ pull, server }) =>
      Effect.gen(function*() {
        const { model } = yield* pull("hf:org/model:Q8_0")
        assert.strictEqual(model.manifest.files[0].path, "tiny-Q8_0.gguf")
        const pages = server.seen.filter(({ path }) => path.includes("/tree/main"))
        assert.deepStrictEqual(pages.map(({ path }) => /cursor=(\d+)/.exec(path)?.[1]), [undefined, "1000", "2000"])
        assert.isTrue(pages.every(({ headers }) => headers.authorization === "Bearer hush"))
      }), { files: manyFiles, paging: { pageSize: 1000 } }))

  it.live("follows a list neither to another server nor without end", () =>
    Effect.gen(function*() {
      const detailOf = (next: (cursor: number) => string) =>
        Effect.gen(function*() {
          let detail: unknown
          yield* withStore(({ pull, server }) =>
            Effect.gen(function*() {
              const reason = yield* reasonOf(pull("hf:org/model"))
              assert.deepInclude(reason, { _tag: "DownloadFailed" })
              assert.isAtMost(server.seen.length, 100)
              detail = reason["detail"]
            }), { paging: { pageSize: 1, next } })
          return detail
        })
      assert.strictEqual(yield* detailOf(() => "http://127.0.0.1:1/list"), "its next page is on another server")
      assert.strictEqual(
        yield* detailOf(() => "/api/models/org/model/tree/main?recursive=1&cursor=0"),
        "the list of files has more than 100 pages"
      )
    }))

  it.live("pulls a file by its URL, and never shows the URL's secret", () =>
    withStore(({ folder, pull, server }) =>
      Effect.gen(function*() {
        const { model } = yield* pull(`${server.url}/org/model/resolve/main/tiny-Q8_0.gguf?key=hush`)
        assert.strictEqual(model.manifest.name, "tiny-Q8_0")
        assert.strictEqual(server.seen[0]!.headers.authorization, undefined)
        assert.notInclude(readFileSync(join(folder, "tiny-Q8_0", "model.json"), "utf8"), "hush")
      })
    ))

  const onnx = (file: string) =>
    new Uint8Array(readFileSync(fileURLToPath(new URL(`../../../models/tiny-chat-onnx/${file}`, import.meta.url))))
  const onnxFiles = {
    "config.json": onnx("config.json"),
    "tokenizer.json": onnx("tokenizer.json"),
    "tokenizer_config.json": onnx("tokenizer_config.json"),
    "onnx/model_q4.onnx": new Uint8Array([4]),
    "notes.bin": new Uint8Array([5])
  }

  it.live("names HF_TOKEN without its value if it is not valid in a header", () =>
    withStore(({ pull }) =>
      Effect.gen(function*() {
        assert.deepInclude(yield* reasonOf(pull("hf:org/model")), {
          _tag: "InvalidSource",
          source: "HF_TOKEN",
          detail: "The value is not valid in an HTTP header: it has a line break"
        })
      }), { token: "hush\nhush" }))

  it.live("pulls an ONNX folder, local or from a repository, after a load test in a process of its own", () =>
    withStore(({ pull }) =>
      Effect.gen(function*() {
        const { model } = yield* pull("hf:org/model")
        assert.strictEqual(model.manifest.kind, "onnx")
        assert.isDefined(model.manifest.inspected)
        assert.deepStrictEqual(readdirSync(model.path).sort(), [
          "config.json",
          "model.json",
          "onnx",
          "tokenizer.json",
          "tokenizer_config.json"
        ])
        const here = yield* pull(model.path, { name: "copy" })
        assert.deepStrictEqual(
          new Uint8Array(readFileSync(join(here.model.path, "onnx/model.onnx"))),
          onnx("onnx/model.onnx")
        )
      }), { files: { ...onnxFiles, "onnx/model.onnx": onnx("onnx/model.onnx") } }))

  it.live("quarantines an ONNX folder that does not load", () =>
    withStore(({ pull, store }) =>
      Effect.gen(function*() {
        const error = yield* Effect.flip(pull("hf:org/model"))
        assert.strictEqual(error.reason._tag, "Quarantined")
        const [model] = yield* store.list
        assert.isDefined(model?.manifest.quarantined)
      }), { files: { ...onnxFiles, "onnx/model.onnx": onnx("onnx/model.onnx").subarray(0, 1_000_000) } }))

  it.live("rejects files that are not models, and keeps nothing", () =>
    withStore(({ folder, pull, server, sources }) =>
      Effect.gen(function*() {
        const file = join(sources, "no-model")
        writeFileSync(file, "hello, world")
        const error = yield* Effect.flip(pull(file))
        assert.include(error.message, "Not a loadable GGUF file: magic (byte 0)")
        const short = join(sources, "short.gguf")
        writeFileSync(short, bytes.subarray(0, bytes.length - 1))
        assert.include((yield* Effect.flip(pull(short))).message, "its weights end at byte")
        for (
          const source of [
            "ftp://example.com/x",
            "http://example.com/x",
            "hf:x",
            "",
            join(sources, "none"),
            "hf:org/model/../x"
          ]
        ) {
          assert.deepInclude(yield* reasonOf(pull(source)), { _tag: "InvalidSource" })
        }
        assert.deepInclude(yield* reasonOf(pull(tinyChat, { name: "../up" })), { _tag: "InvalidSource" })
        assert.deepInclude(yield* reasonOf(pull("hf:org/model", { name: "a/b" })), { _tag: "InvalidSource" })
        assert.deepInclude(yield* reasonOf(pull(tinyChat, { sha256: "abc" })), { _tag: "InvalidSource" })
        assert.strictEqual(server.seen.length, 0)
        assert.deepStrictEqual(readdirSync(folder), [])
      })
    ))

  it.live("reports each retry of a hub request with the reason", () =>
    withStore(({ pull }) =>
      Effect.gen(function*() {
        const { events } = yield* pull("hf:org/model")
        assert.deepInclude(events[0], { type: "retry", file: "org/model", attempt: 1 })
        assert.deepInclude(events.at(-1), { type: "done" })
      }), { faultOf: (index) => index === 0 ? { status: 503 } : undefined }))

  it.live("stops at the limit of the store, and resumes when there is space", () =>
    withStore(({ folder, pull, store }) =>
      Effect.gen(function*() {
        mkdirSync(join(folder, "other"), { recursive: true })
        writeFileSync(join(folder, "other", "file"), new Uint8Array(1_000_000))
        assert.deepInclude(yield* reasonOf(pull(tinyChat)), {
          _tag: "DiskFull",
          neededBytes: bytes.length,
          availableBytes: 3_000_000
        })
        assert.deepStrictEqual(yield* store.list, [])
      }), { maxBytes: 4_000_000 }))

  it.live("runs one pull per model, and takes over the lock of a dead process", () =>
    withStore(({ folder, pull, store }) =>
      Effect.gen(function*() {
        const first = yield* Effect.forkChild(Stream.runDrain(store.pull("hf:org/model")), { startImmediately: true })
        yield* Effect.repeat(Effect.sync(() => existsSync(join(folder, ".tiny-Q8_0.lock"))), {
          until: (locked) => locked,
          schedule: Schedule.spaced("1 millis")
        })
        assert.deepInclude(yield* reasonOf(pull("hf:org/model")), { _tag: "PullInProgress", pid: process.pid })
        yield* Fiber.interrupt(first)
        const abandoned = join(folder, ".tiny-Q8_0.lock")
        writeFileSync(abandoned, "4194304")
        const longAgo = Date.now() / 1000 - 60
        utimesSync(abandoned, longAgo, longAgo)
        assert.isFalse((yield* pull("hf:org/model")).events.some(({ type }) => type === "retry"))
        assert.isFalse(existsSync(join(folder, ".tiny-Q8_0.lock")))
      }), { faultOf: (index) => index === 1 ? { stallAfter: 10 } : undefined }))
})

/** Zero heads: a division fails an assertion in the library, which aborts its process. */
const withoutHeads = (): Uint8Array => {
  const bad = bytes.slice()
  const key = new TextEncoder().encode("llama.attention.head_count")
  const at = Buffer.from(bad.buffer).indexOf(key)
  new DataView(bad.buffer).setUint32(at + key.length + 4, 0, true)
  return bad
}

describe("list", () => {
  it.live("lists the first 1,000 models, without invalid folders and manifests", () =>
    withStore(({ folder, store }) =>
      Effect.gen(function*() {
        const manifestOf = (name: string, more = "") =>
          JSON.stringify({
            version: 1,
            name,
            kind: "gguf",
            source: `x${more}`,
            pulledAt: "",
            files: [{ path: "x.gguf", bytes: 1, sha256: "" }]
          })
        const names = Array.from({ length: 1100 }, (_, index) => `model-${String(index).padStart(4, "0")}`)
        for (const name of names) {
          mkdirSync(join(folder, name), { recursive: true })
          writeFileSync(join(folder, name, "model.json"), manifestOf(name, name === names[0] ? "x".repeat(1e6) : ""))
        }
        const listed = (yield* store.list).map(({ manifest }) => manifest.name)
        assert.deepStrictEqual(listed, names.slice(1, 1000))
      })
    ))
})

describe("ensureInspected", () => {
  it.live("quarantines a file that aborts its process, and allows another pull", () =>
    withStore(({ pull, sources, store }) =>
      Effect.gen(function*() {
        const file = join(sources, "bad.gguf")
        writeFileSync(file, withoutHeads())
        const error = yield* Effect.flip(pull(file))
        assert.strictEqual(error.reason._tag, "Quarantined")
        assert.match(error.message, /SIGABRT/)
        const model = yield* store.get("bad")
        assert.isTrue(existsSync(`${model.path}.quarantined`) && !existsSync(model.path))
        assert.deepInclude(yield* reasonOf(store.ensureInspected(model.path)), { _tag: "Quarantined" })
        copyFileSync(tinyChat, file)
        assert.isDefined((yield* pull(file)).model.manifest.inspected)
      })
    ))

  it.live("works with a read-only store, with one inspection per file", () =>
    withStore(({ folder, pull, store }) =>
      Effect.gen(function*() {
        const { model } = yield* pull(tinyChat)
        const place = join(folder, model.manifest.name)
        const { inspected: _, ...manifest } = model.manifest
        writeFileSync(join(place, "model.json"), JSON.stringify(manifest))
        // A manifest is first written to this file; a folder at its path makes the write fail for every user.
        mkdirSync(join(place, "model.json.part"))
        yield* store.ensureInspected(model.path)
        assert.strictEqual((yield* store.get(manifest.name)).manifest.inspected, undefined)
        yield* store.ensureInspected(model.path)
        writeFileSync(model.path, withoutHeads())
        assert.deepInclude(yield* reasonOf(store.ensureInspected(model.path)), { _tag: "Quarantined" })
      })
    ))

  it.live("inspects changed files again, and no files outside the store", () =>
    withStore(({ folder, pull, store }) =>
      Effect.gen(function*() {
        const { model } = yield* pull(tinyChat)
        yield* store.ensureInspected(model.path)
        assert.deepStrictEqual(yield* store.get(model.manifest.name), model)
        appendFileSync(model.path, "more")
        yield* store.ensureInspected(model.path)
        assert.strictEqual((yield* store.get(model.manifest.name)).manifest.inspected?.bytes, bytes.length + 4)
        writeFileSync(model.path, "no model")
        assert.deepInclude(yield* reasonOf(store.ensureInspected(model.path)), { _tag: "Quarantined" })
        yield* store.ensureInspected(join(folder, "..", "none.gguf"))
        mkdirSync(join(folder, "unfinished"))
        yield* store.ensureInspected(join(folder, "unfinished", "model.gguf"))
      })
    ))
})
