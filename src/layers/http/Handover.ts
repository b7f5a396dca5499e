/**
 * The connections of a process while another generation of the service takes the port over, or gives it up: it releases and adopts
 * listening sockets and connections as the supervisor says.
 *
 * **Details**
 *
 * A listening socket is never closed by all that have it: connections wait in its queue, and a close would reset them. So a process
 * sends its socket to the supervisor before it closes its own descriptor. A process without a socket of its own listens at a file,
 * because an HTTP server that does not listen cannot be closed in order.
 */
import { Effect, Exit, Queue, Scope } from "effect"
import { rmSync } from "node:fs"
import { Server, Socket } from "node:net"
import type { Member, ToProcess } from "../../services/processes/ProcessGroup.ts"
import type { AdminAddress } from "../../services/settings/Settings.ts"
import type { AdminListenError } from "./AdminListener.ts"
import type { NodeServer } from "./NodeServer.ts"

export interface Draining {
  /** Called when another generation takes the requests. */
  readonly onDrain: () => void
  /** Calls this when nothing is generated without a connection. */
  readonly whenIdle: (run: () => void) => void
}

export class Handover {
  readonly #server: NodeServer
  readonly #member: Member
  /** Socket file at which the server listens where it has no port. */
  readonly #file: string
  readonly #draining: Draining
  /** Sockets that the supervisor has sent. */
  readonly #adopted = new Set<Server>()

  /** Follows the messages of the supervisor from now on. */
  static start(server: NodeServer, member: Member, file: string, draining: Draining): void {
    const handover = new Handover(server, member, file, draining)
    server.countConnections()
    member.listen((message, handle) => handover.#receive(message, handle))
  }

  private constructor(server: NodeServer, member: Member, file: string, draining: Draining) {
    this.#server = server
    this.#member = member
    this.#file = file
    this.#draining = draining
  }

  #receive({ type }: ToProcess, handle: unknown): void {
    switch (type) {
      case "release":
        return this.#release()
      case "socket":
        return this.#adopt(handle as Server)
      case "connection":
        // Without a handle, the client has gone meanwhile.
        if (handle instanceof Socket) this.#server.adopt(handle)
        return
      case "drain":
        this.#draining.onDrain()
        // After the last connection: its request may have begun a response in the background.
        return this.#server.drain(() => this.#draining.whenIdle(() => this.#member.send({ type: "drained" })))
      case "count":
        return this.#member.send({ type: "tally", tally: this.#server.tally })
      default:
    }
  }

  #adopt(socket: Server): void {
    this.#adopted.add(socket)
    socket.maxConnections = this.#server.maxConnections
    socket.on("connection", (connection: Socket) => this.#server.adopt(connection))
  }

  #release(): void {
    const own = typeof this.#server.address() === "object" ? [this.#server] : []
    const sockets = [...own, ...this.#adopted]
    let waiting = sockets.length
    const end = () => this.#member.send({ type: "released" })
    if (waiting === 0) return end()
    for (const socket of sockets) {
      this.#member.send({ type: "socket" }, socket, () => {
        this.#close(socket)
        if (--waiting === 0) end()
      })
    }
  }

  /** Connections that are open stay open. */
  #close(socket: Server): void {
    Server.prototype.close.call(socket)
    if (socket !== this.#server) return void this.#adopted.delete(socket)
    // Of a process that was killed.
    rmSync(this.#file, { force: true })
    socket.listen({ path: this.#file })
  }
}

/**
 * Listens for administration while the supervisor says that this process leads the service. The address is that of the start, which
 * is empty beside another generation.
 *
 * @param listening listens until its scope ends
 */
export const administration = Effect.fnUntraced(
  function*(member: Member, listening: Effect.Effect<AdminAddress["Service"], AdminListenError, Scope.Scope>) {
    const scope = yield* Effect.scope
    const turns = yield* Queue.unbounded<boolean>()
    let own: Scope.Closeable | undefined
    const set = Effect.fnUntraced(function*(isLeading: boolean) {
      if (own !== undefined) yield* Scope.close(own, Exit.void)
      own = isLeading ? yield* Scope.fork(scope) : undefined
      return own === undefined ? {} : yield* Effect.provideService(listening, Scope.Scope, own)
    })
    const follow = Effect.gen(function*() {
      const isLeading = yield* Queue.take(turns)
      yield* set(isLeading).pipe(Effect.catch(({ message }) => Effect.logError(message)))
      member.send({ type: "leads" })
    })
    member.listen((message) => {
      if (message.type === "lead") Queue.offerUnsafe(turns, message.isLeading)
    })
    const address = yield* set(!member.isBeside)
    yield* Effect.forkScoped(Effect.forever(follow))
    return address
  }
)
