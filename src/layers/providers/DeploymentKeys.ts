/** The keys of a remote deployment, and which of them its provider accepts. */
import { Clock, Effect, Random, Redacted, Result } from "effect"
import { ellipsis } from "../../dialects/shared/ErrorMapping.ts"
import * as Defaults from "../../domain/Defaults.ts"
import type { RemoteDeployment } from "../../domain/Deployment.ts"
import * as InferenceError from "../../domain/InferenceError.ts"
import * as Text from "../../domain/Text.ts"
import * as Time from "../../domain/Time.ts"
import * as KeyPool from "../../services/keys/KeyPool.ts"

/** A key for one try. */
export interface Held {
  readonly index: number
  /** Undefined if none is configured: the request is sent without a key. */
  readonly key: Redacted.Redacted | undefined
  /** When it was taken, monotonic ms. */
  readonly since: number
  /** The provider rejected the key before, and this request probes it. */
  readonly probes: boolean
}

export interface DeploymentKeys {
  /** A usable key that was not tried yet, or why there is none. */
  readonly take: (deployment: string, tried: ReadonlySet<number>) => Result.Result<Held, InferenceError.InferenceError>
  /** Records the outcome of a request with the key; undefined if the provider accepted it. */
  readonly note: (held: Held, reason: InferenceError.Reason | undefined) => void
  /** The request ended without a response. */
  readonly release: (held: Held) => void
  readonly waiting: (now: number) => KeyPool.WaitingKeys
  /** Makes all keys usable again. */
  readonly reset: () => void
  /** The same reason with all secrets removed from its texts. */
  readonly clean: (reason: InferenceError.Reason) => InferenceError.Reason
}

/** Texts up to this length do not count as secrets, since they can occur in any text. */
const shortest = 3
const redacted = "<redacted>"

/** The line break at the end of a secret file is not part of the key. */
const trimmed = (key: Redacted.Redacted | undefined) =>
  key === undefined ? undefined : Redacted.make(Text.trimKey(Redacted.value(key)))

const keysOf = ({ key, keys }: RemoteDeployment): ReadonlyArray<readonly [Redacted.Redacted | undefined, number]> =>
  keys === undefined ? [[trimmed(key), 1]] : keys.map(({ key, weight = 1 }) => [trimmed(key), weight])

/** Why a key or a header cannot be sent; undefined if all can. */
export const unfitIn = (options: RemoteDeployment): string | undefined => {
  const values: ReadonlyArray<readonly [name: string, value: Redacted.Redacted | undefined]> = [
    ...keysOf(options).map(([key], index) => [options.keys === undefined ? "key" : `keys[${index}]`, key] as const),
    ...Object.entries(options.headers ?? {}).map(([name, value]) => [`headers.${name}`, value] as const)
  ]
  for (const [name, value] of values) {
    const problem = value === undefined ? undefined : Text.headerProblem(Text.trimValue(Redacted.value(value)))
    if (problem !== undefined) return `${name} does not fit an HTTP header: ${problem}.`
  }
  return undefined
}

/**
 * Longest first, because one may start with another. For a header such as `Bearer <key>`, the key alone is included.
 */
const secretsOf = (options: RemoteDeployment): ReadonlyArray<string> =>
  [...keysOf(options).map(([key]) => key), ...Object.values(options.headers ?? {})]
    .flatMap((secret) => secret === undefined ? [] : [Redacted.value(secret)])
    .flatMap((secret) => [secret, secret.replace(/^\S+\s+/, "")])
    .filter(({ length }) => length > shortest)
    .sort((one, other) => other.length - one.length)

/** The text without the secret, and without its beginning if the text was cut within it. */
const without = (text: string, secret: string): string => {
  const hidden = text.replaceAll(secret, redacted)
  const end = hidden.lastIndexOf(ellipsis)
  if (end < 0) return hidden
  for (let length = Math.min(end, secret.length - 1); length > shortest; length--) {
    if (hidden.startsWith(secret.slice(0, length), end - length)) {
      return `${hidden.slice(0, end - length)}${redacted}${hidden.slice(end)}`
    }
  }
  return hidden
}

/** Statuses that a gateway sends, or a provider before it has read the request. */
const gaveUp = new Set([407, 408])

const ofRequest = new Set<InferenceError.Reason["_tag"]>([
  "InvalidRequest",
  "ContextLengthExceeded",
  "ContentRefused",
  "NotSupported"
])

/** Whether the outcome proves that the provider accepts the key: it read the request and rejects the request itself. */
const proves = (reason: InferenceError.Reason | undefined): boolean => {
  if (reason === undefined || ofRequest.has(reason._tag)) return true
  if (reason._tag !== "UpstreamFailed") return false
  const { status = 0 } = reason
  return status >= 400 && status < 500 && !gaveUp.has(status)
}

