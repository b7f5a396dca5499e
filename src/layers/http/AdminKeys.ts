/** Handlers for an operator: virtual keys. Answers have no secret, except the one that a key has just been given. */
import { Clock, Duration, Effect } from "effect"
import { HttpServerResponse } from "effect/http"
import { HttpApiBuilder } from "effect/http-api"
import * as OpenAiEncodeError from "../../dialects/openai/EncodeError.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import type { Issued, KeyError } from "../../services/keys/VirtualKeys.ts"
import { VirtualKeys } from "../../services/keys/VirtualKeys.ts"
import * as AdminBody from "./AdminBody.ts"
import * as AdminGuard from "./AdminGuard.ts"
import { Extension, NewKey, Rotation } from "./AdminSchema.ts"
import { TypedApi } from "./Api.ts"
import { respondError } from "./Dialect.ts"

const statuses: Readonly<Record<KeyError["code"], number>> = {
  key_not_found: 404,
  key_name: 400,
  key_exists: 409,
  key_declared: 409,
  key_revoked: 409,
  key_expired: 409,
  storage_failed: 503
}

const refuse = ({ code, message }: KeyError) =>
  respondError(OpenAiEncodeError.make(message, {
    status: statuses[code],
    type: code === "storage_failed" ? "server_error" : "invalid_request_error",
    code
  }))

/** No proxy and no browser keeps a secret. */
const issued = (status: number) => (answer: Issued) =>
  HttpServerResponse.jsonUnsafe(answer, { status, headers: { "cache-control": "no-store" } })

const rotation = AdminBody.as(Rotation)

/** Why a key cannot end then, if it cannot. A time in seconds is long ago. */
const endProblem = (expiresAt: number | null | undefined) =>
  Effect.flatMap(Clock.currentTimeMillis, (now) =>
    expiresAt === undefined || expiresAt === null || expiresAt > now
      ? Effect.void
      : Effect.fail(AdminBody.wrong("expiresAt", "Expected a time in the future, ms since 1970")))

const newKey = Effect.tap(AdminBody.as(NewKey), ({ expiresAt }) => endProblem(expiresAt))

/** The new end of a key; undefined for never. */
const extension = Effect.map(
  Effect.tap(AdminBody.as(Extension), ({ expiresAt }) => endProblem(expiresAt)),
  ({ expiresAt }) => expiresAt ?? undefined
)

/** The answer to a call, or why it failed. */
const answer = <A, R>(
  call: Effect.Effect<A, InferenceError | KeyError, R>,
  respond: (value: A) => HttpServerResponse.HttpServerResponse
): Effect.Effect<HttpServerResponse.HttpServerResponse, InferenceError, R> =>
  Effect.map(call, respond).pipe(
    Effect.catchTag("KeyError", (error) => Effect.succeed(refuse(error)))
  )

export const layer = HttpApiBuilder.group(
  TypedApi,
  "keys",
  Effect.fn(function*(handlers) {
    const keys = yield* VirtualKeys
    const guarded = yield* AdminGuard.make
    const rotate = (key: string) =>
      Effect.flatMap(rotation, ({ overlapMs }) => keys.rotate(key, Duration.millis(overlapMs)))
    const extend = (key: string) => Effect.flatMap(extension, (expiresAt) => keys.extend(key, expiresAt))
    const json = HttpServerResponse.jsonUnsafe
    return handlers
      .handleRaw("list", () => guarded(Effect.map(keys.list, (all) => json({ keys: all }))))
      .handleRaw("create", () => guarded(answer(Effect.flatMap(newKey, keys.create), issued(201))))
      .handleRaw("find", ({ params }) => guarded(answer(keys.find(params.key), (key) => json(key))))
      .handleRaw("rotate", ({ params }) => guarded(answer(rotate(params.key), issued(200))))
      .handleRaw("extend", ({ params }) => guarded(answer(extend(params.key), (key) => json(key))))
      .handleRaw("revoke", ({ params }) => guarded(answer(keys.revoke(params.key), (key) => json(key))))
  })
)
