/**
 * Assembles tool calls from the deltas of a provider. Pure.
 *
 * **Details**
 *
 * Providers differ: one index for all calls or none, ids that are missing, late, repeated or new with every delta, names
 * that are late, split or repeated, arguments as JSON text or as an object. A delta starts a new call if it has a name and
 * one of these holds:
 *
 * - its index has no call;
 * - its id is new at this index, and the call there has another id;
 * - the arguments of the call there are complete;
 * - its name is neither the name of the call there nor a further piece of it.
 *
 * Every other delta continues a call. The event that starts a call waits until the name is known: while it may still become
 * the name of another declared tool, it is held.
 */
import type { Generation } from "../../domain/Generation.ts"
import type { Event } from "../../domain/Inference.ts"

type CallEvent = Extract<Event, { readonly type: "tool_call" }>

/** One delta of a call. Empty texts count as missing. */
export interface Delta {
  /** The provider's index; undefined continues at the last index. */
  readonly place: number | undefined
  readonly id: string | undefined
  readonly name: string | undefined
  /** JSON text, or a value that is encoded as JSON. */
  readonly arguments: unknown
}

export interface ToolCallAssembler {
  /** The events of one delta. */
  readonly push: (delta: Delta) => ReadonlyArray<CallEvent>
  /** The events at the end of the answer: missing arguments are an empty object. Undefined if a call has no name. */
  readonly end: () => ReadonlyArray<CallEvent> | undefined
  /** Calls that were emitted. */
  readonly size: () => number
}

interface Call {
  /** The provider's last id. */
  id: string | undefined
  name: string
  /** Set once the first event of the call is emitted. */
  index: number | undefined
  /** Arguments that no event has yet. */
  held: string
  tokens: number
  /** It has an id and is the first call at its index: without a name, the answer is malformed. */
  readonly needsName: boolean
  hasArguments: boolean
  readonly json: JsonProgress
}

/** Follows a JSON object or array to its end, without parsing it. */
const makeJsonProgress = () => {
  let depth = 0
  let begun = false
  let quoted = false
  let escaped = false
  const inQuotes = (char: string) => {
    if (escaped) escaped = false
    else if (char === "\\") escaped = true
    else if (char === "\"") quoted = false
  }
  const outside = (char: string) => {
    if (char === "\"") quoted = true
    else if (char === "{" || char === "[") {
      depth++
      begun = true
    } else if (char === "}" || char === "]") depth--
  }
  return {
    push: (text: string) => {
      for (const char of text) (quoted ? inQuotes : outside)(char)
    },
    isComplete: () => begun && depth <= 0 && !quoted
  }
}
type JsonProgress = ReturnType<typeof makeJsonProgress>

/** JSON text of arguments that a provider sends as text or as a value; empty if there are none. */
export const argumentsText = (value: unknown): string =>
  typeof value === "string" ? value : value === undefined || value === null ? "" : JSON.stringify(value)

/** Makes ids that are unique within the conversation and the answer. */
export const makeIds = ({ messages }: Pick<Generation, "messages">) => {
  const taken = new Set(messages.flatMap(({ toolCalls = [] }) => toolCalls.map(({ id }) => id)))
  let next = 0
  return (id: string | undefined): string => {
    let position = next++
    let unique = id
    while (unique === undefined || unique === "" || taken.has(unique)) {
      // The number of messages distinguishes it from the ids of other turns.
      unique = `call_${messages.length}_${position}`
      if (taken.has(unique)) position = next++
    }
    taken.add(unique)
    return unique
  }
}

/** Names of the tools that the request declares, and which texts may still become one of them. */
const makeNames = ({ tools = [] }: Pick<Generation, "tools">) => {
  const declared = new Set(tools.map(({ name }) => name))
  const isBeginning = (text: string) => tools.some(({ name }) => name.length > text.length && name.startsWith(text))
  return {
    /** The name after a further piece of it; undefined if the piece is the name of another call. */
    join: (name: string, piece: string): string | undefined => {
      if (name === "" || piece === name) return piece
      const joined = name + piece
      if (declared.has(joined) || isBeginning(joined)) return joined
      return piece.startsWith(name) ? piece : undefined
    },
    isComplete: (name: string, hasArguments: boolean): boolean =>
      name !== "" && (!isBeginning(name) || (hasArguments && declared.has(name)))
  }
}

