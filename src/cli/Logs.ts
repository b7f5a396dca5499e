/** `troupe logs`: the latest requests of a running service, and those that end from now on, with events for operators. */
import { Clock, Console, Effect, Option, Schema } from "effect"
import { Command, Flag } from "effect/cli"
import { LRUCache } from "lru-cache"
import type { OperatorEvent } from "../services/observability/OperatorEvents.ts"
import type { DecisionSummary } from "../services/routing/DecisionSummary.ts"
import { expected, matcher, plainNames } from "../services/routing/RequestStatus.ts"
import { withClient } from "./Client.ts"
import type { Target } from "./Flags.ts"
import { CommandFailed, json, optionalText, target } from "./Flags.ts"
import * as LiveClient from "./LiveClient.ts"
import type { Filter } from "./LogText.ts"
import { eventLine, isWanted, isWantedEvent, requestLine, sinceOf } from "./LogText.ts"

/** Earlier requests at most. */
const mostEarlier = 1_000

const options = {
  follow: Flag.Boolean("follow").pipe(
    Flag.withAlias("f"),
    Flag.withDescription("Go on with each request that ends and each event"),
    Flag.withDefault(false)
  ),
  model: optionalText("model", "Only requests for this model"),
  deployment: optionalText("deployment", "Only requests that this deployment answered or was tried for"),
  status: optionalText("status", `Only requests that ended so: ${plainNames.join(", ")}, or an HTTP status: 429, 5xx`),
  running: Flag.Boolean("running").pipe(
    Flag.withDescription("Also list the requests that run now; others are printed at their end only"),
    Flag.withDefault(false)
  ),
  since: optionalText("since", "Only from then on: a duration before now, such as 10m, or a date"),
  limit: Flag.Int("limit").pipe(
    Flag.withSchema(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: mostEarlier }))),
    Flag.withDescription("Number of earlier requests, at most 1000 (default: 20; with --since 1000)"),
    Flag.optional
  ),
  ...target,
  json
}

interface Printer {
  readonly request: (request: DecisionSummary) => Effect.Effect<void>
  readonly event: (event: OperatorEvent) => Effect.Effect<void>
}

const printer = (asJson: boolean): Printer => ({
  request: (request) => Console.log(asJson ? JSON.stringify({ type: "request", ...request }) : requestLine(request)),
  event: (event) => Console.log(asJson ? JSON.stringify({ type: "event", ...event }) : eventLine(event))
})

interface Wanted {
  readonly filter: Filter
  /** Also requests that run. */
  readonly running: boolean
  readonly since: number | undefined
  readonly limit: number
}

/** Prints earlier requests, the oldest first; how many. */
const printEarlier = (to: Target, { filter, limit, running, since }: Wanted, print: Printer) =>
  Effect.gen(function*() {
    const status = filter.status ?? (running ? undefined : "ended")
    const query = {
      limit,
      ...(filter.model === undefined ? {} : { model: filter.model }),
      ...(filter.deployment === undefined ? {} : { deployment: filter.deployment }),
      ...(status === undefined ? {} : { status }),
      ...(since === undefined ? {} : { since })
    }
    const { requests } = yield* withClient(to, (client) => client.admin.requests({ query }))
    yield* Effect.forEach(requests.toReversed(), print.request, { discard: true })
    return requests.length
  })

const printLost = ({ lost }: { readonly lost: number }) =>
  Console.error(`${lost} requests and events are left out: the output is slower than they come.`)

/** Said while the service is gone. */
const told: LiveClient.Told = {
  lost: (message) => Console.error(`${message} Connecting again.`),
  again: Console.error("Connected again.")
}

/** Ids that are remembered, so that no request is printed twice. */
const mostPrinted = 2_000

/**
 * Prints earlier requests, then what comes. A request that ends in between is printed once. After a connection is lost, it prints what
 * has ended meanwhile, as far as the service still has it.
 */
const follow = (to: Target, wanted: Wanted, print: Printer) => {
  const printed = new LRUCache<string, true>({ max: mostPrinted })
  const request = (one: DecisionSummary): Effect.Effect<void> => {
    if (printed.has(one.id)) return Effect.void
    if (one.status !== "running") printed.set(one.id, true)
    return print.request(one)
  }
  const show = ({ data, event }: LiveClient.ServerEvent): Effect.Effect<void> => {
    if (event === "lost") return printLost(data as { readonly lost: number })
    if (event === "event") {
      const found = data as OperatorEvent
      return isWantedEvent(wanted.filter)(found) ? print.event(found) : Effect.void
    }
    const found = data as DecisionSummary
    return isWanted(wanted.filter)(found) ? request(found) : Effect.void
  }
  /** After the first connection. */
  let earlier: Wanted | undefined
  const session = (connected: Effect.Effect<void>) => {
    let isFirst = true
    return LiveClient.watch(to, "/admin/live?events=request,event", (events) =>
      Effect.gen(function*() {
        if (isFirst) {
          isFirst = false
          yield* connected
          const now = yield* Clock.currentTimeMillis
          yield* printEarlier(to, earlier ?? wanted, { ...print, request })
          earlier ??= { ...wanted, running: false, limit: mostEarlier, since: now }
        }
        yield* Effect.forEach(events, show, { discard: true })
        return false
      }))
  }
  return LiveClient.stay(session, told)
}

const checkStatus = (status: string, isFollowing: boolean) => {
  if (matcher(status) === undefined) {
    return new CommandFailed({ message: `--status ${status}: ${expected(status, plainNames)}.` })
  }
  return isFollowing && status === "running"
    ? new CommandFailed({ message: "--status running lists the requests that run now: leave out --follow." })
    : Effect.void
}

const wrongSince = (text: string) =>
  new CommandFailed({ message: `--since: expected a duration such as 10m or a date such as 2026-01-31, not ${text}.` })

export const logs = Command.make(
  "logs",
  options,
  ({ deployment, json, limit, model, running, since, status, ...flags }) =>
    Effect.gen(function*() {
      const { config, follow: isFollowing, url } = flags
      const now = yield* Clock.currentTimeMillis
      const from = Option.map(since, (text) => sinceOf(text, now))
      if (Option.isSome(from) && from.value === undefined) return yield* wrongSince(Option.getOrThrow(since))
      if (Option.isSome(status)) yield* checkStatus(status.value, isFollowing)
      const wanted: Wanted = {
        filter: {
          model: Option.getOrUndefined(model),
          deployment: Option.getOrUndefined(deployment),
          status: Option.getOrUndefined(status)
        },
        running,
        since: Option.getOrUndefined(from),
        limit: Option.getOrElse(limit, () => Option.isSome(since) ? mostEarlier : 20)
      }
      const to = { config, url }
      const print = printer(json)
      if (isFollowing) return yield* follow(to, wanted, print)
      const printed = yield* printEarlier(to, wanted, print)
      if (printed === 0 && !json) yield* Console.error("No request matches.")
    })
).pipe(
  Command.withDescription("Print the requests to a running service in one line each: result, deployment, times, cost"),
  Command.withExamples([
    { command: "troupe logs -f", description: "Follow requests and events" },
    {
      command: "troupe logs --status failed --since 1h",
      description: "List the requests that failed in the last hour"
    },
    { command: "troupe decisions dec-1a2b3c-0", description: "Show one of them with its attempts" }
  ])
)
