/** The settings `keys`: virtual keys that are declared in `troupe.yaml`. */
import { Redacted, Schema } from "effect"
import { described, optional } from "../../domain/Fields.ts"
import { Budget, Limits } from "../../domain/Identity.ts"
import type * as Problem from "../../domain/Problem.ts"
import * as VirtualKey from "../keys/VirtualKey.ts"
import type { Grant } from "../keys/VirtualKey.ts"

const leastCharacters = 16

/** A secret, or a reference to a variable that may be unset. */
const Secret = Schema.RedactedFromValue(
  Schema.String.check(
    Schema.isPattern(new RegExp(`^(?:[^]{${leastCharacters},}$|\\$\\{)`), {
      message: `Expected a secret of at least ${leastCharacters} characters`
    })
  ),
  { disallowEncode: true }
)

/** A day in UTC, or a time with its zone. */
const moment =
  /^\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])(?:T(?:[01]\d|2[0-3]):[0-5]\d(?::[0-5]\d(?:\.\d+)?)?(?:Z|[+-]\d\d:\d\d))?$/

/** What a moment must be, for messages. */
export const momentExpected = "Expected a day or a time, such as 2027-01-31 or 2027-01-31T12:00:00Z"

/** Whether its month has the day: JavaScript reads 30 February as 2 March. */
const hasDay = (text: string): boolean => {
  const day = text.slice(0, 10)
  return new Date(`${day}T00:00:00Z`).toISOString().startsWith(day)
}

const dayMs = 86_400_000

/** ms since 1970 of a time, or of the end of a day; undefined for any other text. */
export const momentOf = (text: string): number | undefined => {
  if (!moment.test(text) || !hasDay(text)) return undefined
  return Date.parse(text) + (text.includes("T") ? 0 : dayMs)
}

const Moment = Schema.String.check(
  Schema.makeFilter((text) => !moment.test(text) || hasDay(text) || "Expected a day that exists"),
  Schema.isPattern(moment, { message: momentExpected })
)

/** One key; its name is that of its entry. */
export const KeySettings = Schema.Struct({
  key: described(
    `\${NAME}: the secret that the caller sends, at least ${leastCharacters} characters; \`openssl rand -hex 24\` makes one.`,
    Secret
  ),
  tenant: optional(
    "Who pays, and whose caches the key uses: keys of one tenant share them. Default the name.",
    VirtualKey.Name
  ),
  user: optional("The user of the key, for limits and budgets. Default none.", VirtualKey.Name),
  models: optional(
    "Models that the key may use, where * stands for any characters. Default all.",
    VirtualKey.Models
  ),
  expires: optional(
    "When the key ends: at the end of a day (2027-01-31, UTC), or at a time (2027-01-31T12:00:00Z). Default never.",
    Moment
  ),
  limits: optional("Limits of its rate.", Limits),
  budgets: optional("What may be spent with it. Default no budget.", Schema.Array(Budget)),
  admin: optional("Whether it may use /admin and /metrics. Default false.", Schema.Boolean),
  setsTenant: optional(
    "Whether it may name the tenant in x-troupe-tenant: for another Troupe that forwards requests of its own tenants. " +
      "Default false.",
    Schema.Boolean
  )
})

/** A declared key. */
export interface DeclaredKey extends Grant {
  readonly secret: Redacted.Redacted
}

type Keys = Readonly<Record<string, typeof KeySettings.Type>>

/** The keys by their names. */
export const keysOf = (keys: Keys | undefined): ReadonlyArray<DeclaredKey> =>
  Object.entries(keys ?? {}).map(([name, { expires, key, ...grant }]) => {
    const expiresAt = expires === undefined ? undefined : momentOf(expires)
    return { ...grant, name, secret: key, ...(expiresAt === undefined ? {} : { expiresAt }) }
  })

/** Problems that the schema cannot express: names, and one secret of two keys. */
export const keyProblems = (keys: Keys | undefined): ReadonlyArray<Problem.KeyedProblem> => {
  const names = new Map<string, string>()
  return Object.entries(keys ?? {}).flatMap(([name, { key }]) => {
    const secret = Redacted.value(key)
    const other = names.get(secret)
    names.set(secret, name)
    if (!VirtualKey.isName(name)) {
      return [{ path: ["keys", name], expected: `The name of a key must be ${VirtualKey.nameExpected}` }]
    }
    // A reference to a variable that is not set is its own problem.
    return other === undefined
      ? []
      : [{ path: ["keys", name, "key"], expected: `Expected another secret than that of ${other}` }]
  })
}
