/**
 * Where a request comes from: its tenant and priority, its network address, and the number of Troupe instances it has
 * passed through.
 *
 * **Details**
 *
 * The mailbox is fair among network addresses, since a caller may make up any number of keys, but has few addresses. An
 * IPv6 address counts by its network of 64 bits, which one subscriber has whole.
 *
 * Each instance sends the number of instances to the next in a header. An instance rejects a request above the limit as
 * invalid, so that no instance before it retries: retries would multiply at every instance.
 */
import type { Duration } from "effect"
import { Context, Result } from "effect"
import type { Priority } from "./Inference.ts"
import { InvalidRequest } from "./InferenceError.ts"

/** The header with the caller's tenant, for another instance, which does not know the caller's key. */
export const tenantHeader = "x-troupe-tenant"

/** The tenant and priority of a request, and how long the model stays loaded after it: see `Inference.Request`. */
export interface Caller {
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

const mappedIpv4 = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i

/** The first four groups, written out where `::` leaves them out. */
const networkOf = (address: string): string => {
  const [head = "", tail] = address.split("::")
  const before = head === "" ? [] : head.split(":")
  const after = tail === undefined || tail === "" ? [] : tail.split(":")
  const left = Array<string>(Math.max(0, 8 - before.length - after.length)).fill("0")
  return [...before, ...(tail === undefined ? [] : left), ...after].slice(0, 4).join(":")
}

const keyOf = (address: string): string => {
  const plain = mappedIpv4.exec(address)?.[1] ?? address
  return plain.includes(":") ? networkOf(plain) : plain
}

/** The address that a request counts by, with what trusted proxies say of the address that they forward for. */
export const addressOf = (
  remote: string,
  forwardedFor: string | undefined,
  trustedProxies: ReadonlySet<string>
): string => {
  let address = mappedIpv4.exec(remote)?.[1] ?? remote
  if (forwardedFor === undefined || !trustedProxies.has(address)) return keyOf(address)
  // The last is the nearest. What is before an address that is not trusted may be made up.
  for (const one of forwardedFor.split(",").toReversed()) {
    if (!trustedProxies.has(address)) break
    address = one.trim()
  }
  return keyOf(address)
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
        `This request has come through ${hops} instances of Troupe, and may come through ${maxHops}: they seem to ask ` +
        "each other in a circle. Look at the baseUrl of their deployments with provider: troupe"
    })
  )
}
