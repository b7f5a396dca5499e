/**
 * Generates a response of the Responses dialect and sends it, in the foreground.
 *
 * **Details**
 *
 * Before the first content every failure is an ordinary error response, also for a stream (`ServerSentEvents`). A later
 * failure is an `error` event and a `response.failed`. A response is stored before its last event, or the whole of it, is sent.
 */
import { Clock, Effect, Result } from "effect"
import { HttpServerResponse } from "effect/http"
import type { ResponseCall } from "../../dialects/responses/DecodeRequest.ts"
import type { Envelope, Outcome } from "../../dialects/responses/EncodeAnswer.ts"
import * as EncodeAnswer from "../../dialects/responses/EncodeAnswer.ts"
import { ResponseFrames } from "../../dialects/responses/EncodeStream.ts"
import type * as Items from "../../dialects/responses/Items.ts"
import type * as Schema from "../../dialects/responses/Schema.ts"
import type { Request } from "../../domain/Inference.ts"
import type { Reason } from "../../domain/InferenceError.ts"
import type * as InferenceError from "../../domain/InferenceError.ts"
import { pathsOf, requiredByChat } from "../../domain/RoutingRequest.ts"
import type { Inference } from "../../services/inference/Inference.ts"
import type { Registry } from "../../services/models/Registry.ts"
import { summaryOf } from "../../services/persistence/StorageError.ts"
import type { Continued, Dialogue } from "../../services/responses/Dialogues.ts"
import * as ResponseRun from "../../services/responses/ResponseRun.ts"
import { noDeployment } from "../../services/routing/Route.ts"
import type { Router } from "../../services/routing/Router.ts"
import type { Call } from "./Endpoint.ts"
import * as Endpoint from "./Endpoint.ts"
import { internalError } from "./EndpointFailure.ts"
import * as OpenAiRoutes from "./OpenAiRoutes.ts"
import type { Sources } from "./ResponsesDialogue.ts"
import { unstored } from "./ResponsesDialogue.ts"
import type { AnswerFrames } from "./ServerSentEvents.ts"
import * as ServerSentEvents from "./ServerSentEvents.ts"
import * as StoredRoutes from "./StoredRoutes.ts"

/** Seconds since 1970. */
export const secondsOf = (ms: number): number => Math.floor(ms / 1000)

export const seconds = Effect.map(Clock.currentTimeMillis, secondsOf)

/** The services that generate and store a response. */
export interface Services extends Sources {
  readonly inference: Inference["Service"]
  readonly registry: Registry["Service"]
  readonly router: Router["Service"]
}

/** A request for a response, with its conversation. */
export interface Run {
  readonly services: Services
  readonly call: Call<ResponseCall>
  readonly dialogue: Dialogue
  readonly request: Request
  readonly envelope: Envelope
}

export const truncates = ({ envelope }: Run): boolean => envelope.settings.truncation === "auto"

/** Lets the next message of a connection continue a response. */
const keepLatest = ({ dialogue, services: { connection } }: Run, response: Schema.Response): void => {
  if (connection === undefined) return
  const { before, input } = dialogue
  connection.latest = response.status === "failed" ? undefined : {
    id: response.id,
    items: [...before, ...input, ...response.output as ReadonlyArray<Items.Item>],
    isStored: response.store
  }
}

/** What is stored: a response that continues one which is not stored has the whole conversation. */
const stored = ({ call: { body }, dialogue, services: { connection } }: Run): readonly [Continued, Dialogue] =>
  unstored(connection, body) === undefined
    ? [body, dialogue]
    : [{ ...body, previous: undefined }, { before: [], input: [...dialogue.before, ...dialogue.input], chain: [] }]

/** Stores a response. A database that fails does not fail the request: the response then says that it is not stored. */
const save = (run: Run, response: Schema.Response): Effect.Effect<Schema.Response> => {
  const { call, services: { state } } = run
  const saved = state === undefined
    ? Effect.succeed(response)
    : Effect.matchEffect(state.save(...stored(run), response), {
      onSuccess: () => Effect.succeed(response),
      onFailure: (error) =>
        Effect.as(Effect.logWarning(`${call.id} cannot be stored: ${summaryOf(error)}.`), { ...response, store: false })
    })
  return Effect.tap(saved, (response) => Effect.sync(() => keepLatest(run, response)))
}

