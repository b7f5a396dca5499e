/**
 * Which addresses are in the public Internet, so that nobody makes us ask a host of our own network for something.
 *
 * **Details**
 *
 * Sources: IANA's registries of special-purpose addresses for IPv4 and IPv6 (RFC 6890). What is not certainly public is
 * not: private and shared (CGNAT) networks, loopback, link-local, where clouds have their metadata, unique-local,
 * multicast, documentation and reserved ones; and one by which Azure's machines reach their own host. An IPv6 address
 * that stands for one of IPv4 is as public as that one.
 *
 * **Gotchas**
 *
 * An address is what a name resolves to. `isPrivateHost` knows only what a host's name says of itself.
 */

/** The first bits of networks that are not public, with how many of them count. */
const privateIpv4: ReadonlyArray<readonly [network: string, bits: number]> = [
  ["0.0.0.0", 8],
  ["10.0.0.0", 8],
  ["100.64.0.0", 10],
  ["127.0.0.0", 8],
  // Azure's own, with what the machine's agent is told: Microsoft's page "What is IP address 168.63.129.16?".
  ["168.63.129.16", 32],
  ["169.254.0.0", 16],
  ["172.16.0.0", 12],
  ["192.0.0.0", 24],
  ["192.0.2.0", 24],
  ["192.88.99.0", 24],
  ["192.168.0.0", 16],
  ["198.18.0.0", 15],
  ["198.51.100.0", 24],
  ["203.0.113.0", 24],
  ["224.0.0.0", 3]
]

/** Of what is within 2000::/3, which alone is given out: protocols, documentation, 6to4. */
const privateIpv6: ReadonlyArray<readonly [network: string, bits: number]> = [
  ["2001::", 23],
  ["2001:db8::", 32],
  ["2002::", 16],
  ["3fff::", 20]
]

/** Where an IPv6 address ends in one of IPv4: mapped ones, and those of NAT64 (RFC 6052). */
const carriers: ReadonlyArray<readonly [network: string, bits: number]> = [["::ffff:0:0", 96], ["64:ff9b::", 96]]

const ipv4Of = (text: string): bigint | undefined => {
  const bytes = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(text)?.slice(1).map(Number)
  return bytes === undefined || bytes.some((byte) => byte > 255)
    ? undefined
    : bytes.reduce((sum, byte) => sum << 8n | BigInt(byte), 0n)
}

/** Pieces of 16 bits; the last may be written as an address of IPv4. */
const piecesOf = (text: string): Array<string> => {
  if (text === "") return []
  const pieces = text.split(":")
  const inner = ipv4Of(pieces.at(-1)!)
  return inner === undefined
    ? pieces
    : [...pieces.slice(0, -1), (inner >> 16n).toString(16), (inner & 0xffffn).toString(16)]
}

const ipv6Of = (text: string): bigint | undefined => {
  const [head = "", tail, ...others] = text.split("::")
  if (others.length > 0) return undefined
  const before = piecesOf(head)
  const after = tail === undefined ? [] : piecesOf(tail)
  const left = 8 - before.length - after.length
  if (tail === undefined ? left !== 0 : left < 1) return undefined
  const pieces = [...before, ...Array<string>(left).fill("0"), ...after]
  return pieces.every((piece) => /^[0-9a-f]{1,4}$/i.test(piece))
    ? pieces.reduce((sum, piece) => sum << 16n | BigInt(`0x${piece}`), 0n)
    : undefined
}

type Network = readonly [prefix: bigint, shift: bigint]

const networkOf =
  (of: (text: string) => bigint | undefined, width: number) => ([text, bits]: readonly [string, number]): Network => {
    const shift = BigInt(width - bits)
    return [of(text)! >> shift, shift]
  }

const ipv4Networks = privateIpv4.map(networkOf(ipv4Of, 32))
const ipv6Networks = privateIpv6.map(networkOf(ipv6Of, 128))
const carrierNetworks = carriers.map(networkOf(ipv6Of, 128))

const isIn = (networks: ReadonlyArray<Network>, address: bigint): boolean =>
  networks.some(([prefix, shift]) => address >> shift === prefix)

/** Whether an address, as `203.0.113.7` or `2001:db8::7`, is in the public Internet; a text that is none is not. */
export const isPublic = (address: string): boolean => {
  const four = ipv4Of(address)
  if (four !== undefined) return !isIn(ipv4Networks, four)
  const six = ipv6Of(address)
  if (six === undefined) return false
  if (isIn(carrierNetworks, six)) return !isIn(ipv4Networks, six & 0xffff_ffffn)
  return six >> 125n === 1n && !isIn(ipv6Networks, six)
}

/** Names that no public host has. */
const privateName = /^(?:localhost|[^.]*)$|\.(?:localhost|local|internal|intranet|lan|home|corp|private|arpa|onion)$/i

/** The host of a URL as an allow list names it: in lower case, without brackets and the last dot. */
export const hostOf = (url: URL): string => url.hostname.toLowerCase().replace(/^\[|\]$/g, "").replace(/\.$/, "")

/** Whether a host (see `hostOf`) says by itself that it is not public, before any name is resolved. */
export const isPrivateHost = (host: string): boolean =>
  ipv4Of(host) !== undefined || host.includes(":") ? !isPublic(host) : privateName.test(host)
