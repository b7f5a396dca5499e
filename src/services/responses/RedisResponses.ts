/** Stored responses and the events of those that are streamed in the background, in Redis. */
import { Effect } from "effect"
import type { Redis, RedisError } from "effect/persistence/Redis"
import type { Frames } from "./FrameLog.ts"
import type { Place } from "./RedisScripts.ts"
import { declare } from "./RedisScripts.ts"
import type { Chain, Json, NewResponse, StoredResponse } from "./ResponseStore.ts"
import { longestChain } from "./ResponseStore.ts"
import type { FrameTable, ResponseTable } from "./Tables.ts"

type Texts = ReadonlyArray<string>

/** In the order of `responseOf`, after the id. An id of nothing is empty. */
const fields = "'input', 'body', 'status', 'previous', 'conversation', 'seen'"

const inserting = declare<number>(`
local id, owner, endsAt, seen, status, previous, conversation = unpack(ARGV, 2, 8)
redis.call('HSET', key('response', id), 'owner', owner, 'seen', seen, 'status', status, 'previous', previous,
  'conversation', conversation, 'input', ARGV[9], 'body', ARGV[10])
grow('response', id, #ARGV[9] + #ARGV[10])
keep('response', 'events', id, endsAt)
return #ARGV[9] + #ARGV[10]
`)

const finding = declare<Texts | null>(`
local owner, id, now = unpack(ARGV, 2)
if not ofOwner('response', id, owner, now) then return false end
return { id, unpack(redis.call('HMGET', key('response', id), ${fields})) }
`)

/** Returns `found` with the responses, latest first, `missing` with an id, or `too-large` with bytes. */
const chaining = declare<readonly [type: Chain["type"], ...rest: Array<string | Texts>]>(`
local owner, id, now, most = unpack(ARGV, 2)
local ids, bytes = {}, 0
while id ~= '' do
  if #ids > ${longestChain} or not ofOwner('response', id, owner, now) then return { 'missing', id } end
  local found = redis.call('HMGET', key('response', id), 'previous', 'bytes')
  ids[#ids + 1] = id
  id, bytes = found[1], bytes + tonumber(found[2])
end
if bytes > tonumber(most) then return { 'too-large', string.format('%.0f', bytes) } end
local out = { 'found' }
for _, one in ipairs(ids) do out[#out + 1] = { one, unpack(redis.call('HMGET', key('response', one), ${fields})) } end
return out
`)

const keeping = declare<number>(`
local endsAt, before = ARGV[2], tonumber(ARGV[3])
for index = 4, #ARGV do
  local ends = redis.call('HGET', key('response', ARGV[index]), 'end')
  if ends and tonumber(ends) < before then keep('response', 'events', ARGV[index], endsAt) end
end
return 0
`)

const isRunning = `
local status = redis.call('HGET', key('response', ARGV[2]), 'status')
if status ~= 'queued' and status ~= 'in_progress' then return 0 end
`

const finishing = declare<number>(`${isRunning}
redis.call('HSET', key('response', ARGV[2]), 'status', ARGV[3], 'body', ARGV[4])
grow('response', ARGV[2], #ARGV[4])
return 1
`)

const seeing = declare<number>(`${isRunning}
redis.call('HSET', key('response', ARGV[2]), 'status', 'in_progress', 'seen', ARGV[3])
return 1
`)

const removing = declare<number>(`
local owner, id, now = unpack(ARGV, 2)
if not ofOwner('response', id, owner, now) then return 0 end
drop('response', 'events', id)
return 1
`)

/** The score of a row is the number of its last event, with which its text begins: equal texts are two rows. */
const adding = declare<number>(`
local id, last, text = unpack(ARGV, 2)
if not lives('response', id) then return 0 end
redis.call('ZADD', key('events', id), last, last .. ':' .. text)
grow('response', id, #text)
redis.call('PEXPIRE', key('events', id), keptMs)
return 1
`)

const reading = declare<Texts>(`
return redis.call('ZRANGEBYSCORE', key('events', ARGV[2]), '(' .. ARGV[3], '+inf')
`)

const responseOf = ([id, input, body, status, previous, conversation, seen]: Texts): StoredResponse => ({
  id: id!,
  input: JSON.parse(input!) as ReadonlyArray<Json>,
  body: JSON.parse(body!) as Json,
  status: status!,
  previous: previous === "" ? undefined : previous,
  conversation: conversation === "" ? undefined : conversation,
  seenAt: Number(seen)
})

const chainOf = ([type, first, ...rest]: readonly [Chain["type"], ...Array<string | Texts>]): Chain => {
  if (type === "missing") return { type, id: first as string }
  if (type === "too-large") return { type, bytes: Number(first) }
  return { type, responses: ([first, ...rest] as ReadonlyArray<Texts>).toReversed().map(responseOf) }
}

const isDone = (effect: Effect.Effect<number, RedisError>) => Effect.map(effect, (count) => count > 0)

/** Stored responses. */
export class RedisResponses implements ResponseTable {
  readonly #redis: Redis["Service"]
  readonly #place: Place

  constructor(redis: Redis["Service"], place: Place) {
    this.#redis = redis
    this.#place = place
  }

  insert({ at, body, conversation, expiresAt, id, input, owner, previous, status }: NewResponse) {
    const texts = [JSON.stringify(input), JSON.stringify(body)]
    return this.#redis.eval(inserting)(
      this.#place,
      id,
      owner,
      expiresAt,
      at,
      status,
      previous ?? "",
      conversation ?? "",
      ...texts
    )
  }

  find(owner: string, id: string, now: number) {
    return Effect.map(
      this.#redis.eval(finding)(this.#place, owner, id, now),
      (found) => found === null ? undefined : responseOf(found)
    )
  }

  chain(owner: string, id: string, now: number, most: number) {
    return Effect.map(this.#redis.eval(chaining)(this.#place, owner, id, now, most), chainOf)
  }

  keep(ids: ReadonlyArray<string>, expiresAt: number, whenBefore: number) {
    return ids.length === 0
      ? Effect.void
      : Effect.asVoid(this.#redis.eval(keeping)(this.#place, expiresAt, whenBefore, ...ids))
  }

  finish(id: string, status: string, body: Json) {
    return isDone(this.#redis.eval(finishing)(this.#place, id, status, JSON.stringify(body)))
  }

  see(id: string, now: number) {
    return isDone(this.#redis.eval(seeing)(this.#place, id, now))
  }

  remove(owner: string, id: string, now: number) {
    return isDone(this.#redis.eval(removing)(this.#place, owner, id, now))
  }
}

const framesOf = (text: string): Frames => {
  const end = text.indexOf(":")
  return { last: Number(text.slice(0, end)), text: text.slice(end + 1) }
}

/** The events of all responses, which are deleted with these. */
export const frames = (redis: Redis["Service"], place: Place): FrameTable => ({
  add: (response, { last, text }) => Effect.asVoid(redis.eval(adding)(place, response, last, text)),
  after: (response, number) => Effect.map(redis.eval(reading)(place, response, number), (rows) => rows.map(framesOf)),
  remove: () => Effect.void
})
