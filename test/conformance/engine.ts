/**
 * What every engine does: the one test suite of the Engine interface.
 *
 * Each implementation names its deployment and three prompts; the suite checks neither speed nor wording.
 */
import { assert, layer } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer, Result, Stream } from "effect"
import type { Deployment, DeploymentOptions } from "../../src/domain/Deployment.ts"
import type { EngineCapability } from "../../src/domain/EngineProtocol.ts"
import type { Generation } from "../../src/domain/Generation.ts"
import type { Event } from "../../src/domain/Inference.ts"
import type { InferenceError } from "../../src/domain/InferenceError.ts"
import type { ChosenLogprob, OutputFormat, ToolCall, ToolDefinition } from "../../src/domain/Job.ts"
import * as EnginesLayer from "../../src/layers/engines/Engines.ts"
import type { Engine } from "../../src/services/engines/Engine.ts"
import { Engines } from "../../src/services/engines/Engine.ts"
import type { Status } from "../../src/services/models/Actor.ts"
import { layerUnbounded, Models } from "../../src/services/models/Models.ts"
import { deployment } from "../support/Deployments.ts"

/** An implementation under test. Its deployment must have 4 slots. */
export interface Subject {
  readonly name: string
  readonly options: DeploymentOptions
  readonly where: "process" | "thread"
  /** Starts it; by default, the engines of that host. */
  readonly engines?: Layer.Layer<Engines>
  /** The capabilities that it describes; each has its tests. */
  readonly capabilities: ReadonlyArray<EngineCapability>
  /** It reuses what it has computed for the beginning of an earlier prompt. */
  readonly cachesPrompts: boolean
  /** False where it takes no seed, so that sampled answers differ; default true. */
  readonly seeded?: boolean
  /** A prompt and its greedy answer, which must have several words. */
  readonly question: readonly [prompt: string, answer: string]
  /** A prompt with a greedy answer of at least 20 tokens. */
  readonly long: string
  /** A prompt that fits the window and leaves room for fewer tokens than its answer would have. */
  readonly nearlyFull: string
  /** A prompt that does not fit the window. */
  readonly tooLong: string
  /** A prompt that it answers with this tool call under `auto`; undefined where it calls no tool. */
  readonly calls?: {
    readonly prompt: string
    readonly tools: readonly [ToolDefinition, ToolDefinition]
    readonly name: string
    readonly arguments: unknown
  }
  /** The output formats that it supports. */
  readonly formats: ReadonlyArray<OutputFormat>
  /** It continues an assistant prefix token by token; default false, where a model is asked to continue. */
  readonly continuesExactly?: boolean
}

export const deploymentOf = (options: DeploymentOptions) => deployment("subject#0", { options })

const ask = (prompt: string, options: Partial<Generation> = {}): Generation => ({
  messages: [{ role: "user", content: prompt }],
  sampling: { temperature: 0, topP: 1, seed: 1 },
  maxTokens: undefined,
  stop: [],
  ...options
})

interface Collected {
  readonly text: string
  readonly calls: ReadonlyArray<ToolCall>
  readonly logprobs: ReadonlyArray<ChosenLogprob>
  readonly tokens: number
  readonly finish: Extract<Event, { type: "finish" }>
}

/** The calls, put together from their parts. */
const callsOf = (events: ReadonlyArray<Event>): ReadonlyArray<ToolCall> => {
  const calls: Array<ToolCall> = []
  for (const event of events) {
    if (event.type !== "tool_call") continue
    const before = calls[event.index]
    if (before === undefined) {
      assert.strictEqual(event.index, calls.length)
      calls.push({ id: event.id!, name: event.name!, arguments: event.arguments })
    } else {
      assert.isUndefined(event.id)
      assert.isUndefined(event.name)
      calls[event.index] = { ...before, arguments: before.arguments + event.arguments }
    }
  }
  return calls
}

