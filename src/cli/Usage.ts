/** `troupe usage` and `troupe budgets`: what was used, by whom and for how much, and what is left, from the ledger of a running service. */
import { Console, Effect, Option } from "effect"
import { Command, Flag } from "effect/cli"
import * as Money from "../domain/Money.ts"
import * as SettingsFile from "../layers/settings/SettingsFile.ts"
import type { BudgetState } from "../services/budgets/BudgetReport.ts"
import type { Group, UsageSum } from "../services/ledger/Usage.ts"
import { fieldsOf, toCsv } from "../services/ledger/Usage.ts"
import { NoService, withClient } from "./Client.ts"
import type { Target } from "./Flags.ts"
import { CommandFailed, json, target } from "./Flags.ts"
import { printCsv, printJson, table } from "./Output.ts"

/** The price of some attempts is unknown: their cost is not in the sum. */
const costText = ({ costUsd, unpriced }: UsageSum): string => {
  if (unpriced > 0 && costUsd === 0) return "unknown"
  const known = Money.format(Money.nanoOf(costUsd))
  return unpriced === 0 ? known : `at least ${known} (${unpriced} unknown)`
}

const nothing = "Nothing was used that matches."

/** A filter that only requests with a key match needs no word about the others. */
const nothingText = ({ key, user }: Readonly<Record<string, string>>): string =>
  key === undefined && user === undefined
    ? `${nothing} Requests without a key are recorded only with \`ledger: { anonymous: true }\` in the configuration.`
    : nothing

/** A key without a user is its own: the user is the key's id. */
const cellOf = (sum: UsageSum, name: ReturnType<typeof fieldsOf>[number]): string => {
  const { key, keyName, user } = sum
  if (name === "user" && keyName !== undefined && (key ?? user) === user) return `${keyName} (${user})`
  return sum[name] || "(none)"
}

const printUsage = (
  by: ReadonlyArray<Group>,
  usage: ReadonlyArray<UsageSum>,
  filters: Readonly<Record<string, string>>
) =>
  Console.log(
    usage.length === 0 ? nothingText(filters) : table([
      [
        ...fieldsOf(by).map((name) => name === "keyName" ? "NAME" : name.toUpperCase()),
        "ATTEMPTS",
        "PROMPT",
        "CACHED",
        "ANSWER",
        "REASONING",
        "USD"
      ],
      ...usage.map((sum) => [
        ...fieldsOf(by).map((name) => cellOf(sum, name)),
        String(sum.attempts),
        String(sum.promptTokens),
        String(sum.cachedTokens),
        String(sum.completionTokens),
        String(sum.reasoningTokens),
        costText(sum)
      ])
    ])
  )

const filter = (name: string, description: string) =>
  Flag.String(name).pipe(Flag.withDescription(description), Flag.optional)

const selection = {
  by: filter(
    "by",
    "Groups, with commas between: day, key, user, tenant, model, deployment, endpoint (default: day,model)"
  ),
  from: filter("from", "From this day (2027-01-31, UTC) or time (2027-01-31T12:00:00Z)"),
  to: filter("to", "To the end of this day, or to this time"),
  key: filter("key", "Of the key with this name or id"),
  user: filter("user", "Of this user"),
  tenant: filter("tenant", "Of this tenant"),
  model: filter("model", "Of this model"),
  deployment: filter("deployment", "Of this deployment"),
  endpoint: filter("endpoint", "Of this endpoint: chat, embeddings, rerank, classify or tokenize")
}

const csv = Flag.Boolean("csv").pipe(Flag.withDescription("Print CSV"), Flag.withDefault(false))

const given = (flags: Readonly<Record<keyof typeof selection, Option.Option<string>>>) =>
  Object.fromEntries(
    Object.entries(flags).flatMap(([name, value]) => Option.isSome(value) ? [[name, value.value]] : [])
  )

/** Where the ledger is, for a service that does not run; nothing for one that has settings of its own. */
const ledgerOf = ({ config, url }: Target) =>
  Option.isSome(url)
    ? Effect.succeed("")
    : SettingsFile.load({ file: Option.getOrUndefined(config), secretsMayBeUnset: true, defaultStorage: "sqlite" })
      .pipe(
        Effect.map(({ storage }) =>
          storage.type === "sqlite"
            ? ` The ledger is in ${storage.folder}: a service that is started with this configuration answers from it.`
            : ""
        ),
        Effect.orElseSucceed(() => "")
      )

/** Asks the running service; without one, says where the ledger is. */
const orLedger = (target: Target) => <A, E, R>(asked: Effect.Effect<A, E | NoService, R>) =>
  Effect.catchIf(
    asked,
    (error): error is NoService => error instanceof NoService,
    ({ message }) =>
      Effect.flatMap(ledgerOf(target), (ledger) => Effect.fail(new NoService({ message: message + ledger })))
  )

export const usage = Command.make(
  "usage",
  { ...selection, csv, ...target, json },
  ({ config, csv, json, url, ...flags }) =>
    Effect.gen(function*() {
      if (csv && json) return yield* new CommandFailed({ message: "Use --json or --csv, not both." })
      const { by, usage } = yield* withClient(
        { config, url },
        (client) => client.usage.usage({ query: { ...given(flags), format: "json" } })
      ).pipe(orLedger({ config, url }))
      if (json) return yield* printJson(usage)
      yield* csv ? printCsv(toCsv(by, usage)) : printUsage(by, usage, given(flags))
    })
).pipe(
  Command.withDescription("Show what was used, by whom and for how much, from the ledger of a running service"),
  Command.withExamples([
    {
      command: "troupe usage --by user,model --from 2027-01-01 --to 2027-01-31",
      description: "Sum a month by user and model"
    },
    { command: "troupe usage --by day --user ann --csv", description: "Print the days of one user as CSV" }
  ])
)

const budgetRow = (
  { budget, counter, left, measure, mode, most, period, spent }: BudgetState
): ReadonlyArray<string> => {
  const text = (amount: number) => measure === "usd" ? `${Money.format(Money.nanoOf(amount))} USD` : `${amount} tokens`
  return [budget, counter, period, text(spent), text(most), text(left), mode === "shadow" ? mode : ""]
}

export const budgets = Command.make("budgets", { ...target, json }, ({ json, ...target }) =>
  Effect.gen(function*() {
    const { budgets } = yield* orLedger(target)(withClient(target, (client) => client.usage.budgets({})))
    if (json) return yield* printJson(budgets)
    const head = ["BUDGET", "OF", "PERIOD", "SPENT", "MOST", "LEFT", "MODE"]
    yield* Console.log(
      budgets.length === 0 ? "Nothing of a budget is spent." : table([head, ...budgets.map(budgetRow)])
    )
  })).pipe(Command.withDescription("Show what is spent and left of the budgets of a running service"))
