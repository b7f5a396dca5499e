/**
 * Requests of callers of Ollama's API for deployments of it: the caller's own body with only those fields changed that Troupe
 * or a policy decides; and their answers, as Ollama sent them. Pure.
 *
 * **Details**
 *
 * Ollama cuts a prompt that exceeds its window without an error, and its window is small unless `num_ctx` is set: so a
 * deployment's `contextSize` is sent where the caller sets none. An answer that continues another deployment's is requested
 * with `/api/chat`, also for a caller of `/api/generate`, which cannot continue a text.
 */
import { Result } from "effect"
import { numberOf } from "../../domain/ExactNumber.ts"
import type { Generation } from "../../domain/Generation.ts"
import type { Event } from "../../domain/Inference.ts"
import type { Reason } from "../../domain/InferenceError.ts"
import { JsonText } from "../../domain/JsonText.ts"
import * as Source from "../../domain/Source.ts"
import { at, type Fields, fieldsOf, isEmpty } from "../shared/Json.ts"
import { eventOf, makeHolding } from "../shared/NativeEvents.ts"
import type { Call, DecodeResult, Target } from "../shared/ProviderDialect.ts"

/** Encodes a generation as a request of `/api/chat`. */
export type Encode = (generation: Generation, target: Target, stream: boolean) => Result.Result<Call, Reason>

/** The limit of the answer, if it differs from the caller's. */
const limitOf = ({ maxTokens }: Generation, options: Fields, target: Target): Fields => {
  const given = numberOf(options["num_predict"])
  const limit = maxTokens ?? (given === undefined ? target.options.maxTokens : undefined)
  return limit === undefined || limit === given ? {} : { num_predict: limit }
}

/** The caller's options with those that it leaves out and the deployment needs; empty if nothing changes. */
const optionsOf = (generation: Generation, { body }: Source.Source, target: Target): Fields => {
  const given = fieldsOf(body["options"]) ?? {}
  const { contextSize } = target.options
  const window = contextSize === undefined || (given["num_ctx"] ?? null) !== null ? {} : { num_ctx: contextSize }
  const added = { ...window, ...limitOf(generation, given, target) }
  return Object.keys(added).length === 0 ? {} : { options: { ...given, ...added } }
}

/** Ollama streams unless a request says that it must not. */
const streamOf = ({ body }: Source.Source, stream: boolean): Fields =>
  (body["stream"] ?? true) === stream ? {} : { stream }

/** How long the model stays loaded there. */
const keepAliveOf = ({ body }: Source.Source): Fields =>
  (body["keep_alive"] ?? null) === null ? {} : { keep_alive: body["keep_alive"] }

const promptFields = { prompt: undefined, system: undefined, images: undefined } as const

/** The body of a request that continues another deployment's answer. */
const resumed = (encode: Encode) =>
(
  generation: Generation,
  source: Source.Source,
  target: Target,
  stream: boolean
): Result.Result<Call, Reason> =>
  Result.map(encode(generation, target, stream), (call) => {
    const encoded = call.body as Fields
    const options = { ...fieldsOf(source.body["options"]), ...fieldsOf(encoded["options"]) }
    return { ...call, body: Source.bodyWith(source, { ...promptFields, ...encoded, options, ...keepAliveOf(source) }) }
  })

/** Passes the request of a caller of the same dialect through. */
export const makeRequest = (encode: Encode) =>
(
  generation: Generation,
  source: Source.Source,
  target: Target,
  stream: boolean
): Result.Result<Call, Reason> => {
  if (generation.resumed === true) return resumed(encode)(generation, source, target, stream)
  return Result.succeed({
    path: source.body["prompt"] === undefined ? "/api/chat" : "/api/generate",
    body: Source.bodyOrTextWith(source, {
      model: target.options.model,
      ...optionsOf(generation, source, target),
      ...streamOf(source, stream),
      ...keepAliveOf(source)
    })
  })
}

const nativeOf = (body: Fields, form: Source.Native["form"] = "chunk"): Source.Native => ({
  dialect: "ollama",
  form,
  body,
  hasMore: !isEmpty(at(body, "message", "thinking")) || !isEmpty(body["thinking"])
})

const isAnswer = ({ type }: Event): boolean => type === "text" || type === "tool_call"

/** Adds the lines of a stream to their events. Lines before the first content are held. */
export const makeLines = () => {
  const { begin, hold } = makeHolding(nativeOf)
  return (line: Fields, decoded: DecodeResult): DecodeResult => {
    if (Result.isFailure(decoded)) return decoded
    const events = decoded.success
    return Result.succeed(
      events.length === 0
        ? hold(line)
        : [...begin(), eventOf(nativeOf(line), events.some(isAnswer)), ...events]
    )
  }
}

/** The events of an answer that is not streamed, with its body as Ollama sent it. */
export const buffered = (body: Fields, decoded: DecodeResult, text: string | undefined): DecodeResult =>
  Result.map(decoded, (events) => {
    const native = nativeOf(body, "buffered")
    const passed = text === undefined ? native : { ...native, text: new JsonText(text, body) }
    return [eventOf(passed, events.some(isAnswer)), ...events]
  })
