/** Handlers for an operator: what was used, from the ledger. */
import { Effect, Result } from "effect"
import { HttpServerRequest, HttpServerResponse } from "effect/http"
import { HttpApiBuilder } from "effect/http-api"
import * as OpenAiEncodeError from "../../dialects/openai/EncodeError.ts"
import { InvalidRequest, make as failure } from "../../domain/InferenceError.ts"
import { Ledger } from "../../services/ledger/Ledger.ts"
import { toCsv } from "../../services/ledger/Usage.ts"
import type { UsageSelection } from "../../services/ledger/UsageSelection.ts"
import { queryOf } from "../../services/ledger/UsageSelection.ts"
import { summaryOf } from "../../services/persistence/StorageError.ts"
import * as AdminGuard from "./AdminGuard.ts"
import { TypedApi } from "./Api.ts"
import { respondError } from "./Dialect.ts"

const wrong = (path: string, detail: string) => failure(new InvalidRequest({ path, detail }))

/** Whether the answer is CSV: by the query, else by the first type that the request accepts. */
const isCsv = (format: string | undefined, accept = "") =>
  format === undefined ? Effect.succeed(/^\s*text\/csv\b/.test(accept)) : (format === "csv" || format === "json")
    ? Effect.succeed(format === "csv")
    : Effect.fail(wrong("format", "Expected json or csv"))

const csvHeaders = { "content-disposition": "attachment; filename=\"usage.csv\"" }

const usage = (ledger: Ledger["Service"]) =>
  Effect.fnUntraced(function*({ format, ...selection }: UsageSelection & { readonly format?: string }) {
    const { headers } = yield* HttpServerRequest.HttpServerRequest
    const asCsv = yield* isCsv(format, headers["accept"])
    const query = yield* Effect.fromResult(
      Result.mapError(queryOf(selection), ({ expected, path }) => wrong(path, expected))
    )
    return yield* Effect.match(ledger.usage(query), {
      onSuccess: (usage) =>
        asCsv
          ? HttpServerResponse.text(toCsv(query.by, usage), { contentType: "text/csv", headers: csvHeaders })
          : HttpServerResponse.jsonUnsafe({ by: query.by, usage }),
      onFailure: (error) =>
        respondError(OpenAiEncodeError.make(`The database cannot be read: ${summaryOf(error)}.`, {
          status: 503,
          type: "server_error",
          code: "storage_failed"
        }))
    })
  })

export const layer = HttpApiBuilder.group(
  TypedApi,
  "usage",
  Effect.fn(function*(handlers) {
    const find = usage(yield* Ledger)
    const guarded = yield* AdminGuard.make
    return handlers.handleRaw("usage", ({ query }) => guarded(find(query)))
  })
)
