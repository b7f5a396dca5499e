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
  it("knows the networks of IPv4 that are not public", () => {
    fc.assert(
      fc.property(anyAddress, (number) => {
        assert.strictEqual(isPublic(dotted(number)), !special.check(dotted(number)))
      }),
      { numRuns: 2000 }
    )
  })

  it("judges an address of IPv4 within IPv6 as itself, however it is written", () => {
    fc.assert(fc.property(anyAddress, fc.constantFrom("::ffff:", "0:0:0:0:0:FFFF:", "64:ff9b::"), (number, prefix) => {
      const expected = isPublic(dotted(number))
      const hex = `${(number >>> 16).toString(16)}:${(number & 0xffff).toString(16)}`
      assert.isTrue(isIPv6(`${prefix}${hex}`))
      assert.strictEqual(isPublic(`${prefix}${dotted(number)}`), expected)
      assert.strictEqual(isPublic(`${prefix}${hex}`), expected)
    }))
  })

  it("takes of IPv6 only what is given out to the public", () => {
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

  it("takes nothing for an address that is none", () => {
    fc.assert(fc.property(fc.string(), (text) => !isPublic(`x${text}`)))
    for (const text of ["", "1.2.3", "1.2.3.256", "1.2.3.4.5", "1::2::3", "1:2:3:4:5:6:7", "2600:1:2:3:4:5:6:7:8"]) {
      assert.isFalse(isPublic(text), text)
    }
  })

  it("knows the hosts that say of themselves that they are not public, in every way to write them", () => {
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
