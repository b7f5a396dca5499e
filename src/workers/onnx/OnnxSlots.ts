/**
 * The onnx engine's slots, each of which keeps what it computed last for a prompt that begins alike.
 *
 * **Details**
 *
 * What is kept is whole pieces of a prompt, as they were computed together: a token's numbers depend in their last
 * digits on which others are computed with it, and a seed's answer must not depend on what ran before.
 */
import { promptPiece } from "../../domain/EngineProtocol.ts"
import type { Kept, Owned } from "../job/Slots.ts"
import type { Cache, Decoder } from "./OnnxDecoder.ts"

/** One job at a time uses it. A step replaces all at once, so they are true of each other however a job ends. */
export interface Slot extends Owned {
  tokens: ReadonlyArray<number>
  cache: Cache
  /** Of the tokens, how many at the beginning were computed in whole pieces of a prompt. */
  whole: number
}

export const makeSlots = (decoder: Decoder, count: number): Array<Slot> =>
  Array.from({ length: count }, () => ({ owner: "", tokens: [], cache: decoder.empty(), whole: 0 }))

/** How many tokens at the beginning of a prompt a slot has computed; never all, since the last one's logits are wanted. */
export const shared = ({ tokens }: Slot, prompt: ReadonlyArray<number>): number => {
  const most = Math.min(tokens.length, prompt.length - 1)
  for (let at = 0; at < most; at++) if (tokens[at] !== prompt[at]) return at
  return most
}

/** What a prompt finds in a slot. */
export const keptOf = (slot: Slot, prompt: ReadonlyArray<number>): Kept => ({
  length: slot.tokens.length,
  shared: shared(slot, prompt)
})

/** Keeps the whole pieces that the slot shares with the prompt, and returns how many tokens that are. */
export const begin = (decoder: Decoder, slot: Slot, prompt: ReadonlyArray<number>): number => {
  const most = Math.min(shared(slot, prompt), slot.whole)
  const kept = most - most % promptPiece
  slot.whole = kept
  slot.tokens = prompt.slice(0, kept)
  slot.cache = decoder.cut(slot.cache, kept)
  return kept
}
