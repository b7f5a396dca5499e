/**
 * A span as it is sent to a collector, in the data model of OTLP.
 *
 * **Details**
 *
 * The spans of one request belong to the span without a parent in this process. When it ends, all of them are sent, or none: those
 * of a trace that is not sampled are sent if the request has failed. A span that ends later is sent alone.
 */
import type { Context, Random, Tracer } from "effect"
import { Cause, Exit, Option } from "effect"
import type { OtlpTracer } from "effect/observability"
import { OtlpResource } from "effect/observability"

type Encoded = OtlpTracer.TraceData["resourceSpans"][number]["scopeSpans"][number]["spans"][number]

type RandomNumbers = typeof Random.Random.Service

/** What decides about a trace. */
export interface Trace {
  readonly isSampled: boolean
  readonly random: RandomNumbers
  readonly send: (spans: ReadonlyArray<Span>) => void
}

type Options = Parameters<Tracer.Tracer["span"]>[0]

const bytes = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"))

/** Eight hexadecimal digits. */
const digits = (random: RandomNumbers): string => {
  const number = Math.floor(random.nextDoubleUnsafe() * 2 ** 32)
  return bytes[number >>> 24]! + bytes[(number >>> 16) & 255]! + bytes[(number >>> 8) & 255]! + bytes[number & 255]!
}

/** An id of zeros is invalid. */
const idOf = (length: number, random: RandomNumbers): string => {
  let id = ""
  while (id.length < length) id += digits(random)
  return /[^0]/.test(id) ? id : idOf(length, random)
}

/** The spans of a request that have ended, and what becomes of them. */
class Kept {
  readonly trace: Trace
  #spans: Array<Span> | undefined = []
  #isSent = false

  constructor(trace: Trace) {
    this.trace = trace
  }

