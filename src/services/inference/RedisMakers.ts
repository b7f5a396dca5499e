/**
 * The makers of signed reasoning in Redis, which all processes and instances share that use the same prefix: a value for each
 * signature, by its hash. Redis deletes it after `Defaults.reasoningMakers.keptMs`.
 */
import type { Array as Arr } from "effect"
import { Effect } from "effect"
import type { RedisError } from "effect/persistence/Redis"
import { Redis, script } from "effect/persistence/Redis"
import * as Defaults from "../../domain/Defaults.ts"
import * as WriteBehind from "../persistence/WriteBehind.ts"
import type { Made, Shared } from "./ReasoningMakers.ts"

const nameOf = (prefix: string, key: number): string => `${prefix}maker:${key.toString(36)}`

/** Writes all: one command for each would be an answer to wait for. */
const writing = script(
  (prefix: string, keptMs: number, rows: ReadonlyArray<Made>) => [
    ...rows.map(([key]) => nameOf(prefix, key)),
    keptMs,
    ...rows.map(([, maker]) => maker)
  ],
  {
    numberOfKeys: (_prefix, _keptMs, rows) => rows.length,
    lua: `
for index, name in ipairs(KEYS) do redis.call('SET', name, ARGV[index + 1], 'PX', ARGV[1]) end
return #KEYS
`
  }
)

const find =
  (redis: Redis["Service"], prefix: string) =>
  (keys: ReadonlyArray<number>): Effect.Effect<ReadonlyArray<Made>, RedisError> =>
    Effect.map(
      redis.send<ReadonlyArray<string | null>>("MGET", ...keys.map((key) => nameOf(prefix, key))),
      (found) =>
        keys.flatMap((key, index): ReadonlyArray<Made> => {
          const maker = found[index]
          return typeof maker === "string" ? [[key, maker]] : []
        })
    )

/**
 * In the Redis of the context. What waits is written at the end of the scope.
 *
 * @param prefix of the names of all keys
 */
export const make = Effect.fnUntraced(function*(prefix: string) {
  const redis = yield* Redis
  const { keptMs } = Defaults.reasoningMakers
  const rows = yield* WriteBehind.make({
    name: "the makers of signed reasoning",
    insert: (made: Arr.NonEmptyReadonlyArray<Made>) => redis.eval(writing)(prefix, keptMs, made)
  })
  const shared: Shared = { add: (made) => void rows.add(made), find: find(redis, prefix) }
  return shared
})