const ended = (frames: string): string => frames + StoredRoutes.done

/** The frames of a response that is stored before they end. */
const makeFrames = (run: Run, now: () => number) => {
  const frames = new ResponseFrames(run.envelope, now)
  let last: string | undefined
  const completed = Effect.suspend(() =>
    Effect.map(save(run, frames.response), (response) => {
      last = frames.end(response)
    })
  )
  const failed = ({ reason }: InferenceError.InferenceError) =>
    Effect.suspend(() => {
      if (reason._tag === "ContentRefused") last = frames.refuse(reason)
      if (last === undefined && frames.isBegun) last = failure(reason)
      return last === undefined ? Effect.void : Effect.asVoid(save(run, frames.response))
    })
  const failure = (reason: Reason) => {
    const { body, status } = EncodeAnswer.encodeError(reason)
    return frames.fail(body, status)
  }
  const answer: AnswerFrames = {
    begin: ({ deployment }) => frames.answeredBy(deployment),
    events: (some) => frames.events(some),
    end: () => ended(last ?? frames.end()),
    refuse: (reason) => {
      const refused = last ?? frames.refuse(reason)
      return refused === undefined ? undefined : ended(refused)
    },
    error: (reason) => ended(last ?? failure(reason)),
    defect: () => {
      const { body, status } = OpenAiRoutes.dialect.encodeProblem(internalError, run.call.id)
      return ended(frames.fail(body as Parameters<typeof frames.fail>[0], status))
    }
  }
  return { answer, hooks: { completed, failed, isBegun: () => frames.isBegun } }
}

export const respondStream = (run: Run) =>
  Effect.flatMap(Clock.clockWith(Effect.succeed), (clock) => {
    const { answer, hooks } = makeFrames(run, () => secondsOf(clock.currentTimeMillisUnsafe()))
    const inference = ResponseRun.streaming(run.services.inference, truncates(run), hooks)
    return ServerSentEvents.respondOne(inference, run.request, run.call, answer)
  })

export const respondBuffered = (run: Run) => {
  const { call, envelope, request, services: { inference } } = run
  const saved = (outcome: Outcome) => save(run, EncodeAnswer.responseOf(envelope, outcome))
  return Effect.matchEffect(ResponseRun.generate(inference, truncates(run), request), {
    onSuccess: (answer) =>
      seconds.pipe(
        Effect.flatMap((now) => saved(EncodeAnswer.outcomeOf(envelope, answer, now))),
        Effect.map((response) => Endpoint.respondJson(call, response, Endpoint.completeHeaders(answer)))
      ),
    onFailure: (error) => {
      const { reason } = error
      const refusal = reason._tag === "ContentRefused" ? EncodeAnswer.refusalOf(reason) : undefined
      return refusal === undefined ? Effect.fail(error) : seconds.pipe(
        Effect.flatMap((now) => saved(EncodeAnswer.refusedOutcome(envelope, refusal, now))),
        Effect.flatMap((response) => Endpoint.respondRefusal(call, () => response)(error))
      )
    }
  })
}

/** Why no deployment could ever take the request, if so: one that is only not available now is no error. */
const impossible = ({ request, services: { router } }: Run): InferenceError.InferenceError | undefined => {
  const routing = {
    ...request,
    capabilities: requiredByChat(request),
    pathsOf: (capability: string) => pathsOf(request, capability)
  }
  const route = router.preview(routing)
  if (Result.isFailure(route)) return route.failure
  const { decision, deployments } = route.success
  return deployments.length > 0 || decision.retryAfterMs !== undefined ? undefined : noDeployment(decision, routing)
}

/** Without a call of the model: the next message continues the conversation. */
export const respondEmpty = (run: Run) =>
  Effect.flatMap(seconds, (now) => {
    const error = impossible(run)
    if (error !== undefined) return Effect.fail(error)
    const frames = new ResponseFrames(run.envelope, () => now)
    const text = frames.empty()
    return Effect.as(
      save(run, frames.response),
      HttpServerResponse.text(text, { contentType: "text/event-stream" })
    )
  })