const collect = (stream: Stream.Stream<Event, InferenceError>): Effect.Effect<Collected, InferenceError> =>
  Effect.map(Stream.runCollect(stream), (events) => {
    const last = events.at(-1)
    assert.strictEqual(last?.type, "finish")
    const content = events.filter((event) => "tokens" in event)
    assert.strictEqual(content.length, events.length - 1, "exactly one finish, and it is the last event")
    const texts = content.filter((event) => event.type === "text")
    return {
      text: texts.map((event) => event.text).join(""),
      calls: callsOf(content),
      logprobs: texts.flatMap((event) => event.logprobs ?? []),
      tokens: content.reduce((sum, event) => sum + event.tokens, 0),
      finish: last as Collected["finish"]
    }
  })

/** The engine behind an actor, which leases its slots. */
interface Stage extends Pick<Engine, "describe" | "embed" | "rerank" | "classify" | "tokenize"> {
  readonly generate: (generation: Generation) => Stream.Stream<Event, InferenceError>
  readonly load: Effect.Effect<Status>
}

const idle = (engine: Stage): Effect.Effect<void> =>
  Effect.flatMap(
    engine.load,
    ({ running }) => running === 0 ? Effect.void : Effect.andThen(Effect.sleep(2), idle(engine))
  )

/** Resolves when jobs run and others wait. */
const queueing = (engine: Stage): Effect.Effect<void> =>
  Effect.flatMap(
    engine.load,
    ({ queued, running }) => running > 0 && queued > 0 ? Effect.void : Effect.andThen(Effect.yieldNow, queueing(engine))
  )

const stage = Effect.fnUntraced(function*(deployment: Deployment) {
  const models = yield* Models
  const leased = <A, E>(use: (engine: Engine) => Effect.Effect<A, E>) =>
    Effect.scoped(Effect.flatMap(models.lease(deployment, {}), use))
  return {
    describe: yield* leased(({ describe }) => Effect.succeed(describe)),
    generate: (generation) =>
      Stream.unwrap(Effect.map(models.lease(deployment, {}), (engine) => engine.generate(generation))),
    embed: (inputs) => leased((engine) => engine.embed(inputs)),
    rerank: (query, documents) => leased((engine) => engine.rerank(query, documents)),
    classify: (inputs) => leased((engine) => engine.classify(inputs)),
    tokenize: (input) => leased((engine) => engine.tokenize(input)),
    load: models.status(deployment)
  } satisfies Stage
})

/** Tests share one engine, unless a test needs a `fresh` one, which has computed nothing yet. */
type Test = <E>(
  name: string,
  use: (engine: Stage) => Effect.Effect<void, E>,
  engine?: "shared" | "fresh"
) => void

const failsFor = <A>(lacked: EngineCapability, effect: Effect.Effect<A, InferenceError>): Effect.Effect<void, A> =>
  Effect.map(Effect.flip(effect), ({ reason }) => {
    assert.deepInclude<object>(reason, { _tag: "NotSupported", path: "model", capability: lacked })
  })

/** Tools whose arguments fit a small context window, whatever a model writes. */
const forced: ReadonlyArray<ToolDefinition> = ["get_time", "add"].map((name) => ({
  name,
  parameters: {
    type: "object",
    properties: { value: { type: "integer", minimum: 0, maximum: 99 } },
    required: ["value"],
    additionalProperties: false
  }
}))

