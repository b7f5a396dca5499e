/** The onnx engine in a thread: behaviour beyond the conformance suite. */
import { assert, it } from "@effect/vitest"
import { Effect, Result, Stream } from "effect"
import { cpSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { describe } from "vitest"
import type { Generation } from "../../../src/domain/Generation.ts"
import type { InferenceError } from "../../../src/domain/InferenceError.ts"
import type { ToolDefinition } from "../../../src/domain/Job.ts"
import * as Engines from "../../../src/layers/engines/Engines.ts"
import type { Engine } from "../../../src/services/engines/Engine.ts"
import type { Options } from "../../../src/services/engines/EngineKinds.ts"
import { deploymentOf } from "../../conformance/engine.ts"
import { embedding, logitGraph, tinyChat, typeWeight, vectorGraph, writeModel } from "../../support/OnnxModels.ts"
import { isBrief } from "../../support/Repetitions.ts"
import { temporaryFolder } from "../../support/Service.ts"

type OnnxOptions = Omit<Extract<Options, { engine: "onnx" }>, "engine">

const start = (options: OnnxOptions) => Engines.make("thread").start(deploymentOf({ engine: "onnx", ...options }))

/**
 * Where encoders and the reuse of a prompt are tested. On wasm, `npm test` has them in `TinyEmbed.test.ts` and
 * `test/conformance/onnxWasmThread.test.ts`, and a step of `.ci/run` also has those of this file: each compiles it again.
 */
const devices: ReadonlyArray<"cpu" | "wasm"> = isBrief ? ["cpu"] : ["cpu", "wasm"]

/** Runs against the engine of a generated model folder. */
const withModel = <A, E>(
  make: (folder: string) => string,
  use: (engine: Engine) => Effect.Effect<A, E>,
  options: Partial<OnnxOptions> = {}
) =>
  Effect.gen(function*() {
    const folder = yield* Effect.acquireRelease(
      Effect.sync(temporaryFolder),
      (folder) => Effect.sync(() => folder[Symbol.dispose]())
    )
    return yield* Effect.flatMap(start({ folder: make(folder.path), ...options }), use)
  }).pipe(Effect.scoped)

const failureOf = (make: (folder: string) => string, options: Partial<OnnxOptions> = {}) =>
  Effect.map(Effect.flip(withModel(make, () => Effect.void, options)), ({ reason }: InferenceError) => {
    assert.strictEqual(reason._tag, "ModelLoadFailed")
    return reason.message
  })

const texts = ["Hello!", "What is the capital of Japan?", "Write a story about a fox.", "Count to 7.", "a"]

/** Tokens of a text, with the control tokens of the test's tokenizer. */
const idsOf = (engine: Engine, text: string) => Effect.map(engine.tokenize(text), (tokens) => [1, ...tokens, 2])

const unit = (vector: ReadonlyArray<number>): Array<number> => {
  const length = Math.hypot(...vector)
  return vector.map((value) => value / length)
}

const poolings = {
  mean: (rows: ReadonlyArray<ReadonlyArray<number>>) =>
    rows[0]!.map((_, axis) => rows.reduce((sum, row) => sum + row[axis]!, 0) / rows.length),
  cls: (rows: ReadonlyArray<ReadonlyArray<number>>) => rows[0]!,
  max: (rows: ReadonlyArray<ReadonlyArray<number>>) =>
    rows[0]!.map((_, axis) => Math.max(...rows.map((row) => row[axis]!))),
  lasttoken: (rows: ReadonlyArray<ReadonlyArray<number>>) => rows.at(-1)!
}

const vectorOf = (ids: ReadonlyArray<number>, dimensions: number, pooling: keyof typeof poolings): Array<number> =>
  unit(poolings[pooling](ids.map((id) => Array.from({ length: dimensions }, (_, axis) => embedding(id, axis)))))

const assertClose = (found: ArrayLike<number>, expected: ReadonlyArray<number>) => {
  assert.strictEqual(found.length, expected.length)
  expected.forEach((value, index) => assert.closeTo(found[index]!, value, 1e-5))
}

const values = <A, E>(results: ReadonlyArray<Result.Result<A, E>>): ReadonlyArray<A> =>
  results.map((result) => Result.getOrThrow(result))

describe("onnx, sentence vectors", () => {
  const poolingFile = (mode: string) => ({ "1_Pooling/config.json": { word_embedding_dimension: 6, [mode]: true } })
  const cases = [
    ["mean", "last_hidden_state", {}],
    ["mean", "token_embeddings", poolingFile("pooling_mode_mean_tokens")],
    ["cls", "last_hidden_state", poolingFile("pooling_mode_cls_token")],
    ["max", "last_hidden_state", poolingFile("pooling_mode_max_tokens")],
    ["lasttoken", "last_hidden_state", poolingFile("pooling_mode_lasttoken")]
  ] as const
  for (const device of devices) {
    for (const [pooling, output, files] of cases) {
      it.live(`pools ${output} by ${pooling} on ${device}`, () =>
        withModel(
          (folder) => writeModel(folder, { architectures: ["BertModel"] }, vectorGraph(6, output), files),
          (engine) =>
            Effect.gen(function*() {
              assert.deepStrictEqual([...engine.describe.capabilities].sort(), ["embed", "embedTokens", "tokenize"])
              const embeddings = values(yield* engine.embed(texts))
              for (const [index, text] of texts.entries()) {
                const ids = yield* idsOf(engine, text)
                assert.strictEqual(embeddings[index]!.promptTokens, ids.length)
                assertClose(embeddings[index]!.vector, vectorOf(ids, 6, pooling))
              }
            }),
          { device }
        ))
    }
  }

  it.live("uses a vector that the graph has pooled", () =>
    withModel(
      (folder) => writeModel(folder, { architectures: ["BertModel"] }, logitGraph(5, "sentence_embedding")),
      (engine) =>
        Effect.gen(function*() {
          const embeddings = values(yield* engine.embed(texts))
          for (const [index, text] of texts.entries()) {
            const expected = unit(logitsOf(yield* idsOf(engine, text), [], 5))
            assertClose(embeddings[index]!.vector, expected)
          }
        })
    ))

  it.live("fails an invalid text alone, among more texts than one batch", () =>
    withModel(
      (folder) => writeModel(folder, { architectures: ["BertModel"] }, vectorGraph(4, "last_hidden_state")),
      (engine) =>
        Effect.gen(function*() {
          const many = Array.from(
            { length: 40 },
            (_, index) => index === 7 ? "" : index === 30 ? "a ".repeat(80) : `Count to ${index}.`
          )
          const results = yield* engine.embed(many)
          for (const [index, text] of many.entries()) {
            const result = results[index]!
            if (Result.isFailure(result)) continue
            assertClose(result.success.vector, vectorOf(yield* idsOf(engine, text), 4, "mean"))
          }
          const failures = results.flatMap((result, index) =>
            Result.isFailure(result) ? [[index, result.failure.reason._tag]] : []
          )
          assert.deepStrictEqual(failures, [[7, "InvalidRequest"], [30, "ContextLengthExceeded"]])
        })
    ))

  it.live("treats a caller's control token as ordinary text", () =>
    withModel(
      (folder) => writeModel(folder, { architectures: ["BertModel"] }, vectorGraph(4, "last_hidden_state")),
      (engine) =>
        Effect.gen(function*() {
          const [first] = values(yield* engine.embed(["a<|im_end|>b"]))
          assert.isAbove(first!.promptTokens, 5)
          assert.notInclude(yield* engine.tokenize("a<|im_end|>b"), 2)
        })
    ))

  it.live("rejects unsupported jobs", () =>
    withModel(
      (folder) => writeModel(folder, { architectures: ["BertModel"] }, vectorGraph(4, "last_hidden_state")),
      (engine) =>
        Effect.gen(function*() {
          const errors = yield* Effect.all([
            Effect.flip(engine.rerank("a", ["b"])),
            Effect.flip(engine.classify(["a"])),
            Effect.flip(Stream.runDrain(engine.generate(ask("Hello!"))))
          ])
          assert.deepStrictEqual(
            errors.map(({ reason }) => reason._tag === "NotSupported" && reason.capability),
            ["rerank", "classify", "generate"]
          )
        })
    ))
})

const logitsOf = (first: ReadonlyArray<number>, second: ReadonlyArray<number>, labels: number) =>
  Array.from({ length: labels }, (_, axis) =>
    first.reduce((sum, id) => sum + embedding(id, axis) * typeWeight(0), 0) +
    second.reduce((sum, id) => sum + embedding(id, axis) * typeWeight(1), 0))

describe("onnx, scores", () => {
  for (const device of devices) {
    it.live(`reranks documents by their pairs with the query on ${device}`, () =>
      withModel(
        (folder) =>
          writeModel(
            folder,
            { architectures: ["BertForSequenceClassification"], id2label: { 0: "LABEL_0" } },
            logitGraph(1)
          ),
        (engine) =>
          Effect.gen(function*() {
            assert.deepStrictEqual([...engine.describe.capabilities].sort(), ["rerank", "tokenize"])
            const { promptTokens, scores } = yield* engine.rerank("Hello!", texts)
            const query = yield* engine.tokenize("Hello!")
            let total = 0
            for (const [index, text] of texts.entries()) {
              const document = yield* engine.tokenize(text)
              const [logit] = logitsOf([1, ...query, 2], [...document, 2], 1)
              assert.closeTo(scores[index]!, 1 / (1 + Math.exp(-logit!)), 1e-5)
              total += query.length + document.length + 3
            }
            assert.strictEqual(promptTokens, total)
            const { reason } = yield* Effect.flip(engine.rerank("Hello!", ["a", ""]))
            assert.deepInclude(reason, { _tag: "InvalidRequest", path: "documents[1]" })
          }),
        { device }
      ))
  }

  it.live("classifies by the configuration's labels, likeliest first", () =>
    withModel(
      (folder) =>
        writeModel(
          folder,
          { architectures: ["BertForSequenceClassification"], id2label: { 0: "sad", 1: "glad", 2: "mad" } },
          logitGraph(3)
        ),
      (engine) =>
        Effect.gen(function*() {
          assert.deepStrictEqual([...engine.describe.capabilities].sort(), ["classify", "tokenize"])
          const results = yield* engine.classify([...texts, ""])
          assert.isTrue(Result.isFailure(results.at(-1)!))
          for (const [index, { labels, promptTokens }] of values(results.slice(0, -1)).entries()) {
            const ids = yield* idsOf(engine, texts[index]!)
            const weights = logitsOf(ids, [], 3).map(Math.exp)
            const total = weights.reduce((sum, weight) => sum + weight, 0)
            const expected = ["sad", "glad", "mad"].map((label, id) => ({ label, score: weights[id]! / total }))
              .sort((a, b) => b.score - a.score)
            assert.strictEqual(promptTokens, ids.length)
            assert.deepStrictEqual(labels.map(({ label }) => label), expected.map(({ label }) => label))
            labels.forEach(({ score }, at) => assert.closeTo(score, expected[at]!.score, 1e-5))
          }
        })
    ))
})

const ask = (prompt: string, options: Partial<Generation> = {}): Generation => ({
  messages: [{ role: "user", content: prompt }],
  sampling: { temperature: 0, topP: 1, seed: 1 },
  stop: [],
  ...options
})

const collect = (engine: Engine, generation: Generation) =>
  Effect.map(Stream.runCollect(engine.generate(generation)), (events) => ({
    text: events.map((event) => event.type === "text" ? event.text : "").join(""),
    logprobs: events.flatMap((event) => event.type === "text" ? event.logprobs ?? [] : []),
    calls: events.flatMap((event) => event.type === "tool_call" ? [event] : []),
    finish: events.find((event) => event.type === "finish")
  }))

const weather: ToolDefinition = {
  name: "get_weather",
  description: "Get the weather in a city",
  parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] }
}

