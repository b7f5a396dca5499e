/** `troupe decisions`: how the latest requests to a running service went, and why. */
import { Console, Effect, Option, Schema } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { target, withClient } from "./Client.ts"
import * as RoutingText from "./RoutingText.ts"
import { json, printJson } from "./Shared.ts"

const options = {
  id: Argument.String("id").pipe(
    Argument.withDescription("Decision ID from the response header x-troupe-decision (default: list the latest)"),
    Argument.optional
  ),
  limit: Flag.Int("limit").pipe(
    Flag.withSchema(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 1_000 }))),
    Flag.withDescription("Number of requests to list, at most 1000 (default: 20)"),
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
    yield* Console.log(decisions.length === 0 ? "No requests yet." : RoutingText.recorded(decisions))
  })).pipe(
    Command.withDescription("Show the latest requests to a running service, with attempts and errors"),
    Command.withExamples([
      { command: "troupe decisions --limit 5", description: "List the latest five requests" },
      { command: "troupe decisions dec-1a2b3c-0", description: "Show one request with its scores and attempts" }
    ])
  )
