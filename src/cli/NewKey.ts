/** The flags of `troupe keys create`, and what they grant. */
import { Option, Result, Schema } from "effect"
import { Argument, Flag } from "effect/cli"
import { Limits } from "../domain/Identity.ts"
import * as Problem from "../domain/Problem.ts"
import { Grant } from "../services/keys/VirtualKey.ts"
import { momentOf } from "../services/settings/KeySettings.ts"

const limitNames = Object.keys(Limits.fields).join(", ")

const text = (name: string, description: string) =>
  Flag.String(name).pipe(
    Flag.withSchema(Schema.NonEmptyString),
    Flag.withDescription(description),
    Flag.optional
  )

export const flags = {
  name: Argument.String("name").pipe(Argument.withDescription("Name of the key, which no other key has")),
  tenant: text("tenant", "Who pays, and whose caches the key uses (default: the name)"),
  user: text("user", "User of the key, for limits and budgets"),
  models: text("models", "Models that the key may use, comma-separated, with * for any characters (default: all)"),
  expires: text("expires", "When the key ends, as 2027-01-31 or 2027-01-31T12:00:00Z (default: never)"),
  limit: Flag.String("limit").pipe(
    Flag.withDescription(`NAME=NUMBER, any number of times: ${limitNames}`),
    Flag.atLeast(0)
  ),
  budget: Flag.String("budget").pipe(
    Flag.withDescription("PERIOD=AMOUNT, any number of times, as month=20usd or day=100000tokens"),
    Flag.atLeast(0)
  ),
  admin: Flag.Boolean("admin").pipe(
    Flag.withDescription("Allow /admin and /metrics"),
    Flag.withDefault(false)
  ),
  setsTenant: Flag.Boolean("sets-tenant").pipe(
    Flag.withDescription("Allow the header x-troupe-tenant: for another Troupe that forwards requests"),
    Flag.withDefault(false)
  )
}

/** The values of the flags. */
export interface Flags {
  readonly name: string
  readonly tenant: Option.Option<string>
  readonly user: Option.Option<string>
  readonly models: Option.Option<string>
  readonly expires: Option.Option<string>
  readonly limit: ReadonlyArray<string>
  readonly budget: ReadonlyArray<string>
  readonly admin: boolean
  readonly setsTenant: boolean
}

const wordsOf = (list: string): ReadonlyArray<string> =>
  list.split(",").map((word) => word.trim()).filter((word) => word !== "")

/** `NAME=NUMBER` as a field; a text that is not this stays, and is rejected with its name. */
const limitOf = (given: string): readonly [string, unknown] => {
  const [name = "", value = ""] = given.split("=", 2)
  return [name, /^\d+$/.test(value) ? Number(value) : value]
}

const budgetOf = (given: string): unknown => {
  const [, period, amount, unit] = /^(\w+)=(\d+(?:\.\d+)?) *(usd|tokens)$/i.exec(given) ?? []
  if (period === undefined) return given
  return { period, [unit!.toLowerCase()]: Number(amount) }
}

const some = <A>(values: ReadonlyArray<A>): Option.Option<ReadonlyArray<A>> =>
  values.length === 0 ? Option.none() : Option.some(values)

/** The fields whose flag is given. */
const given = (fields: Readonly<Record<string, Option.Option<unknown>>>): Record<string, unknown> =>
  Object.fromEntries(
    Object.entries(fields).flatMap(([name, value]) => Option.isSome(value) ? [[name, value.value]] : [])
  )

const decode = Schema.decodeUnknownResult(Grant, { errors: "all", onExcessProperty: "error" })

/** What the flags grant, or what is wrong with them in one line. */
export const grantOf = (flags: Flags): Result.Result<Grant, string> => {
  const expires = Option.map(flags.expires, momentOf)
  if (Option.isSome(expires) && expires.value === undefined) {
    return Result.fail("--expires: Expected a day or a time, such as 2027-01-31 or 2027-01-31T12:00:00Z.")
  }
  const wrongBudget = flags.budget.find((one) => typeof budgetOf(one) === "string")
  if (wrongBudget !== undefined) {
    return Result.fail(
      `--budget: Expected PERIOD=AMOUNT, such as month=20usd or day=100000tokens, not "${wrongBudget}".`
    )
  }
  const grant = {
    name: flags.name,
    ...given({
      tenant: flags.tenant,
      user: flags.user,
      models: Option.map(flags.models, wordsOf),
      limits: Option.map(some(flags.limit), (limits) => Object.fromEntries(limits.map(limitOf))),
      budgets: Option.map(some(flags.budget), (budgets) => budgets.map(budgetOf)),
      expiresAt: expires
    }),
    ...(flags.admin ? { admin: true } : {}),
    ...(flags.setsTenant ? { setsTenant: true } : {})
  }
  return Result.mapError(decode(grant), (error) => {
    const [first, ...others] = Problem.fromSchemaError(error)
    return `${first!.path}: ${Problem.summary(first!, others)}.`.replace(/\.\.$/, ".")
  })
}
