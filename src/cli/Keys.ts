/**
 * `troupe keys`: virtual keys, in the database of the configuration, whether the service runs or not.
 *
 * **Details**
 *
 * A running service reads a change before the command ends. With `--url`, and where the configuration stores nothing, the
 * running service is called instead.
 */
import { Console, Duration, Effect, Layer, Option, Redacted, Result, Schema } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import * as App from "../App.ts"
import { Span } from "../domain/Fields.ts"
import * as SettingsFile from "../layers/settings/SettingsFile.ts"
import { ownRulesOf, rulesOf } from "../services/admission/KeyRules.ts"
import type { Grant, VirtualKey } from "../services/keys/VirtualKey.ts"
import type { Issued, KeyError } from "../services/keys/VirtualKeys.ts"
import { VirtualKeys } from "../services/keys/VirtualKeys.ts"
import { covers } from "../services/settings/AdmissionSettings.ts"
import type { Resolved, SettingsError } from "../services/settings/Settings.ts"
import { Settings } from "../services/settings/Settings.ts"
import type { StorageLocation } from "../services/settings/StorageSettings.ts"
import { unmatchedText } from "../services/settings/Warnings.ts"
import type { NoService } from "./Client.ts"
import { withClient, withCommands } from "./Client.ts"
import type { Target } from "./Flags.ts"
import { CommandFailed, json, target } from "./Flags.ts"
import { issuedText, keyTable, keyText, rulesText } from "./KeyText.ts"
import * as NewKey from "./NewKey.ts"
import { printJson } from "./Output.ts"

type Failure = CommandFailed | KeyError | NoService | SettingsError

/** What the commands say about keys depends on these settings. */
type KnownSettings = Pick<Resolved, "admission" | "models">

/** What the commands do with keys, wherever they are. */
interface Keys {
  /** Undefined if the service has settings of its own. */
  readonly settings: KnownSettings | undefined
  readonly list: Effect.Effect<ReadonlyArray<VirtualKey>, Failure>
  readonly find: (key: string) => Effect.Effect<VirtualKey, Failure>
  readonly create: (grant: Grant) => Effect.Effect<Issued, Failure>
  readonly rotate: (key: string, overlap: Duration.Duration) => Effect.Effect<Issued, Failure>
  readonly extend: (key: string, expiresAt: number | undefined) => Effect.Effect<VirtualKey, Failure>
  readonly revoke: (key: string) => Effect.Effect<VirtualKey, Failure>
}

/** Of a running service, by `/admin/keys`. */
const ofService = (target: Target, settings: KnownSettings | undefined): Keys => ({
  settings,
  list: Effect.map(withClient(target, (client) => client.keys.list({})), ({ keys }) => keys),
  find: (key: string) => withClient(target, (client) => client.keys.find({ params: { key } })),
  create: (payload: Grant) => withClient(target, (client) => client.keys.create({ payload })),
  rotate: (key: string, overlap: Duration.Duration) =>
    withClient(
      target,
      (client) => client.keys.rotate({ params: { key }, payload: { overlapMs: Duration.toMillis(overlap) } })
    ),
  extend: (key: string, expiresAt: number | undefined) =>
    withClient(
      target,
      (client) => client.keys.extend({ params: { key }, payload: { expiresAt: expiresAt ?? null } })
    ),
  revoke: (key: string) => withClient(target, (client) => client.keys.revoke({ params: { key } }))
})

const settingsOf = ({ config }: Target) =>
  SettingsFile.load({ file: Option.getOrUndefined(config), secretsMayBeUnset: true, defaultStorage: "sqlite" })

/** The reference stays where a variable is not set. */
const unsetIn = (storage: StorageLocation): boolean =>
  storage.type === "postgres" && Redacted.value(storage.url).includes("${")

/** Runs a command on the keys of the target. */
const withKeys = <A>(target: Target, use: (keys: Keys) => Effect.Effect<A, Failure>) =>
  Effect.gen(function*() {
    if (Option.isSome(target.url)) return yield* use(ofService(target, undefined))
    const settings = yield* settingsOf(target)
    if (settings.storage.type === "memory") return yield* use(ofService(target, settings))
    if (unsetIn(settings.storage)) {
      return yield* new CommandFailed({
        message: "Set the environment variables of storage.url to reach its database."
      })
    }
    return yield* Effect.flatMap(VirtualKeys, (keys) => use({ ...keys, settings })).pipe(
      Effect.provide(Layer.provide(App.keys, Layer.succeed(Settings, settings)))
    )
  }).pipe(
    Effect.catchTag("KeyError", ({ message }) => Effect.fail(new CommandFailed({ message: withCommands(message) })))
  )

const idOrName = Argument.String("key").pipe(
  Argument.withSchema(Schema.NonEmptyString),
  Argument.withDescription("Name or id of the key")
)

const now = Effect.clockWith((clock) => clock.currentTimeMillis)

/** The limits and budgets of a key, for those who read them. */
const rulesTextOf = ({ settings }: Keys, key: VirtualKey): string => {
  const rules = settings === undefined ? ownRulesOf(covers, key) : rulesOf(settings.admission, covers, key)
  return rulesText(rules, settings !== undefined)
}

/** Models of a key that the settings do not have, a sentence each. */
const warningsOf = ({ settings }: Keys, { models = [] }: Grant): ReadonlyArray<string> =>
  settings === undefined ? [] : models.flatMap((pattern) => {
    const text = unmatchedText(settings, pattern)
    return text === undefined ? [] : [`Warning: --models: ${/[.?]$/.test(text) ? text : `${text}.`}`]
  })

