/** `troupe cache`: shows what the response cache of a running service holds, and clears it. */
import { Console, Effect, Option, Schema } from "effect"
import { Command, Flag } from "effect/cli"
import type { CacheContents } from "../layers/http/AdminSchema.ts"
import { withClient } from "./Client.ts"
import { CommandFailed, json, target } from "./Flags.ts"
import { bytesText, printJson, table } from "./Output.ts"

const questionTable = ({ bytes, entries, hits, questions }: CacheContents["semantic"]): string => {
  const listed = questions.map((row) => [
    row.model,
    row.tenant === "" ? "(none)" : row.tenant,
    String(row.entries),
    bytesText(row.bytes),
    String(row.hits)
  ])
  const all = ["(all)", "", String(entries), bytesText(bytes), String(hits)]
  return table([["MODEL", "TENANT", "QUESTIONS", "MEMORY", "HITS"], ...listed, all])
}

const printContents = ({ compact, memory, semantic, store }: CacheContents) => {
  const tiers = table([
    ["TIER", "ANSWERS", "MEMORY"],
    ["memory", String(memory.entries), bytesText(memory.bytes)],
    ["compact", String(compact.entries), bytesText(compact.bytes)],
    ["store", store ? "kept" : "none", ""]
  ])
  return Console.log(semantic.entries === 0 ? tiers : `${tiers}\n\n${questionTable(semantic)}`)
}

const show = Command.make("show", { ...target, json }, ({ json, ...target }) =>
  Effect.flatMap(
    withClient(target, (client) => client.admin.cache({})),
    (contents) => json ? printJson(contents) : printContents(contents)
  )).pipe(Command.withDescription("Show what the response cache holds in each tier, and for similar requests"))

const selector = (name: string, description: string) =>
  Flag.String(name).pipe(
    Flag.withSchema(Schema.NonEmptyString),
    Flag.withDescription(description),
    Flag.optional
  )

const selectors = {
  model: selector("model", "Answers of this model"),
  tenant: selector("tenant", "Answers to this tenant"),
  key: selector("key", "The answer of this key, from the response header x-troupe-cache-key"),
  all: Flag.Boolean("all").pipe(Flag.withDescription("All answers"), Flag.withDefault(false))
}

const clear = Command.make(
  "clear",
  { ...selectors, ...target, json },
  ({ all, json, key, model, tenant, ...target }) =>
    Effect.gen(function*() {
      const which = Object.fromEntries(
        Object.entries({ key, model, tenant }).flatMap(([name, value]) =>
          Option.isSome(value) ? [[name, value.value]] : []
        )
      )
      if (all === Object.keys(which).length > 0) {
        return yield* new CommandFailed({
          message: "Say which answers to clear: --model, --tenant or --key, together or alone; or --all."
        })
      }
      const found = yield* withClient(target, (client) =>
        client.admin.clearCache({ query: all ? { all: "true" } : which }))
      yield* json ? printJson(found) : Console.log(
        `Cleared ${found.cleared} ${found.cleared === 1 ? "answer" : "answers"} from memory` +
          (found.store ? ", and all such answers from the store." : ".")
      )
    })
).pipe(
  Command.withDescription("Clear answers from the response cache of a running service"),
  Command.withExamples([
    { command: "troupe cache clear --model chat", description: "Clear the answers of one model" },
    { command: "troupe cache clear --all", description: "Clear everything" }
  ])
)

export const cache = Command.make("cache").pipe(
  Command.withDescription("Show or clear the response cache of a running service"),
  Command.withSubcommands([show, clear])
)
