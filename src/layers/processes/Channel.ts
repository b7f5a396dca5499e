/**
 * The channel between a service process and its supervisor, from the process's side.
 *
 * **Gotchas**
 *
 * A process whose supervisor has ended ends at once: nothing would stop it later. Ctrl-C in a terminal signals every process of
 * the group; the supervisor alone decides what it means.
 */
import { Effect } from "effect"
import type { SendHandle } from "node:child_process"
import type { Member, ToProcess, ToSupervisor } from "../../services/processes/ProcessGroup.ts"

/** Set in the environment of service processes. */
const variable = "TROUPE_PROCESS"

/** Whether a supervisor has started this process. */
export const isServiceProcess = (): boolean => process.env[variable] !== undefined && process.send !== undefined

/** The environment of a service process. Its parent is the supervisor, not npm. */
export const environmentOf = ({ npm_lifecycle_event: _, ...environment }: NodeJS.ProcessEnv): NodeJS.ProcessEnv => ({
  ...environment,
  [variable]: "1"
})

/**
 * Leaves the signals of the terminal to the supervisor.
 *
 * @param end ends this process at once
 */
export const follow = (end: () => void): void => {
  for (const signal of ["SIGINT", "SIGHUP"] as const) {
    process.removeAllListeners(signal)
    process.on(signal, () => {})
  }
  process.on("disconnect", end)
  if (!process.connected) end()
}

/** Waits for the first message, which says which process of the service this is. */
export const open: Effect.Effect<Member> = Effect.callback((resume) => {
  const listeners: Array<(message: ToProcess, handle?: unknown) => void> = []
  const early: Array<[message: ToProcess, handle: unknown]> = []
  const send = (message: ToSupervisor, handle?: unknown, onSent = () => {}): void => {
    // A message that cannot be sent is lost with the supervisor.
    process.send?.(message, handle as SendHandle | undefined, undefined, onSent)
  }
  const listen = (listener: (message: ToProcess, handle?: unknown) => void): void => {
    listeners.push(listener)
    for (const waiting of early.splice(0)) listener(...waiting)
  }
  process.on("message", (message: ToProcess, handle?: unknown) => {
    if (message.type === "start") resume(Effect.succeed({ ...message.place, send, listen }))
    else if (listeners.length === 0) early.push([message, handle])
    else for (const listener of listeners) listener(message, handle)
  })
})
