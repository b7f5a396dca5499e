/**
 * What all scripts of stored responses have: the names of keys, and the index by which objects are deleted. Redis runs a script
 * at once, so that what one writes is whole.
 *
 * **Details**
 *
 * Each object is a hash, with its end, and each kind (`response`, `conversation`) has a sorted set of ends, a hash of sizes and
 * the sum of these. Redis deletes what no process writes for as long as objects are kept; the index a day later, so that what
 * has been deleted is taken off its sum.
 *
 * **Gotchas**
 *
 * One Redis, not a cluster: a script names its keys by what it finds.
 */
import type { Script } from "effect/persistence/Redis"
import { script } from "effect/persistence/Redis"

const dayMs = 86_400_000

/** What scripts are about: the begin of all names, and how long an object is kept after its last use, ms. */
export interface Place {
  readonly prefix: string
  readonly keptMs: number
}

const functions = `
local prefix, keptMs = KEYS[1], tonumber(ARGV[1])
local key = function(kind, id) return prefix .. kind .. ':' .. id end
local indexKeys = function(kind) return prefix .. kind .. 's:end', prefix .. kind .. 's:size', prefix .. kind .. 's:bytes' end
local ofOwner = function(kind, id, owner, now)
  local found = redis.call('HMGET', key(kind, id), 'owner', 'end')
  return found[1] == owner and tonumber(found[2]) > tonumber(now)
end
local lives = function(kind, id) return redis.call('EXISTS', key(kind, id)) == 1 end
local keep = function(kind, part, id, endsAt)
  redis.call('HSET', key(kind, id), 'end', endsAt)
  redis.call('PEXPIRE', key(kind, id), keptMs)
  redis.call('PEXPIRE', key(part, id), keptMs)
  local ends, sizes, bytes = indexKeys(kind)
  redis.call('ZADD', ends, endsAt, id)
  for _, name in ipairs({ ends, sizes, bytes }) do
    if redis.call('PTTL', name) < keptMs + ${dayMs} then redis.call('PEXPIRE', name, keptMs + ${dayMs}) end
  end
end
local grow = function(kind, id, count)
  local _, sizes, bytes = indexKeys(kind)
  redis.call('HINCRBY', key(kind, id), 'bytes', count)
  redis.call('HINCRBY', sizes, id, count)
  redis.call('INCRBY', bytes, count)
end
local drop = function(kind, part, id)
  local ends, sizes, bytes = indexKeys(kind)
  redis.call('DEL', key(kind, id), key(part, id))
  redis.call('ZREM', ends, id)
  redis.call('DECRBY', bytes, redis.call('HGET', sizes, id) or '0')
  redis.call('HDEL', sizes, id)
end
`

/** Arguments of a script, from `ARGV[2]` on. */
export type Arguments = ReadonlyArray<string | number>

type Declared<Result> = Script<{ readonly params: readonly [place: Place, ...Arguments]; readonly result: Result }>

/** Declares a script, which begins with the functions. */
export const declare = <Result>(lua: string): Declared<Result> =>
  script(
    ({ keptMs, prefix }: Place, ...given: Array<string | number>) => [prefix, Math.ceil(keptMs), ...given],
    { numberOfKeys: 1, lua: functions + lua }
  ).withReturnType<Result>()
