/**
 * The slots of the onnx engine. Each keeps its last computation for a prompt with the same beginning.
 *
 * **Details**
 *
 * Complete pieces of a prompt are kept, as they were computed together: the last digits of a token's values depend on the
 * tokens computed with it, and the answer for a seed must not depend on earlier jobs.
 */
import { promptPiece } from "../../domain/EngineProtocol.ts"
import type { Cached, Owned } from "../job/Slots.ts"
import type { Cache, Decoder } from "./OnnxDecoder.ts"

/** Used by one job at a time. Each step replaces the fields together, so that they stay consistent however a job ends. */
export interface Slot extends Owned {
  tokens: ReadonlyArray<number>
  cache: Cache
  /** Tokens at the beginning that were computed in complete pieces of a prompt. */
  inPieces: number
}

export const makeSlots = (decoder: Decoder, count: number): Array<Slot> =>
  Array.from({ length: count }, () => ({ owner: "", tokens: [], cache: decoder.empty(), inPieces: 0 }))

/** Tokens at the beginning of a prompt that a slot has computed; never all, since the logits of the last one are needed. */
export const shared = ({ tokens }: Slot, prompt: ReadonlyArray<number>): number => {
  const most = Math.min(tokens.length, prompt.length - 1)
  for (let at = 0; at < most; at++) if (tokens[at] !== prompt[at]) return at
  return most
}

/** A slot's computation, compared with a prompt. */
export const cachedOf = (slot: Slot, prompt: ReadonlyArray<number>): Cached => ({
  length: slot.tokens.length,
  shared: shared(slot, prompt)
})

/** Keeps the complete pieces that the slot shares with the prompt, and returns the number of their tokens. */
export const begin = (decoder: Decoder, slot: Slot, prompt: ReadonlyArray<number>): number => {
  const most = Math.min(shared(slot, prompt), slot.inPieces)
  const kept = most - most % promptPiece
  slot.inPieces = kept
  slot.tokens = prompt.slice(0, kept)
  slot.cache = decoder.cut(slot.cache, kept)
  return kept
}
