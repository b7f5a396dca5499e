/**
 * The spans of a request: one of the request, and below it one of the selection and one of each attempt, which has one of its
 * inference.
 *
 * **Details**
 *
 * The attributes are those of OpenTelemetry's GenAI conventions, v0.1.0. Spans have the names of deployments and figures; they
 * have no text of prompts and answers unless `capturesContent` is set. The exception of a failed span has no text of a provider.
 *
 * A provider gets the context of the span of its inference, so that its own spans are below it.
 */
import type { Clock, Fiber } from "effect"
import { Context, Effect, Exit, Option, Tracer } from "effect"
import type { Deployment } from "../../domain/Deployment.ts"
import { isRemote } from "../../domain/Deployment.ts"
import { isCancellation } from "../../domain/FailureClass.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import * as ReasonMessage from "../../domain/ReasonMessage.ts"
import * as TraceContext from "../../domain/TraceContext.ts"
import type { Decision } from "../routing/DecisionRecord.ts"
import type { GuardedCallbacks } from "./GuardedCallbacks.ts"
import type { Content } from "./TraceContent.ts"

/** Which names attributes have where they have changed: those of GenAI v0.1.0, those before v1.37, or both. */
export type Names = "latest" | "older" | "both"

/** Where spans go. */
export interface Tracing {
  readonly tracer: Tracer.Tracer
  /** Whether spans of inferences have prompts and answers. */
  readonly capturesContent: boolean
  readonly names: Names
}

/** The tracing of a service. A tracer that a program provides to its fibers goes before it. */
export const ServiceTracing = Context.Reference<Tracing | undefined>(
  "troupe/services/observability/RequestTrace/ServiceTracing",
  { defaultValue: () => undefined }
)

/** What the attributes are by the older names. */
const olderNames: Readonly<Record<string, string>> = {
  "gen_ai.provider.name": "gen_ai.system",
  "gen_ai.usage.cache_write.input_tokens": "gen_ai.usage.cache_creation.input_tokens"
}

export type Attributes = Readonly<Record<string, unknown>>

/** What the spans of all requests share. */
interface Parts {
  readonly callbacks: GuardedCallbacks
  readonly clock: Clock.Clock
}

const tracerName = "tracer"

/** The end of a span, whose exception has no text of a provider or a caller. */
const recordedExit = (exit: Exit.Exit<unknown, InferenceError>): Exit.Exit<unknown, unknown> =>
  Exit.isSuccess(exit) || isCancellation(exit.cause)
    ? exit
    : Exit.mapError(
      exit,
      ({ reason }) => Object.assign(new Error(ReasonMessage.recorded(reason)), { name: reason._tag })
    )

/** What a program's own tracer gets. */
const ofProgram = (tracer: Tracer.Tracer): Tracing => ({ tracer, capturesContent: false, names: "latest" })

/** The address of a remote deployment's provider. */
const addressOf = ({ options }: Deployment): Attributes => {
  const baseUrl = isRemote(options) ? options.baseUrl : undefined
  if (baseUrl === undefined || !URL.canParse(baseUrl)) return {}
  const { hostname, port, protocol } = new URL(baseUrl)
  return { "server.address": hostname, "server.port": Number(port) || (protocol === "http:" ? 80 : 443) }
}

const addresses = new WeakMap<Deployment, Attributes>()

const knownAddressOf = (deployment: Deployment): Attributes => {
  const known = addresses.get(deployment) ?? addressOf(deployment)
  addresses.set(deployment, known)
  return known
}

/** Makes and ends the spans of one request. A tracer that throws changes no answer. */
class Spans {
  readonly #parts: Parts
  readonly tracing: Tracing

  constructor(parts: Parts, tracing: Tracing) {
    this.#parts = parts
    this.tracing = tracing
  }

  now(): bigint {
    return this.#parts.clock.currentTimeNanosUnsafe()
  }

  call<A>(run: () => A): A | undefined {
    return this.#parts.callbacks.call<A | undefined>(tracerName, run, undefined)
  }

