/**
 * Requests that a listener or an endpoint refuses before an operation of `Inference` has them: those without a valid key, with an
 * invalid body, for a process that has ended, and others. Each is recorded as a request that a limit refuses: see `RefusedRequest`.
 *
 * **Details**
 *
 * Requests that no operation would get, as those for a list of models, are not recorded.
 */
import type { Tracer } from "effect"
import { Context, Effect, Layer } from "effect"
import { codeOf } from "../../dialects/openai/EncodeError.ts"
import * as ErrorCatalog from "../../domain/ErrorCatalog.ts"
import type { Identity } from "../../domain/Identity.ts"
import * as InferenceError from "../../domain/InferenceError.ts"
import * as TraceContext from "../../domain/TraceContext.ts"
import type { EarlyRefusal } from "../../services/inference/RefusedRequest.ts"
import * as RefusedRequest from "../../services/inference/RefusedRequest.ts"
import type { Operation } from "../../services/observability/Metrics.ts"
import type { HttpProblem, RequestHeaders } from "./Dialect.ts"
import { idsOf } from "./RequestIds.ts"

/** The response to a refused request. */
export type Answer = NonNullable<EarlyRefusal["answer"]>

/** A request that is refused. */
export interface Refused {
  /** Of the response. */
  readonly id: string
  readonly operation: Operation
  readonly headers: RequestHeaders
  readonly identity: Identity | undefined
  /** As its caller names it; empty: it is unknown. */
  readonly model: string
  readonly error: InferenceError.InferenceError
  readonly answer: Answer
  /** Whether nothing is known of the caller. */
  readonly isStranger?: boolean
}

/** A problem of the interface as a failure of a request. */
export const errorOf = ({ code, message, status }: HttpProblem): InferenceError.InferenceError => {
  if (code === "shutting_down") {
    return InferenceError.make(new InferenceError.EngineStopped({ deployment: "service", by: "shutdown" }))
  }
  return InferenceError.make(
    status >= 500
      ? new InferenceError.Overloaded({ retryAfterMs: 1_000 })
      : new InferenceError.InvalidRequest({ detail: message })
  )
}

/**
 * What is recorded of the response to a problem.
 *
 * @param status in the dialect of the request
 */
export const answerOf = ({ code, message }: HttpProblem, status: number): Answer => ({
  status,
  code: code ?? ErrorCatalog.withoutCode,
  // Its text quotes the request line.
  ...(code === "invalid_target" ? {} : { detail: message })
})

/** What is recorded of the response to a failure. */
export const answerTo = (reason: InferenceError.Reason, status: number): Answer => ({ status, code: codeOf(reason) })

/** What of a request a listener has. */
export interface Arrived {
  readonly method?: string | undefined
  readonly url?: string | undefined
  readonly headers: RequestHeaders
}

/** Without the path of a field, which its caller may have named. */
const recordable = (error: InferenceError.InferenceError): InferenceError.InferenceError => {
  const { reason } = error
  return reason._tag === "InvalidRequest" && reason.path !== undefined
    ? InferenceError.make(new InferenceError.InvalidRequest({ detail: reason.detail }))
    : error
}

const textOf = (text: string | undefined): string | undefined => text === "" ? undefined : text

type Record = (refusal: EarlyRefusal) => string | undefined

/** See `layer`. */
export class EarlyRefusals extends Context.Service<EarlyRefusals, {
  /** The operations of paths, all of `POST`. */
  readonly operations: Map<string, Operation>
  readonly note: (refused: Refused) => void
  /**
   * Of a request that no endpoint has.
   *
   * @param id of the response
   * @param status of the response
   */
  readonly noteArrived: (
    request: Arrived,
    id: string,
    failure: HttpProblem | InferenceError.Reason,
    status: number
  ) => void
}>()("troupe/layers/http/EarlyRefusals") {}

const noteWith = (record: Record) =>
(
  { answer, error, headers, id, identity, isStranger = false, model, operation }: Refused
): void => {
  const { reason } = error
  const named = "model" in reason && typeof reason.model === "string" ? reason.model : model
  const span: Tracer.AnySpan | undefined = TraceContext.callerOf(headers)
  record({
    operation,
    model: named,
    caller: {
      requestId: id,
      dialect: undefined,
      tenant: textOf(identity?.tenant),
      key: identity?.name ?? identity?.keyId,
      replayOf: undefined
    },
    error: recordable(error),
    answer,
    isStranger,
    ids: idsOf(id, headers["x-request-id"]),
    span,
    keyId: identity?.keyId
  })
}

/** One for the routes and the listener of a server. */
export const make = Effect.map(RefusedRequest.make, (record) => {
  const operations = new Map<string, Operation>()
  const note = noteWith(record)
  return EarlyRefusals.of({
    operations,
    note,
    noteArrived({ headers, method, url = "" }, id, failure, status) {
      const operation = method === "POST" ? operations.get(url.split("?", 1)[0]!) : undefined
      if (operation === undefined) return
      const [error, answer] = "_tag" in failure
        ? [InferenceError.make(failure), answerTo(failure, status)]
        : [errorOf(failure), answerOf(failure, status)]
      note({ id, operation, headers, identity: undefined, model: "", error, answer, isStranger: true })
    }
  })
})

export const layer = Layer.effect(EarlyRefusals, make)
