/**
 * How many instances of Troupe a request has come through, so that those that ask each other in a circle end it.
 *
 * **Details**
 *
 * An instance tells the next in a header, and refuses a request that has come through too many as a wrong one: then nobody
 * on the way tries again or elsewhere, which would multiply at every hop.
 */
import { Context, Result } from "effect"
import { InvalidRequest } from "./InferenceError.ts"

/** Between instances; a number. */
export const header = "x-troupe-hops"

/** Instances that a request may come through: more than anyone puts one behind the other on purpose. */
export const most = 8

/** Of the request that a fiber works for. */
export const HopCount = Context.Reference<number>("troupe/domain/HopLimit", { defaultValue: () => 0 })

/** What the header says; whoever says nothing sensible is no instance of Troupe. */
export const fromHeaders = (
  headers: Readonly<Record<string, string | undefined>>
): Result.Result<number, InvalidRequest> => {
  const told = headers[header]
  if (told === undefined) return Result.succeed(0)
  const hops = /^\d{1,3}$/.test(told) ? Number(told) : 0
  return hops < most ? Result.succeed(hops) : Result.fail(
    new InvalidRequest({
      detail:
        `This request has come through ${hops} instances of Troupe, and may come through ${most}: they seem to ask ` +
        "each other in a circle. Look at the baseUrl of their deployments with provider: troupe"
    })
  )
}