  /** @param parent undefined for a trace of its own */
  make(
    name: string,
    kind: Tracer.SpanKind,
    parent: Tracer.AnySpan | undefined,
    startTime = this.now()
  ): Tracer.Span | undefined {
    return this.call(() =>
      this.tracing.tracer.span({
        name,
        kind,
        parent: Option.fromNullishOr(parent),
        annotations: Context.empty(),
        links: [],
        startTime,
        root: parent === undefined,
        sampled: parent?.sampled ?? true
      })
    )
  }

  annotate(span: Tracer.Span, attributes: Attributes): void {
    const { names } = this.tracing
    this.call(() => {
      for (const name in attributes) {
        const value = attributes[name]
        if (value === undefined) continue
        const older = names === "latest" ? undefined : olderNames[name]
        if (older !== undefined) span.attribute(older, value)
        if (older === undefined || names === "both") span.attribute(name, value)
      }
    })
  }

  end(span: Tracer.Span | undefined, exit: Exit.Exit<unknown, InferenceError>, at = this.now()): void {
    if (span !== undefined) this.call(() => span.end(at, recordedExit(exit)))
  }
}

/** The spans of an attempt: of all its time, and of its inference, from the slot on. */
export class AttemptTrace {
  readonly #spans: Spans
  readonly #operation: string
  readonly #content: Content | undefined
  readonly deployment: Deployment
  readonly #attempt: Tracer.Span | undefined
  #inference: Tracer.Span | undefined
  #hasInference = false

  constructor(
    spans: Spans,
    parent: Tracer.Span,
    operation: string,
    deployment: Deployment,
    content: Content | undefined
  ) {
    this.#spans = spans
    this.#operation = operation
    this.#content = content
    this.deployment = deployment
    this.#attempt = spans.make(`attempt ${deployment.id}`, "internal", parent)
  }

  /** The span of the inference, which begins with the first call of this. */
  #infer(): Tracer.Span | undefined {
    if (this.#hasInference) return this.#inference
    this.#hasInference = true
    const { options } = this.deployment
    const name = `${this.#operation} ${isRemote(options) ? options.model : this.deployment.model}`
    this.#inference = this.#attempt &&
      this.#spans.make(name, isRemote(options) ? "client" : "internal", this.#attempt)
    return this.#inference
  }

  /** The headers for the provider: names and values in turn. */
  headers(): ReadonlyArray<string> {
    const span = this.#infer()
    return span === undefined ? [] : this.#spans.call(() => TraceContext.headersOf(span)) ?? []
  }

  /** The attempt has its slot. */
  granted(): void {
    this.#infer()
  }

  /** Called with the events of the answer. */
  readonly events: Content["add"] = (events) => this.#content?.add(events)

  /**
   * @param attempt attributes of the whole attempt
   * @param inference attributes of both, with what the provider has reported
   */
  end(exit: Exit.Exit<unknown, InferenceError>, attempt: Attributes, inference: Attributes): void {
    const at = this.#spans.now()
    const span = this.#inference
    if (span !== undefined) {
      this.#spans.annotate(span, {
        "troupe.component": "inference",
        "gen_ai.operation.name": this.#operation,
        "troupe.deployment": this.deployment.id,
        ...knownAddressOf(this.deployment),
        ...inference,
        ...this.#content?.attributes()
      })
      this.#spans.end(span, exit, at)
    }
    if (this.#attempt === undefined) return
    this.#spans.annotate(this.#attempt, {
      "troupe.component": "resilience",
      "troupe.deployment": this.deployment.id,
      ...attempt
    })
    this.#spans.end(this.#attempt, exit, at)
  }
}

/** The spans of one request. */
export class RequestTrace {
  readonly #spans: Spans
  readonly #span: Tracer.Span
  readonly #operation: string
  /** Of a first attempt that could not start at once: the same attempt goes on with it as an effect. */
  #spare: AttemptTrace | undefined

  constructor(spans: Spans, span: Tracer.Span, operation: string) {
    this.#spans = spans
    this.#span = span
    this.#operation = operation
  }

  /** Whether spans of inferences have prompts and answers. */
  get capturesContent(): boolean {
    return this.#spans.tracing.capturesContent
  }

