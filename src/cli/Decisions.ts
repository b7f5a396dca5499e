/** `troupe decisions`: how the latest requests to a running service went, and why. */
import { Console, Effect, Option, Schema } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { target, withClient } from "./Client.ts"
import * as RoutingText from "./RoutingText.ts"
import { json, printJson } from "./Shared.ts"

const options = {
  id: Argument.String("id").pipe(
    Argument.withDescription("One request, by the id that its answer has in x-troupe-decision; left out, the latest"),
    Argument.optional
  ),
  limit: Flag.Int("limit").pipe(
    Flag.withSchema(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 1_000 }))),
    Flag.withDescription("How many of the latest, up to 1,000; default 20"),
    Flag.withDefault(20)
  ),
  ...target,
  json
}

export const decisions = Command.make("decisions", options, ({ id, json, limit, ...target }) =>
  Effect.gen(function*() {
    if (Option.isSome(id)) {
      const one = yield* withClient(target, (client) => client.admin.decision({ params: { id: id.value } }))
      return yield* json ? printJson(one) : Console.log(RoutingText.record(one))
    }
    const { decisions } = yield* withClient(target, (client) => client.admin.decisions({ query: { limit } }))
    if (json) return yield* printJson(decisions)
    yield* Console.log(decisions.length === 0 ? "There was no request yet." : RoutingText.recorded(decisions))
  })).pipe(
    Command.withDescription("Show how the latest requests to a running service went, attempts and errors included"),
    Command.withExamples([
      { command: "troupe decisions --limit 5", description: "The latest five" },
      { command: "troupe decisions dec-1a2b3c-0", description: "One, with its scores and attempts" }
    ])
  )
