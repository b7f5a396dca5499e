/** The names in a query of usage: keys by name or id, and filters whose values nothing has. */
import { Effect } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import type { InferenceError } from "../../domain/InferenceError.ts"
import { InvalidRequest, make as failure } from "../../domain/InferenceError.ts"
import { nearestName } from "../../domain/NearestName.ts"
import { VirtualKeys } from "../../services/keys/VirtualKeys.ts"
import { Ledger } from "../../services/ledger/Ledger.ts"
import type { Group, UsageQuery, UsageSum } from "../../services/ledger/Usage.ts"
import { Registry } from "../../services/models/Registry.ts"
import { operations } from "../../services/settings/AdmissionSettings.ts"

type Field = Exclude<Group, "day">

const given = <A>(values: ReadonlyArray<A | undefined>): ReadonlyArray<A> => values.filter((one) => one !== undefined)

const unknown = (field: Field, value: string, names: ReadonlyArray<string>) => {
  const nearest = nearestName(value, names)
  const others = field === "endpoint" || field === "model" ? ` Expected one of ${names.join(", ")}.` : ""
  return failure(
    new InvalidRequest({
      path: field,
      detail: `Unknown ${field}.${nearest === undefined ? others : ` Did you mean ${nearest}?`}`
    })
  )
}

export const make = Effect.gen(function*() {
  const keys = yield* VirtualKeys
  const ledger = yield* Ledger
  const registry = yield* Registry

  /** What the settings and the keys have. */
  const configured = (field: Field): Effect.Effect<ReadonlyArray<string>> => {
    if (field === "endpoint") return Effect.succeed(operations)
    if (field === "model") return Effect.succeed(registry.models().map(({ name }) => name))
    if (field === "deployment") {
      return Effect.succeed(registry.models().flatMap(({ deployments }) => deployments.map(({ id }) => id)))
    }
    return Effect.map(
      keys.list,
      (all) => given(all.flatMap((key) => field === "key" ? [key.name, key.id] : [key[field]]))
    )
  }

  /** Fails at a filter whose value neither the settings, the keys nor the ledger have. */
  const checkFilters = (where: NonNullable<UsageQuery["where"]>): Effect.Effect<void, InferenceError | SqlError> =>
    Effect.forEach(
      Object.entries(where) as ReadonlyArray<[Field, string | undefined]>,
      ([field, value]) =>
        Effect.gen(function*() {
          // An empty value selects rows without one.
          if (value === undefined || value === "") return
          const known = yield* configured(field)
          if (known.includes(value)) return
          const used = given((yield* ledger.usage({ by: [field] })).map((sum) => sum[field]))
          if (!used.includes(value)) return yield* unknown(field, value, [...new Set([...known, ...used])])
        }),
      { discard: true }
    )

  const idOf = (key: string) => Effect.orElseSucceed(Effect.map(keys.find(key), ({ id }) => id), () => key)

  /** The user of a key without one is the key's id. */
  const withKeyNames = (sums: ReadonlyArray<UsageSum>): Effect.Effect<ReadonlyArray<UsageSum>> =>
    Effect.map(keys.list, (all) => {
      const names = new Map(all.map(({ id, name }) => [id, name]))
      return sums.map((sum) => {
        const keyName = names.get(sum.key ?? sum.user ?? "")
        return keyName === undefined ? sum : { ...sum, keyName }
      })
    })

  return {
    /** The sums of a query, with the names of keys; a filter that selects nothing is checked. */
    usage: Effect.fnUntraced(function*({ where = {}, ...query }: UsageQuery) {
      const key = where.key === undefined ? undefined : yield* idOf(where.key)
      const sums = yield* ledger.usage({ ...query, where: { ...where, key } })
      if (sums.length === 0) yield* checkFilters(where)
      return query.by.includes("key") || query.by.includes("user") ? yield* withKeyNames(sums) : sums
    })
  }
})
