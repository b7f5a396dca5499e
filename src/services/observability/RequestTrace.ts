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
import { Exit, Tracer } from "effect"
import type { Deployment } from "../../domain/Deployment.ts"
import { isRemote } from "../../domain/Deployment.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import type { Decision } from "../routing/DecisionRecord.ts"
import type { GuardedCallbacks } from "./GuardedCallbacks.ts"
import type { Attributes, AttributeWriter, End, RunningSpan, Tracing, WriteAttributes } from "./RequestSpans.ts"
import { errorOf, ofTracer, putAll } from "./RequestSpans.ts"
import type { Content } from "./TraceContent.ts"

/** What the spans of all requests share. */
interface Parts {
  readonly callbacks: GuardedCallbacks
  readonly clock: Clock.Clock
}

/** What the spans of one request share. */
interface Shared {
  readonly clock: Clock.Clock
  readonly operation: string
}

/** The address of a remote deployment's provider. */
const addressOf = ({ options }: Deployment): Attributes => {
  const baseUrl = isRemote(options) ? options.baseUrl : undefined
  if (baseUrl === undefined || !URL.canParse(baseUrl)) return {}
  const { hostname, port, protocol } = new URL(baseUrl)
  return { "server.address": hostname, "server.port": Number(port) || (protocol === "http:" ? 80 : 443) }
}

/** What is the same in all spans of a deployment. */
interface Names {
  readonly attempt: string
  /** The model by its provider's name. */
  readonly model: string
  readonly kind: "client" | "internal"
  /** Attributes of every attempt, and of every inference. */
  readonly attempted: Attributes
  readonly inferred: Attributes
}

const known = new WeakMap<Deployment, Names>()

const namesOf = (deployment: Deployment): Names => {
  const found = known.get(deployment)
  if (found !== undefined) return found
  const { id, model, options } = deployment
  const names: Names = {
    attempt: `attempt ${id}`,
    model: isRemote(options) ? options.model : model,
    kind: isRemote(options) ? "client" : "internal",
    attempted: { "troupe.component": "resilience", "troupe.deployment": id },
    inferred: {
      "troupe.component": "inference",
      "troupe.deployment": id,
      "gen_ai.request.model": isRemote(options) ? options.model : model,
      ...addressOf(deployment)
    }
  }
  known.set(deployment, names)
  return names
}

/** Writes the attributes of how a request or an attempt ended. */
export const putEnd = (end: End, to: AttributeWriter): void => {
  to.put("troupe.success", Exit.isSuccess(end))
  const error = errorOf(end)
  if (error === undefined) return
  to.put("error.type", error.name)
  to.put("error.message", error.message)
}

/** Writes the attributes of an attempt and of its inference, when they are needed. */
export interface AttemptAttributes {
  readonly attempt: WriteAttributes
  readonly inference: WriteAttributes
}

const selection: Attributes = { "troupe.component": "router" }
const admission: Attributes = { "troupe.component": "admission" }
const requested: Attributes = { "troupe.component": "request" }

/** The spans of an attempt: of all its time, and of its inference, from the slot on. */
export class AttemptTrace {
  readonly #shared: Shared
  readonly #content: Content | undefined
  readonly deployment: Deployment
  readonly #attempt: RunningSpan | undefined
  #inference: RunningSpan | undefined

  constructor(shared: Shared, parent: RunningSpan, deployment: Deployment, content: Content | undefined) {
    this.#shared = shared
    this.#content = content
    this.deployment = deployment
    this.#attempt = parent.child(namesOf(deployment).attempt, "internal", shared.clock.currentTimeNanosUnsafe())
  }

  /** The span of the inference, which begins with the first call of this. */
  #infer(): RunningSpan | undefined {
    if (this.#inference !== undefined || this.#attempt === undefined) return this.#inference
    const { clock, operation } = this.#shared
    const { kind, model } = namesOf(this.deployment)
    this.#inference = this.#attempt.child(`${operation} ${model}`, kind, clock.currentTimeNanosUnsafe())
    return this.#inference
  }

  /** The headers for the provider: names and values in turn. */
  headers(): ReadonlyArray<string> {
    return this.#infer()?.headers() ?? []
  }

  /** The attempt has its slot. */
  granted(): void {
    this.#infer()
  }

  /** Called with the events of the answer. */
  readonly events: Content["add"] = (events) => this.#content?.add(events)

  end(end: End, { attempt, inference }: AttemptAttributes): void {
    const { clock, operation } = this.#shared
    const { deployment } = this
    const at = clock.currentTimeNanosUnsafe()
    const { attempted, inferred } = namesOf(deployment)
    this.#inference?.end(at, end, (to) => {
      to.putKept(inferred)
      to.put("gen_ai.operation.name", operation)
      inference(to)
      if (this.#content !== undefined) putAll(this.#content.attributes(), to)
    })
    this.#attempt?.end(at, end, (to) => {
      to.putKept(attempted)
      attempt(to)
    })
  }
}

