/**
 * What records the spans of a request: the exporter of the service, or the tracer of a program.
 *
 * **Details**
 *
 * The attributes of a span are given at its end, as a function: a request whose spans are not sent never makes them. They are
 * written one by one: an object of those of a span would be made, read once and left.
 */
import type { Fiber, Tracer } from "effect"
import { Context, Effect, Exit, Option } from "effect"
import { isCancellation } from "../../domain/FailureClass.ts"
import type { InferenceError, Reason } from "../../domain/InferenceError.ts"
import * as ReasonMessage from "../../domain/ReasonMessage.ts"
import * as TraceContext from "../../domain/TraceContext.ts"
import type { GuardedCallbacks } from "./GuardedCallbacks.ts"

export type Attributes = Readonly<Record<string, unknown>>

/** Takes the attributes of a span. Those that are undefined are left out. */
export interface AttributeWriter {
  put(name: string, value: unknown): void
  /** @param attributes an object that many spans have and that never changes: its encoding is kept and used again */
  putKept(attributes: Attributes): void
}

/** Writes the attributes of a span. */
export type WriteAttributes = (to: AttributeWriter) => void

/** Writes the attributes of an object that only one span has. */
export const putAll = (attributes: Attributes, to: AttributeWriter): void => {
  for (const name in attributes) to.put(name, attributes[name])
}

/** How what has a span ended. */
export type End = Exit.Exit<unknown, InferenceError>

/** Why something failed. */
interface SpanError {
  readonly name: string
  readonly message: string
  /** Undefined: a defect. */
  readonly reason?: Reason
}

/** The error of an end, without text of a provider or a caller; undefined: a success or a cancellation. */
export const errorOf = (end: End): SpanError | undefined => {
  if (Exit.isSuccess(end) || isCancellation(end.cause)) return undefined
  for (const reason of end.cause.reasons) {
    if (reason._tag === "Fail") {
      const found = reason.error.reason
      return { name: found._tag, message: ReasonMessage.recorded(found), reason: found }
    }
  }
  return { name: "Defect", message: "It ended in a defect." }
}

/** A span that runs. */
export interface RunningSpan {
  /** Begins a span below it; undefined if its tracer fails. */
  readonly child: (name: string, kind: "client" | "internal", at: bigint) => RunningSpan | undefined
  /** Names and values, in turn, of the headers of a request that it sends. */
  readonly headers: () => ReadonlyArray<string>
  /** @param attributes called at most once, at any time */
  readonly end: (at: bigint, end: End, attributes: WriteAttributes) => void
}

/** Where the spans of requests go. */
export interface Tracing {
  /**
   * Begins the span of a request; undefined if its tracer fails.
   *
   * @param caller the span above it, which another service or this program has
   */
  readonly begin: (name: string, caller: Tracer.AnySpan | undefined, at: bigint) => RunningSpan | undefined
  /** Whether spans of inferences have prompts and answers. */
  readonly capturesContent: boolean
}

/** The tracing of a service. A tracer that a program provides to its fibers goes before it. */
export const ServiceTracing = Context.Reference<Tracing | undefined>(
  "troupe/services/observability/RequestSpans/ServiceTracing",
  { defaultValue: () => undefined }
)

/** The end of a span, whose exception has no text of a provider or a caller. */
const recordedExit = (end: End): Exit.Exit<unknown, unknown> =>
  Exit.mapError(end, ({ reason }) => Object.assign(new Error(ReasonMessage.recorded(reason)), { name: reason._tag }))

/** A span of a program's own tracer. If the tracer throws, no answer changes. */
class TracerSpan implements RunningSpan, AttributeWriter {
  readonly #callbacks: GuardedCallbacks
  readonly #tracer: Tracer.Tracer
  readonly #span: Tracer.Span

  constructor(callbacks: GuardedCallbacks, tracer: Tracer.Tracer, span: Tracer.Span) {
    this.#callbacks = callbacks
    this.#tracer = tracer
    this.#span = span
  }

  child(name: string, kind: Tracer.SpanKind, startTime: bigint): RunningSpan | undefined {
    const parent = this.#span
    return guarded(this.#callbacks, this.#tracer, () =>
      this.#tracer.span({
        name,
        kind,
        parent: Option.some(parent),
        annotations: Context.empty(),
        links: [],
        startTime,
        root: false,
        sampled: parent.sampled
      }))
  }

  headers(): ReadonlyArray<string> {
    return this.#callbacks.call(tracerName, () => TraceContext.headersOf(this.#span), [])
  }

  put(name: string, value: unknown): void {
    if (value !== undefined) this.#span.attribute(name, value)
  }

  putKept(attributes: Attributes): void {
    putAll(attributes, this)
  }

  end(at: bigint, end: End, attributes: WriteAttributes): void {
    this.#callbacks.call(tracerName, () => attributes(this), undefined)
    this.#callbacks.call(tracerName, () => this.#span.end(at, recordedExit(end)), undefined)
  }
}

const tracerName = "tracer"

const guarded = (
  callbacks: GuardedCallbacks,
  tracer: Tracer.Tracer,
  make: () => Tracer.Span
): RunningSpan | undefined => {
  const span = callbacks.call<Tracer.Span | undefined>(tracerName, make, undefined)
  return span && new TracerSpan(callbacks, tracer, span)
}

/** The tracing of a program with its own tracer, which gets the options of the fiber. */
export const ofTracer = (
  callbacks: GuardedCallbacks,
  { context }: Fiber.Fiber<unknown, unknown>,
  tracer: Tracer.Tracer
): Tracing => ({
  begin: (name) =>
    guarded(
      callbacks,
      tracer,
      () => Effect.runSyncWith(context)(Effect.makeSpan(name, { kind: "internal" }))
    ),
  capturesContent: false
})
