/** Response headers that describe how a request was routed, and JSON responses that have them. */
import { HttpServerResponse } from "effect/http"
import type { By } from "../../domain/Inference.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import { name as cachedResponses } from "../../services/cache/CachedResponses.ts"

export type RoutingHeaders = Readonly<Record<string, string>>

/** The names of all headers below. */
export const names = ["x-troupe-attempts", "x-troupe-cache", "x-troupe-decision", "x-troupe-deployment"] as const

/** Percent-encodes what a header cannot hold: a model may have any name. */
const encodeValue = (text: string): string => text.toWellFormed().replace(/[^\x21-\x24\x26-\x7e]+/g, encodeURIComponent)

/** The deployment, the number of attempts, the id of the decision record, and whether the answer came from the cache. */
export const ofAnswer = ({ attempts, decision, deployment }: By): RoutingHeaders => ({
  "x-troupe-deployment": encodeValue(deployment),
  "x-troupe-attempts": String(attempts),
  "x-troupe-decision": decision,
  ...(deployment === cachedResponses ? { "x-troupe-cache": "hit" } : {})
})

export const ofError = ({ attempts, decision }: InferenceError): RoutingHeaders =>
  decision === undefined ? {} : { "x-troupe-attempts": String(attempts?.length ?? 1), "x-troupe-decision": decision }

export const json = (body: unknown, headers: RoutingHeaders) => HttpServerResponse.jsonUnsafe(body, { headers })