/** Names and attributes of a request's span. */
export interface Named {
  readonly operation: string
  /** Undefined if the request names a model that does not exist: span names are few. */
  readonly model: string | undefined
  readonly attributes: () => Attributes
}

/** The spans of one request. */
export class RequestTrace {
  readonly #shared: Shared
  readonly #span: RunningSpan
  readonly #named: Named
  /** Whether spans of inferences have prompts and answers. */
  readonly capturesContent: boolean
  /** Of a first attempt that could not start at once: the same attempt goes on with it as an effect. */
  #spare: AttemptTrace | undefined

  constructor(shared: Shared, span: RunningSpan, named: Named, capturesContent: boolean) {
    this.#shared = shared
    this.#span = span
    this.#named = named
    this.capturesContent = capturesContent
  }

  /** Adds the span of the selection. */
  selected(decision: Decision, first: string | undefined, since: bigint, until: bigint): void {
    const { candidates, eligible, excluded, strategy } = decision
    const span = this.#span.child(`select ${strategy}`, "internal", since)
    span?.end(until, Exit.void, (to) => {
      to.putKept(selection)
      to.put("troupe.strategy", strategy)
      to.put("troupe.eligible", eligible)
      to.put("troupe.candidates", candidates.map(({ deployment }) => deployment))
      if (excluded.length > 0) {
        to.put("troupe.excluded", excluded.map(({ deployment, reason }) => `${deployment}: ${reason}`))
      }
      to.put("troupe.deployment", first)
    })
  }

  /** Adds the span of the wait for limits and budgets. */
  admitted(since: bigint, until: bigint): void {
    this.#span.child("wait for limits and budgets", "internal", since)?.end(
      until,
      Exit.void,
      (to) => to.putKept(admission)
    )
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
    return new AttemptTrace(this.#shared, this.#span, deployment, content)
  }

  /** The attempt did not begin; it begins later. */
  keep(attempt: AttemptTrace): void {
    this.#spare = attempt
  }

  end(end: End, attributes: WriteAttributes): void {
    const { attributes: own, model, operation } = this.#named
    this.#span.end(this.#shared.clock.currentTimeNanosUnsafe(), end, (to) => {
      to.putKept(requested)
      to.put("gen_ai.operation.name", operation)
      to.put("gen_ai.request.model", model)
      putAll(own(), to)
      attributes(to)
    })
  }
}

/** A request that is being routed: its name is not known. */
export class Arrival {
  readonly #clock: Clock.Clock
  readonly #caller: Tracer.AnySpan | undefined
  readonly #tracing: Tracing
  readonly #since: bigint
  #waitsSince: bigint | undefined

  constructor(clock: Clock.Clock, caller: Tracer.AnySpan | undefined, tracing: Tracing) {
    this.#clock = clock
    this.#caller = caller
    this.#tracing = tracing
    this.#since = clock.currentTimeNanosUnsafe()
  }

  /** The request waits from now on for its limits and budgets. */
  waits(): void {
    this.#waitsSince = this.#clock.currentTimeNanosUnsafe()
  }

  /**
   * Begins the span of the request; undefined if its tracer fails.
   *
   * @param decision how its deployment was selected, until now
   */
  begin(named: Named, decision?: Decision, first?: string): RequestTrace | undefined {
    const { model, operation } = named
    const name = model === undefined ? operation : `${operation} ${model}`
    const span = this.#tracing.begin(name, this.#caller, this.#since)
    if (span === undefined) return undefined
    const trace = new RequestTrace({ clock: this.#clock, operation }, span, named, this.#tracing.capturesContent)
    const now = this.#clock.currentTimeNanosUnsafe()
    if (decision !== undefined) trace.selected(decision, first, this.#since, this.#waitsSince ?? now)
    if (this.#waitsSince !== undefined) trace.admitted(this.#waitsSince, now)
    return trace
  }

  /** The span of a request that names no configured model, or that a limit rejects: it ends at once. */
  refused(named: Named, error: InferenceError): void {
    const end = Exit.fail(error)
    this.begin(named)?.end(end, (to) => putEnd(end, to))
  }
}

/** Undefined with Effect's native tracer, which has no backend, unless the service has a tracing. */
export const arrive = (
  { callbacks, clock, tracing }: Parts & { readonly tracing: Tracing | undefined },
  fiber: Fiber.Fiber<unknown, unknown>
): Arrival | undefined => {
  const { span, tracer = Tracer.nativeTracer } = fiber.cache
  const used = tracer === Tracer.nativeTracer ? tracing : ofTracer(callbacks, fiber, tracer)
  return used && new Arrival(clock, span, used)
}