type Names = ReturnType<typeof makeNames>

const startsNew = (names: Names, call: Call, name: string): boolean => {
  if (name === "" || call.name === "") return false
  if (call.json.isComplete()) return true
  if (name === call.name) return false
  return call.index !== undefined || call.hasArguments || names.join(call.name, name) === undefined
}

/** The call at an index that takes an id that is new there; undefined if the id starts another call. */
const adoptedBy = (names: Names, call: Call, name: string): Call | undefined => {
  if (call.name === "") return call
  if (call.id === undefined) return startsNew(names, call, name) ? undefined : call
  return name === "" && !call.json.isComplete() ? call : undefined
}

/** The calls by the provider's indexes and ids. */
const makeCalls = (names: Names) => {
  /** The last call at each index, and every call by index and id. */
  const last = new Map<number, Call>()
  const byId = new Map<string, Call>()
  const all: Array<Call> = []
  let place = 0

  const continued = (id: string, name: string): Call | undefined => {
    const known = id === "" ? undefined : byId.get(`${place} ${id}`)
    const call = known ?? last.get(place)
    if (call === undefined) return undefined
    if (id !== "" && known === undefined) return adoptedBy(names, call, name)
    return startsNew(names, call, name) ? undefined : call
  }

  const started = (id: string): Call => {
    const call: Call = {
      id: undefined,
      name: "",
      index: undefined,
      held: "",
      tokens: 0,
      hasArguments: false,
      needsName: id !== "" && !last.has(place),
      json: makeJsonProgress()
    }
    all.push(call)
    return call
  }

  return {
    all,
    /** The call that a delta continues or starts, and the call before it at its index. */
    of: ({ id = "", name = "", place: given = place }: Delta) => {
      place = given
      const before = last.get(place)
      const found = continued(id, name)
      const call = found ?? started(id)
      if (found === undefined) last.set(place, call)
      if (id !== "") {
        call.id ??= id
        byId.set(`${place} ${id}`, call)
      }
      return { call, before }
    }
  }
}

/** @param count tokens of a piece of text */
export const make = (
  generation: Pick<Generation, "messages" | "tools">,
  count: (text: string) => number
): ToolCallAssembler => {
  const names = makeNames(generation)
  const calls = makeCalls(names)
  const idOf = makeIds(generation)
  let size = 0

  const emit = (call: Call): CallEvent => {
    call.index = size++
    const { held: text, index, name, tokens } = call
    call.held = ""
    return { type: "tool_call", index, id: idOf(call.id), name, arguments: text, tokens }
  }

  const isReady = ({ hasArguments, json, name }: Call): boolean =>
    names.isComplete(name, hasArguments) || (name !== "" && json.isComplete())

  const add = (call: Call, name: string, text: string): ReadonlyArray<CallEvent> => {
    const tokens = count(text)
    call.json.push(text)
    call.hasArguments ||= text !== ""
    if (call.index !== undefined) {
      return text === "" && tokens === 0 ? [] : [{ type: "tool_call", index: call.index, arguments: text, tokens }]
    }
    if (name !== "") call.name = names.join(call.name, name) ?? name
    call.held += text
    call.tokens += tokens
    return isReady(call) ? [emit(call)] : []
  }

  return {
    push: (delta) => {
      const { before, call } = calls.of(delta)
      // The name of the preceding call at the index is complete.
      const isOver = before !== undefined && before !== call && before.index === undefined && before.name !== ""
      const events = isOver ? [emit(before)] : []
      return [...events, ...add(call, delta.name ?? "", argumentsText(delta.arguments))]
    },
    end: () => {
      // A delta that adds nothing to a call is not a call; one with arguments and no name is malformed.
      const begun = calls.all.filter(({ hasArguments, name, needsName }) => name !== "" || needsName || hasArguments)
      if (begun.some(({ name }) => name === "")) return undefined
      return begun.flatMap((call): ReadonlyArray<CallEvent> => {
        const held = call.index === undefined ? [emit(call)] : []
        return call.hasArguments
          ? held
          : [...held, { type: "tool_call", index: call.index!, arguments: "{}", tokens: 0 }]
      })
    },
    size: () => size
  }
}
