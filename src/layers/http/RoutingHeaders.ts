/** What every answer tells of its routing, in headers. Pure. */
import type { By } from "../../domain/Inference.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import { name as cachedResponses } from "../../services/cache/CachedResponses.ts"

type Headers = Readonly<Record<string, string>>

/** All headers below. */
export const names = ["x-troupe-attempts", "x-troupe-cache", "x-troupe-decision", "x-troupe-deployment"] as const

/** A model may be called anything, and headers take little: the rest is percent-encoded, as in a URL. */
const sayable = (text: string): string => text.toWellFormed().replace(/[^\x21-\x24\x26-\x7e]+/g, encodeURIComponent)

/** Its deployment, how many attempts it took, the id of the record that says why, and whether it was given before. */
export const ofAnswer = ({ attempts, decision, deployment }: By): Headers => ({
  "x-troupe-deployment": sayable(deployment),
  "x-troupe-attempts": String(attempts),
  "x-troupe-decision": decision,
  ...(deployment === cachedResponses ? { "x-troupe-cache": "hit" } : {})
})

export const ofError = ({ attempts, decision }: InferenceError): Headers =>
  decision === undefined ? {} : { "x-troupe-attempts": String(attempts?.length ?? 1), "x-troupe-decision": decision }
