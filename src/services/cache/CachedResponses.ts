/**
 * Answers that were given before, for when nobody can answer: the last link of a model's ordinary fallbacks.
 *
 * **Details**
 *
 * A model has it by the name `cached-responses` at the end of its `fallbacks`. Then its answers that came to a normal end
 * are kept, and where everything else has failed with what is not the caller's own mistake (`Retry.classify`), the newest
 * answer to the very same request is given again. Models without the link cost nothing.
 *
 * **Gotchas**
 *
 * A request is the same where `identify` says the same: everything that changes the answer, and the tenant, so that no
 * tenant is ever given another's. The seed is left out, as whoever has nobody to ask is better off with another draw.
 */
import type { Effect } from "effect"
import { Context } from "effect"
import * as Policies from "../../domain/Defaults.ts"
import type { Answer, By, Request } from "../../domain/Inference.ts"
import { choicesOf } from "../../domain/Source.ts"

/** The name among fallbacks, and the deployment that such an answer is by. */
export const name = "cached-responses"

/** An answer without its deployment. Answers that have more than text and function calls are not kept. */
export type Response = Omit<Answer, keyof By | "native">

/** The index of one that does not stand last; -1 where there is none. */
export const misplaced = (fallbacks: ReadonlyArray<string>): number => {
  const index = fallbacks.indexOf(name)
  return index === fallbacks.length - 1 ? -1 : index
}

/** What is expected of it among fallbacks. */
export const onlyLast = `Expected ${name} as the last of the ordinary fallbacks only`

/** JSON with the fields of every object in order, and without what is undefined. */
const canonical = (value: unknown): string =>
  JSON.stringify(
    value,
    (_, inner: unknown) =>
      typeof inner === "object" && inner !== null && !Array.isArray(inner)
        ? Object.fromEntries(Object.entries(inner).sort(([one], [two]) => one < two ? -1 : 1))
        : inner
  )

/** Two requests are the same where this is. What a request will have one day is part of it too. */
export const identify = (
  { keepAlive: _, priority: __, route: ___, seed: ____, source, tenant = "", ...asked }: Request
): string => canonical({ tenant, asked, headers: source?.headers })

/** Whether it is all of the answer: one that was cut before the caller's own limit is not, nor is one of several. */
export const isWhole = (
  { finishReason, usage }: Response,
  { maxTokens = Number.POSITIVE_INFINITY, source }: Request
): boolean => choicesOf({ source }) > 1 ? false : finishReason !== "length" || usage.completionTokens >= maxTokens

/** Bytes of memory, about: a character takes two at most. */
export const bytesOf = (response: Response): number => 2 * JSON.stringify(response).length

/** Larger ones are not kept. */
export const fits = (bytes: number): boolean => bytes <= Policies.cachedResponses.largestBytes

export class CachedResponses extends Context.Service<CachedResponses, {
  /** In the place of an earlier answer to the same request. */
  readonly keep: (request: Request, response: Response) => Effect.Effect<void>
  /** The newest; undefined where there is none, or none any more. */
  readonly recall: (request: Request) => Effect.Effect<Response | undefined>
}>()("troupe/services/cache/CachedResponses") {}
