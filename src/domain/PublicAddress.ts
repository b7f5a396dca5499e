/**
 * Which addresses are in the public Internet, so that a request cannot make the service call a host of its own network.
 *
 * **Details**
 *
 * Sources: IANA's registries of special-purpose addresses for IPv4 and IPv6 (RFC 6890). An address that is not certainly
 * public is private: private and shared (CGNAT) networks, loopback, link-local (metadata services of clouds),
 * unique-local, multicast, documentation and reserved networks, and the address by which Azure's machines reach their
 * host. An IPv6 address that contains one of IPv4 is as public as that one.
 *
 * **Gotchas**
 *
 * An address is what a name resolves to. `isPrivateHost` knows only the name itself. Texts that Effect does not parse
 * strictly as an address (zone identifiers, brackets, octal, hexadecimal and short forms) are not public.
 */
import { Result } from "effect"
import * as IpNetwork from "effect/net/IpNetwork"
import * as NetAddress from "effect/net/NetAddress"

/** IPv4 networks that are not public. */
const privateIpv4 = [
  "0.0.0.0/8",
  "10.0.0.0/8",
  "100.64.0.0/10",
  "127.0.0.0/8",
  // Azure's host: Microsoft's page "What is IP address 168.63.129.16?".
  "168.63.129.16/32",
  "169.254.0.0/16",
  "172.16.0.0/12",
  "192.0.0.0/24",
  "192.0.2.0/24",
  "192.88.99.0/24",
  "192.168.0.0/16",
  "198.18.0.0/15",
  "198.51.100.0/24",
  "203.0.113.0/24",
  "224.0.0.0/3"
].map(IpNetwork.fromStringUnsafe)

/** Networks within 2000::/3 that are not public: protocols, documentation, 6to4. */
const privateIpv6 = [
  "2001::/23",
  "2001:db8::/32",
  "2002::/16",
  "3fff::/20"
].map(IpNetwork.fromStringUnsafe)

/** IPv6 networks whose addresses end in one of IPv4: mapped ones, and NAT64 (RFC 6052). */
const carriers = ["::ffff:0:0/96", "64:ff9b::/96"].map(IpNetwork.fromStringUnsafe)

/** The only IPv6 network that is allocated to the public Internet. */
const allocated = IpNetwork.fromStringUnsafe("2000::/3")

const isIn = (networks: ReadonlyArray<IpNetwork.IpNetwork>, address: NetAddress.IpAddress): boolean =>
  networks.some((network) => IpNetwork.contains(network, address))

const isPublicIp = (address: NetAddress.IpAddress): boolean => {
  if (NetAddress.isIpv4Address(address)) return !isIn(privateIpv4, address)
  if (!isIn(carriers, address)) return IpNetwork.contains(allocated, address) && !isIn(privateIpv6, address)
  const octets = NetAddress.ipv6ToOctets(address).slice(12)
  return isPublicIp(NetAddress.ipv4FromBytesUnsafe(Uint8Array.from(octets)))
}

/** Whether an address, as `203.0.113.7` or `2001:db8::7`, is in the public Internet; false for any other text. */
export const isPublic = (address: string): boolean =>
  Result.match(NetAddress.ipFromString(address), { onFailure: () => false, onSuccess: isPublicIp })

/** Texts that look like an IPv4 address. */
const dotted = /^\d+\.\d+\.\d+\.\d+$/

/** Names that no public host has. */
const privateName = /^(?:localhost|[^.]*)$|\.(?:localhost|local|internal|intranet|lan|home|corp|private|arpa|onion)$/i

/** The host of a URL as allow lists contain it: in lower case, without brackets and the last dot. */
export const hostOf = (url: URL): string => url.hostname.toLowerCase().replace(/^\[|\]$/g, "").replace(/\.$/, "")

/** Whether a host (see `hostOf`) is not public by its text alone, before a name is resolved. */
export const isPrivateHost = (host: string): boolean =>
  host.includes(":") || dotted.test(host) ? !isPublic(host) : privateName.test(host)