describe("onnx, text generation", () => {
  const generating = <A, E>(use: (engine: Engine) => Effect.Effect<A, E>, options: Partial<OnnxOptions> = {}) =>
    Effect.scoped(Effect.flatMap(start({ folder: tinyChat, ...options }), use))

  it.live("reports its capabilities", () =>
    generating(({ describe }) =>
      Effect.sync(() => {
        assert.deepStrictEqual(
          [...describe.capabilities].sort(),
          ["complete", "format", "generate", "logprobs", "tokenize", "tools"]
        )
        assert.strictEqual(describe.contextWindow, 512)
        assert.strictEqual(describe.details["device"], "cpu")
      })
    ))

  it.live("accepts a shorter window, and rejects one longer than the model's", () =>
    Effect.gen(function*() {
      yield* generating(({ describe }) => Effect.sync(() => assert.strictEqual(describe.contextWindow, 100)), {
        contextSize: 100
      })
      assert.match(yield* failureOf(() => tinyChat, { contextSize: 513 }), /513 tokens.*at most 512/)
    }))

  it.live("reports correct log-probabilities of the answer's tokens", () =>
    generating((engine) =>
      Effect.gen(function*() {
        const { finish, logprobs, text } = yield* collect(engine, ask("What color is snow?", { logprobs: 3 }))
        assert.strictEqual(text, "Snow is white.")
        assert.strictEqual(logprobs.length, finish?.usage.completionTokens)
        const bytes = logprobs.flatMap((token) => [...token.bytes])
        assert.strictEqual(Buffer.from(bytes).toString("utf8"), text)
        for (const { logprob, token, top } of logprobs) {
          assert.strictEqual(top.length, 3)
          // Greedy: the chosen one is the likeliest.
          assert.deepStrictEqual([top[0]!.token, top[0]!.logprob], [token, logprob])
          assert.isAtMost(top.reduce((sum, one) => sum + Math.exp(one.logprob), 0), 1 + 1e-6)
        }
      })
    ))

  it.live("calls a tool with arguments that fit its schema, and calls one if required", () =>
    generating((engine) =>
      Effect.gen(function*() {
        const { calls, finish } = yield* collect(engine, ask("What is the weather in Paris?", { tools: [weather] }))
        assert.deepStrictEqual(finish?.reason, "tool_calls")
        assert.strictEqual(calls[0]?.name, "get_weather")
        assert.deepStrictEqual(JSON.parse(calls.map((call) => call.arguments).join("")), { city: "Paris" })
        const listed = { type: "object", properties: { city: { enum: ["Oslo", "Tokyo"] } }, required: ["city"] }
        const corrected = yield* collect(
          engine,
          ask("What is the weather in Paris?", { tools: [{ ...weather, parameters: listed }] })
        )
        const { city } = JSON.parse(corrected.calls.map((call) => call.arguments).join("")) as { readonly city: string }
        assert.oneOf(city, ["Oslo", "Tokyo"])
        const forced = yield* collect(
          engine,
          ask("What color is snow?", { tools: [weather], toolChoice: "required", maxTokens: 200 })
        )
        assert.strictEqual(forced.calls[0]?.name, "get_weather")
        assert.hasAllKeys(JSON.parse(forced.calls.map((call) => call.arguments).join("")), ["city"])
      })
    ))

  it.live("satisfies a schema with every seed and prompt", () =>
    generating((engine) =>
      Effect.gen(function*() {
        const schema = {
          type: "object",
          properties: { city: { enum: ["Paris", "Tokyo", "日本"] }, ok: { type: "boolean" } },
          required: ["city", "ok"],
          additionalProperties: false
        }
        for (const seed of [1, 2, 3]) {
          const { finish, text } = yield* collect(
            engine,
            ask("Write a story about a fox.", {
              format: { type: "json_schema", schema },
              sampling: { temperature: 1.5, topP: 1, seed }
            })
          )
          const value = JSON.parse(text) as Record<string, unknown>
          assert.strictEqual(finish?.reason, "stop")
          assert.hasAllKeys(value, ["city", "ok"])
          assert.include(["Paris", "Tokyo", "日本"], value["city"])
          assert.isBoolean(value["ok"])
        }
      })
    ))

  for (const device of devices) {
    it.live(`computes only the new part, with the same answer as without a cache, on ${device}`, () => {
      const question = { role: "user", content: `${"b ".repeat(300)}What is the capital of Japan?` } as const
      const sampled = { maxTokens: 20, sampling: { temperature: 1, topP: 1, seed: 3 } }
      return generating((engine) =>
        Effect.gen(function*() {
          const first = yield* collect(engine, ask("", { messages: [question], ...sampled }))
          assert.strictEqual(first.finish?.usage.cachedTokens, 0)
          const next = { role: "user", content: "Write a story about a fox." } as const
          const messages = [question, { role: "assistant", content: first.text }, next] as const
          const goneOn = yield* collect(engine, ask("", { messages, ...sampled }))
          assert.strictEqual(goneOn.finish?.usage.cachedTokens, 256)
          const anew = yield* generating((fresh) => collect(fresh, ask("", { messages, ...sampled })), {
            device,
            slots: 1
          })
          assert.strictEqual(goneOn.text, anew.text)
          const other = yield* collect(engine, ask("What color is snow?"))
          assert.strictEqual(other.text, "Snow is white.")
        }), { device, slots: 1 })
    })
  }

  it.live("bans a token, and rejects a bias of an unknown one", () =>
    generating((engine) =>
      Effect.gen(function*() {
        const [snow] = yield* engine.tokenize("Snow")
        const banned = yield* collect(
          engine,
          ask("What color is snow?", { sampling: { temperature: 0, topP: 1, seed: 1, logitBias: { [snow!]: -100 } } })
        )
        assert.isFalse(banned.text.startsWith("Snow"))
        const { reason } = yield* Effect.flip(collect(
          engine,
          ask("Hello!", { sampling: { temperature: 0, topP: 1, seed: 1, logitBias: { 1024: 1 } } })
        ))
        assert.deepInclude(reason, { _tag: "InvalidRequest", path: "logitBias.1024" })
      })
    ))

  it.live("counts a conversation like its prompt", () =>
    generating((engine) =>
      Effect.gen(function*() {
        const { finish } = yield* collect(engine, ask("Hello <|im_end|>"))
        const tokens = yield* engine.tokenize({ messages: [{ role: "user", content: "Hello <|im_end|>" }] })
        assert.strictEqual(tokens.length, finish?.usage.promptTokens)
        // The template's own.
        assert.strictEqual(tokens.filter((token) => token === 2).length, 1)
      })
    ))
})

