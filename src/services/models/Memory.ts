/** The memory of this machine or of this process's control group, and how much of it models may use. */
import { Context, Effect } from "effect"

/** In bytes. */
export interface Reading {
  readonly totalBytes: number
  /** Memory that can be allocated without swapping. */
  readonly availableBytes: number
}

/** The machine's memory, bytes. */
export class Memory extends Context.Service<Memory, {
  readonly read: Effect.Effect<Reading>
}>()("troupe/services/models/Memory") {}

/** An engine and the memory that it was granted, bytes. */
interface Granted {
  readonly bytes: number
  /** Undefined while it loads. */
  readonly engine: unknown
}

/** Bytes that all models together may use now, given the ones that have memory. */
export type Budget = Effect.Effect<(granted: ReadonlyArray<Granted>) => number>

/** Memory in use by loaded engines. An engine that loads has not yet taken what it was granted. */
const usedBytes = (granted: ReadonlyArray<Granted>): number =>
  granted.reduce((sum, { bytes, engine }) => engine === undefined ? sum : sum + bytes, 0)

/**
 * The configured budget; without one, the memory that models use plus what is available, less the share `reserve`.
 *
 * **Gotchas**
 *
 * The pages of a mapped file count as used by its engine and as available too: the sum is limited by the machine's memory.
 */
export const budgetOf = (
  { budgetBytes, reserve }: { readonly budgetBytes: number | undefined; readonly reserve: number },
  memory: Memory["Service"]
): Budget =>
  budgetBytes !== undefined
    ? Effect.succeed(() => budgetBytes)
    : Effect.map(memory.read, ({ availableBytes, totalBytes }) => (granted) =>
      (1 - reserve) * Math.min(totalBytes, availableBytes + usedBytes(granted)))