const cleaned = (reason: InferenceError.Reason, hide: (text: string) => string): InferenceError.Reason => {
  switch (reason._tag) {
    case "UpstreamFailed": {
      const { deployment, detail, kind, retryAfterMs, status } = reason
      return new InferenceError.UpstreamFailed({
        deployment,
        kind,
        detail: hide(detail),
        ...(status === undefined ? {} : { status }),
        ...(retryAfterMs === undefined ? {} : { retryAfterMs })
      })
    }
    case "ContentRefused":
      return new InferenceError.ContentRefused({
        deployment: reason.deployment,
        detail: hide(reason.detail),
        ...(reason.answer === undefined ? {} : { answer: reason.answer })
      })
    case "InvalidRequest":
      return reason.renamed(hide, hide(reason.detail))
    default:
      return reason
  }
}

/** Why no key is usable. */
const noneFree = (
  deployment: string,
  keys: KeyPool.KeyPool,
  now: number,
  isUsedUp: boolean
): InferenceError.InferenceError => {
  const retryAfterMs = KeyPool.limitedFor(keys, now)
  return InferenceError.make(
    retryAfterMs === undefined
      ? new InferenceError.AuthenticationFailed({
        deployment,
        retryAfterMs: KeyPool.probeIn(keys, now) ?? 0,
        ...(isUsedUp ? { quota: true as const } : {})
      })
      : new InferenceError.RateLimited({ deployment, retryAfterMs, cached: true })
  )
}

/** Where the keys of a deployment get time and randomness from. */
export interface Sources {
  /** monotonic ms */
  readonly now: () => number
  /** From 0 to 1. */
  readonly random: () => number
}

export const sources: Effect.Effect<Sources> = Effect.gen(function*() {
  const clock = yield* Clock.Clock
  const random = yield* Random.Random
  return { now: () => Time.nowOf(clock), random: () => random.nextDoubleUnsafe() }
})

export const make = (
  options: RemoteDeployment,
  { now: currentTime, random }: Sources,
  cooldowns: KeyPool.Cooldowns = Defaults.keyCooldowns
): DeploymentKeys => {
  const held = keysOf(options).map(([key]) => key)
  const secrets = secretsOf(options)
  /** Keys whose quota was used up at their last rejection. */
  const usedUp = new Set<number>()
  const fresh = KeyPool.make(keysOf(options).map(([, weight]) => weight))
  let keys = fresh

  const rejected = (index: number, since: number, now: number, isUsedUp: boolean): KeyPool.KeyPool => {
    if (isUsedUp) usedUp.add(index)
    else usedUp.delete(index)
    // Waiting does not restore a used-up quota: its key gets the longest cooldown from the first rejection on.
    const refused = isUsedUp ? cooldowns.longestRefused : cooldowns.refused
    return KeyPool.refused(keys, index, since, now, { ...cooldowns, refused })
  }

  const noted = ({ index, since }: Held, reason: InferenceError.Reason | undefined, now: number): KeyPool.KeyPool => {
    if (reason?._tag === "AuthenticationFailed") return rejected(index, since, now, reason.quota === true)
    if (reason?._tag === "RateLimited") return KeyPool.limited(keys, index, now, reason.retryAfterMs, cooldowns)
    return proves(reason) ? KeyPool.accepted(keys, index, since, now) : KeyPool.released(keys, index, since, now)
  }

  return {
    take: (deployment, tried) => {
      const now = currentTime()
      // The only key while it is accepted, when no choice is necessary.
      if (keys === fresh && keys.length === 1 && tried.size === 0) {
        return Result.succeed({ index: 0, key: held[0], since: now, probes: false })
      }
      const chosen = KeyPool.choose(keys, tried, now, random(), cooldowns)
      if (chosen === undefined) return Result.fail(noneFree(deployment, keys, now, usedUp.size === held.length))
      const probes = chosen.keys !== keys
      keys = chosen.keys
      return Result.succeed({ index: chosen.index, key: held[chosen.index], since: now, probes })
    },
    note: (held, reason) => {
      if (reason === undefined && keys === fresh) return
      keys = noted(held, reason, currentTime())
      if (reason?._tag === "RateLimited" || proves(reason)) usedUp.delete(held.index)
    },
    release: ({ index, since }) => {
      keys = KeyPool.released(keys, index, since, currentTime())
    },
    waiting: (now) => KeyPool.waiting(keys, now),
    reset: () => {
      keys = fresh
      usedUp.clear()
    },
    clean: (reason) => cleaned(reason, (text) => secrets.reduce(without, text))
  }
}