/** A key with the text of its rules. */
const withRules =
  <A>(effectOf: (keys: Keys) => Effect.Effect<A, Failure>, keyOf: (found: A) => VirtualKey) => (keys: Keys) =>
    Effect.map(effectOf(keys), (found) => ({ found, rules: rulesTextOf(keys, keyOf(found)) }))

const issuedKey = ({ key }: Issued): VirtualKey => key
const itself = (key: VirtualKey): VirtualKey => key

const printIssued = (asJson: boolean, { found, rules }: { readonly found: Issued; readonly rules: string }) =>
  asJson ? printJson(found) : Effect.flatMap(now, (at) => Console.log(`${issuedText(found, at)}\n\n${rules}`))

const create = Command.make(
  "create",
  { ...NewKey.flags, ...target, json },
  ({ json, ...flags }) =>
    Effect.gen(function*() {
      const grant = NewKey.grantOf(flags, yield* now)
      if (Result.isFailure(grant)) return yield* new CommandFailed({ message: grant.failure })
      const { isFirst, issued, warnings } = yield* withKeys(flags, (keys) =>
        Effect.gen(function*() {
          const isFirst = (yield* keys.list).length === 0
          const issued = yield* withRules(() => keys.create(grant.success), issuedKey)(keys)
          return { isFirst, issued, warnings: warningsOf(keys, grant.success) }
        }))
      yield* printIssued(json, issued)
      for (const warning of warnings) yield* Console.error(warning)
      if (isFirst) yield* Console.error("This is the first key: from now on, every request to the service needs one.")
    })
).pipe(
  Command.withDescription("Create a key; its secret is shown once"),
  Command.withExamples([
    { command: "troupe keys create app", description: "Create a key for all models" },
    {
      command: "troupe keys create ann --tenant shop --models 'chat,small-*' --expires 2027-01-31",
      description: "Create a key of a tenant, for some models and until a day"
    },
    { command: "troupe keys create operator --admin", description: "Create a key for /admin and /metrics" }
  ])
)

const list = Command.make("ls", { ...target, json }, ({ json, ...target }) =>
  Effect.gen(function*() {
    const all = yield* withKeys(target, (keys) => keys.list)
    if (json) return yield* printJson(all)
    const at = yield* now
    yield* Console.log(
      all.length === 0 ? "No keys: programs on this machine may call the service without one." : keyTable(all, at)
    )
  })).pipe(Command.withDescription("List the keys, without secrets"))

const printKey = (asJson: boolean, { found, rules }: { readonly found: VirtualKey; readonly rules: string }) =>
  Effect.flatMap(now, (at) => asJson ? printJson(found) : Console.log(`${keyText(found, at)}\n${rules}`))

const show = Command.make("show", { key: idOrName, ...target, json }, ({ json, key, ...target }) =>
  Effect.flatMap(
    withKeys(target, withRules((keys) => keys.find(key), itself)),
    (found) => printKey(json, found)
  )).pipe(Command.withDescription("Show a key, without its secret"))

const overlap = Flag.String("overlap").pipe(
  Flag.withSchema(Span),
  Flag.withDescription("How long the secret before it is accepted, such as '1 day' (default: 1 hour)"),
  Flag.optional
)

const atOnce = Flag.Boolean("now").pipe(
  Flag.withDescription("Do not accept the secret before it any longer"),
  Flag.withDefault(false)
)

const rotate = Command.make(
  "rotate",
  { key: idOrName, now: atOnce, overlap, ...target, json },
  ({ json, key, now: isAtOnce, overlap, ...target }) =>
    Effect.gen(function*() {
      if (isAtOnce && Option.isSome(overlap)) {
        return yield* new CommandFailed({ message: "Use either --now or --overlap, not both." })
      }
      const accepted = isAtOnce ? Duration.zero : Option.getOrElse(overlap, () => Duration.hours(1))
      yield* printIssued(json, yield* withKeys(target, withRules((keys) => keys.rotate(key, accepted), issuedKey)))
    })
).pipe(
  Command.withDescription("Give a key a new secret, which is shown once; the secret before the last one ends"),
  Command.withExamples([
    { command: "troupe keys rotate app --overlap '1 day'", description: "Accept both secrets for a day" },
    { command: "troupe keys rotate app --now", description: "End the secret before it at once" }
  ])
)

const expires = Flag.String("expires").pipe(
  Flag.withSchema(Schema.NonEmptyString),
  Flag.withDescription("The end of a day (2028-01-31, UTC), a time (2028-01-31T12:00:00Z), or never")
)

const extend = Command.make(
  "extend",
  { key: idOrName, expires, ...target, json },
  ({ expires, json, key, ...target }) =>
    Effect.gen(function*() {
      const end = expires === "never" ? Result.succeed(undefined) : NewKey.endOf(expires, yield* now)
      if (Result.isFailure(end)) return yield* new CommandFailed({ message: `${end.failure}.` })
      yield* printKey(json, yield* withKeys(target, withRules((keys) => keys.extend(key, end.success), itself)))
    })
).pipe(
  Command.withDescription("Change when a key ends; its secret stays"),
  Command.withExamples([
    { command: "troupe keys extend ann --expires 2028-01-31", description: "Accept a key until the end of a day" },
    { command: "troupe keys extend ann --expires never", description: "Accept a key for ever" }
  ])
)

const revoke = Command.make("revoke", { key: idOrName, ...target, json }, ({ json, key, ...target }) =>
  Effect.flatMap(
    withKeys(target, withRules((keys) => keys.revoke(key), itself)),
    (revoked) => printKey(json, revoked)
  )).pipe(Command.withDescription("Revoke a key: its next request is rejected"))

export const keys = Command.make("keys").pipe(
  Command.withDescription("Create, list, show, rotate, extend and revoke the keys of callers"),
  Command.withSubcommands([create, list, show, rotate, extend, revoke])
)
