/** Language models of a program that throw, die or interrupt themselves: a typed error, and no slot is lost. */
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Logger, Stream } from "effect"
import type { Response } from "effect/ai"
import { LanguageModel } from "effect/ai"
import * as App from "../../../src/App.ts"
import type { Request } from "../../../src/domain/Inference.ts"
import type * as LanguageModels from "../../../src/layers/ai/LanguageModels.ts"
import { Inference } from "../../../src/services/inference/Inference.ts"
import { Models } from "../../../src/services/models/Models.ts"
import { Registry } from "../../../src/services/models/Registry.ts"

const defect = new Error("A defect of the model's.")
const thrown = (): never => {
  throw defect
}

type Part = Response.StreamPartEncoded

const said: ReadonlyArray<Part> = [
  { type: "text-start", id: "t" },
  { type: "text-delta", id: "t", delta: "fine" }
]
const finish: Part = {
  type: "finish",
  reason: "stop",
  usage: { inputTokens: { total: 3 }, outputTokens: { total: 2 } }
}

type Answers = Stream.Stream<Part>

const fine: Answers = Stream.fromIterable([...said, finish])

/** A model whose first calls go wrong and whose others do not. */
const model = (wrong: () => Answers, calls: number) =>
  Layer.sync(LanguageModel.LanguageModel, () => {
    let asked = 0
    const streamText = () => ++asked <= calls ? wrong() : fine
    return { streamText, generateText: () => Effect.never, generateObject: thrown } as never
  })

const faults: Readonly<Record<string, () => Answers>> = {
  "throws when it is asked": thrown,
  "answers in no stream": () => undefined as never,
  "dies before its answer": () => Stream.die(defect),
  "interrupts itself before its answer": () => Stream.fromEffect(Effect.interrupt),
  "throws in the middle": () => Stream.concat(Stream.fromIterable(said), Stream.suspend(thrown)),
  "dies in the middle": () => Stream.concat(Stream.fromIterable(said), Stream.die(defect)),
  "interrupts itself in the middle": () =>
    Stream.concat(Stream.fromIterable(said), Stream.fromEffect(Effect.interrupt)),
  "ends without a finish": () => Stream.fromIterable(said)
}

const request: Request = { model: "mine", messages: [{ role: "user", content: "Hello" }] }

const buffered = Inference.use((inference) => Effect.map(inference.generate(request), ({ text }) => text))
const streamed = Inference.use((inference) =>
  Effect.map(
    Stream.runCollect(inference.stream(request)),
    (events) => events.map((event) => event.type === "text" ? event.text : "").join("")
  )
)
const operations = { "a buffered answer": buffered, "a stream": streamed }

/** Of one slot, so that one that is lost is missed. */
const appOf = (mine: LanguageModels.Provided) =>
  App.layer({
    config: {
      models: { mine: { deployments: [{ engine: "language-model", name: "mine", slots: 1 }] } },
      policies: { default: { retries: 0 } }
    },
    languageModels: { mine }
  }).pipe(Layer.provideMerge(Logger.layer([])))

const running = Effect.gen(function*() {
  const { deployments } = yield* Registry.use(({ find }) => Effect.fromResult(find("mine")))
  const { queued, running } = yield* Models.use(({ status }) => status(deployments[0]))
  return { queued, running }
})

describe("a language model that", () => {
  for (const [fault, wrong] of Object.entries(faults)) {
    for (const [name, operation] of Object.entries(operations)) {
      it.live(`${fault} fails ${name} alone, by a typed error`, () =>
        Effect.gen(function*() {
          for (let call = 0; call < 3; call++) {
            assert.strictEqual((yield* Effect.flip(operation)).reason._tag, "EngineFailed")
          }
          assert.deepStrictEqual(yield* running, { queued: 0, running: 0 })
          assert.strictEqual(yield* operation, "fine")
        }).pipe(Effect.provide(appOf(model(wrong, 3)))))
    }
  }

  for (const [name, operation] of Object.entries(operations)) {
    it.live(`cannot be configured fails ${name} by a typed error`, () =>
      Effect.gen(function*() {
        let calls = 0
        const configure = () => ++calls <= 3 ? thrown() : Context.empty()
        yield* Effect.gen(function*() {
          for (let call = 0; call < 3; call++) {
            assert.strictEqual((yield* Effect.flip(operation)).reason._tag, "EngineFailed")
          }
          assert.deepStrictEqual(yield* running, { queued: 0, running: 0 })
          assert.strictEqual(yield* operation, "fine")
        }).pipe(Effect.provide(appOf({ layer: model(() => fine, 0), configure })))
      }))

    for (const [how, start] of [["dies", Effect.die(defect)], ["interrupts itself", Effect.interrupt]] as const) {
      it.live(`${how} as it starts fails ${name} by a typed error`, () =>
        Effect.gen(function*() {
          const { reason } = yield* Effect.flip(operation)
          assert.include(["EngineFailed", "ModelLoadFailed"], reason._tag)
          assert.deepStrictEqual(yield* running, { queued: 0, running: 0 })
        }).pipe(Effect.provide(appOf(Layer.effect(LanguageModel.LanguageModel, start)))))
    }
  }
})
