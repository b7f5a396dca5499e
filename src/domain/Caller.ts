/**
 * Where a request comes from: its tenant and priority, its network address, and the number of Troupe instances it has
 * passed through.
 *
 * **Details**
 *
 * The mailbox is fair among network addresses, since a caller can send any number of keys, but has few addresses. All
 * addresses of an IPv6 network of 64 bits count as one, since one subscriber has all of them.
 *
 * Each instance sends the number of instances to the next in a header. An instance rejects a request above the limit as
 * invalid, so that no instance before it retries: retries would multiply at every instance.
 */
import type { Duration } from "effect"
import { Context, Option, Result } from "effect"
import * as IpNetwork from "effect/net/IpNetwork"
import * as NetAddress from "effect/net/NetAddress"
import type { Identity } from "./Identity.ts"
import type { Priority } from "./Inference.ts"
import { InvalidRequest } from "./InferenceError.ts"

/** The bits of an IPv6 address that name the network of one subscriber. */
const subscriberBits = 64

/** The header with the caller's tenant, for another instance, which does not have the caller's key. */
export const tenantHeader = "x-troupe-tenant"

/** The identity, tenant and priority of a request, and how long the model stays loaded after it: see `Inference.Request`. */
export interface Caller {
  readonly identity?: Identity | undefined
  readonly tenant?: string | undefined
  readonly priority?: Priority | undefined
  readonly keepAlive?: Duration.Duration | undefined
}

/**
 * Returns the address by the context of a fiber; empty if the fiber serves no request of the network.
 *
 * It is provided once and called where a request waits for a slot: providing the address itself would copy every
 * request's context.
 */
export const CallerAddress = Context.Reference<(context: Context.Context<never>) => string>(
  "troupe/domain/Caller/CallerAddress",
  { defaultValue: () => () => "" }
)

/** Returns the id of the request by the context of a fiber, as `CallerAddress` does; undefined if it serves none of the network. */
export const RequestId = Context.Reference<(context: Context.Context<never>) => string | undefined>(
  "troupe/domain/Caller/RequestId",
  { defaultValue: () => () => undefined }
)

/** What log entries of a request have of it. */
export type LogIds = Readonly<Record<string, string>>

/** Returns the ids for log entries by the context of a fiber, as `CallerAddress` does; undefined if it serves none of the network. */
export const RequestLogIds = Context.Reference<(context: Context.Context<never>) => LogIds | undefined>(
  "troupe/domain/Caller/RequestLogIds",
  { defaultValue: () => () => undefined }
)

/** The id of the decision record whose request the fiber sends again; undefined for other requests. */
export const ReplayOf = Context.Reference<string | undefined>("troupe/domain/Caller/ReplayOf", {
  defaultValue: () => undefined
})

/** What Troupe itself asks a deployment: whether it answers, or the prompts of a rollout. */
export const checks = ["health", "probe"] as const
export type Check = typeof checks[number]

/** Set where Troupe itself sends the request of the fiber: it counts in no figure of callers. */
export const CheckOf = Context.Reference<Check | undefined>("troupe/domain/Caller/CheckOf", {
  defaultValue: () => undefined
})

/** A port may follow the address, as some proxies write it; the zone of a link-local address has no meaning here. */
const parse = (text: string): Option.Option<NetAddress.IpAddress> =>
  Result.getSuccess(Result.map(
    Result.orElse(
      NetAddress.ipFromString(text.split("%", 1)[0]!),
      () => Result.map(NetAddress.inetAddressFromString(text), ({ address }) => address)
    ),
    (address) => NetAddress.toCanonical(address)
  ))

/** One text for each address; a text that is not an address stays as it is. */
const canonicalOf = (text: string): string =>
  Option.match(parse(text), { onNone: () => text, onSome: NetAddress.formatIp })

/** The address, or the network of an IPv6 address, by which the mailbox is fair. */
const keyOf = (text: string): string =>
  Option.match(parse(text), {
    onNone: () => text,
    onSome: (address) =>
      NetAddress.isIpv4Address(address)
        ? NetAddress.formatIp(address)
        : IpNetwork.format(IpNetwork.fromAddressUnsafe(address, subscriberBits))
  })

/** The trusted proxies of `addressOf`, from configured addresses. */
export const trustedProxiesOf = (addresses: ReadonlyArray<string>): ReadonlySet<string> =>
  new Set(addresses.map(canonicalOf))

/**
 * The address that a request counts by: that of its connection, or the one that trusted proxies forwarded it for.
 *
 * @param forwardedFor the header `X-Forwarded-For`
 */
export const addressOf = (
  remote: string,
  forwardedFor: string | undefined,
  trustedProxies: ReadonlySet<string>
): string => {
  if (forwardedFor === undefined || !trustedProxies.has(canonicalOf(remote))) return keyOf(remote)
  const entries = forwardedFor.split(",").map((entry) => entry.trim())
  // Each proxy appends an entry. A client may send entries of its own, before that of the first trusted proxy.
  return keyOf(entries.findLast((entry) => !trustedProxies.has(canonicalOf(entry))) ?? entries[0]!)
}

/** The header with the number of instances. */
export const hopHeader = "x-troupe-hops"

/** Instances that a request may pass through: more than any useful chain has. */
export const maxHops = 8

/** The number of instances that the request of a fiber has passed through. */
export const HopCount = Context.Reference<number>("troupe/domain/Caller/HopCount", { defaultValue: () => 0 })

/** The number in the header; 0 if it is missing or no number, which no instance sends. */
export const hopsOf = (
  headers: Readonly<Record<string, string | undefined>>
): Result.Result<number, InvalidRequest> => {
  const value = headers[hopHeader]
  if (value === undefined) return Result.succeed(0)
  const hops = /^\d{1,3}$/.test(value) ? Number(value) : 0
  return hops < maxHops ? Result.succeed(hops) : Result.fail(
    new InvalidRequest({
      detail:
        `The request has passed through ${hops} instances of Troupe, and the limit is ${maxHops}: instances may be ` +
        "configured in a circle. Check the baseUrl of their deployments with provider: troupe."
    })
  )
}
