/** The record of a run: plain data, in one order. */
import type { Exit } from "effect"
import type { Event } from "../../../src/domain/Inference.ts"
import type { InferenceError } from "../../../src/domain/InferenceError.ts"
import type { Transition } from "../../../src/services/health/Circuit.ts"
import type { Caller, Outcome, Schedule } from "./Schedule.ts"

/** A moment: a smaller `order` is earlier, also within the same millisecond. */
export interface Moment {
  readonly order: number
  /** ms */
  readonly at: number
}

/** One job of an engine. */
export interface Call {
  readonly number: number
  readonly caller: string
  /** A receiver follows it: `Engine.start`. */
  readonly isFollowed: boolean
  readonly deployment: string
  readonly engine: number
  readonly slots: number
  readonly outcome: Outcome
  readonly maxTokens: number | undefined
  readonly began: Moment
  /** The window: the limit of tokens ahead of the consumer. */
  readonly window: number
  /** The most tokens ahead of those that the consumer has read. */
  mostAhead: number
  /** The sent text. */
  text: string
  tokens: number
  firstSent: Moment | undefined
  /** ms */
  lastSent: number
  /** The longest time between two pieces, ms. */
  longestGap: number
  /** Whether the scripted outcome has been reached. */
  outcomeReached: boolean
  /** Whether the answer was sent completely. */
  finished: boolean
  ended: Moment | undefined
  cancelled: Moment | undefined
}

/** One request from the caller's side. */
export interface Visit {
  readonly caller: Caller
  began: Moment | undefined
  text: string
  first: Moment | undefined
  finishes: Array<Extract<Event, { type: "finish" }>>
  /** After the first of them. */
  eventsAfterFinish: number
  /** As reported by a buffered answer. */
  deployment: string | undefined
  ends: Array<{ readonly moment: Moment; readonly exit: Exit.Exit<unknown, InferenceError> }>
}

/** The state at one moment. */
export interface Snapshot {
  readonly moment: Moment
  readonly callers: number
  readonly running: number
  readonly queued: number
  /** Jobs that engines have not ended. */
  readonly jobs: number
  /** Deployments that load for the first time without waiting callers. */
  readonly unaskedLoads: ReadonlyArray<string>
}

export interface Record {
  readonly schedule: Schedule
  readonly calls: Array<Call>
  readonly visits: ReadonlyArray<Visit>
  readonly transitions: Array<Transition>
  /** Engines that were ended during a job. */
  readonly closedInUse: Array<{ readonly engine: number; readonly moment: Moment }>
  readonly snapshots: Array<Snapshot>
  /** By metric and labels. */
  readonly counts: Map<string, number>
  /** The number of fibers before the layers are built, before the first request, after all unloads, and at the end. */
  readonly fibers: { before: number; idle: number; emptied: number; after: number }
  enginesLeft: number
}

export const makeRecord = (schedule: Schedule): Record => ({
  schedule,
  calls: [],
  visits: schedule.callers.map((caller) => ({
    caller,
    began: undefined,
    text: "",
    first: undefined,
    finishes: [],
    eventsAfterFinish: 0,
    deployment: undefined,
    ends: []
  })),
  transitions: [],
  closedInUse: [],
  snapshots: [],
  counts: new Map(),
  fibers: { before: 0, idle: 0, emptied: 0, after: 0 },
  enginesLeft: 0
})

export const isRunning = ({ ended }: Call): boolean => ended === undefined

/** The end or the cancellation of a call, whichever was first. */
export const overOf = ({ cancelled, ended }: Call): Moment | undefined => {
  if (cancelled === undefined || ended === undefined) return cancelled ?? ended
  return cancelled.order < ended.order ? cancelled : ended
}

export const endOf = ({ ends: [end] }: Visit) => end

export const callsOf = ({ calls }: Record, { caller }: Visit): ReadonlyArray<Call> =>
  calls.filter((call) => call.caller === caller.id)
