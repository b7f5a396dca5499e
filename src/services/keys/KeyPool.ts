/**
 * Chooses one of several keys for a request. Pure: time and randomness are arguments.
 *
 * **Details**
 *
 * Keys are chosen by weight. A rate-limited key is not used for as long as the provider says. A rejected key is not used
 * until a probe is due: one request then tries it, and its outcome decides.
 */

/** One key's state; `until` (monotonic ms) applies where it is not `usable`, `refusedAt` (monotonic ms) where it is `refused`. */
interface KeyState {
  readonly weight: number
  readonly standing: "usable" | "limited" | "refused"
  readonly until: number
  readonly refusedAt: number
  /** Consecutive rejections. */
  readonly refusals: number
}

/** All keys of one deployment, at least one. */
export type KeyPool = ReadonlyArray<KeyState>

/** How long keys are not used, ms. */
export interface Cooldowns {
  /** A rate-limited key without a Retry-After. */
  readonly limited: number
  /** A rate-limited key at most. */
  readonly longest: number
  /** A rejected key until a probe; doubles with each rejected probe. */
  readonly refused: number
  /** A rejected key at most. */
  readonly longestRefused: number
}

/** @param weights each above 0 */
export const make = (weights: ReadonlyArray<number>): KeyPool =>
  weights.map((weight) => ({ weight, standing: "usable", until: 0, refusedAt: 0, refusals: 0 }))

const isFree = ({ standing, until }: KeyState, now: number): boolean => standing === "usable" || until <= now

const change = (keys: KeyPool, index: number, state: Partial<KeyState>): KeyPool =>
  keys.map((key, at) => at === index ? { ...key, ...state } : key)

/** The first key at which the sum of the weights so far exceeds the number. */
const drawn = (keys: KeyPool, among: ReadonlyArray<number>, random: number): number => {
  let left = random * among.reduce((sum, index) => sum + keys[index]!.weight, 0)
  for (const index of among) {
    left -= keys[index]!.weight
    if (left < 0) return index
  }
  return among.at(-1)!
}

/** The cooldown after this many consecutive rejections, ms. */
const refusedFor = (refusals: number, { longestRefused, refused }: Cooldowns): number =>
  Math.min(refused * 2 ** Math.max(0, refusals - 1), longestRefused)

/**
 * A key for the next try, and the pool afterwards; undefined if no key is free.
 *
 * @param random from 0 up to 1
 * @param tried keys that this request has tried already
 */
export const choose = (
  keys: KeyPool,
  tried: ReadonlySet<number>,
  now: number,
  random: number,
  cooldowns: Cooldowns
): { readonly index: number; readonly keys: KeyPool } | undefined => {
  const free = keys.flatMap((key, index) => isFree(key, now) && !tried.has(index) ? [index] : [])
  if (free.length === 0) return undefined
  const index = drawn(keys, free, random)
  const { refusals, standing } = keys[index]!
  // A request that takes a rejected key probes it; no other request does meanwhile.
  return standing === "refused"
    ? { index, keys: change(keys, index, { until: now + refusedFor(refusals, cooldowns) }) }
    : { index, keys }
}

/**
 * The provider accepted the key. Ignored while a rate limit lasts, and for requests that took the key before it was
 * rejected: their outcome is older.
 *
 * @param takenAt when the request took the key, monotonic ms
 */
export const accepted = (keys: KeyPool, index: number, takenAt: number, now: number): KeyPool => {
  const { refusedAt, standing, until } = keys[index]!
  const isOld = standing === "refused" ? takenAt <= refusedAt : until > now
  return standing === "usable" || isOld
    ? keys
    : change(keys, index, { standing: "usable", until: 0, refusals: 0 })
}

/**
 * A probe of a rejected key ended without a result about the key, as by HTTP 503: the next request may probe it at
 * once.
 *
 * @param takenAt when the request took the key, monotonic ms
 */
export const released = (keys: KeyPool, index: number, takenAt: number, now: number): KeyPool => {
  const { refusedAt, standing, until } = keys[index]!
  return standing === "refused" && takenAt > refusedAt && until > now ? change(keys, index, { until: now }) : keys
}

/** The provider rate-limits the key, and therefore accepts it. */
export const limited = (
  keys: KeyPool,
  index: number,
  now: number,
  retryAfterMs: number | undefined,
  cooldowns: Cooldowns
): KeyPool =>
  change(keys, index, {
    standing: "limited",
    until: now + Math.min(retryAfterMs ?? cooldowns.limited, cooldowns.longest),
    refusals: 0
  })

/**
 * The provider rejects the key. Several rejections of requests that were in flight together count as one.
 *
 * @param takenAt when the request took the key, monotonic ms
 */
export const refused = (keys: KeyPool, index: number, takenAt: number, now: number, cooldowns: Cooldowns): KeyPool => {
  const key = keys[index]!
  if (key.standing === "refused" && takenAt <= key.refusedAt) return keys
  const refusals = key.refusals + 1
  return change(keys, index, {
    standing: "refused",
    until: now + refusedFor(refusals, cooldowns),
    refusedAt: now,
    refusals
  })
}

/** The keys that are in cooldown. */
export interface WaitingKeys {
  readonly waiting: number
  readonly total: number
  /** The keys that the provider rejected and has not accepted since, waiting or not. */
  readonly rejected: number
  /** ms until the first of them is tried again; 0 if none waits. */
  readonly retryAfterMs: number
}

/** The keys that are in cooldown now. */
export const waiting = (keys: KeyPool, now: number): WaitingKeys => {
  const waits = keys.filter((key) => !isFree(key, now)).map(({ until }) => until - now)
  const rejected = keys.filter(({ standing }) => standing === "refused").length
  return {
    waiting: waits.length,
    total: keys.length,
    rejected,
    retryAfterMs: waits.length === 0 ? 0 : Math.min(...waits)
  }
}

/** ms until the first rejected key may be probed; undefined if none is rejected. */
export const probeIn = (keys: KeyPool, now: number): number | undefined => {
  const ends = keys.filter(({ standing }) => standing === "refused").map(({ until }) => until)
  return ends.length === 0 ? undefined : Math.max(0, Math.min(...ends) - now)
}

/** ms until the first rate-limited key is usable; undefined if all are rejected. */
export const limitedFor = (keys: KeyPool, now: number): number | undefined => {
  const ends = keys.filter(({ standing }) => standing === "limited").map(({ until }) => until)
  return ends.length === 0 ? undefined : Math.max(0, Math.min(...ends) - now)
}
