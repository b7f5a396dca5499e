/**
 * A Troupe model as `effect/ai`'s `LanguageModel`: `generateText` and `streamText` on local engines.
 *
 * **Gotchas**
 *
 * Tools, structured output and files in a prompt are refused with an `AiError`: no engine takes them yet.
 *
 * **Example**
 *
 * ```ts
 * const program = LanguageModel.generateText({ prompt: "What is the capital of Japan?" }).pipe(
 *   Effect.map((response) => response.text),
 *   Effect.provide(AiModel.model("tiny-chat", { temperature: 0 })),
 *   Effect.provide(App.layer())
 * )
 * ```
 */
import { Array as Arr, Effect, Layer, Stream } from "effect"
import { AiError, LanguageModel, Model } from "effect/ai"
import type { Prompt, Response } from "effect/ai"
import type { Event, Message, Request } from "../services/Inference.ts"
import { Inference } from "../services/Inference.ts"
import type { InferenceError } from "../services/InferenceError.ts"
import type { FinishReason, TokenUsage } from "../services/Job.ts"

/** Options for every call of the model. */
export type Options = Omit<Request, "model" | "messages">

const failWith = (method: string, reason: AiError.AiErrorReason): AiError.AiError =>
  AiError.make({ module: "Troupe", method, reason })

const unsupported = (method: string, what: string): AiError.AiError =>
  failWith(
    method,
    new AiError.InvalidUserInputError({ description: `${what} is not supported by Troupe's engines yet.` })
  )

/** The same failure in the words of `effect/ai`, of which some may be tried again. */
const fromInferenceError = (method: string) => ({ reason }: InferenceError): AiError.AiError => {
  switch (reason._tag) {
    case "InvalidRequest":
    case "ModelNotFound":
    case "ContextLengthExceeded":
      return failWith(method, new AiError.InvalidRequestError({ description: reason.message }))
    case "ModelLoadFailed":
    case "EngineMissing":
    case "QueueFull":
    case "Overloaded":
    case "DeploymentDown":
    case "InsufficientMemory":
    case "EngineHung":
    case "EngineCrashed":
    case "EngineStopped":
    case "EngineFailed":
      return failWith(method, new AiError.InternalProviderError({ description: reason.message }))
  }
}

type PromptMessage = Prompt.Prompt["content"][number]

const textOf = (method: string, message: PromptMessage): Effect.Effect<string, AiError.AiError> => {
  if (message.role === "system") return Effect.succeed(message.content)
  const texts: Array<string> = []
  for (const part of message.content) {
    if (part.type !== "text") return Effect.fail(unsupported(method, `A ${part.type} part`))
    texts.push(part.text)
  }
  return Effect.succeed(texts.join(""))
}

const messagesOf = (method: string, prompt: Prompt.Prompt): Effect.Effect<Request["messages"], AiError.AiError> =>
  Effect.forEach(prompt.content, (message): Effect.Effect<Message, AiError.AiError> =>
    message.role === "tool"
      ? Effect.fail(unsupported(method, "A tool message"))
      : Effect.map(textOf(method, message), (content) => ({ role: message.role, content }))).pipe(
      Effect.filterOrFail(
        Arr.isArrayNonEmpty,
        () => failWith(method, new AiError.InvalidUserInputError({ description: "The prompt has no message." }))
      )
    )

const requestOf = Effect.fnUntraced(function*(
  method: string,
  model: string,
  options: Options,
  { prompt, responseFormat, tools }: LanguageModel.ProviderOptions
) {
  if (tools.length > 0) return yield* unsupported(method, "A toolkit")
  if (responseFormat.type === "json") return yield* unsupported(method, "Structured output")
  return { ...options, model, messages: yield* messagesOf(method, prompt) } satisfies Request
})

const finishPart = (reason: FinishReason, usage: TokenUsage): Response.FinishPartEncoded => ({
  type: "finish",
  reason: reason === "tool_calls" ? "tool-calls" : reason,
  usage: {
    inputTokens: { total: usage.promptTokens, uncached: usage.promptTokens, cacheRead: 0, cacheWrite: undefined },
    outputTokens: { total: usage.completionTokens, text: usage.completionTokens, reasoning: 0 }
  },
  response: undefined
})

const textId = "text"

const streamPart = (event: Exclude<Event, { type: "tool_call" }>): Response.StreamPartEncoded =>
  event.type === "text"
    ? { type: "text-delta", id: textId, delta: event.text }
    : finishPart(event.reason, event.usage)

/**
 * The model's events with the marks that begin and end a text; what came together stays together. The first mark comes
 * with the first event, since a plan takes whatever comes for the beginning of an answer, after which it cannot fall back.
 */
const streamParts = (events: Stream.Stream<Event, InferenceError>) =>
  Stream.suspend(() => {
    let begun = false
    return Stream.mapArray(events, (some) => {
      const parts: Array<Response.StreamPartEncoded> = begun ? [] : [{ type: "text-start", id: textId }]
      begun = true
      for (const event of some) {
        if (event.type === "tool_call") continue
        if (event.type === "finish") parts.push({ type: "text-end", id: textId })
        parts.push(streamPart(event))
      }
      return parts as unknown as Arr.NonEmptyArray<Response.StreamPartEncoded>
    })
  })

/** `LanguageModel` over `Inference`. */
export const layer = (
  model: string,
  options: Options = {}
): Layer.Layer<LanguageModel.LanguageModel, never, Inference> =>
  Layer.effect(
    LanguageModel.LanguageModel,
    Effect.gen(function*() {
      const inference = yield* Inference
      return yield* LanguageModel.make({
        generateText: (call) =>
          Effect.flatMap(requestOf("generateText", model, options, call), (request) =>
            inference.generate(request).pipe(
              Effect.map(({ finishReason, text, usage }): Array<Response.PartEncoded> => [
                { type: "text", text },
                finishPart(finishReason, usage)
              ]),
              Effect.mapError(fromInferenceError("generateText"))
            )),
        streamText: (call) =>
          Stream.unwrap(Effect.map(requestOf("streamText", model, options, call), (request) =>
            Stream.mapError(streamParts(inference.stream(request)), fromInferenceError("streamText"))))
      })
    })
  )

/** The same as an `effect/ai` `Model`, which an `ExecutionPlan` can name. */
export const model = (name: string, options?: Options) => Model.make("troupe", name, layer(name, options))
