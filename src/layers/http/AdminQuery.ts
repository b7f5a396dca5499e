/** The names in the query of a request of an operator. `HttpApi` ignores unknown ones: a misspelt filter would select everything. */
import { Effect } from "effect"
import { HttpServerRequest } from "effect/http"
import { InvalidRequest, make as failure } from "../../domain/InferenceError.ts"
import { nearestName } from "../../domain/NearestName.ts"
import * as Text from "../../domain/Text.ts"

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
