/** The flags of `troupe keys create`, and what they grant. */
import { Option, Result, Schema } from "effect"
import { Argument, Flag } from "effect/cli"
import { Limits } from "../domain/Identity.ts"
import * as Problem from "../domain/Problem.ts"
import { Grant } from "../services/keys/VirtualKey.ts"
import { momentExpected, momentOf } from "../services/settings/KeySettings.ts"
import { optionalText } from "./Flags.ts"

const limitNames = Object.keys(Limits.fields).join(", ")

export const flags = {
  name: Argument.String("name").pipe(Argument.withDescription("Name of the key, which no other key has")),
  tenant: optionalText("tenant", "Who pays, and whose caches the key uses (default: the name)"),
  user: optionalText("user", "User of the key, for limits and budgets"),
  models: optionalText(
    "models",
    "Models that the key may use, comma-separated, with * for any characters (default: all)"
  ),
  expires: optionalText(
    "expires",
    "When the key ends: at the end of a day (2027-01-31, UTC), or at a time (2027-01-31T12:00:00Z) (default: never)"
  ),
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
  return [name, /^-?\d+(?:\.\d+)?(?:e\d+)?$/i.test(value) ? Number(value) : value]
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

/** The flag that a field comes from, with its value where it may be one of several. */
const flagOf = ({ budget, limit }: Flags, [field, at]: ReadonlyArray<PropertyKey>): string => {
  if (field === "limits") return `--limit ${limit.find((one) => limitOf(one)[0] === at)}`
  if (field === "budgets") return `--budget ${budget[Number(at)]}`
  return field === "name" ? "name" : `--${String(field)}`
}

const limitProblem = (expected: string): string =>
  expected === "Unknown field"
    ? `Unknown limit. Expected one of ${limitNames}`
    : expected.replace(/^Unknown field/, "Unknown limit")

/** What is wrong with a value, without the full stop. */
const problemOf = (flags: Flags, { expected, path }: Problem.KeyedProblem): string => {
  const value = path[0] === "limits" ? Object.fromEntries(flags.limit.map(limitOf))[String(path[1])] : undefined
  const text = path[0] === "limits" && path.length === 2 ? limitProblem(expected) : expected
  return `${flagOf(flags, path)}: ${Problem.withLargest(text, value)}`
}

const sentence = (text: string): string => /[.?]$/.test(text) ? text : `${text}.`

/** The first of these whose name is given before. */
const repeatedIn = (limits: ReadonlyArray<string>): string | undefined => {
  const names = limits.map((one) => limitOf(one)[0])
  return limits.find((_, index) => names.indexOf(names[index]!) < index)
}

/** The end that a text is, or what is wrong with it. @param now ms since 1970 */
export const endOf = (text: string, now: number): Result.Result<number, string> => {
  const at = momentOf(text)
  if (at === undefined) return Result.fail(`--expires ${text}: ${momentExpected}`)
  return at <= now ? Result.fail(`--expires ${text}: Expected a time in the future`) : Result.succeed(at)
}

/** What is wrong with flags beyond the fields that they set. */
const flagProblem = ({ budget, expires, limit }: Flags, now: number): string | undefined => {
  if (Option.isSome(expires)) {
    const end = endOf(expires.value, now)
    if (Result.isFailure(end)) return end.failure
  }
  const repeated = repeatedIn(limit)
  if (repeated !== undefined) return `--limit ${repeated}: The limit ${limitOf(repeated)[0]} is given more than once`
  const wrongBudget = budget.find((one) => typeof budgetOf(one) === "string")
  return wrongBudget === undefined
    ? undefined
    : `--budget: Expected PERIOD=AMOUNT, such as month=20usd or day=100000tokens, not "${wrongBudget}"`
}

/**
 * What the flags grant, or what is wrong with them in one line.
 *
 * @param now ms since 1970
 */
export const grantOf = (flags: Flags, now: number): Result.Result<Grant, string> => {
  const problem = flagProblem(flags, now)
  if (problem !== undefined) return Result.fail(sentence(problem))
  const grant = {
    name: flags.name,
    ...given({
      tenant: flags.tenant,
      user: flags.user,
      models: Option.map(flags.models, wordsOf),
      limits: Option.map(some(flags.limit), (limits) => Object.fromEntries(limits.map(limitOf))),
      budgets: Option.map(some(flags.budget), (budgets) => budgets.map(budgetOf)),
      expiresAt: Option.map(flags.expires, momentOf)
    }),
    ...(flags.admin ? { admin: true } : {}),
    ...(flags.setsTenant ? { setsTenant: true } : {})
  }
  return Result.mapError(
    decode(grant),
    (error) =>
      sentence(Problem.keyed(error).slice(0, Problem.mostListed).map((one) => problemOf(flags, one)).join("; "))
  )
}
