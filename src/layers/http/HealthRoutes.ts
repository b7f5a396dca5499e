/** Handlers for load balancers and supervisors. */
import { Effect } from "effect"
import { HttpApiBuilder } from "effect/http-api"
import { Models } from "../../services/models/Models.ts"
import { Readiness } from "../../services/models/Readiness.ts"
import { Registry } from "../../services/models/Registry.ts"
import { TypedApi } from "./Api.ts"

export const layer = HttpApiBuilder.group(
  TypedApi,
  "health",
  Effect.fn(function*(handlers) {
    const models = yield* Models
    const readiness = yield* Readiness
    const registry = yield* Registry

    const report = Effect.gen(function*() {
      const configured = registry.models().flatMap((model) => model.deployments)
      const statuses = yield* Effect.forEach(configured, models.status)
      return {
        status: readiness.stage,
        deployments: statuses.map(({ memoryBytes: _, ...health }) => health)
      }
    })

    return handlers.handle("live", () => Effect.succeed({ status: "live" as const })).handle(
      "ready",
      () => Effect.filterOrFail(report, ({ status }) => status === "ready", (body) => body)
    )
  })
)
