/** Which requests use the cache, and which answers are kept. Pure. */
import { RepeatedChunks } from "../../dialects/shared/EventTemplate.ts"
import type { CacheSettings } from "../../domain/CacheControl.ts"
import * as Defaults from "../../domain/Defaults.ts"
import type { Event, Request } from "../../domain/Inference.ts"
import type { Native } from "../../domain/Source.ts"
import { choicesOf } from "../../domain/Source.ts"

/** How a request uses the cache. */
export interface CachePlan {
  /** The greatest age of an answer that may be given, ms; undefined: none may be given. */
  readonly maxAgeMs: number | undefined
  /** The request may share an answer that is being generated. */
  readonly joins: boolean
}

const isDeterministic = ({ seed, temperature }: Request): boolean => temperature === 0 || seed !== undefined

/** Whether an answer may be given to several requests: not if the choices of one request must differ. */
const isShared = (request: Request, { when }: CacheSettings): boolean =>
  request.source?.isChoice !== true && choicesOf(request) === 1 && (when === "always" || isDeterministic(request))

const anyAge: CachePlan = { maxAgeMs: Number.POSITIVE_INFINITY, joins: true }

/** Undefined if the request does not use the cache. */
export const planOf = (request: Request, settings: CacheSettings): CachePlan | undefined => {
  if (!isShared(request, settings)) return undefined
  if (request.cache === undefined) return anyAge
  const { maxAge, noCache = false, noStore = false } = request.cache
  if (noStore) return undefined
  if (noCache || maxAge === 0) return { maxAgeMs: undefined, joins: false }
  return maxAge === undefined ? anyAge : { maxAgeMs: maxAge * 1000, joins: false }
}

/** Whether an answer is complete: it was not cut before the caller's own limit, and no filter ended it. */
export const isWhole = (
  { reason, usage }: Pick<Extract<Event, { type: "finish" }>, "reason" | "usage">,
  { maxTokens = Number.POSITIVE_INFINITY }: Pick<Request, "maxTokens">
): boolean => reason === "length" ? usage.completionTokens >= maxTokens : reason !== "content_filter"

/** Whether the events are a complete answer of one deployment. */
export const isKept = (events: ReadonlyArray<Event>, request: Request): boolean => {
  const last = events.at(-1)
  return last?.type === "finish" && isWhole(last, request) && events.every(({ type }) => type !== "handoff")
}

/** Repeated chunks are a part of a text, and the places of their strings. */
const repeatedSize = ({ run: { places } }: RepeatedChunks): number =>
  128 + 2 * (places.at(-1)! - places[0]!) + 8 * places.length

const nativeSize = (native: Native): number =>
  native instanceof RepeatedChunks
    ? repeatedSize(native)
    : 2 * (native.text?.length ?? JSON.stringify(native.body).length) + 128

/** The memory of an event, bytes: an estimate. */
export const sizeOf = (event: Event): number => {
  switch (event.type) {
    case "text":
      return 64 + 2 * event.text.length + (event.logprobs === undefined ? 0 : 200 * event.logprobs.length)
    case "thoughts":
      return 64 + 2 * event.text.length + (event.signed === undefined ? 0 : 2 * JSON.stringify(event.signed).length)
    case "tool_call":
      return 64 + 2 * event.arguments.length
    case "native":
      return 64 + nativeSize(event.native)
    case "handoff":
    case "finish":
      return 256
  }
}

/** Whether an answer of this size is kept. */
export const fits = (bytes: number): boolean => bytes <= Defaults.cache.largestBytes