const toolTests = ({ calls, question: [prompt] }: Subject, test: Test) => {
  if (calls !== undefined) {
    test("streams a tool call", (engine) =>
      Effect.gen(function*() {
        const answer = yield* collect(engine.generate(ask(calls.prompt, { tools: calls.tools })))
        assert.strictEqual(answer.text, "")
        assert.deepStrictEqual(answer.calls.map(({ name }) => name), [calls.name])
        assert.deepStrictEqual(JSON.parse(answer.calls[0]!.arguments), calls.arguments)
        assert.match(answer.calls[0]!.id, /^call_./)
        assert.strictEqual(answer.finish.reason, "tool_calls")
        assert.isAtMost(answer.tokens, answer.finish.usage.completionTokens)
      }))
  }
  const [first, second] = forced.map(({ name }) => name) as [string, string]

  test("calls a tool where one is required, and the tool that is required", (engine) =>
    Effect.gen(function*() {
      const required = yield* collect(engine.generate(ask(prompt, { tools: forced, toolChoice: "required" })))
      assert.strictEqual(required.calls.length, 1)
      assert.include([first, second], required.calls[0]!.name)
      assert.isObject(JSON.parse(required.calls[0]!.arguments))
      assert.strictEqual(required.finish.reason, "tool_calls")
      const named = yield* collect(engine.generate(ask(prompt, { tools: forced, toolChoice: { name: second } })))
      assert.deepStrictEqual(named.calls.map(({ name }) => name), [second])
      assert.isObject(JSON.parse(named.calls[0]!.arguments))
    }))

  test("calls no tool where the choice is none", (engine) =>
    Effect.gen(function*() {
      const { calls, finish } = yield* collect(engine.generate(ask(prompt, { tools: forced, toolChoice: "none" })))
      assert.deepStrictEqual(calls, [])
      assert.strictEqual(finish.reason, "stop")
    }))
}

