/**
 * Accepts the connections of a service while two generations of its processes run, and passes each to one of them.
 *
 * **Details**
 *
 * A shared listening socket would give a connection to the process that is quicker, so no share would hold. The supervisor accepts
 * only during a switch; before and after it the processes accept by themselves.
 */
import { Effect } from "effect"
import type { Server, Socket } from "node:net"
import { createServer } from "node:net"
import { Divider } from "../../services/processes/Switch.ts"
import type { Generation } from "./Generation.ts"

/** A crashed process starts again within seconds. */
const retryMs = 100

export class Front {
  readonly #old: Generation
  readonly #candidate: Generation
  readonly #sockets = new Set<Server>()
  readonly #divider = new Divider()

  /** Accepts at the sockets of the old generation, for which it gets the connections first. */
  static open(old: Generation, candidate: Generation): Effect.Effect<Front> {
    const front = new Front(old, candidate)
    old.onSocket = (socket) => front.#add(socket)
    old.setBeside(true)
    return Effect.as(old.ask({ type: "release" }), front)
  }

  private constructor(old: Generation, candidate: Generation) {
    this.#old = old
    this.#candidate = candidate
  }

  /** The share of the new connections that the candidate gets. */
  set share(share: number) {
    this.#divider.share = share
  }

  /** Leaves the port to a generation, once one of its processes runs. Both accept for a moment. */
  giveTo(generation: Generation): Effect.Effect<void> {
    generation.setBeside(false)
    const give = Effect.callback<boolean>((resume) => {
      const isGiven = generation.giveSockets([...this.#sockets], (socket) => {
        socket.close()
        this.#sockets.delete(socket)
        if (this.#sockets.size === 0) resume(Effect.succeed(true))
      })
      if (!isGiven || this.#sockets.size === 0) resume(Effect.succeed(isGiven))
    })
    const whole: Effect.Effect<void> = Effect.flatMap(
      give,
      (isGiven) => isGiven ? Effect.void : Effect.andThen(Effect.sleep(retryMs), whole)
    )
    return whole
  }

  /** No byte of a connection is read here. */
  #add(socket: Server): void {
    this.#sockets.add(createServer({ pauseOnConnect: true }, (connection) => this.#pass(connection)).listen(socket))
  }

  #pass(connection: Socket): void {
    connection.on("error", () => {})
    const [one, other] = this.#divider.next() ? [this.#candidate, this.#old] : [this.#old, this.#candidate]
    if (!one.give(connection) && !other.give(connection)) connection.destroy()
  }
}
