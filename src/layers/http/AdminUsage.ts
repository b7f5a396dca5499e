/** Handlers for an operator: what was used, and what is left of budgets, from the ledger. */
import type { Cause } from "effect"
import { Clock, Duration, Effect, Result } from "effect"
import { HttpServerRequest, HttpServerResponse } from "effect/http"
import { HttpApiBuilder } from "effect/http-api"
import type { SqlError } from "effect/sql/SqlError"
import * as OpenAiEncodeError from "../../dialects/openai/EncodeError.ts"
import { InvalidRequest, make as failure } from "../../domain/InferenceError.ts"
import { ofGrant } from "../../services/admission/AdmissionRules.ts"
import { keyOfCopies } from "../../services/admission/Subject.ts"
import type { Period } from "../../services/budgets/BudgetBook.ts"
import { beginOf } from "../../services/budgets/BudgetBook.ts"
import * as BudgetReport from "../../services/budgets/BudgetReport.ts"
import { VirtualKeys } from "../../services/keys/VirtualKeys.ts"
import { Ledger } from "../../services/ledger/Ledger.ts"
import { toCsv } from "../../services/ledger/Usage.ts"
import type { UsageSelection } from "../../services/ledger/UsageSelection.ts"
import { queryOf } from "../../services/ledger/UsageSelection.ts"
import { summaryOf } from "../../services/persistence/StorageError.ts"
import { Settings } from "../../services/settings/Settings.ts"
import { SettingsChanges } from "../../services/settings/SettingsChanges.ts"
import * as AdminGuard from "./AdminGuard.ts"
import * as AdminQuery from "./AdminQuery.ts"
import { UsageRequest } from "./AdminSchema.ts"
import * as AdminUsageNames from "./AdminUsageNames.ts"
import { TypedApi } from "./Api.ts"
import { respondError } from "./Dialect.ts"

const wrong = (path: string, detail: string) => failure(new InvalidRequest({ path, detail }))

/** Whether the answer is CSV: by the query, else by the first type that the request accepts. */
const isCsv = (format: string | undefined, accept = "") =>
  format === undefined ? Effect.succeed(/^\s*text\/csv\b/.test(accept)) : (format === "csv" || format === "json")
    ? Effect.succeed(format === "csv")
    : Effect.fail(wrong("format", "Expected json or csv"))

const csvHeaders = { "content-disposition": "attachment; filename=\"usage.csv\"" }

/** How long the database may take to answer. */
const readLimit = Duration.seconds(30)

/** The rows that wait for it are not waited for longer than this. */
const flushLimit = Duration.seconds(5)

const slow = `it has not answered within ${Duration.toSeconds(readLimit)} s`

const flushed = ({ flush }: Ledger["Service"]) => Effect.timeoutOption(flush, flushLimit)

const unreadable = (error: Cause.TimeoutError | SqlError) =>
  respondError(
    OpenAiEncodeError.make(`The database cannot be read: ${error._tag === "SqlError" ? summaryOf(error) : slow}.`, {
      status: 503,
      type: "server_error",
      code: "storage_failed"
    })
  )

const usage = (ledger: Ledger["Service"], names: Effect.Success<typeof AdminUsageNames.make>) =>
  Effect.fnUntraced(function*({ format, ...selection }: UsageSelection & { readonly format?: string }) {
    yield* AdminQuery.check(Object.keys(UsageRequest.fields))
    const { headers } = yield* HttpServerRequest.HttpServerRequest
    const asCsv = yield* isCsv(format, headers["accept"])
    const query = yield* Effect.fromResult(
      Result.mapError(queryOf(selection), ({ expected, path }) => wrong(path, expected))
    )
    return yield* Effect.andThen(flushed(ledger), names.usage(query)).pipe(
      Effect.timeout(readLimit),
      Effect.map((usage) =>
        asCsv
          ? HttpServerResponse.text(toCsv(query.by, usage), { contentType: "text/csv", headers: csvHeaders })
          : HttpServerResponse.jsonUnsafe({ by: query.by, usage })
      ),
      Effect.catchTags({
        SqlError: (error) => Effect.succeed(unreadable(error)),
        TimeoutError: (error) => Effect.succeed(unreadable(error))
      })
    )
  })

const statesOf = Effect.fnUntraced(function*(ledger: Ledger["Service"], keys: VirtualKeys["Service"]) {
  const { admission, shadows = new Map() } = yield* Settings
  const now = yield* Clock.currentTimeMillis
  yield* flushed(ledger)
  const all = yield* keys.list
  const names = new Map(all.map(({ id, name }) => [id, name]))
  const since = (period: Period) =>
    Effect.map(
      ledger.spentSince(beginOf(period, now)),
      (spent) => spent.map((one) => ({ ...one, subject: { ...one.subject, keyName: names.get(one.subject.key) } }))
    )
  const spentIn = yield* Effect.all({
    day: since("day"),
    week: since("week"),
    month: since("month"),
    total: since("total")
  })
  const spentBy = BudgetReport.byKey(spentIn)
  const ofCopies = Array.from(shadows, ([model, { budget }]) => ({
    id: keyOfCopies(model),
    budgets: budget && [budget]
  }))
  const ofKeys = [...all, ...ofCopies].flatMap(({ budgets, id }) => {
    const spent = spentBy.get(id)
    return budgets === undefined || spent === undefined
      ? []
      : BudgetReport.report(ofGrant({ keyId: id, budgets }).budgets, spent, now)
  })
  const rules = admission.budgets.map(({ rule }) => rule)
  return [...BudgetReport.report(rules, BudgetReport.ofCallers(spentIn), now), ...ofKeys]
})

export const layer = HttpApiBuilder.group(
  TypedApi,
  "usage",
  Effect.fn(function*(handlers) {
    const ledger = yield* Ledger
    const find = usage(ledger, yield* AdminUsageNames.make)
    const guarded = yield* AdminGuard.make
    const keys = yield* VirtualKeys
    let settings = yield* Settings
    const changes = yield* SettingsChanges
    changes.follow((next) => {
      settings = next
    })
    const states = Effect.suspend(() => Effect.provideService(statesOf(ledger, keys), Settings, settings))
    const budgets = Effect.match(
      Effect.timeout(states, readLimit),
      {
        onSuccess: (budgets) => HttpServerResponse.jsonUnsafe({ budgets }),
        onFailure: unreadable
      }
    )
    return handlers.handleRaw("usage", ({ query }) => guarded(find(query)))
      .handleRaw("budgets", () => guarded(budgets))
  })
)
