/**
 * The Engine seam over any `LanguageModel` of `effect/ai`.
 *
 * **Details**
 *
 * Supports text, tools and formats. A format uses `generateObject`, which does not stream: its text is one piece. The
 * end of the stream or of the engine interrupts the model's call. So does a model that sends nothing for the
 * deployment's `stallAfter`.
 *
 * **Gotchas**
 *
 * For tokens that the model does not count, and `maxTokens` without `configure`, see `LanguageModelEvents`.
 */
import { Cause, Context, Data, Deferred, Duration, Effect, Option, Schema, Stream } from "effect"
import type { AiError, LanguageModel } from "effect/ai"
import { Response } from "effect/ai"
import type { Deployment } from "../../domain/Deployment.ts"
import { defaultSlots } from "../../domain/Deployment.ts"
import type { EngineCapability } from "../../domain/EngineProtocol.ts"
import { isCancellation } from "../../domain/FailureClass.ts"
import type { Generation } from "../../domain/Generation.ts"
import { localOnly } from "../../domain/Generation.ts"
import type { Event } from "../../domain/Inference.ts"
import * as InferenceError from "../../domain/InferenceError.ts"
import { imageOfTool, privateImage } from "../../domain/Message.ts"
import { requiredPaths } from "../../domain/Source.ts"
import type { Engine } from "../../services/engines/Engine.ts"
import { capabilitiesOf } from "../../services/engines/EngineKinds.ts"
import type { LanguageModelOptions, LanguageModels, Source } from "../../services/engines/LanguageModelKind.ts"
import { languageModel } from "../../services/engines/LanguageModelKind.ts"
import type { Unanswered } from "./LanguageModelEvents.ts"
import { toEvents } from "./LanguageModelEvents.ts"
import type { Call } from "./LanguageModelPrompt.ts"
import { callOf, schemaOf, unspokenOption } from "./LanguageModelPrompt.ts"

const failed = ({ id }: Deployment, detail: string) =>
  InferenceError.make(new InferenceError.EngineFailed({ deployment: id, detail }))

const decodeReason = Schema.decodeUnknownOption(InferenceError.Reason)

/** The reason of a Troupe that serves the model, if it applies to this deployment. */
const reasonOfTroupe = ({ id, model }: Deployment, { reason }: AiError.AiError): InferenceError.Reason | undefined => {
  const inner = Option.getOrUndefined(decodeReason("metadata" in reason ? reason.metadata["troupe"] : undefined))
  switch (inner?._tag) {
    case "ContextLengthExceeded": {
      const { atLeast = false, contextWindow, promptTokens } = inner
      return new InferenceError.ContextLengthExceeded({
        model,
        atLeast,
        ...(contextWindow === undefined ? {} : { contextWindow }),
        ...(promptTokens === undefined ? {} : { promptTokens })
      })
    }
    case "QueueFull": {
      const { limit, retryAfterMs } = inner
      return new InferenceError.QueueFull({ deployment: id, limit, retryAfterMs })
    }
    case "Overloaded":
      return inner
    default:
      return undefined
  }
}

/** Errors that the caller caused. */
const callerErrors: ReadonlySet<AiError.AiErrorReason["_tag"]> = new Set([
  "InvalidRequestError",
  "InvalidUserInputError",
  "UnsupportedSchemaError",
  "ToolConfigurationError",
  "ContentPolicyError"
])

const fromAiError = (deployment: Deployment, error: AiError.AiError): InferenceError.InferenceError => {
  const reason = reasonOfTroupe(deployment, error)
  if (reason !== undefined) return InferenceError.make(reason)
  const detail = error.reason.message.split("\n")[0]!
  return callerErrors.has(error.reason._tag)
    ? InferenceError.make(new InferenceError.InvalidRequest({ detail }))
    : failed(deployment, detail)
}

/** No part arrived for the deployment's `stallAfter`. */
class Hung extends Data.TaggedError("Hung") {}

const errorOf = (deployment: Deployment, error: AiError.AiError | Unanswered | Hung): InferenceError.InferenceError => {
  switch (error._tag) {
    case "AiError":
      return fromAiError(deployment, error)
    case "Unanswered":
      return failed(deployment, error.detail)
    case "Hung": {
      const afterMs = Duration.toMillis(deployment.stallAfter)
      return InferenceError.make(new InferenceError.EngineHung({ deployment: deployment.id, afterMs }))
    }
  }
}

/** Refuses fields and images that the model does not accept. */
const check = (
  generation: Generation,
  { configure }: Source,
  { deployment, name }: { readonly deployment: string; readonly name: string }
): Effect.Effect<void, InferenceError.InferenceError> => {
  const unsupported = (path: string, detail: string) =>
    Effect.fail(InferenceError.make(new InferenceError.NotSupported({ deployment, path, detail })))
  const image = imageOfTool(generation.messages) ?? privateImage(generation.messages)
  if (image !== undefined) return unsupported(image, `the language model "${name}" does not accept this image`)
  const field = requiredPaths(generation.source)[0] ?? localOnly(generation)
  if (field !== undefined) return unsupported(field, `the language model "${name}" does not accept this field`)
  if (generation.logprobs !== undefined) {
    return Effect.fail(InferenceError.notCapable(deployment, "logprobs", "logprobs"))
  }
  const option = configure === undefined ? unspokenOption(generation.sampling) : undefined
  return option === undefined
    ? Effect.void
    : unsupported(option, `the language model "${name}" is provided without \`configure\`, which sets it`)
}

