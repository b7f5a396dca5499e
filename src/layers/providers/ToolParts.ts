/** Tool calls as they come in pieces, each under its provider's own number, as events. Pure. */
import type { Event } from "../../services/Inference.ts"

type CallEvent = Extract<Event, { readonly type: "tool_call" }>

/** A piece of a call. */
export interface Part {
  /** The provider's number of the call. */
  readonly place: number
  readonly id: string | undefined
  readonly name: string | undefined
  readonly arguments: string
}

export interface ToolParts {
  /** The event of a piece; undefined where it begins no call that has a name, nor adds to one. */
  readonly push: (part: Part, tokens: number) => CallEvent | undefined
  /** Calls so far. */
  readonly size: () => number
}

/** @param idOf makes the id of a call that the provider gives none */
export const make = (idOf: (index: number) => string): ToolParts => {
  const calls: Array<{ readonly place: number; readonly id: string | undefined }> = []

  const find = ({ id, place }: Part): number =>
    // Some providers number every call 0; then a new id tells a new call.
    calls.findLastIndex((call) => call.place === place && (id === undefined || call.id === undefined || id === call.id))

  return {
    push: (part, tokens) => {
      const known = find(part)
      if (known >= 0) {
        return part.arguments === "" && tokens === 0
          ? undefined
          : { type: "tool_call", index: known, arguments: part.arguments, tokens }
      }
      if (part.name === undefined) return undefined
      const index = calls.push({ place: part.place, id: part.id }) - 1
      const id = part.id ?? idOf(index)
      return { type: "tool_call", index, id, name: part.name, arguments: part.arguments, tokens }
    },
    size: () => calls.length
  }
}
