/**
 * Where administration listens: a socket file that only this user may open, and a loopback port where one is configured.
 *
 * **Details**
 *
 * A reverse proxy on this machine that passes on everything cannot be distinguished from a local program: it adds no header.
 * So without `server.admin.token`, the port of the models answers only `GET` requests of `/admin`, to the service's user.
 *
 * The default socket is named after the models' port, so that the command line finds it. Where it cannot be made (a
 * read-only file system), the service logs that and goes on; a configured address that cannot be used ends the start.
 */
import { Duration, Effect, Schema } from "effect"
import { createHash, timingSafeEqual } from "node:crypto"
import { chmodSync, lstatSync, mkdirSync, unlinkSync } from "node:fs"
import type { ServerResponse } from "node:http"
import { createServer, IncomingMessage } from "node:http"
import type { Server, Socket } from "node:net"
import { connect } from "node:net"
import { tmpdir } from "node:os"
import { dirname } from "node:path"
import { defaultSocket } from "../../services/settings/Resolution.ts"
import type { Resolved } from "../../services/settings/Settings.ts"
import { AdminAddress } from "../../services/settings/Settings.ts"

/** The configured address of administration cannot be used. */
export class AdminListenError extends Schema.TaggedError<AdminListenError>()("AdminListenError", {
  message: Schema.String
}) {}

/** How a request reached administration; `process`: another process of the service passed it on. */
export type Origin = "socket" | "port" | "process"

const origins = new WeakMap<Socket, Origin>()

/** Undefined for requests of the models' port. */
export const originOf = (source: object): Origin | undefined =>
  source instanceof IncomingMessage ? origins.get(source.socket) : undefined

const isWindows = process.platform === "win32"

/** Of this process's user; there is none on Windows. */
const userId = (): number => process.getuid?.() ?? 0

const digest = (text: string): Buffer => createHash("sha256").update(text).digest()

/** Compares in constant time. */
export const isSameToken = (given: string, expected: string): boolean =>
  timingSafeEqual(digest(given), digest(expected))

/** A folder that only this user can write to. */
export const makePrivateFolder = (folder: string): void => {
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const { mode, uid } = lstatSync(folder)
  if (uid !== userId() || (mode & 0o077) !== 0) {
    throw new Error(`The folder ${folder} must belong to this user alone (mode 700)`)
  }
}

const answers = (socket: string): Promise<boolean> =>
  new Promise((resolve) => {
    const connection = connect(socket)
    connection.on("connect", () => resolve(true)).on("error", () => resolve(false))
    connection.on("connect", () => connection.destroy())
  })

type Address = { readonly path: string } | { readonly host: string; readonly port: number }

const listen = (server: Server, address: Address): Promise<void> =>
  new Promise((resolve, reject) => {
    server.once("error", reject)
    server.listen(address, () => {
      server.off("error", reject)
      resolve()
    })
  })

/** Also where a process that was killed has left the file. */
export const listenAtSocket = async (server: Server, path: string): Promise<void> => {
  try {
    await listen(server, { path })
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== "EADDRINUSE" || isWindows || await answers(path)) throw cause
    unlinkSync(path)
    await listen(server, { path })
  }
  if (!isWindows) chmodSync(path, 0o600)
}

/** What administration needs to listen. */
export interface Options {
  readonly settings: Resolved["server"]
  /** That was bound for the models. */
  readonly port: number
  readonly handle: (request: IncomingMessage, response: ServerResponse) => void
}

const makeServer = ({ handle, settings }: Options, origin: Origin) => {
  const server = createServer({ headersTimeout: Duration.toMillis(settings.headersTimeout), requestTimeout: 0 })
  server.maxConnections = settings.maxConnections
  server.on("connection", (socket) => origins.set(socket, origin))
  server.on("request", handle).on("checkContinue", handle)
  return server
}

const open = (
  options: Options,
  origin: Origin,
  address: string,
  start: (server: Server) => Promise<void>
) =>
  Effect.acquireRelease(
    Effect.suspend(() => {
      const server = makeServer(options, origin)
      return Effect.tryPromise({
        try: () => start(server).then(() => server),
        catch: (cause) =>
          new AdminListenError({
            message: `Administration cannot listen at ${address}: ${(cause as Error).message}. See server.admin.`
          })
      })
    }),
    (server) =>
      Effect.callback<void>((resume) => {
        server.close(() => resume(Effect.void))
        server.closeAllConnections()
      })
  )

const openSocket = Effect.fnUntraced(function*(options: Options) {
  const { socket } = options.settings.admin
  if (socket === false) return undefined
  const path = socket ?? defaultSocket(options.port, tmpdir(), process)
  const opened = open(options, "socket", path, (server) => {
    if (socket === undefined && !isWindows) makePrivateFolder(dirname(path))
    return listenAtSocket(server, path)
  })
  if (socket !== undefined) return yield* Effect.as(opened, path)
  return yield* Effect.as(opened, path).pipe(
    Effect.catch(({ message }) => Effect.as(Effect.logWarning(message), undefined))
  )
})

const openPort = Effect.fnUntraced(function*(options: Options) {
  const { port } = options.settings.admin
  if (port === undefined) return undefined
  const host = "127.0.0.1"
  const server = yield* open(options, "port", `${host}:${port}`, (server) => listen(server, { host, port }))
  const bound = server.address()
  return typeof bound === "object" && bound !== null ? `http://${host}:${bound.port}` : undefined
})

/**
 * Listens for other processes of the service until the scope ends, and then until the requests in progress have ended.
 *
 * @param path socket file, in a folder of this user alone
 * @param graceMs after which the rest of them is closed
 */
export const listeningForProcesses = (options: Options, path: string, graceMs: number) =>
  Effect.acquireRelease(
    Effect.tryPromise({
      try: async () => {
        makePrivateFolder(dirname(path))
        const server = makeServer(options, "process")
        // A process would send a request into a connection that is just being closed.
        server.keepAliveTimeout = 0
        server.on("request", (_, response: ServerResponse) =>
          response.on("close", () => {
            // Idle again after this event.
            if (!server.listening) setImmediate(() => server.closeIdleConnections())
          }))
        await listenAtSocket(server, path)
        return server
      },
      catch: (cause) =>
        new AdminListenError({
          message: `The service's processes cannot listen at ${path}: ${(cause as Error).message}.`
        })
    }),
    (server) =>
      Effect.callback<void>((resume) => {
        const rest = setTimeout(() => server.closeAllConnections(), graceMs)
        server.close(() => {
          clearTimeout(rest)
          resume(Effect.void)
        })
      })
  )

/** Listens until the scope ends. */
export const listening = Effect.fnUntraced(function*(options: Options) {
  const socket = yield* openSocket(options)
  const url = yield* openPort(options)
  return AdminAddress.of({ ...(socket === undefined ? {} : { socket }), ...(url === undefined ? {} : { url }) })
})