/** `LanguageModel` without its static types of tools, which are known at run time only here. */
interface Untyped {
  streamText(call: Call): Stream.Stream<Response.AnyPart, AiError.AiError>
  generateObject(
    call: Call & { readonly schema: Schema.Top; readonly objectName: string }
  ): Effect.Effect<{ readonly content: ReadonlyArray<Response.AnyPart> }, AiError.AiError>
}

const isJson = (text: string): boolean => {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}

/** An incomplete object was cut off at the token limit, which `generateObject` reports as an error. */
const cutOff = (error: AiError.AiError): Effect.Effect<ReadonlyArray<Response.AnyPart>, AiError.AiError> => {
  const text = error.reason._tag === "StructuredOutputError" ? error.reason.responseText : ""
  if (!text.trimStart().startsWith("{") || isJson(text)) return Effect.fail(error)
  const usage = new Response.Usage({ inputTokens: {}, outputTokens: {} })
  return Effect.succeed([
    Response.makePart("text", { text }),
    Response.makePart("finish", { reason: "length", usage, response: undefined })
  ])
}

/** The model's answer in parts, from one call. */
const partsOf = Effect.fnUntraced(function*(model: Untyped, generation: Generation) {
  const call = yield* callOf(generation)
  if (generation.format === undefined) return model.streamText(call)
  const schema = yield* schemaOf(generation.format)
  const buffered = model.generateObject({ ...call, schema, objectName: "answer" })
  return Stream.fromIterableEffect(
    buffered.pipe(Effect.map(({ content }) => content), Effect.catch((error) => cutOff(error)))
  )
})

/**
 * A model that ends in a defect or interrupts itself has failed. This does not run when the caller cancels. The
 * defect's message can contain anything, so it is only logged.
 */
const withFailures = (deployment: Deployment, events: Stream.Stream<Event, InferenceError.InferenceError>) =>
  Stream.catchCauseIf(
    events,
    (cause) => isCancellation(cause) || Option.isNone(Cause.findErrorOption(cause)),
    (cause) =>
      Stream.fromEffect(Effect.andThen(
        Effect.logError(`The language model of "${deployment.id}" ended in a defect.`, cause),
        failed(deployment, isCancellation(cause) ? "It interrupted itself." : "It ended in a defect.")
      ))
  )

const make = (
  deployment: Deployment,
  { contextSize = 0, name, slots = defaultSlots }: LanguageModelOptions,
  source: Source,
  model: LanguageModel.LanguageModel,
  stopped: Deferred.Deferred<never, InferenceError.InferenceError>
): Engine => {
  const open = Effect.fnUntraced(function*(generation: Generation, retain: (() => () => void) | undefined) {
    yield* check(generation, source, { deployment: deployment.id, name })
    const parts = yield* partsOf(model as unknown as Untyped, generation)
    yield* Effect.acquireRelease(Effect.sync(() => retain?.()), (release) => Effect.sync(() => release?.()))
    const timed = !Duration.isFinite(deployment.stallAfter)
      ? parts
      : Stream.timeoutOrElse(parts, { duration: deployment.stallAfter, orElse: () => Stream.fail(new Hung()) })
    return toEvents(generation, source.configure === undefined, timed).pipe(
      Stream.mapError((error) => errorOf(deployment, error)),
      Stream.provideContext(source.configure?.(generation) ?? Context.empty()),
      Stream.interruptWhen(Deferred.await(stopped))
    )
  })
  const cannot = (capability: EngineCapability) => Effect.fail(InferenceError.notCapable(deployment.id, capability))
  return {
    describe: {
      engine: languageModel.name,
      contextWindow: contextSize,
      slots,
      capabilities: capabilitiesOf(deployment.options),
      details: { name }
    },
    generate: (generation, retain): Stream.Stream<Event, InferenceError.InferenceError> =>
      withFailures(deployment, Stream.unwrap(open(generation, retain))),
    embed: () => cannot("embed"),
    rerank: () => cannot("rerank"),
    classify: () => cannot("classify"),
    tokenize: () => cannot("tokenize"),
    memoryBytes: Effect.succeed(0),
    stop: Effect.asVoid(
      Deferred.fail(
        stopped,
        InferenceError.make(new InferenceError.EngineStopped({ deployment: deployment.id }))
      )
    ),
    crashed: Effect.never
  }
}

/** Starts the model that the program provides by the deployment's name; the scope's end stops it. */
export const start = Effect.fnUntraced(
  function*(deployment: Deployment, options: LanguageModelOptions, models: LanguageModels) {
    const unloadable = (detail: string) =>
      InferenceError.make(new InferenceError.ModelLoadFailed({ deployment: deployment.id, detail }))
    const source = models.get(options.name)
    if (source === undefined) {
      return yield* unloadable(
        `No language model "${options.name}" is provided. A program that embeds Troupe provides it by LanguageModels.`
      )
    }
    const started = Effect.mapError(
      source.start,
      (cause) => unloadable((cause instanceof Error ? cause.message : String(cause)).split("\n")[0]!)
    )
    const model = yield* Effect.catchCauseIf(
      started,
      isCancellation,
      () => Effect.fail(unloadable("The language model interrupted itself."))
    )
    const engine = make(deployment, options, source, model, Deferred.makeUnsafe())
    yield* Effect.addFinalizer(() => engine.stop)
    return engine
  }
)
