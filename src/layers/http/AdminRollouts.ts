/** Handlers for an operator: gradual rollouts, their start, their evidence, and what is done to them. */
import { Clock, Effect } from "effect"
import { HttpServerResponse } from "effect/http"
import { HttpApiBuilder } from "effect/http-api"
import * as OpenAiEncodeError from "../../dialects/openai/EncodeError.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import * as Text from "../../domain/Text.ts"
import type { RolloutError } from "../../services/rollout/RolloutError.ts"
import { Rollouts } from "../../services/rollout/Rollouts.ts"
import type { Found } from "../../services/rollout/RolloutViews.ts"
import * as AdminBody from "./AdminBody.ts"
import * as AdminGuard from "./AdminGuard.ts"
import { TypedApi } from "./Api.ts"
import { respondError } from "./Dialect.ts"
import { isRolloutAction, NewRollout, rolloutActions, viewOf } from "./RolloutSchema.ts"

const statuses: Readonly<Record<RolloutError["code"], number>> = {
  rollout_not_found: 404,
  deployment_not_found: 404,
  rollout_running: 409,
  rollout_refused: 409,
  deployment_in_use: 409,
  storage_failed: 503
}

const refuse = ({ code, message }: RolloutError) =>
  respondError(OpenAiEncodeError.make(message, {
    status: statuses[code],
    type: code === "storage_failed" ? "server_error" : "invalid_request_error",
    code
  }))

const noAction = (action: string) =>
  OpenAiEncodeError.make(
    `Unknown action ${JSON.stringify(Text.cutName(action))}. Available actions: ${rolloutActions.join(", ")}.`,
    { status: 404, type: "invalid_request_error", code: "not_found" }
  )

/** The answer to a call, or why it failed. */
const answer = <A, R>(
  call: Effect.Effect<A, InferenceError | RolloutError, R>,
  respond: (value: A, now: number) => HttpServerResponse.HttpServerResponse
): Effect.Effect<HttpServerResponse.HttpServerResponse, InferenceError, R> =>
  Effect.flatMap(call, (value) => Effect.map(Clock.currentTimeMillis, (now) => respond(value, now))).pipe(
    Effect.catchTag("RolloutError", (error) => Effect.succeed(refuse(error)))
  )

const one = (status: number) => (stored: Found, now: number) =>
  HttpServerResponse.jsonUnsafe(viewOf(stored, now), { status })

const newRollout = AdminBody.as(NewRollout)

export const layer = HttpApiBuilder.group(
  TypedApi,
  "rollouts",
  Effect.fn(function*(handlers) {
    const rollouts = yield* Rollouts
    const guarded = yield* AdminGuard.make
    const act = (id: string, action: string) =>
      isRolloutAction(action)
        ? answer(rollouts.act(id, action), one(200))
        : Effect.succeed(respondError(noAction(action)))
    const list = answer(
      Effect.all([rollouts.list, rollouts.experiments, rollouts.shadows]),
      ([all, experiments, shadows], now) =>
        HttpServerResponse.jsonUnsafe({ rollouts: all.map((stored) => viewOf(stored, now)), experiments, shadows })
    )
    return handlers
      .handleRaw("list", () => guarded(list))
      .handleRaw("start", () => guarded(answer(Effect.flatMap(newRollout, rollouts.start), one(201))))
      .handleRaw("find", ({ params }) => guarded(answer(rollouts.find(params.rollout), one(200))))
      .handleRaw("act", ({ params }) => guarded(act(params.rollout, params.action)))
  })
)
