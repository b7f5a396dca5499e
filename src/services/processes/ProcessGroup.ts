/**
 * The processes of one service: the place of each in the group, and the messages between them and the supervisor.
 *
 * **Details**
 *
 * `troupe serve --processes N` has a supervisor and N service processes. The kernel divides new connections among these. A
 * process gets its place in the first message of the supervisor, and reports when it listens. Without several processes
 * there is no group.
 */
import { Context } from "effect"
import type { Hold, Outcome, Spend } from "../admission/Counters.ts"
import type { BudgetAlert } from "../budgets/BudgetAlert.ts"
import type { Transition } from "../health/Circuit.ts"
import type { ActorEvent } from "../models/Actor.ts"
import type { Sample } from "../models/AdaptiveLimit.ts"
import type { Numbering } from "../models/Numbering.ts"
import type { OperatorEvent } from "../observability/OperatorEvents.ts"
import type { ReloadError, Report } from "../settings/Reload.ts"

/** The place of a process in its group. */
export interface Place {
  /** From 1: `troupe deploy` starts the next one. */
  readonly generation: number
  /** Another generation has the port: the supervisor passes connections to this process, and later the sockets. */
  readonly isBeside: boolean
  /** From 1 up to `count`. */
  readonly index: number
  readonly count: number
  /** When the service started, ms since 1970: a process that crashes is started again. */
  readonly since?: number | undefined
  /** Port of the models; 0, any free one, for the first process of a service that starts. */
  readonly port: number
  /** Port of administration that the first process has had; undefined before. */
  readonly adminPort?: number | undefined
  /** Text of the configuration file; undefined without a file. So that a process that starts later has the same. */
  readonly configuration: string | undefined
  /** The ids in use of deployments, where reloads have made them differ from those of the configuration. */
  readonly numbering: Numbering
}

/** A change of a circuit. */
export interface CircuitNews {
  readonly type: "circuit"
  readonly transition: Transition
  /** ms; of one that opens. */
  readonly openForMs: number
  /** Consecutive failures. */
  readonly failures: number
}

/** A change that one process reports to all others. */
export type News =
  | CircuitNews
  /** A change of a deployment's state. */
  | { readonly type: "deployment"; readonly event: ActorEvent }
  /** By how much counters have grown, for alerts: see `services/alerts/Increases`. */
  | { readonly type: "increases"; readonly increases: ReadonlyArray<readonly [string, ReadonlyArray<number>]> }
  /** A budget has reached a level: see `BudgetLevels`. */
  | { readonly type: "budget"; readonly alert: BudgetAlert }
  /** An alert asks every process to free memory. */
  | { readonly type: "emergency" }
  /** See `OperatorEvents`. */
  | { readonly type: "event"; readonly event: OperatorEvent }

/** From the supervisor to a service process. */
export type ToProcess =
  /** The first message. */
  | { readonly type: "start"; readonly place: Place }
  /** See `Leases`. */
  | { readonly type: "grant"; readonly deployment: string; readonly count: number }
  | { readonly type: "recall"; readonly deployment: string; readonly count: number; readonly must: boolean }
  /** The adaptive limit of all processes has changed. */
  | { readonly type: "limit"; readonly deployment: string; readonly limit: number }
  /** The answer to `probe`, in the order of the questions. */
  | { readonly type: "probe"; readonly isGranted: boolean }
  /** The answers to `reserve` and `settle`, in the order of the questions. */
  | { readonly type: "reserved"; readonly outcome: Outcome }
  | { readonly type: "settled"; readonly spent: ReadonlyArray<number> }
  /** Of another process. */
  | { readonly type: "news"; readonly news: News }
  /** Makes itself ready for the configuration of this text. */
  | {
    readonly type: "prepare"
    readonly question: number
    readonly configuration: string | undefined
    readonly numbering: Numbering
  }
  /** Changes to the configuration that it is ready for, or stays as it is. */
  | { readonly type: "decide"; readonly question: number; readonly applies: boolean }
  /** The answer to `reload`, in the order of the questions. */
  | { readonly type: "reloaded"; readonly outcome: ReloadOutcome }
  /** It gives the supervisor its listening sockets, each in a message `socket`, and then sends `released`. */
  | { readonly type: "release" }
  /** A listening socket, beside the message: it accepts connections. */
  | { readonly type: "socket" }
  /** A connection that the supervisor has accepted, beside the message. */
  | { readonly type: "connection" }
  /** It answers what it has begun, closes each connection after its answer, and sends `drained` when none is left. */
  | { readonly type: "drain" }
  /** Whether it listens for administration; answered by `leads`. */
  | { readonly type: "lead"; readonly isLeading: boolean }
  /** Answered by `tally`. */
  | { readonly type: "count" }

