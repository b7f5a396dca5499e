/**
 * How busy the processors and the GPUs of this machine are.
 *
 * **Details**
 *
 * Processor time is a counter: its share in use is that between two readings. The machine is one pool of it, and so is each
 * control group with a limit that this process is in; the pool that is used most counts, because it is the one that is full
 * first.
 */
import { Context, Effect } from "effect"

/** Processor time that is shared, of the machine or of a control group with a limit. */
export interface ProcessorPool {
  readonly name: string
  /** Since any time before, ms. */
  readonly usedMs: number
  /** How much it can use at once. */
  readonly cores: number
}

/** The pools at one moment. */
export interface ProcessorReading {
  /** Monotonic ms. */
  readonly at: number
  readonly pools: ReadonlyArray<ProcessorPool>
}

/** Service: processors and GPUs of this machine. */
export class Machine extends Context.Service<Machine, {
  readonly processors: Effect.Effect<ReadonlyArray<ProcessorPool>>
  /** The share of time in which the busiest GPU computes; undefined without one whose driver says so. */
  readonly gpu: Effect.Effect<number | undefined>
}>()("troupe/services/scaling/Machine") {}

/** A machine of which nothing is known. */
export const unknown = Machine.of({ processors: Effect.succeed([]), gpu: Effect.undefined })

/** The share in use between two readings, from 0 to 1, of the pool that is used most; undefined if no pool is in both. */
export const usedBetween = (before: ProcessorReading, after: ProcessorReading): number | undefined => {
  const elapsedMs = after.at - before.at
  if (elapsedMs <= 0) return undefined
  const shares = after.pools.flatMap(({ cores, name, usedMs }) => {
    const earlier = before.pools.find((pool) => pool.name === name)
    return earlier === undefined ? [] : [(usedMs - earlier.usedMs) / (elapsedMs * cores)]
  })
  return shares.length === 0 ? undefined : Math.min(1, Math.max(0, ...shares))
}
