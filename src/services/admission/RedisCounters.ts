/**
 * Shared counters in Redis: a script for each reservation and each end, which Redis runs at once.
 *
 * **Details**
 *
 * Effect's `RateLimiter` counts in one key with each call, and gives nothing back. A request counts in several limits and
 * budgets or in none, and refunds what it did not use.
 *
 * **Gotchas**
 *
 * One Redis, not a cluster: a script names its keys by what it finds. Instances compare their own clocks: these must agree
 * within `deadAfterMs`.
 */
import { Clock, Effect } from "effect"
import type { RedisError } from "effect/persistence/Redis"
import { Redis, script } from "effect/persistence/Redis"
import type { Counters, CounterState, Hold, Outcome, Spend } from "./Counters.ts"
import { beatMs, CountersLost, deadAfterMs, never } from "./Counters.ts"

/** How long counters are kept after their period, ms. */
const keptMs = 3_600_000

const functions = `
local prefix = KEYS[1]
local whole = function(number) return string.format('%.0f', number) end
local counterKey = function(name) return prefix .. 'counter:' .. name end
local read = function(key, field) return tonumber(redis.call('HGET', key, field) or '0') end
local keep = function(key, endsAt)
  if tonumber(endsAt) < ${never} then redis.call('PEXPIREAT', key, whole(tonumber(endsAt) + ${keptMs})) end
end
local release = function(instance, id)
  local held = redis.call('HGETALL', prefix .. 'held:' .. id)
  for index = 1, #held, 2 do
    local key = counterKey(held[index])
    if redis.call('EXISTS', key) == 1 then redis.call('HINCRBY', key, 'reserved', '-' .. held[index + 1]) end
  end
  redis.call('DEL', prefix .. 'held:' .. id)
  redis.call('SREM', prefix .. 'of:' .. instance, id)
end
local leave = function(instance)
  for _, id in ipairs(redis.call('SMEMBERS', prefix .. 'of:' .. instance)) do release(instance, id) end
  redis.call('ZREM', prefix .. 'instances', instance)
end
`

const ofHold = ({ amount, counter, endsAt, floor, most }: Hold) => [counter, most ?? -1, amount, floor, endsAt]
const ofSpend = ({ amount, counter, endsAt }: Spend) => [counter, amount, endsAt]

/** Returns 1 or 0, then what is spent and reserved of each counter. */
const reserving = script(
  (prefix: string, instance: string, id: string, holds: ReadonlyArray<Hold>) => [
    prefix,
    instance,
    id,
    ...holds.flatMap(ofHold)
  ],
  {
    numberOfKeys: 1,
    lua: `${functions}
local instance, id = ARGV[1], ARGV[2]
local out = { '1' }
for index = 3, #ARGV, 5 do
  local key, most, floor = counterKey(ARGV[index]), tonumber(ARGV[index + 1]), tonumber(ARGV[index + 3])
  if read(key, 'spent') < floor then redis.call('HSET', key, 'spent', ARGV[index + 3]) end
  local spent, reserved = read(key, 'spent'), read(key, 'reserved')
  if most >= 0 and spent + reserved + tonumber(ARGV[index + 2]) > most then out[1] = '0' end
  out[#out + 1] = whole(spent)
  out[#out + 1] = whole(reserved)
end
if out[1] == '1' then
  for index = 3, #ARGV, 5 do
    local name, amount = ARGV[index], ARGV[index + 2]
    redis.call('HINCRBY', counterKey(name), 'reserved', amount)
    redis.call('HINCRBY', prefix .. 'held:' .. id, name, amount)
    keep(counterKey(name), ARGV[index + 4])
  end
  redis.call('SADD', prefix .. 'of:' .. instance, id)
end
return out
`
  }
).withReturnType<ReadonlyArray<string>>()

/** Returns what is spent in each counter. */
const settling = script(
  (prefix: string, instance: string, id: string, spends: ReadonlyArray<Spend>) => [
    prefix,
    instance,
    id,
    ...spends.flatMap(ofSpend)
  ],
  {
    numberOfKeys: 1,
    lua: `${functions}
local out = {}
for index = 3, #ARGV, 3 do
  local key = counterKey(ARGV[index])
  redis.call('HINCRBY', key, 'spent', ARGV[index + 1])
  keep(key, ARGV[index + 2])
  out[#out + 1] = whole(read(key, 'spent'))
end
release(ARGV[1], ARGV[2])
return out
`
  }
).withReturnType<ReadonlyArray<string>>()

/** Says that an instance runs, and releases what those that have ended have left. */
const beating = script((prefix: string, instance: string, now: number) => [prefix, instance, now], {
  numberOfKeys: 1,
  lua: `${functions}
local instances, now = prefix .. 'instances', tonumber(ARGV[2])
redis.call('ZADD', instances, ARGV[2], ARGV[1])
for _, dead in ipairs(redis.call('ZRANGEBYSCORE', instances, '-inf', whole(now - ${deadAfterMs}))) do leave(dead) end
return 0
`
})

const leaving = script((prefix: string, instance: string) => [prefix, instance], {
  numberOfKeys: 1,
  lua: `${functions}
leave(ARGV[1])
return 0
`
})

const outcomeOf = (holds: ReadonlyArray<Hold>, [isReserved, ...numbers]: ReadonlyArray<string>): Outcome => ({
  isReserved: isReserved === "1",
  states: holds.map((_, index): CounterState => ({
    spent: Number(numbers[2 * index]),
    reserved: Number(numbers[2 * index + 1])
  }))
})

const lost = Effect.mapError((cause: RedisError) => new CountersLost({ cause }))

/**
 * The counters in the Redis of the context. The end of the scope releases the reservations of the instance.
 *
 * @param prefix of the names of all keys
 * @param instance another for each process
 */
export const make = Effect.fnUntraced(function*(prefix: string, instance: string) {
  const redis = yield* Redis
  const beat = Effect.flatMap(Clock.currentTimeMillis, (now) => redis.eval(beating)(prefix, instance, Math.round(now)))
  yield* lost(beat)
  yield* Effect.addFinalizer(() => Effect.ignore(redis.eval(leaving)(prefix, instance)))
  yield* Effect.forkScoped(Effect.forever(Effect.delay(Effect.ignore(beat), beatMs)))
  const counters: Counters = {
    place: "Redis",
    reserve: (id, holds) =>
      lost(Effect.map(redis.eval(reserving)(prefix, instance, id, holds), (found) => outcomeOf(holds, found))),
    settle: (id, spends) =>
      lost(Effect.map(redis.eval(settling)(prefix, instance, id, spends), (found) => found.map(Number)))
  }
  return counters
})