const formatTests = ({ formats, long, question: [prompt], seeded = true }: Subject, test: Test) => {
  for (const format of formats) {
    const sampled = { temperature: 1, topP: 1, seed: 11 }
    test(`answers in the format ${JSON.stringify(format)}, at any temperature`, (engine) =>
      Effect.gen(function*() {
        for (const options of [{}, { sampling: sampled }]) {
          for (const question of [prompt, long]) {
            const { finish, text } = yield* collect(engine.generate(ask(question, { format, ...options })))
            // One that the window has cut is the beginning of JSON.
            if (finish.reason === "stop") assert.isObject(JSON.parse(text))
            else assert.match(text, /^\{/)
          }
        }
      }))
  }

  if (seeded) {
    test("gives the same answer in a format for the same seed", (engine) =>
      Effect.gen(function*() {
        const sampling = { temperature: 1, topP: 1, seed: 11 }
        const generation = ask(prompt, { format: formats.at(-1), sampling })
        const first = yield* collect(engine.generate(generation))
        assert.deepStrictEqual((yield* collect(engine.generate(generation))).text, first.text)
      }))
  }
}

const logprobTests = ({ long, question: [prompt, answer] }: Subject, test: Test) => {
  test("gives the log-probability of each token; the greedy token has the highest", (engine) =>
    Effect.gen(function*() {
      const { finish, logprobs, text } = yield* collect(engine.generate(ask(prompt, { logprobs: 5 })))
      assert.strictEqual(text, answer)
      assert.strictEqual(logprobs.length, finish.usage.completionTokens)
      assert.strictEqual(Buffer.from(logprobs.flatMap(({ bytes }) => bytes)).toString(), answer)
      for (const { logprob, token, top } of logprobs) {
        assert.strictEqual(top.length, 5)
        assert.deepInclude(top[0], { token, logprob: logprob! })
        assert.isAtMost(top.reduce((sum, one) => sum + Math.exp(one.logprob), 0), 1 + 1e-4)
        const inOrder = top.map((one) => one.logprob).sort((a, b) => b - a)
        assert.deepStrictEqual(top.map((one) => one.logprob), inOrder)
      }
    }))

  test("samples the same tokens with and without log-probabilities", (engine) =>
    Effect.gen(function*() {
      const sampling = { temperature: 1.2, topP: 0.9, seed: 3 }
      const plain = yield* collect(engine.generate(ask(long, { sampling })))
      const counted = yield* collect(engine.generate(ask(long, { sampling, logprobs: 0 })))
      assert.strictEqual(counted.text, plain.text)
      assert.strictEqual(plain.logprobs.length, 0)
      assert.isAbove(counted.logprobs.length, 0)
      assert.isTrue(counted.logprobs.every(({ logprob, top }) => logprob! < 0 && top.length === 0))
    }))
}

const embedTests = ({ question: [prompt], tooLong }: Subject, test: Test) => {
  test("embeds texts as vectors of unit length, equal for equal texts", (engine) =>
    Effect.gen(function*() {
      const results = yield* engine.embed([prompt, "Another text.", prompt])
      const [first, second, third] = results.map((result) => Result.getOrThrow(result))
      assert.closeTo(Math.hypot(...first!.vector), 1, 1e-5)
      assert.isAbove(first!.promptTokens, 0)
      assert.deepStrictEqual(first, third)
      assert.notDeepEqual(first!.vector, second!.vector)
    }))

  test("fails only the texts that cannot be embedded", (engine) =>
    Effect.gen(function*() {
      const results = yield* engine.embed([prompt, tooLong, "", prompt])
      const tags = results.map((result) => Result.isSuccess(result) ? "ok" : result.failure.reason._tag)
      assert.deepStrictEqual(tags, ["ok", "ContextLengthExceeded", "InvalidRequest", "ok"])
    }))
}

const tokenizeTests = ({ question: [prompt], tooLong }: Subject, test: Test) => {
  test("tokenizes a text, and a conversation as its prompt", (engine) =>
    Effect.gen(function*() {
      const text = yield* engine.tokenize(prompt)
      assert.isAbove(text.length, 0)
      assert.deepStrictEqual(yield* engine.tokenize(""), [])
      assert.isAbove((yield* engine.tokenize(tooLong)).length, engine.describe.contextWindow - 1)
      const conversation = ask(prompt).messages
      const { finish } = yield* collect(engine.generate(ask(prompt)))
      assert.strictEqual((yield* engine.tokenize({ messages: conversation })).length, finish.usage.promptTokens)
    }))
  test("refuses to tokenize a text of megabytes, which would delay all other jobs", (engine) =>
    Effect.gen(function*() {
      const content = "word ".repeat(2 ** 20)
      for (const input of [content, { messages: [{ role: "user", content } as const] }]) {
        const { reason } = yield* Effect.flip(engine.tokenize(input))
        assert.deepInclude(reason, { _tag: "InvalidRequest", path: "input" })
      }
    }))
}

const promptTests = ({ long, nearlyFull, question: [prompt, answer] }: Subject, test: Test) => {
  test("reuses the part of a prompt that a slot has computed", (engine) =>
    Effect.gen(function*() {
      const first = yield* collect(engine.generate(ask(nearlyFull)))
      const again = yield* collect(engine.generate(ask(nearlyFull)))
      const { cachedTokens, promptTokens } = again.finish.usage
      assert.strictEqual(first.finish.usage.cachedTokens, 0)
      assert.isAbove(cachedTokens, promptTokens / 2)
      assert.isBelow(cachedTokens, promptTokens)
      assert.strictEqual(again.text, first.text)
    }), "fresh")

  test("gives the same answer for a seed after any other jobs", (engine) =>
    Effect.gen(function*() {
      const sampled = [1, 2, 3, 4, 5, 6].map((seed) =>
        ask(long, { sampling: { temperature: 1.5, topP: 1, seed }, maxTokens: 60 })
      )
      const textsOf = (generations: ReadonlyArray<Generation>) =>
        Effect.forEach(generations, (one) => Effect.map(collect(engine.generate(one)), ({ text }) => text))
      const first = yield* textsOf(sampled)
      assert.strictEqual((yield* collect(engine.generate(ask(prompt)))).text, answer)
      assert.deepStrictEqual(yield* textsOf(sampled), first)
      assert.deepStrictEqual((yield* textsOf(sampled.toReversed())).toReversed(), first)
    }))
}

/** Every way to cut a text in two parts that are not empty, between two characters. */
const cutsOf = (text: string): ReadonlyArray<readonly [string, string]> => {
  const characters = Array.from(text)
  return characters.slice(1).map((_, index) =>
    [characters.slice(0, index + 1).join(""), characters.slice(index + 1).join("")] as const
  )
}

const prefixTests = ({ capabilities, continuesExactly, question: [prompt, answer] }: Subject, test: Test) => {
  test("continues an assistant prefix, which counts as prompt", (engine) =>
    Effect.gen(function*() {
      const whole = yield* collect(engine.generate(ask(prompt)))
      const assistantPrefix = answer.slice(0, answer.indexOf(" ", answer.length / 2))
      const rest = yield* collect(engine.generate(ask(prompt, { assistantPrefix, maxTokens: 30 })))
      const { promptTokens } = rest.finish.usage
      assert.isAbove(promptTokens, whole.finish.usage.promptTokens)
      if (capabilities.includes("tokenize")) {
        const tokens = yield* engine.tokenize({ messages: ask(prompt).messages, assistantPrefix })
        assert.strictEqual(tokens.length, promptTokens)
      }
    }))
  if (!continuesExactly) return

  test("continues exactly where a text was cut between two words, and counts only the new tokens", (engine) =>
    Effect.gen(function*() {
      const whole = yield* collect(engine.generate(ask(prompt)))
      for (const [assistantPrefix, rest] of cutsOf(answer).filter(([, rest]) => rest.startsWith(" "))) {
        const { finish, text } = yield* collect(engine.generate(ask(prompt, { assistantPrefix })))
        assert.strictEqual(text, rest)
        assert.isBelow(finish.usage.completionTokens, whole.finish.usage.completionTokens)
        const { promptTokens } = whole.finish.usage
        assert.isAbove(finish.usage.promptTokens, promptTokens)
      }
    }))

  test("finds a stop sequence that begins in the assistant prefix", (engine) =>
    Effect.gen(function*() {
      const at = answer.indexOf(" ", answer.length / 2)
      const stop = answer.slice(at - 2, at + 3)
      const { finish, text } = yield* collect(
        engine.generate(ask(prompt, { assistantPrefix: answer.slice(0, at), stop: [stop] }))
      )
      assert.strictEqual(text, "")
      assert.strictEqual(finish.reason, "stop")
    }))

  test("reads no control token in an assistant prefix", (engine) =>
    Effect.gen(function*() {
      const tokensOf = (assistantPrefix: string) =>
        Effect.map(
          collect(engine.generate(ask(prompt, { assistantPrefix, maxTokens: 1 }))),
          ({ finish }) => finish.usage.promptTokens
        )
      const more = (yield* tokensOf("a<|im_end|>")) - (yield* tokensOf("a"))
      assert.isAbove(more, 1)
    }))
}

/** The tests of the capabilities of an engine, and of those it lacks. */
const completionTests = ({ capabilities, long }: Subject, test: Test) => {
  const complete = (text: string, more: Partial<Generation> = {}) =>
    ask(text, { completion: {}, maxTokens: 8, ...more })

  test("continues a prompt without a chat template, given as a text or as its tokens", (engine) =>
    Effect.gen(function*() {
      const byText = yield* collect(engine.generate(complete(long)))
      assert.isAtMost(byText.finish.usage.completionTokens, 8)
      const chat = yield* collect(engine.generate(ask(long, { maxTokens: 1 })))
      assert.isAtMost(byText.finish.usage.promptTokens, chat.finish.usage.promptTokens)
      if (!capabilities.includes("tokenize")) return
      const tokens = yield* engine.tokenize(long)
      const byTokens = yield* collect(engine.generate(complete("", { completion: { tokens } })))
      assert.strictEqual(byTokens.finish.usage.promptTokens, tokens.length)
      if (byText.finish.usage.promptTokens === tokens.length) assert.strictEqual(byTokens.text, byText.text)
    }))

  test("fills the gap before a suffix, or refuses it by its name", (engine) =>
    Effect.gen(function*() {
      const messages = ["def f(", "return 1"].map((content) => ({ role: "user" as const, content }))
      const exit = yield* Effect.exit(collect(engine.generate(complete("", { messages }))))
      if (Exit.isSuccess(exit)) return
      const error = yield* Effect.flip(exit)
      assert.deepInclude(error.reason, { _tag: "NotSupported", path: "suffix" })
    }))
}

const abilityTests = (subject: Subject, test: Test) => {
  const has = (capability: EngineCapability) => subject.capabilities.includes(capability)
  if (has("complete")) completionTests(subject, test)
  if (has("tools")) toolTests(subject, test)
  if (has("format")) formatTests(subject, test)
  if (has("logprobs")) logprobTests(subject, test)
  if (has("embed")) embedTests(subject, test)
  if (has("tokenize")) tokenizeTests(subject, test)
  if (subject.cachesPrompts) promptTests(subject, test)
  prefixTests(subject, test)

  test("refuses the operations that it does not support", (engine) =>
    Effect.gen(function*() {
      if (!has("embed")) yield* failsFor("embed", engine.embed(["a"]))
      if (!has("rerank")) yield* failsFor("rerank", engine.rerank("a", ["b"]))
      if (!has("classify")) yield* failsFor("classify", engine.classify(["a"]))
      if (!has("tokenize")) yield* failsFor("tokenize", engine.tokenize("a"))
    }))
}

/** Runs the suite. */
export const engineConformance = (subject: Subject) => {
  const [prompt, answer] = subject.question
  const engines = subject.engines ?? Layer.succeed(Engines, EnginesLayer.make(subject.where))
  const models = Layer.provide(layerUnbounded, engines)
  const tested = deploymentOf(subject.options)

  layer(models, { excludeTestServices: true })(`${subject.name} in a ${subject.where}`, (it) => {
    const test: Test = (name, use, engine = "shared") => {
      const run = Effect.flatMap(stage(tested), (one) => Effect.andThen(idle(one), use(one)))
      it.effect(name, () => engine === "shared" ? run : Effect.provide(run, Layer.fresh(models)))
    }

    test("describes itself", (engine) =>
      Effect.sync(() => {
        assert.strictEqual(engine.describe.engine, subject.options.engine)
        assert.isAbove(engine.describe.contextWindow, 0)
        assert.strictEqual(engine.describe.slots, 4)
        assert.sameMembers([...engine.describe.capabilities], [...subject.capabilities])
      }))

    test("streams the greedy answer and counts it exactly", (engine) =>
      Effect.gen(function*() {
        const { finish, text, tokens } = yield* collect(engine.generate(ask(prompt)))
        assert.strictEqual(text, answer)
        assert.strictEqual(finish.reason, "stop")
        assert.isAbove(finish.usage.promptTokens, 0)
        assert.isAtMost(tokens, finish.usage.completionTokens)
        assert.isAbove(finish.usage.completionTokens, 1)
      }))

    test("gives the same answer for the same seed, alone and beside other jobs", (engine) =>
      Effect.gen(function*() {
        const sampled = ask(subject.long, { sampling: { temperature: 1, topP: 1, seed: 7 } })
        const alone = yield* collect(engine.generate(sampled))
        const crowd = yield* Effect.all(
          [sampled, ask(prompt), sampled, ask(subject.long)].map((one) => collect(engine.generate(one))),
          { concurrency: "unbounded" }
        )
        if (subject.seeded ?? true) {
          assert.strictEqual(crowd[0]?.text, alone.text)
          assert.strictEqual(crowd[2]?.text, alone.text)
        }
        assert.strictEqual(crowd[1]?.text, answer)
      }))

    test("does not mix the answers of concurrent jobs", (engine) =>
      Effect.gen(function*() {
        const long = yield* collect(engine.generate(ask(subject.long)))
        const caller = (index: number) =>
          Effect.andThen(
            Effect.sleep(index * 7),
            Effect.forEach([prompt, subject.long, prompt, subject.long], (one) => collect(engine.generate(ask(one))))
          )
        const answers = yield* Effect.forEach([0, 1, 2, 3, 4, 5], caller, { concurrency: "unbounded" })
        assert.deepStrictEqual(
          answers.map((texts) => texts.map(({ text }) => text)),
          answers.map(() => [answer, long.text, answer, long.text])
        )
      }))

    test("ends at maxTokens with length and exactly that many tokens", (engine) =>
      Effect.gen(function*() {
        const { finish } = yield* collect(engine.generate(ask(subject.long, { maxTokens: 5 })))
        assert.strictEqual(finish.reason, "length")
        assert.strictEqual(finish.usage.completionTokens, 5)
      }))

    test("ends before a stop sequence, even one that spans tokens", (engine) =>
      Effect.gen(function*() {
        const cut = Math.floor(answer.length / 2)
        const stop = answer.slice(cut, cut + 8)
        const { finish, text } = yield* collect(engine.generate(ask(prompt, { stop: [stop, "never said"] })))
        assert.strictEqual(text, answer.slice(0, answer.indexOf(stop)))
        assert.strictEqual(finish.reason, "stop")
      }))

    test("refuses a prompt that does not fit, with both token counts", (engine) =>
      Effect.gen(function*() {
        const error = yield* Effect.flip(collect(engine.generate(ask(subject.tooLong))))
        const { reason } = error
        assert.strictEqual(reason._tag, "ContextLengthExceeded")
        if (reason._tag !== "ContextLengthExceeded") return
        assert.strictEqual(reason.contextWindow, engine.describe.contextWindow)
        assert.isAtLeast(reason.promptTokens!, reason.contextWindow!)
        // The slot is free.
        assert.strictEqual((yield* collect(engine.generate(ask(prompt)))).text, answer)
      }))

    test("ends with length at the end of the context window", (engine) =>
      Effect.gen(function*() {
        const { finish } = yield* collect(engine.generate(ask(subject.nearlyFull)))
        assert.strictEqual(finish.reason, "length")
        assert.strictEqual(
          finish.usage.promptTokens + finish.usage.completionTokens,
          engine.describe.contextWindow
        )
      }))

    test("frees its slot when the consumer stops reading", (engine) =>
      Effect.gen(function*() {
        const first = yield* Stream.runCollect(Stream.take(engine.generate(ask(subject.long)), 1))
        assert.strictEqual(first.length, 1)
        yield* idle(engine)
        assert.strictEqual((yield* collect(engine.generate(ask(prompt)))).text, answer)
      }))

    test("frees its slot when the consumer is interrupted, running or queued", (engine) =>
      Effect.gen(function*() {
        const fibers = yield* Effect.forEach(
          Array.from({ length: 12 }, () => ask(subject.long)),
          (one) => Effect.forkChild(collect(engine.generate(one)))
        )
        yield* queueing(engine)
        const exits = yield* Effect.forEach(
          fibers,
          (fiber) => Effect.andThen(Fiber.interrupt(fiber), Fiber.await(fiber))
        )
        assert.isTrue(exits.some(Exit.isFailure))
        yield* idle(engine)
        assert.strictEqual((yield* engine.load).queued, 0)
        assert.strictEqual((yield* collect(engine.generate(ask(prompt)))).text, answer)
      }))

    test("answers more callers than it has slots", (engine) =>
      Effect.gen(function*() {
        const answers = yield* Effect.all(
          Array.from({ length: 20 }, () => collect(engine.generate(ask(prompt)))),
          { concurrency: "unbounded" }
        )
        assert.deepStrictEqual(answers.map(({ text }) => text), Array.from({ length: 20 }, () => answer))
        assert.deepInclude(yield* engine.load, { running: 0, queued: 0 })
      }))

    test("serves other jobs while one consumer does not read", (engine) =>
      Effect.gen(function*() {
        const stalled = yield* Effect.forkChild(
          Stream.runForEach(engine.generate(ask(subject.long)), () => Effect.never)
        )
        assert.strictEqual((yield* collect(engine.generate(ask(prompt)))).text, answer)
        yield* Fiber.interrupt(stalled)
      }))

    abilityTests(subject, test)
  })
}