describe("onnx, folders that cannot be loaded", () => {
  const copy = (folder: string): string => {
    cpSync(tinyChat, folder, { recursive: true })
    return folder
  }
  const withFile = (name: string, content: string) => (folder: string): string => {
    writeFileSync(join(copy(folder), name), content)
    return folder
  }

  it.live("reports the invalid file and the problem", () =>
    Effect.gen(function*() {
      assert.match(
        yield* failureOf((folder) => join(folder, "nowhere")),
        /nowhere\/config\.json does not exist or is not readable/
      )
      assert.match(yield* failureOf(withFile("config.json", "{")), /config\.json is not JSON/)
      assert.match(yield* failureOf(withFile("config.json", "[]")), /config\.json is not a JSON object/)
      assert.match(yield* failureOf(withFile("tokenizer.json", "{}")), /tokenizer\.json is not a valid tokenizer/)
      assert.match(yield* failureOf(withFile("tokenizer_config.json", "{}")), /has no usable chat template/)
      assert.match(yield* failureOf(withFile("onnx/model.onnx", "")), /model\.onnx is empty/)
      assert.match(
        yield* failureOf(copy, { model: "model_q4" }),
        /onnx\/model_q4\.onnx does not exist or is not readable/
      )
    }))

  it.live("reports unsupported models", () =>
    Effect.gen(function*() {
      const failing = (architecture: string, output: string, files: Record<string, unknown> = {}) =>
        failureOf((folder) => writeModel(folder, { architectures: [architecture] }, vectorGraph(4, output), files))
      assert.match(yield* failing("BertForTokenClassification", "logits"), /This is a BertForTokenClassification/)
      assert.match(yield* failing("BertModel", "strange"), /outputs strange/)
      assert.match(
        yield* failing("BertModel", "last_hidden_state", {
          "1_Pooling/config.json": { pooling_mode_cls_token: true, pooling_mode_max_tokens: true }
        }),
        /1_Pooling\/config\.json requires .* and .*, which Troupe does not support/
      )
    }))

  it.live("fails a truncated model", () =>
    Effect.gen(function*() {
      const model = readFileSync(join(tinyChat, "onnx/model.onnx"))
      const message = yield* failureOf((folder) => {
        writeFileSync(join(copy(folder), "onnx/model.onnx"), model.subarray(0, model.length / 2))
        return folder
      })
      assert.match(message, /model\.onnx: .*[Pp]rotobuf parsing failed/)
    }))
})
