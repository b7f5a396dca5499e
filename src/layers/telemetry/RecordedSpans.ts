/**
 * The spans of a request that the service sends, from their begin to the end of the request.
 *
 * **Details**
 *
 * Whether a trace is sent is decided when it begins, by the caller's decision or the ratio. A request that fails is sent in any
 * case. Until its end, spans have times and names only: ids and attributes are made for what is sent. A provider gets an id
 * before, in the headers of its request.
 *
 * When the span of the request ends, all spans are sent, or none. One that ends later is sent alone.
 */
import type { Random, Tracer } from "effect"
import * as TraceContext from "../../domain/TraceContext.ts"
import type { End, RunningSpan, Tracing, WriteAttributes } from "../../services/observability/RequestSpans.ts"
import { errorOf } from "../../services/observability/RequestSpans.ts"
import type { Sampling } from "../../services/settings/TelemetrySettings.ts"
import type { SpanId } from "./SpanIds.ts"
import * as SpanIds from "./SpanIds.ts"

type RandomNumbers = typeof Random.Random.Service

export type Kind = "client" | "internal" | "server"

/** A span that has ended. */
export interface Ended {
  readonly traceId: SpanId
  readonly spanId: SpanId
  readonly parentId: SpanId | undefined
  readonly name: string
  readonly kind: Kind
  /** ns since 1970 */
  readonly startTime: bigint
  readonly endTime: bigint
  /** Undefined: a success or a cancellation. */
  readonly error: ReturnType<typeof errorOf>
  readonly attributes: WriteAttributes
}

/** Takes spans that are sent. */
export type Send = (spans: ReadonlyArray<Ended>) => void

/** What decides about the spans of one request, and those that have ended. */
class Request {
  readonly caller: Tracer.AnySpan | undefined
  readonly isSampled: boolean
  readonly random: RandomNumbers
  readonly #send: Send
  /** Undefined after the end of the request. */
  #ended: Array<Span> | undefined = []
  #isSent = false
  #traceId: SpanId | undefined

  constructor(caller: Tracer.AnySpan | undefined, isSampled: boolean, random: RandomNumbers, send: Send) {
    this.caller = caller
    this.isSampled = isSampled
    this.random = random
    this.#send = send
    this.#traceId = caller && SpanIds.fromHex(caller.traceId)
  }

  get traceId(): SpanId {
    return this.#traceId ??= SpanIds.make(4, this.random)
  }

  /** A span has ended. */
  add(span: Span): void {
    if (this.#ended !== undefined) this.#ended.push(span)
    else if (this.#isSent) this.#send([span])
  }

  /** The request has ended, with this span. */
  end(root: Span): void {
    const ended = this.#ended ?? []
    this.#ended = undefined
    this.#isSent = this.isSampled || root.error !== undefined
    if (!this.#isSent) return
    ended.push(root)
    this.#send(ended)
  }
}

const noAttributes: WriteAttributes = () => {}

/** A span of a request. */
class Span implements RunningSpan, Ended {
  readonly name: string
  readonly kind: Kind
  readonly startTime: bigint
  endTime = 0n
  readonly #request: Request
  readonly #parent: Span | undefined
  attributes: WriteAttributes = noAttributes
  #id: SpanId | undefined
  #end: End | undefined

  constructor(request: Request, name: string, kind: Kind, parent: Span | undefined, startTime: bigint) {
    this.#request = request
    this.name = name
    this.kind = kind
    this.#parent = parent
    this.startTime = startTime
  }

  child(name: string, kind: Kind, at: bigint): Span {
    return new Span(this.#request, name, kind, this, at)
  }

  headers(): ReadonlyArray<string> {
    const { caller, isSampled } = this.#request
    return TraceContext.headersWith(SpanIds.toHex(this.traceId), SpanIds.toHex(this.spanId), isSampled, caller)
  }

  end(at: bigint, end: End, attributes: WriteAttributes): void {
    if (this.#end !== undefined) return
    this.endTime = at
    this.#end = end
    this.attributes = attributes
    if (this.#parent === undefined) this.#request.end(this)
    else this.#request.add(this)
  }

  get traceId(): SpanId {
    return this.#request.traceId
  }

  get spanId(): SpanId {
    return this.#id ??= SpanIds.make(2, this.#request.random)
  }

  get parentId(): SpanId | undefined {
    if (this.#parent !== undefined) return this.#parent.spanId
    const { caller } = this.#request
    return caller && SpanIds.fromHex(caller.spanId)
  }

  get error(): Ended["error"] {
    return this.#end && errorOf(this.#end)
  }
}

/** Whether the trace of a request is sent if it succeeds. */
export const isSampled = (
  { isParentBased, ratio }: Sampling,
  caller: Tracer.AnySpan | undefined,
  random: number
): boolean => isParentBased && caller !== undefined ? caller.sampled : random < ratio

/** Begins the spans of requests. */
export const make =
  (sampling: Sampling, random: RandomNumbers, send: Send): Tracing["begin"] => (name, caller, at): RunningSpan => {
    const request = new Request(caller, isSampled(sampling, caller, random.nextDoubleUnsafe()), random, send)
    return new Span(request, name, "server", undefined, at)
  }
