import { assert, describe, it } from "@effect/vitest"
import fc from "fast-check"
import { BlockList, isIPv6 } from "node:net"
import { hostOf, isPrivateHost, isPublic } from "../../src/domain/PublicAddress.ts"

const dotted = (address: number): string => [24, 16, 8, 0].map((shift) => address >>> shift & 255).join(".")
const address = fc.integer({ min: 0, max: 2 ** 32 - 1 })

/** By the standard library, from the registry's own words. */
const special = new BlockList()
for (
  const [network, bits] of [
    ["0.0.0.0", 8],
    ["10.0.0.0", 8],
    ["100.64.0.0", 10],
    ["127.0.0.0", 8],
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
    ["224.0.0.0", 4],
    ["240.0.0.0", 4]
  ] as const
) special.addSubnet(network, bits)

/** Often at the edge of something. */
const anyAddress = fc.oneof(
  address,
  fc.tuple(
    fc.constantFrom(
      "10.0.0.0",
      "100.64.0.0",
      "127.0.0.0",
      "168.63.129.16",
      "169.254.169.254",
      "172.16.0.0",
      "192.168.0.0",
      "224.0.0.0"
    ),
    fc.integer({ min: -2, max: 2 ** 20 })
  ).map(([base, offset]) =>
    (base.split(".").reduce((sum, byte) => sum * 256 + Number(byte), 0) + offset + 2 ** 32) % 2 ** 32
  )
)

const piecesArbitrary = (first: fc.Arbitrary<number>) =>
  fc.tuple(first, fc.array(fc.integer({ min: 0, max: 0xffff }), { minLength: 7, maxLength: 7 }))
    .map(([head, tail]) => [head, ...tail].map((piece) => piece.toString(16)).join(":"))

const between = (min: number, max: number) => fc.integer({ min, max })

describe("PublicAddress", () => {
  it("recognizes the networks of IPv4 that are not public", () => {
    fc.assert(
      fc.property(anyAddress, (number) => {
        assert.strictEqual(isPublic(dotted(number)), !special.check(dotted(number)))
      }),
      { numRuns: 2000 }
    )
  })

  it("treats an IPv4 address within IPv6 like the address itself, in every notation", () => {
    fc.assert(fc.property(anyAddress, fc.constantFrom("::ffff:", "0:0:0:0:0:FFFF:", "64:ff9b::"), (number, prefix) => {
      const expected = isPublic(dotted(number))
      const hex = `${(number >>> 16).toString(16)}:${(number & 0xffff).toString(16)}`
      assert.isTrue(isIPv6(`${prefix}${hex}`))
      assert.strictEqual(isPublic(`${prefix}${dotted(number)}`), expected)
      assert.strictEqual(isPublic(`${prefix}${hex}`), expected)
    }))
  })

  it("accepts only public allocations of IPv6", () => {
    const not = fc.oneof(between(0x4000, 0xffff), between(0x1, 0x63), between(0x65, 0x1fff))
    fc.assert(fc.property(piecesArbitrary(not), (text) => !isPublic(text)))
    fc.assert(fc.property(piecesArbitrary(between(0x2600, 0x2fff)), (text) => isPublic(text)))
    for (
      const text of ["::", "::1", "::7f00:1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12:3456::1", "ff02::1"].concat(
        ["2001:db8::1", "2001::1", "2002:7f00:1::1", "3fff::1", "100::1", "fec0::1", "64:ff9b:1::7f00:1"]
      )
    ) assert.isFalse(isPublic(text), text)
    for (const text of ["2606:4700::1111", "2a00:1450:4001:829::200e", "2400::"]) assert.isTrue(isPublic(text), text)
  })

  it("recognizes no address in other texts", () => {
    fc.assert(fc.property(fc.string(), (text) => !isPublic(`x${text}`)))
    for (const text of ["", "1.2.3", "1.2.3.256", "1.2.3.4.5", "1::2::3", "1:2:3:4:5:6:7", "2600:1:2:3:4:5:6:7:8"]) {
      assert.isFalse(isPublic(text), text)
    }
  })

  it("recognizes hosts with private names, in every notation", () => {
    for (
      const host of [
        "localhost",
        "LOCALHOST.",
        "a.localhost",
        "printer.local",
        "metadata.google.internal",
        "intranet",
        "127.0.0.1",
        "127.1",
        "0x7f000001",
        "2130706433",
        "0177.0.0.1",
        "169.254.169.254",
        "168.63.129.16",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:a9fe:a9fe]",
        "[fd00:ec2::254]"
      ]
    ) assert.isTrue(isPrivateHost(hostOf(new URL(`http://${host}/cat.png`))), host)
    for (const host of ["example.com", "8.8.8.8", "[2606:4700::1111]", "local.example.com", "internal.example"]) {
      assert.isFalse(isPrivateHost(hostOf(new URL(`http://${host}/cat.png`))), host)
    }
  })
})

const ipv4Of = (text: string): bigint | undefined => {
  const bytes = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(text)?.slice(1).map(Number)
  return bytes === undefined || bytes.some((byte) => byte > 255)
    ? undefined
    : bytes.reduce((sum, byte) => sum << 8n | BigInt(byte), 0n)
}

/** Groups of 16 bits; the last may be an IPv4 address. */
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

/** Another parser than the one under test, laxer with leading zeros: whether the text is a public address. */
const isPublicByReference = (text: string): boolean => {
  const four = ipv4Of(text)
  if (four !== undefined) return !special.check(dotted(Number(four)))
  const six = ipv6Of(text)
  if (six === undefined) return false
  if (six >> 32n === 0xffffn || six >> 32n === 0x64ff9bn << 64n) {
    return !special.check(dotted(Number(six & 0xffff_ffffn)))
  }
  const isSpecial = six >> 105n === 0x2001n << 7n || six >> 96n === 0x20010db8n || six >> 112n === 0x2002n ||
    six >> 108n === 0x3fff0n
  return six >> 125n === 1n && !isSpecial
}

/** Forms of addresses that resolvers, browsers and attackers use. */
const anyForm = fc.oneof(
  fc.ipV4(),
  fc.ipV4Extended(),
  fc.ipV6(),
  anyAddress.map(dotted),
  anyAddress.map((number) => `::ffff:${dotted(number)}`),
  fc.ipV6().map((text) => `[${text}]`),
  fc.ipV6().map((text) => `${text}%eth0`),
  fc.ipV4().map((text) => text.split(".").map((part) => `0${part}`).join(".")),
  fc.tuple(fc.constantFrom("2001:", "2001:db8:", "2002:", "2600:", "3fff:", "64:ff9b::"), fc.ipV6()).map((parts) =>
    parts.join("")
  ),
  fc.constantFrom("127.1", "0x7f.1", "0177.0.0.1", "2130706433", "1.2.3", "::ffff:0x7f.1", "::127.1", ":::", "1::2::3")
)

describe("a public address in any form", () => {
  it("is one by another parser too", () => {
    fc.assert(
      fc.property(anyForm, (text) => {
        assert.isTrue(!isPublic(text) || isPublicByReference(text), text)
      }),
      { numRuns: 5000 }
    )
  })

  it("is found wherever another parser finds it, unless it has leading zeros", () => {
    fc.assert(
      fc.property(fc.oneof(fc.ipV4(), fc.ipV6(), anyAddress.map((number) => `::ffff:${dotted(number)}`)), (text) => {
        assert.strictEqual(isPublic(text), isPublicByReference(text), text)
      }),
      { numRuns: 5000 }
    )
  })
})
