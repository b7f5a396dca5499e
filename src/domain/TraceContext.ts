/**
 * The trace of a request across services, in the headers of W3C Trace Context: `traceparent` and `tracestate`.
 *
 * **Details**
 *
 * The format is that of https://www.w3.org/TR/trace-context/. A `traceparent` that is not valid is ignored, and its `tracestate`
 * with it: the request then begins a trace of its own.
 */
import { Context, Option, Tracer } from "effect"

/** The headers of a request. */
type Headers = Readonly<Record<string, string | undefined>>

/** The header with the ids. */
export const parentHeader = "traceparent"

/** The header with what vendors add, which is passed on as it is. */
const stateHeader = "tracestate"

/**
 * The version, the id of the trace, the id of the caller's span, the flags, and what a later version may add. Ids of zeros and the
 * version `ff` are invalid.
 */
const parentFormat = /^(?!ff|00.{54})[\da-f]{2}-(?!0{32})([\da-f]{32})-(?!0{16})([\da-f]{16})-([\da-f]{2})(?:-.*)?$/

/** Of a `tracestate` that is passed on; the specification asks for at least 512. */
const longestState = 1_024

/** The `tracestate` that came with a span of a caller. */
const State = Context.Reference<string | undefined>("troupe/domain/TraceContext/State", {
  defaultValue: () => undefined
})

/** A state without its trace is dropped, and so is one that is too long. */
const annotationsOf = (state = ""): Context.Context<never> =>
  state === "" || state.length > longestState ? Context.empty() : Context.make(State, state)

/** The span of the caller; undefined without a valid one. */
export const callerOf = (headers: Headers): Tracer.ExternalSpan | undefined => {
  const [, traceId, spanId, flags] = parentFormat.exec(headers[parentHeader] ?? "") ?? []
  if (traceId === undefined || spanId === undefined || flags === undefined) return undefined
  const sampled = (Number.parseInt(flags, 16) & 1) === 1
  return Tracer.externalSpan({ traceId, spanId, sampled, annotations: annotationsOf(headers[stateHeader]) })
}

/** The `tracestate` of the trace that a span belongs to. */
const stateOf = (span: Tracer.AnySpan): string | undefined => {
  for (let one: Tracer.AnySpan | undefined = span; one !== undefined;) {
    if (one._tag === "ExternalSpan") return Context.get(one.annotations, State)
    one = Option.getOrUndefined(one.parent)
  }
  return undefined
}

/**
 * The headers of a request that a span sends: names and values in turn.
 *
 * @param above the span itself or one above it, which leads to the caller
 */
export const headersWith = (
  traceId: string,
  spanId: string,
  isSampled: boolean,
  above: Tracer.AnySpan | undefined
): ReadonlyArray<string> => {
  const parent = `00-${traceId}-${spanId}-${isSampled ? "01" : "00"}`
  const state = above && stateOf(above)
  return state === undefined ? [parentHeader, parent] : [parentHeader, parent, stateHeader, state]
}

/** As `headersWith`, of a tracer's span. */
export const headersOf = (span: Tracer.AnySpan): ReadonlyArray<string> =>
  headersWith(span.traceId, span.spanId, span.sampled, span)
