/**
 * Finds the operating-system user of a program that is connected over loopback.
 *
 * **Details**
 *
 * Linux lists the TCP sockets of a network namespace with their users in `/proc/net/tcp` and `/proc/net/tcp6` (proc(5);
 * `get_tcp4_sock` in `net/ipv4/tcp_ipv4.c`). Elsewhere the user is unknown.
 *
 * An outsider can cause lookups through a proxy, and a table can have many rows. So there is one read at a time, and all
 * lookups that wait share the next one. A read that has already begun may lack a new connection.
 *
 * **Gotchas**
 *
 * - The client of an IPv4 connection can be in either table: an IPv6 socket has the address `::ffff:127.0.0.1`.
 * - A socket that its program has closed is shown with user 0 and inode 0.
 */
import { createReadStream } from "node:fs"
import type { Socket } from "node:net"
import { isIPv4 } from "node:net"

/** A connection as its server sees it. The fields are undefined once it is closed. */
export type Connection = Pick<Socket, "localAddress" | "localPort" | "remoteAddress" | "remotePort">

/** The kernel prints addresses as words of 32 bits in the byte order of the machine, as `Uint32Array` reads them. */
const hexOf = (bytes: Uint8Array): string =>
  Array.from(new Uint32Array(bytes.buffer), (word) => word.toString(16).padStart(8, "0")).join("").toUpperCase()

const loopbackHex = hexOf(Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1))

/** What precedes an IPv4 address in an IPv6 address. */
const mappedHex = hexOf(Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255))

/** IPv4 addresses, mapped ones too, and `::1`: the only ones in connections over loopback. */
const addressHex = (address: string): string | undefined => {
  const text = address.replace(/^::ffff:/i, "")
  if (isIPv4(text)) return hexOf(Uint8Array.from(text.split("."), Number))
  return text === "::1" ? loopbackHex : undefined
}

const endpointOf = (address: string | undefined, port: number | undefined): string | undefined => {
  const hex = address === undefined ? undefined : addressHex(address)
  return hex === undefined || port === undefined
    ? undefined
    : `${hex}:${port.toString(16).toUpperCase().padStart(4, "0")}`
}

/** The local and the remote address of the client's socket, as in a table. */
const keyOf = ({ localAddress, localPort, remoteAddress, remotePort }: Connection): string | undefined => {
  const client = endpointOf(remoteAddress, remotePort)
  const server = endpointOf(localAddress, localPort)
  return client === undefined || server === undefined ? undefined : `${client} ${server}`
}

const address = `(?:${mappedHex})?((?:[\\dA-F]{8}|[\\dA-F]{32}):[\\dA-F]{4})`

/** An established connection (state 01) whose socket is open: addresses, state, queues, timer, retransmits, user, inode. */
const established = new RegExp(
  `^ *\\d+: ${address} ${address} 01 \\S+ \\S+ \\S+ +(\\d+) +\\d+ [1-9]\\d* `,
  "i"
)

/** The connection and the user in a row of a table. Undefined for other states, headings and truncated rows. */
const parseRow = (row: string): { readonly key: string; readonly uid: number } | undefined => {
  const [, local, remote, uid] = established.exec(row) ?? []
  return uid === undefined ? undefined : { key: `${local} ${remote}`.toUpperCase(), uid: Number(uid) }
}

/** The most that is read of a table, bytes: about 55,000 rows. Connections after that have no known user. */
export const maxTableBytes = 8 * 1024 * 1024

const readTable = async (file: string, wanted: ReadonlySet<string>, owners: Map<string, number>): Promise<void> => {
  let rest = ""
  for await (const chunk of createReadStream(file, { encoding: "latin1", end: maxTableBytes - 1 })) {
    if (owners.size === wanted.size) return
    const rows = `${rest}${chunk}`.split("\n")
    rest = rows.pop()!
    for (const row of rows) {
      const found = parseRow(row)
      if (found !== undefined && wanted.has(found.key)) owners.set(found.key, found.uid)
    }
  }
}

/** The users of these connections. A table that cannot be read has no rows. */
const readTables = async (folder: string, wanted: ReadonlySet<string>): Promise<ReadonlyMap<string, number>> => {
  const owners = new Map<string, number>()
  for (const table of ["tcp", "tcp6"]) await readTable(`${folder}/${table}`, wanted, owners).catch(() => {})
  return owners
}

interface Read {
  readonly wanted: Set<string>
  readonly owners: Promise<ReadonlyMap<string, number>>
}

/**
 * Makes a function that returns the user id of a connection's client, or undefined where it is unknown. It remembers the
 * users of open connections.
 *
 * @param folder the folder of the tables; unlike `/proc/net`, this one exists where `/proc` has processes only
 */
export const makeLookup = (folder = "/proc/self/net") => {
  const known = new WeakMap<Connection, number>()
  let last: Promise<unknown> = Promise.resolve()
  let next: Read | undefined
  const nextRead = (): Read => {
    if (next !== undefined) return next
    const wanted = new Set<string>()
    const owners = last.then(() => {
      next = undefined
      return readTables(folder, wanted)
    })
    last = owners
    next = { wanted, owners }
    return next
  }
  return async (connection: Connection): Promise<number | undefined> => {
    const uid = known.get(connection)
    const key = keyOf(connection)
    if (uid !== undefined || key === undefined) return uid
    const { owners, wanted } = nextRead()
    wanted.add(key)
    const found = (await owners).get(key)
    if (found !== undefined) known.set(connection, found)
    return found
  }
}

/** Of sockets whose user has no id in this user namespace (`/proc/sys/kernel/overflowuid`), and of `nobody`. */
const overflowUser = 65_534

/**
 * Whether a client belongs to the service's user. Root is another user: it has the socket file, and proxies run as root.
 *
 * @param own the user id of the service; undefined on Windows
 */
export const isSameUser = (owner: number | undefined, own: number | undefined): boolean =>
  owner !== undefined && owner !== overflowUser && owner === own
