/** The selector over the registry's snapshot. */
import { Effect, Layer } from "effect"
import { Registry } from "../services/Registry.ts"
import { route, Selector } from "../services/Selector.ts"

export const layer = Layer.effect(
  Selector,
  Effect.gen(function*() {
    const registry = yield* Registry
    return Selector.of({
      route: (request) => Effect.map(registry.find(request.model), route)
    })
  })
)
