/**
 * The network address that a request comes from, by which callers take turns: see `FairQueue`.
 *
 * **Details**
 *
 * A caller may make up any number of keys, but has few addresses. Of IPv6 the network of 64 bits counts, since one
 * subscriber has all of it.
 */
import { Context } from "effect"

/**
 * Finds the address in the context of a fiber; empty where it works for no request of the network.
 *
 * It is provided once and asked where a request waits for a local engine: to provide the address itself would copy every
 * request's context.
 */
export const CallerAddress = Context.Reference<(context: Context.Context<never>) => string>(
  "troupe/domain/CallerAddress",
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

/** Whose request it is by its address, with what trusted proxies say that they pass on. */
export const of = (
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
