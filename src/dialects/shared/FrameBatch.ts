/** The frames of events that came together, in the order of the events. Pure. */
import type { Event } from "../../domain/Inference.ts"
import type { Native } from "../../domain/Source.ts"

/** An event that an encoder writes in frames of its own. */
export type OwnEvent = Exclude<Event, { readonly type: "native" }>

/** How one dialect writes its frames. */
export interface Writer {
  /** Whether the provider's own frames have the content of this event. */
  readonly isSaid: (event: OwnEvent) => boolean
  /** What the stream begins with, before the first frame; empty afterwards. */
  readonly begin: (first: OwnEvent) => string
  readonly frameOf: (event: OwnEvent) => string
  /** Empty for a provider of another dialect. */
  readonly nativeFrames: (native: Native) => string
}

type TextEvent = Extract<Event, { readonly type: "text" }>

const joinTexts = (one: TextEvent, two: TextEvent): TextEvent => {
  const text = one.text + two.text
  return one.logprobs === undefined && two.logprobs === undefined
    ? { ...two, text }
    : { ...two, text, logprobs: [...one.logprobs ?? [], ...two.logprobs ?? []] }
}

type CallEvent = Extract<Event, { readonly type: "tool_call" }>

const joinCalls = (one: CallEvent, two: CallEvent): CallEvent | undefined =>
  one.index === two.index && two.id === undefined
    ? { ...one, arguments: one.arguments + two.arguments }
    : undefined

/** Two events as one, where one frame can have both. */
const join = (one: OwnEvent | undefined, two: OwnEvent): OwnEvent | undefined => {
  if (one?.type === "text" && two.type === "text") return joinTexts(one, two)
  if (one?.type === "thoughts" && two.type === "thoughts") return { ...two, text: one.text + two.text }
  return one?.type === "tool_call" && two.type === "tool_call" ? joinCalls(one, two) : undefined
}

/** Writes a batch; neighbouring texts, and neighbouring pieces of one call, leave in one frame. */
export const write = ({ begin, frameOf, isSaid, nativeFrames }: Writer, events: ReadonlyArray<Event>): string => {
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
    } else if (!isSaid(event)) {
      out += begin(event)
      const both = join(last, event)
      if (both === undefined) flush()
      last = both ?? event
    }
  }
  flush()
  return out
}
