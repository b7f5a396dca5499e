/** Decision records and route explanations for operators. */
import { Effect, Result } from "effect"
import { HttpServerRequest, HttpServerResponse } from "effect/http"
import * as OpenAiEncodeError from "../../dialects/openai/EncodeError.ts"
import { keptDecisions, keptRefusals } from "../../domain/Defaults.ts"
import { InvalidRequest, make as failure } from "../../domain/InferenceError.ts"
import * as Problem from "../../domain/Problem.ts"
import * as Text from "../../domain/Text.ts"
import { Providers } from "../../services/engines/Providers.ts"
import { Registry } from "../../services/models/Registry.ts"
import { DecisionLog } from "../../services/routing/DecisionLog.ts"
import type { Record } from "../../services/routing/DecisionRecord.ts"
import type { Selection } from "../../services/routing/DecisionSelection.ts"
import * as DecisionSelection from "../../services/routing/DecisionSelection.ts"
import * as DecisionSummary from "../../services/routing/DecisionSummary.ts"
import * as Explanation from "../../services/routing/Explanation.ts"
import { Router } from "../../services/routing/Router.ts"
import * as AdminQuery from "./AdminQuery.ts"
import * as AdminReplays from "./AdminReplays.ts"
import { DecisionQuery } from "./AdminSchema.ts"
import { respondError } from "./Dialect.ts"
import { PeerProcesses } from "./Peers.ts"
import { parse } from "./RequestBody.ts"

const defaultLimit = 20

const notFound = (id: string) =>
  respondError(OpenAiEncodeError.make(
    `Decision ${JSON.stringify(Text.cutName(id))} not found. The latest ${keptDecisions} are kept, until the service ` +
      "restarts; those of a process that has crashed are lost. GET /admin/decisions lists them.",
    { status: 404, type: "invalid_request_error", code: "decision_not_found" }
  ))

const wrong = (path: string, detail: string) => failure(new InvalidRequest({ path, detail }))

const selectionOf = Effect.fnUntraced(function*(query: typeof DecisionQuery.Type) {
  yield* AdminQuery.check(Object.keys(DecisionQuery.fields))
  const { limit = defaultLimit } = query
  if (!Number.isInteger(limit) || limit < 1 || limit > keptDecisions) {
    return yield* wrong("limit", Problem.expectedWholeNumber(1, keptDecisions))
  }
  const problem = DecisionSelection.problemOf({ ...query, limit })
  return problem === undefined ? { ...query, limit } : yield* wrong(problem.path, problem.expected)
})

const queryOf = (selection: Selection): string => {
  const query = new URLSearchParams()
  for (const [name, value] of Object.entries(selection)) if (value !== undefined) query.set(name, String(value))
  return query.toString()
}

const explanationRequest = Effect.gen(function*() {
  const { text } = yield* HttpServerRequest.HttpServerRequest
  const body = yield* Effect.mapError(
    text,
    () => wrong("", "The request body ended before it was complete. Send it again.")
  )
  return yield* Effect.fromResult(Result.flatMap(Result.mapError(parse(body), failure), Explanation.requestOf))
})

export const make = Effect.gen(function*() {
  const decisions = yield* DecisionLog
  const router = yield* Router
  const registry = yield* Registry
  const providers = yield* Providers
  const explain = (request: Explanation.ExplanationRequest) =>
    Explanation.explain(request).pipe(
      Effect.provideService(Router, router),
      Effect.provideService(Registry, registry),
      Effect.provideService(Providers, providers)
    )
  const peers = yield* PeerProcesses
  /** The other processes, where this one answers for all of them. */
  const others = peers?.isFirst === true ? peers : undefined
  const pageOf = (selection: Selection) =>
    Effect.suspend(() => {
      const own = DecisionSelection.select(decisions.latest(keptDecisions + keptRefusals), selection)
      if (others === undefined) return Effect.succeed(own)
      const answers = others.askJson<DecisionSelection.Page>("GET", `/admin/decisions?${queryOf(selection)}`)
      return Effect.map(answers, (pages) => DecisionSelection.merge([own, ...pages], selection.limit))
    })
  const find = Effect.fnUntraced(function*(id: string) {
    const found = decisions.find(id)
    if (found !== undefined || others === undefined) return found
    const [record] = yield* others.askJson<Record>("GET", `/admin/decisions/${encodeURIComponent(id)}`)
    return record
  })
  const { replay, request, stateOf } = yield* AdminReplays.make(find, notFound)
  return {
    replay,
    request,
    latest: (query: typeof DecisionQuery.Type) =>
      Effect.map(Effect.flatMap(selectionOf(query), pageOf), (page) => HttpServerResponse.jsonUnsafe(page)),
    /** In one line each. */
    requests: (query: typeof DecisionQuery.Type) =>
      Effect.map(
        Effect.flatMap(selectionOf(query), pageOf),
        ({ decisions, ...page }) =>
          HttpServerResponse.jsonUnsafe({ requests: decisions.map(DecisionSummary.of), ...page })
      ),
    find: Effect.fnUntraced(function*(id: string) {
      const found = yield* find(id)
      return found === undefined
        ? notFound(id)
        : HttpServerResponse.jsonUnsafe({ ...found, replay: yield* stateOf(found) })
    }),
    explain: Effect.map(
      Effect.flatMap(explanationRequest, explain),
      (explanation) => HttpServerResponse.jsonUnsafe(explanation)
    )
  }
})