  /** Adds the span of the selection, which ends now. */
  selected({ candidates, eligible, excluded, strategy }: Decision, first: string | undefined, since: bigint): void {
    const span = this.#spans.make(`select ${strategy}`, "internal", this.#span, since)
    if (span === undefined) return
    this.#spans.annotate(span, {
      "troupe.component": "router",
      "troupe.strategy": strategy,
      "troupe.eligible": eligible,
      "troupe.candidates": candidates.map(({ deployment }) => deployment),
      "troupe.excluded": excluded.length === 0
        ? undefined
        : excluded.map(({ deployment, reason }) => `${deployment}: ${reason}`),
      "troupe.deployment": first
    })
    this.#spans.end(span, Exit.void)
  }

  /**
   * Begins the spans of an attempt.
   *
   * @param content where its prompt and answer are to be captured
   */
  attempt(deployment: Deployment, content?: Content): AttemptTrace {
    const spare = this.#spare
    this.#spare = undefined
    if (spare?.deployment === deployment) return spare
    return new AttemptTrace(this.#spans, this.#span, this.#operation, deployment, content)
  }

  /** The attempt did not begin; it begins later. */
  keep(attempt: AttemptTrace): void {
    this.#spare = attempt
  }

  end(exit: Exit.Exit<unknown, InferenceError>, attributes: Attributes): void {
    this.#spans.annotate(this.#span, attributes)
    this.#spans.end(this.#span, exit)
  }
}

/** Names and attributes of a request's span. */
export interface Named {
  readonly operation: string
  /** Undefined if the request names a model that does not exist: span names are few. */
  readonly model: string | undefined
  readonly attributes: Attributes
}

/** A request that is being routed: its name is not known. */
export class Arrival {
  readonly #parts: Parts
  readonly #fiber: Fiber.Fiber<unknown, unknown>
  readonly #tracing: Tracing
  readonly #since: bigint

  constructor(parts: Parts, fiber: Fiber.Fiber<unknown, unknown>, tracing: Tracing) {
    this.#parts = parts
    this.#fiber = fiber
    this.#tracing = tracing
    this.#since = parts.clock.currentTimeNanosUnsafe()
  }

  /**
   * Begins the span of the request; undefined if its tracer fails.
   *
   * @param decision how its deployment was selected, until now
   */
  begin(named: Named, decision?: Decision, first?: string): RequestTrace | undefined {
    const { attributes, model, operation } = named
    const spans = new Spans(this.#parts, this.#tracing)
    const span = this.#spanOf(spans, model === undefined ? operation : `${operation} ${model}`)
    if (span === undefined) return undefined
    spans.annotate(span, {
      "troupe.component": "request",
      "gen_ai.operation.name": operation,
      "gen_ai.request.model": model,
      ...attributes
    })
    const trace = new RequestTrace(spans, span, operation)
    if (decision !== undefined) trace.selected(decision, first, this.#since)
    return trace
  }

  /** The span of a request that names no configured model, or that a limit rejects: it ends at once. */
  refused(named: Named, error: InferenceError): void {
    this.begin(named)?.end(Exit.fail(error), {
      "troupe.success": false,
      "error.type": error.reason._tag,
      "error.message": ReasonMessage.recorded(error.reason)
    })
  }

  /** A program's tracer gets the options of its fiber. */
  #spanOf(spans: Spans, name: string): Tracer.Span | undefined {
    const { cache, context } = this.#fiber
    return cache.tracer === this.#tracing.tracer
      ? spans.call(() => Effect.runSyncWith(context)(Effect.makeSpan(name, { kind: "internal" })))
      : spans.make(name, "server", cache.span, this.#since)
  }
}

/** Undefined with Effect's native tracer, which has no backend, unless the service has a tracing. */
export const arrive = (
  parts: Parts & { readonly tracing: Tracing | undefined },
  fiber: Fiber.Fiber<unknown, unknown>
): Arrival | undefined => {
  const { tracer = Tracer.nativeTracer } = fiber.cache
  const tracing = tracer === Tracer.nativeTracer ? parts.tracing : ofProgram(tracer)
  return tracing && new Arrival(parts, fiber, tracing)
}