  add(span: Span): void {
    if (this.#spans !== undefined) this.#spans.push(span)
    else if (this.#isSent) this.trace.send([span])
  }

  /** The request has ended. */
  end(last: Span, hasFailed: boolean): void {
    const { isSampled, send } = this.trace
    const spans = this.#spans ?? []
    this.#spans = undefined
    this.#isSent = isSampled || hasFailed
    if (!this.#isSent) return
    spans.push(last)
    send(spans)
  }
}

const none: ReadonlyMap<string, unknown> = new Map()

/** A span. */
export class Span implements Tracer.Span {
  readonly _tag = "Span"
  readonly name: string
  readonly parent: Option.Option<Tracer.AnySpan>
  readonly annotations: Context.Context<never>
  readonly links: Array<Tracer.SpanLink>
  readonly kind: Tracer.SpanKind
  readonly sampled: boolean
  readonly traceId: string
  readonly spanId: string
  status: Tracer.SpanStatus
  readonly #kept: Kept
  readonly #isFirst: boolean
  #attributes: Map<string, unknown> | undefined
  #events: Array<Encoded["events"][number]> | undefined

  /** @param kept left out, the first one of its request */
  constructor({ annotations, kind, links, name, parent, startTime }: Options, trace: Trace, kept?: Kept) {
    this.name = name
    this.parent = parent
    this.annotations = annotations
    this.links = links
    this.kind = kind
    this.sampled = trace.isSampled
    this.traceId = Option.isSome(parent) ? parent.value.traceId : idOf(32, trace.random)
    this.spanId = idOf(16, trace.random)
    this.status = { _tag: "Started", startTime }
    this.#isFirst = kept === undefined
    this.#kept = kept ?? new Kept(trace)
  }

  child(options: Options): Span {
    return new Span(options, this.#kept.trace, this.#kept)
  }

  get attributes(): ReadonlyMap<string, unknown> {
    return this.#attributes ?? none
  }

  get events(): ReadonlyArray<Encoded["events"][number]> {
    return this.#events ?? []
  }

  attribute(key: string, value: unknown): void {
    ;(this.#attributes ??= new Map()).set(key, value)
  }

  event(name: string, startTime: bigint, attributes: Record<string, unknown> = {}): void {
    ;(this.#events ??= []).push({
      name,
      timeUnixNano: String(startTime),
      attributes: OtlpResource.entriesToAttributes(Object.entries(attributes)),
      droppedAttributesCount: 0
    })
  }

  addLinks(links: ReadonlyArray<Tracer.SpanLink>): void {
    for (const link of links) this.links.push(link)
  }

  end(endTime: bigint, exit: Exit.Exit<unknown, unknown>): void {
    if (this.status._tag === "Ended") return
    this.status = { _tag: "Ended", startTime: this.status.startTime, endTime, exit }
    if (this.#isFirst) this.#kept.end(this, Exit.isFailure(exit) && !Cause.hasInterruptsOnly(exit.cause))
    else this.#kept.add(this)
  }
}

/** The numbers of OTLP. */
const kinds: Readonly<Record<Tracer.SpanKind, number>> = { internal: 1, server: 2, client: 3, producer: 4, consumer: 5 }
const failed = 2

/** The status and the exception of the end. Success has no status: OpenTelemetry leaves `Ok` to the application's developer. */
const outcomeOf = (exit: Exit.Exit<unknown, unknown>, at: string): Pick<Encoded, "events" | "status"> => {
  if (Exit.isSuccess(exit) || Cause.hasInterruptsOnly(exit.cause)) return { status: { code: 0 }, events: [] }
  const error = Cause.squash(exit.cause)
  const { message, name } = error instanceof Error ? error : { message: String(error), name: "Error" }
  return {
    status: { code: failed, message },
    events: [{
      name: "exception",
      timeUnixNano: at,
      attributes: OtlpResource.entriesToAttributes([["exception.type", name], ["exception.message", message]]),
      droppedAttributesCount: 0
    }]
  }
}

/** A span that has ended, in the data model of OTLP. */
export const encode = (span: Span): Encoded => {
  const { attributes, events, kind, links, name, parent, spanId, status, traceId } = span
  if (status._tag !== "Ended") throw new Error("A span is sent after its end.")
  const end = String(status.endTime)
  const outcome = outcomeOf(status.exit, end)
  return {
    traceId,
    spanId,
    parentSpanId: Option.isSome(parent) ? parent.value.spanId : undefined,
    name,
    kind: kinds[kind],
    startTimeUnixNano: String(status.startTime),
    endTimeUnixNano: end,
    attributes: OtlpResource.entriesToAttributes(attributes),
    droppedAttributesCount: 0,
    events: [...events, ...outcome.events],
    droppedEventsCount: 0,
    status: outcome.status,
    links: links.map(({ attributes, span }) => ({
      traceId: span.traceId,
      spanId: span.spanId,
      attributes: OtlpResource.entriesToAttributes(Object.entries(attributes)),
      droppedAttributesCount: 0
    })),
    droppedLinksCount: 0
  }
}

/** The JSON before the value of an attribute, by its name. The set of names is small. */
const beginnings = new Map<string, string>()
const mostBeginnings = 1_000

const beginningOf = (key: string): string => {
  const known = beginnings.get(key)
  if (known !== undefined) return known
  const text = `{"key":${JSON.stringify(key)},"value":`
  if (beginnings.size < mostBeginnings) beginnings.set(key, text)
  return text
}

/** With the end of its attribute. */
const valueText = (value: unknown): string => {
  if (typeof value === "string") return `{"stringValue":${JSON.stringify(value)}}}`
  if (typeof value === "boolean") return value ? `{"boolValue":true}}` : `{"boolValue":false}}`
  return Number.isSafeInteger(value)
    ? `{"intValue":${value as number}}}`
    : `${JSON.stringify(OtlpResource.unknownToAttributeValue(value))}}`
}

/**
 * Adds `encode` of a span as JSON, in pieces: one text of all pieces is made faster than one of texts. Most spans have neither
 * events nor links.
 */
export const encodeJson = (span: Span, pieces: Array<string>): void => {
  const { attributes, events, kind, links, name, parent, spanId, status, traceId } = span
  if (status._tag !== "Ended" || Exit.isFailure(status.exit) || events.length + links.length > 0) {
    pieces.push(JSON.stringify(encode(span)))
    return
  }
  const above = Option.isSome(parent) ? `"parentSpanId":"${parent.value.spanId}",` : ""
  pieces.push(
    `{"traceId":"${traceId}","spanId":"${spanId}",${above}"name":${JSON.stringify(name)},"kind":${kinds[kind]},` +
      `"startTimeUnixNano":"${status.startTime}","endTimeUnixNano":"${status.endTime}","attributes":[`
  )
  let isFirst = true
  for (const [key, value] of attributes) {
    if (!isFirst) pieces.push(",")
    isFirst = false
    pieces.push(beginningOf(key), valueText(value))
  }
  pieces.push(`],"status":{"code":0}}`)
}
