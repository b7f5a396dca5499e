/** What an operator resets: the circuits and keys of a deployment, and the response cache. */
import { Effect } from "effect"
import { HttpServerResponse } from "effect/http"
import * as OpenAiEncodeError from "../../dialects/openai/EncodeError.ts"
import type { Deployment } from "../../domain/Deployment.ts"
import { nearestName } from "../../domain/NearestName.ts"
import * as Text from "../../domain/Text.ts"
import type { Selection } from "../../services/cache/ResponseCache.ts"
import { ResponseCache } from "../../services/cache/ResponseCache.ts"
import { Providers } from "../../services/engines/Providers.ts"
import { Breaker } from "../../services/health/Breaker.ts"
import { ofExisting, Registry } from "../../services/models/Registry.ts"
import * as AdminQuery from "./AdminQuery.ts"
import type { CacheSelection } from "./AdminSchema.ts"
import { respondError } from "./Dialect.ts"
import * as WholeService from "./WholeService.ts"

/** Suggests the deployments of the model of this name, else the one with the nearest id. */
const suggestionFor = (id: string, deployments: ReadonlyArray<Deployment>): string => {
  const ofModel = deployments.filter(({ model }) => model === id).slice(0, 3)
  const nearest = nearestName(id, deployments.map((one) => one.id))
  const names = ofModel.length > 0 ? ofModel.map((one) => one.id) : nearest === undefined ? [] : [nearest]
  return names.length === 0 ? "" : ` Did you mean ${names.join(" or ")}?`
}

const noDeployment = (id: string, deployments: ReadonlyArray<Deployment>) =>
  OpenAiEncodeError.make(
    `Deployment ${JSON.stringify(Text.cutName(id))} not found.${suggestionFor(id, deployments)} ` +
      "GET /admin/deployments lists them.",
    { status: 404, type: "invalid_request_error", code: "deployment_not_found" }
  )

export const make = Effect.gen(function*() {
  const breaker = yield* Breaker
  const cache = yield* ResponseCache
  const providers = yield* Providers
  const registry = yield* Registry
  const whole = yield* WholeService.make
  const circuits = Effect.map(
    Effect.flatMap(breaker.states, (states) => whole.circuits(ofExisting(registry, states))),
    (circuits) => HttpServerResponse.jsonUnsafe({ circuits })
  )
  const contents = Effect.suspend(() => whole.cache(cache.contents()))

  /** Nothing that failed before keeps calls from the deployment. */
  const callAgain = (deployment: Deployment) =>
    Effect.andThen(Effect.sync(() => providers.resetKeys(deployment)), breaker.reset(deployment.id))

  const all = () => registry.models().flatMap(({ deployments }) => deployments)
  const find = (id: string): Deployment | undefined => all().find((one) => one.id === id)
  const notFound = (id: string) => respondError(noDeployment(id, all()))

  return {
    callAgain,
    /** The deployment of this id. */
    find,
    notFound,
    circuits,
    circuit: Effect.fnUntraced(function*(id: string) {
      const deployment = find(id)
      if (deployment === undefined) return notFound(id)
      yield* callAgain(deployment)
      yield* whole.post(deployment.model, `/admin/circuits/${encodeURIComponent(id)}/reset`)
      return yield* circuits
    }),
    cache: Effect.map(contents, (found) => HttpServerResponse.jsonUnsafe(found)),
    clearCache: Effect.fnUntraced(function*(query: typeof CacheSelection.Type) {
      const which: Selection = yield* AdminQuery.cacheSelection(query)
      if (which.model !== undefined) yield* Effect.fromResult(registry.find(which.model))
      const cleared = (yield* cache.clear(which)) + (yield* whole.clearCache(which))
      return HttpServerResponse.jsonUnsafe({ cleared, ...yield* contents })
    })
  }
})
