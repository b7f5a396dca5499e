/** Starts service processes, and checks that they can share a port. */
import { Effect, Schema } from "effect"
import { fork } from "node:child_process"
import type { SendHandle } from "node:child_process"
import { createServer } from "node:net"
import type { ListenOptions } from "node:net"
import type { ToProcess, ToSupervisor } from "../../services/processes/ProcessGroup.ts"
import { environmentOf } from "./Channel.ts"

/** How a process ended: by an exit code or by a signal. */
export interface Ending {
  readonly code: number | null
  readonly signal: string | null
}

/** A running process. */
export interface ServiceProcess {
  readonly pid: number
  /** Whether messages reach it. */
  readonly isConnected: boolean
  /**
   * Sends a message.
   *
   * @param handle a socket that is sent beside it
   * @param onSent called when it has it, or never will
   */
  readonly send: (message: ToProcess, handle?: unknown, onSent?: () => void) => void
  readonly kill: (signal: "SIGTERM" | "SIGKILL") => void
}

/** Starts a process. `onEnd` is called once, later. */
export type Spawn = (listeners: {
  readonly onMessage: (message: ToSupervisor, handle?: unknown) => void
  readonly onEnd: (ending: Ending) => void
}) => ServiceProcess

/** Several processes cannot listen on the port. */
export class PortError extends Schema.TaggedError<PortError>()("PortError", {
  /** Of the operating system, such as `EADDRINUSE`. */
  cause: Schema.Defect()
}) {}

/** This platform does not divide the connections of a port among processes. */
export class NoSharedPort extends Schema.TaggedError<NoSharedPort>()("NoSharedPort", { platform: Schema.String }) {
  override get message(): string {
    return `Several processes cannot share a port on this platform (${this.platform}): it has no SO_REUSEPORT that balances ` +
      "connections. Set server.processes to 1, or run several services on ports of their own behind a load balancer."
  }
}

const tryListen = (options: ListenOptions): Effect.Effect<void, PortError> =>
  Effect.callback((resume) => {
    const server = createServer()
    server.once("error", (cause) => resume(Effect.fail(new PortError({ cause }))))
    server.listen(options, () => server.close(() => resume(Effect.void)))
  })

const unsupported = new Set(["ENOTSUP", "EOPNOTSUPP", "ENOPROTOOPT", "EINVAL"])

/** The failure to share a port, as the user should read it. */
export const sharingError = (error: PortError, platform: string): NoSharedPort | PortError =>
  unsupported.has((error.cause as NodeJS.ErrnoException).code ?? "") ? new NoSharedPort({ platform }) : error

/**
 * Checks that this service can have the port, for several processes. A shared port would also be given to a second service of
 * the same user, and each would get a part of the other's connections: so it must be free for one that does not share.
 */
export const checkPort = (host: string, port: number): Effect.Effect<void, NoSharedPort | PortError> =>
  Effect.andThen(
    Effect.mapError(tryListen({ host, port: 0, reusePort: true }), (error) => sharingError(error, process.platform)),
    port === 0 ? Effect.void : tryListen({ host, port })
  )

/** Starts this program with the same arguments, as a service process. It writes to the same output and log. */
export const spawn: Spawn = ({ onEnd, onMessage }) => {
  const child = fork(process.argv[1]!, process.argv.slice(2), {
    env: environmentOf(process.env),
    stdio: ["ignore", "inherit", "inherit", "ipc"]
  })
  let hasEnded = false
  const end = (code: number | null, signal: string | null) => {
    if (hasEnded) return
    hasEnded = true
    onEnd({ code, signal })
  }
  child.on("message", (message: ToSupervisor, handle?: unknown) => onMessage(message, handle))
  child.on("exit", end)
  // An unsent message is an error event too.
  child.on("error", () => {
    if (child.pid === undefined) end(null, "a failed start")
  })
  return {
    pid: child.pid ?? 0,
    get isConnected() {
      return child.connected
    },
    send: (message, handle, onSent = () => {}) => {
      if (child.connected) child.send(message, handle as SendHandle | undefined, {}, onSent)
      else onSent()
    },
    kill: (signal) => void child.kill(signal)
  }
}
