/**
 * The query of a request of an operator. `HttpApi` ignores unknown names in it: a misspelt filter would select everything.
 */
import { Effect } from "effect"
import { HttpServerRequest } from "effect/http"
import { InvalidRequest, make as failure } from "../../domain/InferenceError.ts"
import { nearestName } from "../../domain/NearestName.ts"
import * as Text from "../../domain/Text.ts"
import { CacheSelection } from "./AdminSchema.ts"

const unknown = (name: string, names: ReadonlyArray<string>) => {
  const nearest = nearestName(name, names)
  return failure(
    new InvalidRequest({
      path: Text.cutName(name),
      detail: `Unknown query parameter. ${
        nearest === undefined ? `Available parameters: ${names.join(", ")}` : `Did you mean ${nearest}?`
      }`
    })
  )
}

/** Fails at a name that is none of these. */
export const check = (names: ReadonlyArray<string>) =>
  Effect.flatMap(HttpServerRequest.ParsedSearchParams, (query) => {
    const wrong = Object.keys(query).find((name) => !names.includes(name))
    return wrong === undefined ? Effect.void : Effect.fail(unknown(wrong, names))
  })

const wrongSelection = (path: string, detail: string) => Effect.fail(failure(new InvalidRequest({ path, detail })))

/** Which answers a query selects. Everything is selected by `all` only: a filter may be missing by mistake. */
export const cacheSelection = Effect.fnUntraced(function*({ all, ...which }: typeof CacheSelection.Type) {
  yield* check(Object.keys(CacheSelection.fields))
  const isFiltered = Object.keys(which).length > 0
  if (all === undefined) {
    return isFiltered ? which : yield* wrongSelection("", "Expected model, tenant or key, or all=true for all answers")
  }
  if (all !== "true") return yield* wrongSelection("all", "Expected true")
  return isFiltered ? yield* wrongSelection("all", "Expected no other parameter beside it") : which
})
