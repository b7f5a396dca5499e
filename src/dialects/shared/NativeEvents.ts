/**
 * Events with parts of an answer as a provider sent them, for callers of the same dialect. Pure.
 *
 * **Details**
 *
 * Parts without content are held until one has content: an answer that fails before can still be requested from another
 * deployment.
 */
import type { Event } from "../../domain/Inference.ts"
import * as InferenceError from "../../domain/InferenceError.ts"
import type { Native } from "../../domain/Source.ts"
import type { Fields } from "./Json.ts"

/** @param content whether the part has content other than reasoning */
export const eventOf = (native: Native, content: boolean): Event => ({ type: "native", native, content, tokens: 0 })

/** Holds the parts of a stream until one has content. */
export interface Holding {
  /** The events of the held parts. Later parts are not held. */
  readonly begin: () => ReadonlyArray<Event>
  /** Holds a part without content; after `begin`, its event. */
  readonly hold: (body: Fields) => ReadonlyArray<Event>
  readonly held: () => ReadonlyArray<Fields>
  readonly hasBegun: () => boolean
}

/** @param nativeOf describes a part of the stream */
export const makeHolding = (nativeOf: (body: Fields) => Native): Holding => {
  let held: Array<Fields> = []
  let begun = false
  return {
    begin: () => {
      begun = true
      const events = held.map((body) => eventOf(nativeOf(body), false))
      held = []
      return events
    },
    hold: (body) => {
      if (begun) return [eventOf(nativeOf(body), false)]
      held.push(body)
      return []
    },
    held: () => held,
    hasBegun: () => begun
  }
}

/** The reason with the provider's answer, if it is a refusal: a caller of the same dialect gets that answer. */
export const withAnswer = (reason: InferenceError.Reason, answer: ReadonlyArray<Native>): InferenceError.Reason =>
  reason._tag === "ContentRefused"
    ? new InferenceError.ContentRefused({ deployment: reason.deployment, detail: reason.detail, answer })
    : reason
