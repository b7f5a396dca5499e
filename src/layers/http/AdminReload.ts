/** `POST /admin/reload`: reads the configuration again, and says what changes. */
import { Effect, Schema } from "effect"
import { HttpServerResponse } from "effect/http"
import * as OpenAiEncodeError from "../../dialects/openai/EncodeError.ts"
import { InvalidRequest, make as failure } from "../../domain/InferenceError.ts"
import type { ReloadError } from "../../services/settings/Reload.ts"
import { Reload } from "../../services/settings/Reload.ts"
import * as AdminQuery from "./AdminQuery.ts"
import { respondError } from "./Dialect.ts"

/** Whether something changes, or is only shown. */
export const Selection = Schema.Struct({
  dryRun: Schema.optionalKey(
    Schema.String.annotate({ description: "`true`: only says what would change. Default `false`." })
  )
})

const ShownChange = Schema.Struct({
  /** As in `troupe.yaml`. */
  path: Schema.String,
  change: Schema.Literals(["added", "removed", "changed"]),
  /** Without secrets. */
  before: Schema.optionalKey(Schema.String),
  after: Schema.optionalKey(Schema.String),
  /** It applies after a restart only. */
  needsRestart: Schema.Boolean
})

/** What has changed, or would. */
export const Report = Schema.Struct({
  /** Whether something has changed: false for a dry run, and where everything that differs needs a restart. */
  applied: Schema.Boolean,
  changes: Schema.Array(ShownChange),
  /** Such as ids of an A/B test that name other deployments after a restart; left out, there are none. */
  warnings: Schema.optionalKey(Schema.Array(Schema.String))
})
export type Report = typeof Report.Type

const refused = ({ message, problems }: ReloadError) =>
  respondError(
    problems.length > 0
      ? OpenAiEncodeError.make(message, {
        status: 400,
        type: "invalid_request_error",
        code: "invalid_configuration",
        param: problems[0]!.path
      })
      : OpenAiEncodeError.make(message, { status: 503, type: "server_error", code: "reload_failed" })
  )

/** Whether nothing is to change. Another value, or another parameter, is an error: it would apply what was only to be shown. */
const isDry = Effect.fnUntraced(function*({ dryRun = "false" }: typeof Selection.Type) {
  yield* AdminQuery.check(Object.keys(Selection.fields))
  if (dryRun === "true" || dryRun === "false") return dryRun === "true"
  return yield* failure(new InvalidRequest({ path: "dryRun", detail: "Expected true or false" }))
})

/** The answer to a request. */
export const make = Effect.map(Reload, ({ run }) =>
  Effect.fnUntraced(function*(query: typeof Selection.Type) {
    const dryRun = yield* isDry(query)
    return yield* Effect.match(run({ trigger: "admin", dryRun }), {
      onSuccess: (report) => HttpServerResponse.jsonUnsafe(report),
      onFailure: refused
    })
  }))
