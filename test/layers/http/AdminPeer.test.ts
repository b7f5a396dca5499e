import { assert, describe, it } from "@effect/vitest"
import { once } from "node:events"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import type { AddressInfo, Socket } from "node:net"
import { connect, createServer } from "node:net"
import { networkInterfaces, tmpdir } from "node:os"
import { join } from "node:path"
import type { Connection } from "../../../src/layers/http/AdminPeer.ts"
import { isSameUser, makeLookup, maxTableBytes } from "../../../src/layers/http/AdminPeer.ts"

const hasIPv6 = Object.values(networkInterfaces()).flat().some((one) => one?.address === "::1")

const connection = (client: string, clientPort: number, server: string, serverPort: number): Connection => ({
  remoteAddress: client,
  remotePort: clientPort,
  localAddress: server,
  localPort: serverPort
})

const withTables = async <A>(
  tables: Readonly<Record<string, string>>,
  use: (folder: string) => Promise<A>
): Promise<A> => {
  const folder = mkdtempSync(join(tmpdir(), "troupe-tables-"))
  try {
    for (const [name, text] of Object.entries(tables)) writeFileSync(join(folder, name), text)
    return await use(folder)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** The user of a connection where the tables have this text. */
const ownerIn = (tables: Readonly<Record<string, string>>, of: Connection) =>
  withTables(tables, (folder) => makeLookup(folder)(of))

// Rows of Linux 6.18, x86-64. The clients have the users 1001 to 1004.
const tcp =
  `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode                                                     
   0: 00000000:07E8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 580 1 000000002f4b3dfe 100 0 0 10 0                       
   1: 0100007F:A119 00000000:0000 0A 00000000:00000000 00:00000000 00000000   990        0 1829948 1 0000000004dca362 100 0 0 10 0                   
   2: 0100007F:D70C 0100007F:A119 06 00000000:00000000 03:00000316 00000000     0        0 0 3 0000000012273657                                      
   3: 0100007F:D090 0100007F:A119 01 00000000:00000000 00:00000000 00000000  1001        0 1829949 2 00000000c916a9c6 20 0 0 10 -1                   
 104: 0100007F:A119 0100007F:D090 01 00000000:00000000 00:00000000 00000000   990        0 1829950 1 00000000fb3e482c 20 0 0 10 -1                   
1052: 0100007F:A13E 0100007F:95A9 01 00000000:00000000 02:000004D2 00000000  1002        0 1829953 2 00000000fb3e482c 20 4 30 10 -1                  
 106: 0100007F:A935 0100007F:8E42 01 00000000:00000000 00:00000000 00000000   990        0 1829957 1 0000000004dca362 20 0 0 10 -1                   
 107: 0100007F:D091 0100007F:A119 01 00000000:00000000 00:00000000 00000000     0        0 1829960 2 00000000c916a9c6 20 0 0 10 -1                   
 108: 0200007F:D092 0501A8C0:A119 01 00000000:00000000 00:00000000 00000000 4294967294        0 1829961 2 00000000c916a9c6 20 0 0 10 -1              
 109: 0100007F:D093 0100007F:A119 05 00000000:00000000 03:0000176A 00000000     0        0 0 3 0000000026615370                                      
 110: 0100007F:D094 0100007F:A119 01 00000000:00000000 00:00000000 00000000     0        0 0 2 00000000c916a9c6 20 0 0 10 -1                         
 111: 0100007F:D095 0100007F:A119 02 00000001:00000000 01:00000064 00000000  1001        0 1829963 2 00000000c916a9c6 100 0 0 10 -1                  
 112: 0100007F:D096 0100007F:A119 05 00000000:00000000 00:00000000 00000000  1001        0 1829964 2 00000000c916a9c6 20 0 0 10 -1                   
`
const tcp6 =
  `  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000000000000:95A9 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000   990        0 1829952 1 00000000dbf10064 100 0 0 10 0
   1: 0000000000000000FFFF00000100007F:95A9 0000000000000000FFFF00000100007F:A13E 01 00000000:00000000 00:00000000 00000000   990        0 1829954 1 0000000027fd8b9c 20 0 0 10 -1
   2: 0000000000000000FFFF00000100007F:8E42 0000000000000000FFFF00000100007F:A935 01 00000000:00000000 00:00000000 00000000  1003        0 1829956 2 0000000027fd8b9c 20 0 0 10 -1
   3: 00000000000000000000000001000000:CFE0 00000000000000000000000001000000:9D0B 01 00000000:00000000 00:00000000 00000000  1004        0 1829959 2 0000000027fd8b9c 20 0 0 10 -1
`
const tables = { tcp, tcp6 }

const first = connection("127.0.0.1", 0xd090, "127.0.0.1", 0xa119)

describe("the user of a connection", () => {
  it.each<readonly [what: string, Connection, number | undefined]>([
    ["IPv4", first, 1001],
    ["IPv4, to a server of all addresses", connection("::ffff:127.0.0.1", 0xa13e, "::ffff:127.0.0.1", 0x95a9), 1002],
    ["the IPv6 socket of an IPv4 client", connection("127.0.0.1", 0x8e42, "127.0.0.1", 0xa935), 1003],
    ["IPv6", connection("::1", 0xcfe0, "::1", 0x9d0b), 1004],
    ["root", connection("127.0.0.1", 0xd091, "127.0.0.1", 0xa119), 0],
    [
      "another loopback address, to an address of the machine",
      connection("127.0.0.2", 0xd092, "192.168.1.5", 0xa119),
      2 ** 32 - 2
    ],
    ["the server's end of it", connection("127.0.0.1", 0xa119, "127.0.0.1", 0xd090), 990],
    ["no row", connection("127.0.0.1", 0xd08f, "127.0.0.1", 0xa119), undefined],
    ["another server's port", connection("127.0.0.1", 0xd090, "127.0.0.1", 0xa11a), undefined],
    ["another client's address", connection("127.0.0.3", 0xd090, "127.0.0.1", 0xa119), undefined],
    ["IPv4's row for IPv6", connection("::1", 0xd090, "::1", 0xa119), undefined],
    ["a row that waits for its end (user 0)", connection("127.0.0.1", 0xd70c, "127.0.0.1", 0xa119), undefined],
    ["a closed socket (user 0)", connection("127.0.0.1", 0xd093, "127.0.0.1", 0xa119), undefined],
    [
      "a socket that is closed during the read (user 0, inode 0)",
      connection("127.0.0.1", 0xd094, "127.0.0.1", 0xa119),
      undefined
    ],
    ["a connection that is not established yet", connection("127.0.0.1", 0xd095, "127.0.0.1", 0xa119), undefined],
    ["a connection whose client sends no more", connection("127.0.0.1", 0xd096, "127.0.0.1", 0xa119), undefined],
    ["a listening socket", connection("0.0.0.0", 0x07e8, "0.0.0.0", 0), undefined],
    ["a closed connection", connection(undefined!, undefined!, undefined!, undefined!), undefined],
    ["an address of another form", connection("fe80::1%lo", 0xd090, "fe80::1%lo", 0xa119), undefined],
    ["no address", connection("127.0.0", 0xd090, "", 0xa119), undefined]
  ])("is read from its row: %s", async (_, of, expected) => {
    assert.strictEqual(await ownerIn(tables, of), expected)
    const lowerCase = { tcp: tcp.toLowerCase(), tcp6: tcp6.toLowerCase() }
    assert.strictEqual(await ownerIn(lowerCase, of), expected)
  })

  it("is unknown where the text is cut anywhere before the end of its row", async () => {
    const end = tcp.indexOf("\n", tcp.indexOf(":D090 "))
    await withTables({}, async (folder) => {
      for (let length = tcp.indexOf("   3: "); length <= end; length++) {
        writeFileSync(join(folder, "tcp"), tcp.slice(0, length))
        assert.strictEqual(await makeLookup(folder)(first), undefined, tcp.slice(0, length))
      }
      writeFileSync(join(folder, "tcp"), tcp.slice(0, end + 1))
      assert.strictEqual(await makeLookup(folder)(first), 1001)
    })
  })

  it("is unknown without tables", async () => {
    assert.strictEqual(await makeLookup("/nowhere")(first), undefined)
    assert.strictEqual(await ownerIn({ tcp: "", tcp6: "" }, first), undefined)
    assert.strictEqual(await ownerIn({ tcp: "\0\xff\n".repeat(1000) }, first), undefined)
    assert.strictEqual(await ownerIn({ tcp6 }, first), undefined)
  })

  it("is found wherever the row is within the limit, and is unknown after it", async () => {
    const [heading, ...rows] = tcp.split("\n")
    const filling = `${rows[1]!}\n`
    const before = (bytes: number) => `${heading}\n${filling.repeat(Math.ceil(bytes / filling.length))}`
    for (let offset = 0; offset < filling.length; offset += 7) {
      const text = `${" ".repeat(offset)}\n${before(2 ** 16)}`
      assert.strictEqual(await ownerIn({ tcp: `${text}${rows.join("\n")}` }, first), 1001)
    }
    assert.strictEqual(await ownerIn({ tcp: `${before(maxTableBytes - 2 ** 16)}${rows.join("\n")}` }, first), 1001)
    assert.strictEqual(await ownerIn({ tcp: `${before(maxTableBytes)}${rows.join("\n")}` }, first), undefined)
    assert.strictEqual(await ownerIn({ tcp: filling.replaceAll("\n", " ").repeat(60_000) }, first), undefined)
  })

  it("is found by lookups at the same time, and by those that begin during a read", () =>
    withTables(tables, async (folder) => {
      const lookup = makeLookup(folder)
      const all = [first, connection("::1", 0xcfe0, "::1", 0x9d0b), connection("127.0.0.1", 1, "127.0.0.1", 2)]
      const early = all.map((one) => lookup(one))
      await Promise.resolve()
      const late = all.map((one) => lookup({ ...one }))
      assert.deepStrictEqual(await Promise.all(early), [1001, 1004, undefined])
      assert.deepStrictEqual(await Promise.all(late), [1001, 1004, undefined])
    }))

  it("is remembered for a connection, and not for the next connection from the same port", () =>
    withTables(tables, async (folder) => {
      const lookup = makeLookup(folder)
      const reused = { ...first }
      assert.strictEqual(await lookup(first), 1001)
      writeFileSync(join(folder, "tcp"), tcp.replace("  1001 ", "  1007 "))
      assert.strictEqual(await lookup(first), 1001)
      assert.strictEqual(await lookup(reused), 1007)
    }))

  it("is looked up again where it was unknown", () =>
    withTables({}, async (folder) => {
      const lookup = makeLookup(folder)
      assert.strictEqual(await lookup(first), undefined)
      writeFileSync(join(folder, "tcp"), tcp)
      assert.strictEqual(await lookup(first), 1001)
    }))

  it.runIf(process.platform === "linux").each<readonly [host: string, to: string]>([
    ["127.0.0.1", "127.0.0.1"],
    ["127.0.0.1", "::ffff:127.0.0.1"],
    ["0.0.0.0", "127.0.0.2"],
    ...hasIPv6 ? [["::", "127.0.0.1"], ["::1", "::1"]] as const : []
  ])("is this process's user for its own connection (Linux): server at %s, client of %s", async (host, to) => {
    const server = createServer().listen(0, host)
    await once(server, "listening")
    const client = connect((server.address() as AddressInfo).port, to)
    const [accepted] = await once(server, "connection") as [Socket]
    assert.strictEqual(await makeLookup()(accepted), process.geteuid!())
    client.destroy()
    accepted.destroy()
    server.close()
  })
})

describe("isSameUser", () => {
  it.each<readonly [owner: number | undefined, own: number | undefined, expected: boolean]>([
    [1000, 1000, true],
    [1000, 1001, false],
    // Root has the socket file; a reverse proxy often runs as root.
    [0, 1000, false],
    [0, undefined, false],
    [0, 0, true],
    [1000, 0, false],
    [33, 0, false],
    [undefined, 0, false],
    [undefined, 1000, false],
    [undefined, undefined, false],
    [1000, undefined, false],
    // Where a user namespace lacks the user, Linux shows this id: it identifies no user.
    [65_534, 65_534, false],
    [65_534, 0, false]
  ])("the socket of user %s, the service of user %s: %s", (owner, own, expected) => {
    assert.strictEqual(isSameUser(owner, own), expected)
  })
})
