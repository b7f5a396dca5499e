/** Encodes the events of one batch as frames, in the order of the events. Pure. */
import type { Event } from "../../domain/Inference.ts"
import type { Native } from "../../domain/Source.ts"

/** An event that an encoder writes itself, not a provider's own frame. */
export type OwnEvent = Exclude<Event, { readonly type: "native" }>

/** The frames of one dialect. */
export interface Writer {
  /** Whether the event is left out, because the provider's own frames have its content. */
  readonly isLeftOut: (event: OwnEvent) => boolean
  /** The start of the stream before its first frame; empty afterwards. */
  readonly begin: (first: OwnEvent) => string
  readonly frameOf: (event: OwnEvent) => string
  /** Empty if the provider has another dialect. */
  readonly nativeFrames: (native: Native) => string
}

type TextEvent = Extract<Event, { readonly type: "text" }>

const joinTexts = (one: TextEvent, two: TextEvent): TextEvent => {
  const text = one.text + two.text
  return one.logprobs === undefined && two.logprobs === undefined
    ? { ...two, text }
    : { ...two, text, logprobs: [...one.logprobs ?? [], ...two.logprobs ?? []] }
}

type ThoughtsEvent = Extract<Event, { readonly type: "thoughts" }>

/** What is signed ends a block of thoughts. */
const joinThoughts = (one: ThoughtsEvent, two: ThoughtsEvent): ThoughtsEvent | undefined =>
  one.signed === undefined ? { ...two, text: one.text + two.text } : undefined

type CallEvent = Extract<Event, { readonly type: "tool_call" }>

const joinCalls = (one: CallEvent, two: CallEvent): CallEvent | undefined =>
  one.index === two.index && two.id === undefined
    ? { ...one, arguments: one.arguments + two.arguments }
    : undefined

/** Joins two events that fit into one frame. */
const join = (one: OwnEvent | undefined, two: OwnEvent): OwnEvent | undefined => {
  if (one?.type === "text" && two.type === "text") return joinTexts(one, two)
  if (one?.type === "thoughts" && two.type === "thoughts") return joinThoughts(one, two)
  return one?.type === "tool_call" && two.type === "tool_call" ? joinCalls(one, two) : undefined
}

/** Encodes a batch; consecutive texts, and consecutive pieces of one call, become one frame. */
export const write = ({ begin, frameOf, isLeftOut, nativeFrames }: Writer, events: ReadonlyArray<Event>): string => {
  let out = ""
  let last: OwnEvent | undefined
  const flush = () => {
    if (last !== undefined) out += frameOf(last)
    last = undefined
  }
  for (const event of events) {
    if (event.type === "native") {
      flush()
      out += nativeFrames(event.native)
    } else if (!isLeftOut(event)) {
      out += begin(event)
      const both = join(last, event)
      if (both === undefined) flush()
      last = both ?? event
    }
  }
  flush()
  return out
}
