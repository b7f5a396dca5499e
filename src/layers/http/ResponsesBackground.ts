/**
 * Generates a response of the Responses dialect in the background: it goes on without the client.
 *
 * **Details**
 *
 * The response is stored as `queued` before it is answered. Whatever its generation ends with is its outcome, defects too.
 */
import { Clock, Effect, Stream } from "effect"
import type { Outcome } from "../../dialects/responses/EncodeAnswer.ts"
import * as EncodeAnswer from "../../dialects/responses/EncodeAnswer.ts"
import { ResponseFrames } from "../../dialects/responses/EncodeStream.ts"
import type * as Schema from "../../dialects/responses/Schema.ts"
import * as ReasonMessage from "../../domain/ReasonMessage.ts"
import { warnAlone } from "../../services/observability/RequestLog.ts"
import type { UnwrittenFrames } from "../../services/responses/FrameLog.ts"
import * as ResponseRun from "../../services/responses/ResponseRun.ts"
import type { Responses } from "../../services/responses/Responses.ts"
import type { ErrorResponse } from "./Dialect.ts"
import * as Endpoint from "./Endpoint.ts"
import { internalError } from "./EndpointFailure.ts"
import * as OpenAiRoutes from "./OpenAiRoutes.ts"
import type { Run } from "./ResponsesAnswer.ts"
import { seconds, secondsOf, truncates } from "./ResponsesAnswer.ts"
import * as StoredRoutes from "./StoredRoutes.ts"

/** The outcome of a response in the background, whatever it is. */
const outcomeOf = (run: Run): Effect.Effect<Outcome> =>
  ResponseRun.generate(run.services.inference, truncates(run), run.request).pipe(
    Effect.flatMap((answer) => Effect.map(seconds, (now) => EncodeAnswer.outcomeOf(run.envelope, answer, now))),
    Effect.catch(({ reason }) => {
      const { body, status } = EncodeAnswer.encodeError(reason)
      const error = EncodeAnswer.failureOf(status, body.error.message)
      return Effect.as(
        warnAlone(() => `${run.call.id}: ${ReasonMessage.recorded(reason)}`),
        { status: "failed", output: [], error } satisfies Outcome
      )
    }),
    Effect.catchDefect((defect) =>
      Effect.as(
        Effect.logError(`${run.call.id} failed with a defect.`, defect),
        { status: "failed", output: [], error: EncodeAnswer.failureOf(500, internalError.message) } satisfies Outcome
      )
    )
  )

/** The response in the background that a stream ends with. */
const streamedOutcome = (
  run: Run,
  frames: ResponseFrames,
  unwritten: UnwrittenFrames
): Effect.Effect<Schema.Response> => {
  let isBegun = false
  const add = (text: string) => unwritten.add(text, frames.last)
  const failed = ({ body, status }: Pick<ErrorResponse, "status" | "body">) =>
    Effect.sync(() => add(frames.fail(body as Parameters<typeof frames.fail>[0], status)))
  const opened = ResponseRun.opened(run.services.inference, truncates(run), run.request, () => isBegun)
  return opened.pipe(
    Effect.flatMap(({ deployment, events }) => {
      frames.answeredBy(deployment)
      return Stream.runForEachArray(events, (some) =>
        Effect.sync(() => {
          isBegun = true
          add(frames.events(some))
        }))
    }),
    Effect.andThen(Effect.sync(() => add(frames.end()))),
    Effect.scoped,
    Effect.catch(({ reason }) => {
      const refused = reason._tag === "ContentRefused" ? frames.refuse(reason) : undefined
      if (refused !== undefined) return Effect.sync(() => add(refused))
      return Effect.andThen(
        warnAlone(() => `${run.call.id}: ${ReasonMessage.recorded(reason)}`),
        failed(EncodeAnswer.encodeError(reason))
      )
    }),
    Effect.catchDefect((defect) =>
      Effect.andThen(
        Effect.logError(`${run.call.id} failed with a defect.`, defect),
        failed(OpenAiRoutes.dialect.encodeProblem(internalError, run.call.id))
      )
    ),
    Effect.map(() => frames.response)
  )
}

/** Answers by a stream of the events. */
export const respondStream = (run: Run, state: Responses) => {
  const { call, dialogue, envelope } = run
  return Effect.gen(function*() {
    const clock = yield* Clock.Clock
    const frames = new ResponseFrames(envelope, () => secondsOf(clock.currentTimeMillisUnsafe()))
    const first = frames.queue()
    yield* state.save(call.body, dialogue, EncodeAnswer.responseOf(envelope, { status: "queued", output: [] }))
    yield* state.background.begin(call.id, first, frames.last)
    yield* state.background.startStream(
      call.body,
      dialogue,
      call.id,
      (unwritten) => streamedOutcome(run, frames, unwritten)
    )
    return StoredRoutes.respondEvents(yield* state.background.events(call.body.owner, call.id, -1), call.headers)
  })
}

/** Answers by the queued response. */
export const respondQueued = (run: Run, state: Responses) => {
  const { call, dialogue, envelope } = run
  const queued = EncodeAnswer.responseOf(envelope, { status: "queued", output: [] })
  const generated = Effect.map(outcomeOf(run), (outcome) => EncodeAnswer.responseOf(envelope, outcome))
  return state.save(call.body, dialogue, queued).pipe(
    Effect.andThen(state.background.start(call.body, dialogue, call.id, generated)),
    Effect.map(() => Endpoint.respondJson(call, queued, {}))
  )
}
