/**
 * Responses and conversations in Redis, which all processes and instances share that use the same prefix.
 *
 * **Gotchas**
 *
 * They are as durable as Redis: with `appendonly yes` they survive its restart. A Redis with an eviction policy of all keys may
 * delete them earlier.
 */
import { Effect } from "effect"
import { Redis } from "effect/persistence/Redis"
import type { RedisError } from "effect/persistence/Redis"
import type { StoredConversation, StoredItem } from "./ConversationStore.ts"
import * as RedisResponses from "./RedisResponses.ts"
import type { Place } from "./RedisScripts.ts"
import { declare } from "./RedisScripts.ts"
import type { Json } from "./ResponseStore.ts"
import type { ConversationTable, Kept, Tables } from "./Tables.ts"

/** Objects that are deleted at a time. */
const batch = 100

const creating = declare<number>(`
local id, owner, createdAt, endsAt, metadata = unpack(ARGV, 2)
redis.call('HSET', key('conversation', id), 'owner', owner, 'created', createdAt, 'metadata', metadata)
grow('conversation', id, 0)
keep('conversation', 'items', id, endsAt)
return 1
`)

const finding = declare<readonly [createdAt: string, bytes: string, metadata: string] | null>(`
local owner, id, now = unpack(ARGV, 2)
if not ofOwner('conversation', id, owner, now) then return false end
return redis.call('HMGET', key('conversation', id), 'created', 'bytes', 'metadata')
`)

const describing = declare<number>(`
if lives('conversation', ARGV[2]) then redis.call('HSET', key('conversation', ARGV[2]), 'metadata', ARGV[3]) end
return 1
`)

const listing = declare<ReadonlyArray<string>>(`
return redis.call('LRANGE', key('items', ARGV[2]), 0, -1)
`)

/** An element of the list is the id of an item as JSON, a line end, and the item. */
const adding = declare<number>(`
local id, endsAt, bytes = unpack(ARGV, 2, 4)
if not lives('conversation', id) then return 0 end
for index = 5, #ARGV do redis.call('RPUSH', key('items', id), ARGV[index]) end
grow('conversation', id, bytes)
keep('conversation', 'items', id, endsAt)
return 1
`)

const removingItem = declare<number>(`
local items, begin, count = key('items', ARGV[2]), ARGV[3], 0
for _, item in ipairs(redis.call('LRANGE', items, 0, -1)) do
  if string.sub(item, 1, #begin) == begin then count = count + redis.call('LREM', items, 1, item) end
end
return count
`)

const ending = declare<ReadonlyArray<string>>(`
local kind = ARGV[2]
local ends, sizes = indexKeys(kind)
local out = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', ends, '-inf', ARGV[3], 'LIMIT', 0, ${batch})) do
  out[#out + 1] = id
  out[#out + 1] = redis.call('HGET', sizes, id) or '0'
end
return out
`)

const dropping = declare<number>(`
for index = 4, #ARGV do drop(ARGV[2], ARGV[3], ARGV[index]) end
return 1
`)

const idOf = (id: string): string => `${JSON.stringify(id)}\n`

const itemOf = (element: string): StoredItem => JSON.parse(element.slice(element.indexOf("\n") + 1)) as StoredItem

class RedisConversations implements ConversationTable {
  readonly #redis: Redis["Service"]
  readonly #place: Place

  constructor(redis: Redis["Service"], place: Place) {
    this.#redis = redis
    this.#place = place
  }

  create(id: string, owner: string, metadata: Json, at: number, expiresAt: number) {
    return Effect.asVoid(this.#redis.eval(creating)(this.#place, id, owner, at, expiresAt, JSON.stringify(metadata)))
  }

  find(owner: string, id: string, now: number): Effect.Effect<StoredConversation | undefined, RedisError> {
    return Effect.map(this.#redis.eval(finding)(this.#place, owner, id, now), (found) => {
      if (found === null) return undefined
      const [createdAt, bytes, metadata] = found
      return { id, createdAt: Number(createdAt), bytes: Number(bytes), metadata: JSON.parse(metadata) as Json }
    })
  }

  describe(id: string, metadata: Json) {
    return Effect.asVoid(this.#redis.eval(describing)(this.#place, id, JSON.stringify(metadata)))
  }

  items(id: string) {
    return Effect.map(this.#redis.eval(listing)(this.#place, id), (elements) => elements.map(itemOf))
  }

  add(id: string, items: ReadonlyArray<StoredItem>, expiresAt: number) {
    const texts = items.map((item) => JSON.stringify(item))
    const bytes = texts.reduce((sum, text) => sum + Buffer.byteLength(text), 0)
    const elements = items.map((item, index) => idOf(item.id) + texts[index]!)
    return Effect.asVoid(this.#redis.eval(adding)(this.#place, id, expiresAt, bytes, ...elements))
  }

  removeItem(id: string, item: string) {
    return Effect.map(this.#redis.eval(removingItem)(this.#place, id, idOf(item)), (count) => count > 0)
  }

  remove(ids: ReadonlyArray<string>) {
    return Effect.asVoid(this.#redis.eval(dropping)(this.#place, "conversation", "items", ...ids))
  }
}

const keptOf = (redis: Redis["Service"], place: Place, kind: string, part: string): Kept => ({
  bytes: Effect.suspend(() => Effect.map(redis.send<string | null>("GET", `${place.prefix}${kind}s:bytes`), Number)),
  ending: (until) =>
    Effect.map(
      redis.eval(ending)(place, kind, until),
      (found) =>
        Array.from({ length: found.length / 2 }, (_, index) => ({
          id: found[2 * index]!,
          bytes: Number(found[2 * index + 1])
        }))
    ),
  remove: (ids) => Effect.asVoid(redis.eval(dropping)(place, kind, part, ...ids))
})

/**
 * In the Redis of the context.
 *
 * @param prefix of the names of all keys
 * @param keptMs how long an object is kept after its last use, ms
 */
export const make = (prefix: string, keptMs: number) =>
  Effect.map(Redis, (redis): Tables => {
    const place: Place = { prefix: `${prefix}responses:`, keptMs }
    return {
      responses: new RedisResponses.RedisResponses(redis, place),
      conversations: new RedisConversations(redis, place),
      frames: RedisResponses.frames(redis, place),
      kept: [keptOf(redis, place, "response", "events"), keptOf(redis, place, "conversation", "items")]
    }
  })
