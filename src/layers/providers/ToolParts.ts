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
  /** The event of a piece; undefined where it begins no call that has a name yet, nor adds to one. */
  readonly push: (part: Part, tokens: number) => CallEvent | undefined
  /** Calls so far. */
  readonly size: () => number
  /** Whether every call that has begun has its name. */
  readonly areNamed: () => boolean
}

/** What came of a call before its name. */
interface Nameless {
  readonly id: string | undefined
  readonly arguments: string
  readonly tokens: number
}

const nothing: Nameless = { id: undefined, arguments: "", tokens: 0 }

/** Which call a piece belongs to, however many there are. */
const makeIndex = () => {
  /** The last call at a place, and of those with an id and without one. */
  const last = new Map<string, number>()
  return {
    find: ({ id, place }: Part): number =>
      id === undefined
        ? last.get(`${place}`) ?? -1
        // Some providers number every call 0; then a new id tells a new call.
        : Math.max(last.get(`${place} ${id}`) ?? -1, last.get(`${place} `) ?? -1),
    add: (place: number, id: string | undefined, index: number) => {
      last.set(`${place}`, index)
      last.set(`${place} ${id ?? ""}`, index)
    }
  }
}

/** @param idOf makes the id of a call that the provider gives none */
export const make = (idOf: (index: number) => string): ToolParts => {
  const calls = makeIndex()
  const nameless = new Map<number, Nameless>()
  let size = 0

  const begin = (part: Part, tokens: number): CallEvent | undefined => {
    const { name, place } = part
    const before = nameless.get(place) ?? nothing
    const id = part.id ?? before.id
    const sofar = { id, arguments: before.arguments + part.arguments, tokens: before.tokens + tokens }
    if (name === undefined) {
      nameless.set(place, sofar)
      return undefined
    }
    nameless.delete(place)
    const index = size++
    calls.add(place, id, index)
    return { type: "tool_call", index, name, ...sofar, id: id ?? idOf(index) }
  }
  return {
    push: (part, tokens) => {
      const known = calls.find(part)
      if (known < 0) return begin(part, tokens)
      return part.arguments === "" && tokens === 0
        ? undefined
        : { type: "tool_call", index: known, arguments: part.arguments, tokens }
    },
    size: () => size,
    areNamed: () => nameless.size === 0
  }
}