/** From a service process to the supervisor. */
export type ToSupervisor =
  /** It takes requests. */
  | { readonly type: "listening"; readonly bound: Bound }
  /** It ends, because of this. */
  | { readonly type: "failed"; readonly reason: string }
  /** Callers of a deployment wait for a permit. */
  | { readonly type: "want"; readonly deployment: string; readonly count: number }
  | { readonly type: "give"; readonly deployment: string; readonly count: number; readonly must: boolean }
  /** What attempts have shown, `startedAt` in ms from now, and the jobs that hold a slot. See `SharedLimit`. */
  | {
    readonly type: "samples"
    readonly deployment: string
    readonly samples: ReadonlyArray<Sample>
    readonly running: number
  }
  /** A call asks to probe a deployment, while fewer than `most` do. */
  | { readonly type: "probe"; readonly deployment: string; readonly most: number }
  /** A call no longer probes it. */
  | { readonly type: "probed"; readonly deployment: string }
  /** How many requests it answers and passes on now, sent where that has changed. */
  | { readonly type: "running"; readonly count: number }
  /** See `Counters`. */
  | { readonly type: "reserve"; readonly id: string; readonly holds: ReadonlyArray<Hold> }
  | { readonly type: "settle"; readonly id: string; readonly spends: ReadonlyArray<Spend> }
  | { readonly type: "news"; readonly news: News }
  /** An operator asks for the configuration to be read again, in all processes. */
  | { readonly type: "reload"; readonly dryRun: boolean }
  /** It has done what the `prepare` or `decide` of this number asked for, or why it cannot. */
  | { readonly type: "ready"; readonly question: number; readonly problem?: string | undefined }
  /** A listening socket, beside the message. */
  | { readonly type: "socket" }
  | { readonly type: "released" }
  | { readonly type: "drained" }
  | { readonly type: "leads" }
  | { readonly type: "tally"; readonly tally: Tally }

/** What a reload has done, or why nothing has changed. */
export type ReloadOutcome =
  | { readonly report: Report }
  | { readonly report?: undefined; readonly message: string; readonly problems: ReloadError["problems"] }

/** The answers of a process since its start. */
export interface Tally {
  readonly answers: number
  /** Those with a status from 500. */
  readonly failures: number
}

/** Where administration listens. */
export interface Address {
  readonly socket?: string
  readonly url?: string
}

/** Where a process takes requests. */
export interface Bound {
  /** The URL of the address that was bound. */
  readonly bound: string
  readonly port: number
  readonly admin: Address
  /** Whether requests need a key. */
  readonly hasKeys: boolean
}

/** This process in its group. */
export interface Member extends Place {
  /**
   * Sends a message.
   *
   * @param handle a socket that is sent beside it
   * @param onSent called when the supervisor has it, or never will
   */
  readonly send: (message: ToSupervisor, handle?: unknown, onSent?: () => void) => void
  /** Passes every further message, and what is beside it, to this listener as well. */
  readonly listen: (receive: (message: ToProcess, handle?: unknown) => void) => void
}

/** This process in its group; undefined if it is the whole service. */
export const ProcessGroup = Context.Reference<Member | undefined>("troupe/services/processes/ProcessGroup", {
  defaultValue: () => undefined
})

/**
 * The socket file at which a process answers the others, and the supervisor.
 *
 * @param adminSocket the default socket of administration at the service's port
 */
export const socketOf = (adminSocket: string, { generation, index }: Pick<Place, "generation" | "index">): string =>
  adminSocket.replace(/\.sock$/, `-${generation === 1 ? "" : `${generation}.`}${index}.sock`)

/** The socket file of the HTTP server of a process that does not listen on the port itself. */
export const heldSocketOf = (adminSocket: string, place: Pick<Place, "generation" | "index">): string =>
  socketOf(adminSocket, place).replace(/\.sock$/, "-http.sock")

/** The socket file at which the supervisor answers `troupe deploy`. */
export const deploySocketOf = (adminSocket: string): string => adminSocket.replace(/\.sock$/, "-deploy.sock")
