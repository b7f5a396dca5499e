/** What is seen while a world runs: plain data, in one order. */
import type { Exit } from "effect"
import type { Event } from "../../../src/domain/Inference.ts"
import type { InferenceError } from "../../../src/domain/InferenceError.ts"
import type { Transition } from "../../../src/services/health/Circuit.ts"
import type { Caller, Fate, World } from "./World.ts"

/** A moment: what has a smaller `order` was before, also within the same millisecond. */
export interface Moment {
  readonly order: number
  /** ms */
  readonly at: number
}

/** One job of an engine. */
export interface Call {
  readonly number: number
  readonly caller: string
  readonly deployment: string
  readonly engine: number
  readonly slots: number
  readonly fate: Fate
  readonly maxTokens: number | undefined
  readonly began: Moment
  /** What it may be ahead of its consumer, tokens. */
  readonly window: number
  /** What it was ahead at most, by what its consumer has taken. */
  mostAhead: number
  /** All that it has told. */
  text: string
  tokens: number
  firstTold: Moment | undefined
  /** ms */
  lastTold: number
  /** Between two pieces, ms. */
  longestGap: number
  /** What its fate says has come to pass. */
  fateCame: boolean
  /** It was told to the end. */
  finished: boolean
  ended: Moment | undefined
  cancelled: Moment | undefined
}

/** One request, as its caller sees it. */
export interface Visit {
  readonly caller: Caller
  began: Moment | undefined
  text: string
  first: Moment | undefined
  finishes: Array<Extract<Event, { type: "finish" }>>
  /** After the first of them. */
  eventsAfterFinish: number
  /** As a whole answer names it. */
  deployment: string | undefined
  ends: Array<{ readonly moment: Moment; readonly exit: Exit.Exit<unknown, InferenceError> }>
}

/** What holds at one moment. */
export interface Glance {
  readonly moment: Moment
  readonly callers: number
  readonly running: number
  readonly queued: number
  /** Jobs that engines have not ended. */
  readonly jobs: number
  /** Deployments that load for the first time, for callers who have left. */
  readonly unaskedLoads: ReadonlyArray<string>
}

export interface Record {
  readonly world: World
  readonly calls: Array<Call>
  readonly visits: ReadonlyArray<Visit>
  readonly transitions: Array<Transition>
  /** Engines that were ended while a job of theirs ran. */
  readonly closedInUse: Array<{ readonly engine: number; readonly moment: Moment }>
  readonly glances: Array<Glance>
  /** By metric and labels. */
  readonly counts: Map<string, number>
  /** How many there are before the layers are built, before anyone calls, when all is unloaded, and after all is over. */
  readonly fibers: { before: number; idle: number; emptied: number; after: number }
  enginesLeft: number
}

export const makeRecord = (world: World): Record => ({
  world,
  calls: [],
  visits: world.callers.map((caller) => ({
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
  glances: [],
  counts: new Map(),
  fibers: { before: 0, idle: 0, emptied: 0, after: 0 },
  enginesLeft: 0
})

export const isRunning = ({ ended }: Call): boolean => ended === undefined

/** When nobody wants anything of it any more: it has ended, or was cancelled. */
export const overOf = ({ cancelled, ended }: Call): Moment | undefined => {
  if (cancelled === undefined || ended === undefined) return cancelled ?? ended
  return cancelled.order < ended.order ? cancelled : ended
}

export const endOf = ({ ends: [end] }: Visit) => end

export const callsOf = ({ calls }: Record, { caller }: Visit): ReadonlyArray<Call> =>
  calls.filter((call) => call.caller === caller.id)
