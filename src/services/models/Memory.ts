/** The memory that this machine or this process's control group has. */
import type { Effect } from "effect"
import { Context } from "effect"

/** In bytes. */
export interface Reading {
  readonly totalBytes: number
  /** What can be had without swapping. */
  readonly availableBytes: number
}

export class Memory extends Context.Service<Memory, {
  readonly read: Effect.Effect<Reading>
}>()("troupe/services/models/Memory") {}
