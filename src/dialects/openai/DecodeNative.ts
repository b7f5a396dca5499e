/**
 * Chat completions for callers of the same dialect: chunks and bodies as the provider sent them, with tool calls and finish
 * reasons repaired where they differ from the dialect. Pure.
 *
 * **Details**
 *
 * The chunk with the finish reason is held until the end of the answer, which decides the reason.
 */
import { Result } from "effect"
import type { Event } from "../../domain/Inference.ts"
import type { FinishReason } from "../../domain/Job.ts"
import type { JsonText } from "../../domain/JsonText.ts"
import type { Native } from "../../domain/Source.ts"
import { at, codeOf, type Fields, fieldsOf, indexOf, isEmpty, isObject, listAt, textAt } from "../shared/Json.ts"
import { eventOf, makeHolding, withAnswer } from "../shared/NativeEvents.ts"
import type { DecodeResult } from "../shared/ProviderDialect.ts"

type CallEvent = Extract<Event, { readonly type: "tool_call" }>
type Finish = Extract<Event, { readonly type: "finish" }>

const nativeOf = (body: Fields, form: Native["form"] = "chunk"): Native => ({
  dialect: "openai",
  form,
  body,
  hasMore: listAt(body, "choices").some((choice) =>
    messageHasMore(at(choice, form === "buffered" ? "message" : "delta"))
  )
})

/** The finish reasons of the dialect, and those of a job. */
const finishes: Readonly<Record<string, FinishReason>> = {
  stop: "stop",
  length: "length",
  tool_calls: "tool_calls",
  function_call: "tool_calls",
  content_filter: "content_filter"
}

const finishOf = (raw: unknown, reason: FinishReason): unknown =>
  typeof raw === "string" && Object.hasOwn(finishes, raw) && finishes[raw] === reason ? raw : reason

/** Whether events have content other than reasoning. */
const haveContent = (events: ReadonlyArray<Event>): boolean => events.some(({ type }) => type !== "thoughts")

const isCallEvent = (event: Event): event is CallEvent => event.type === "tool_call"

/** Whether a call is of a custom tool, which events do not represent; only the first delta of a call has a type. */
const isOther = (call: unknown): boolean => {
  const type = textAt(call, "type")
  return type === undefined ? fieldsOf(at(call, "custom")) !== undefined : type !== "function"
}

const functionOf = (raw: unknown, name: string | undefined, text: string): Fields => {
  const { arguments: _, name: __, ...rest } = fieldsOf(fieldsOf(raw)?.["function"]) ?? {}
  return { ...(name === undefined ? {} : { name }), ...rest, arguments: text }
}

/** The delta of a call's event, with the other fields that the provider sent. */
const deltaOf = (raw: unknown, { arguments: text, id, index, name }: CallEvent): Fields => {
  const { function: _, id: __, index: ___, type: ____, ...rest } = fieldsOf(raw) ?? {}
  return {
    index,
    ...(id === undefined ? {} : { id, type: "function" }),
    ...rest,
    function: functionOf(raw, name, text)
  }
}

const deltasOf = (raw: ReadonlyArray<unknown>, calls: ReadonlyArray<CallEvent>): ReadonlyArray<unknown> =>
  raw.some(isOther) ? raw : calls.map((call, at) => deltaOf(raw.length === calls.length ? raw[at] : undefined, call))

/** The message with its content as a text: Mistral's reasoning models send parts. */
const withText = (message: Fields): Fields => {
  const { content } = message
  if (!Array.isArray(content)) return message
  const textsOf = (list: ReadonlyArray<unknown>): string => list.map((part) => textAt(part, "text") ?? "").join("")
  const thoughts = content.map((part) => textsOf(listAt(part, "thinking"))).join("")
  return {
    ...message,
    content: textsOf(content),
    ...(thoughts === "" ? {} : { reasoning_content: thoughts })
  }
}

const hasCalls = (message: Fields): boolean => "function_call" in message || "tool_calls" in message

/** A message or delta with these calls; the same one if it has text alone. */
const messageWith = (message: Fields, calls: ReadonlyArray<unknown>, legacy: boolean): Fields =>
  calls.length === 0 && !hasCalls(message) ? withText(message) : withCalls(message, calls, legacy)

const withCalls = (message: Fields, calls: ReadonlyArray<unknown>, legacy: boolean): Fields => {
  const { function_call: called, tool_calls: given, ...rest } = withText(message)
  return {
    ...rest,
    ...(calls.length > 0 && (legacy || called === undefined) ? { tool_calls: calls } : {}),
    ...(calls.length === 0 && Array.isArray(given) && given.length === 0 ? { tool_calls: given } : {}),
    ...(called === undefined || !legacy ? {} : { function_call: called })
  }
}

const thoughtFields: ReadonlySet<string> = new Set(["reasoning", "reasoning_content", "reasoning_details"])
const plainFields: ReadonlySet<string> = new Set(["role", "refusal", "content", "tool_calls"])

/** The names of the fields of a delta with content other than text and calls. */
const contentFieldsOf = (delta: Fields): ReadonlyArray<string> =>
  Object.keys(delta).filter((name) => !plainFields.has(name) && !isEmpty(delta[name]))

/** Fields whose whole content is an event of reasoning: see `DecodeAnswer.thoughtsOf`. */
const isThoughtText = (message: Fields, name: string): boolean =>
  (name === "reasoning" || name === "reasoning_content") && typeof message[name] === "string"

/** Whether a message or delta has content other than text, reasoning and function calls. */
const messageHasMore = (given: unknown): boolean => {
  const message = fieldsOf(given)
  return message !== undefined &&
    (contentFieldsOf(message).some((name) => !isThoughtText(message, name)) || !isEmpty(message["refusal"]) ||
      listAt(message, "tool_calls").some(isOther))
}

export interface Chunks {
  /**
   * The native event of a chunk for the caller, and the decoded ones.
   *
   * @param choice the first choice of the chunk, if it has one
   */
  readonly push: (
    chunk: Fields,
    choice: Fields | undefined,
    events: ReadonlyArray<Event>
  ) => ReadonlyArray<Event>
  /** The events of the answer's end. */
  readonly end: (decoded: DecodeResult) => DecodeResult
  /** A chunk of text alone for the caller. */
  readonly textOf: (chunk: Fields) => Native
}

const isFirst = (choice: unknown): boolean => (fieldsOf(choice)?.["index"] ?? 0) === 0

/** The chunk with another first choice. */
const withChoice = (chunk: Fields, choice: Fields): Fields => {
  const choices = listAt(chunk, "choices")
  return choices.every((one) => one === choice || !isFirst(one))
    ? chunk
    : { ...chunk, choices: choices.map((one) => isFirst(one) ? choice : one) }
}

const choiceWith = (choice: Fields, delta: Fields): Fields => choice["delta"] === delta ? choice : { ...choice, delta }

/** The chunk with the finish reason, and its events. */
interface Last {
  readonly chunk: Fields
  readonly choice: Fields
  readonly events: ReadonlyArray<Event>
}

const isContent = (name: string): boolean => !thoughtFields.has(name)

/** The events at the end of an answer: held calls, the chunk with the finish reason, and usage. */
const endOf = (
  { chunk, choice, events }: Last,
  all: ReadonlyArray<Event>,
  usage: Fields | undefined
): ReadonlyArray<Event> => {
  const calls = all.filter(isCallEvent)
  const finish = all.at(-1) as Finish
  const delta = { tool_calls: calls.map((call) => deltaOf({}, call)) }
  const finish_reason = finishOf(choice["finish_reason"], finish.reason)
  const last = withChoice(chunk, choice["finish_reason"] === finish_reason ? choice : { ...choice, finish_reason })
  return [
    ...(calls.length === 0
      ? []
      : [eventOf(nativeOf({ ...chunk, choices: [{ ...choice, delta, finish_reason: null }] }), true)]),
    ...calls,
    eventOf(nativeOf(last), haveContent(events) || contentFieldsOf(fieldsOf(choice["delta"]) ?? {}).some(isContent)),
    ...events,
    { ...finish, ...(usage === undefined ? {} : { native: nativeOf(usage) }) }
  ]
}

/** The chunk with the requested choices only; undefined if it has none. */
const requestedOf = (chunk: Fields, count: number): Fields | undefined => {
  const choices = listAt(chunk, "choices")
  const requested = choices.filter((one) => indexOf(fieldsOf(one)?.["index"], 0) < count)
  if (requested.length === choices.length) return chunk
  return requested.length === 0 ? undefined : { ...chunk, choices: requested }
}

/**
 * @param legacy whether the caller uses the legacy `functions`
 * @param count number of requested choices
 */
export const makeChunks = (legacy: boolean, count: number): Chunks => {
  const { begin, held, hold } = makeHolding(nativeOf)
  let last: Last | undefined
  let usage: Fields | undefined

  /** Adds a chunk without choices: Azure's first, or usage. */
  const addWithoutChoice = (chunk: Fields): ReadonlyArray<Event> => {
    if (fieldsOf(chunk["usage"]) === undefined) return hold(chunk)
    usage = chunk
    return []
  }
  const addContent = (chunk: Fields, choice: Fields, events: ReadonlyArray<Event>): ReadonlyArray<Event> => {
    const delta = fieldsOf(choice["delta"]) ?? {}
    const raw = listAt(delta, "tool_calls")
    const contentFields = contentFieldsOf(delta)
    const other = raw.some(isOther)
    const calls = deltasOf(raw, events.filter(isCallEvent))
    const repaired = choiceWith(choice, messageWith(delta, calls, legacy))
    if (codeOf(choice["finish_reason"]) !== undefined) {
      last = { chunk, choice: repaired, events }
      return []
    }
    if (events.length > 0 || contentFields.length > 0 || other) {
      const content = haveContent(events) || other || contentFields.some(isContent)
      return [...begin(), eventOf(nativeOf(withChoice(chunk, repaired)), content), ...events]
    }
    // A delta of a call that has not started is not passed on.
    return raw.length > 0 && !("role" in delta) ? [] : hold(withChoice(chunk, repaired))
  }

  return {
    textOf: (chunk) => {
      const choice = fieldsOf(listAt(chunk, "choices")[0]) ?? {}
      return nativeOf(withChoice(chunk, choiceWith(choice, messageWith(fieldsOf(choice["delta"]) ?? {}, [], legacy))))
    },
    push: (given, choice, events) => {
      const chunk = requestedOf(given, count)
      if (chunk === undefined) return events
      if (choice === undefined) return addWithoutChoice(chunk)
      return last === undefined ? addContent(chunk, choice, events) : []
    },
    end: (decoded) => {
      if (Result.isFailure(decoded)) {
        const ends = last === undefined ? [] : [withChoice(last.chunk, last.choice)]
        const parts = [...held(), ...ends, ...(usage === undefined ? [] : [usage])]
        return Result.fail(withAnswer(decoded.failure, parts.map((body) => nativeOf(body))))
      }
      return last === undefined ? decoded : Result.succeed([...begin(), ...endOf(last, decoded.success, usage)])
    }
  }
}

interface Call {
  readonly id: string
  readonly name: string
  readonly arguments: string
}

/** The complete calls of events. */
const callsOf = (events: ReadonlyArray<Event>): ReadonlyArray<Call> => {
  const calls: Array<Call> = []
  for (const event of events.filter(isCallEvent)) {
    const { arguments: before = "", id = event.id ?? "", name = event.name ?? "" } = calls[event.index] ?? {}
    calls[event.index] = { id, name, arguments: before + event.arguments }
  }
  return calls
}

const callOf = (raw: unknown, { arguments: text, id, name }: Call): Fields => {
  const { function: _, id: __, index: ___, type: ____, ...rest } = fieldsOf(raw) ?? {}
  return { id, type: "function", ...rest, function: functionOf(raw, name, text) }
}

/** Whether two values are the same JSON. */
const isSame = (one: unknown, other: unknown): boolean => {
  if (Object.is(one, other)) return true
  if (Array.isArray(one) && Array.isArray(other)) {
    return one.length === other.length && one.every((value, at) => isSame(value, other[at]))
  }
  return isObject(one) && isObject(other) && Object.keys(one).length === Object.keys(other).length &&
    Object.keys(one).every((name) => Object.hasOwn(other, name) && isSame(one[name], other[name]))
}

/** A buffered answer: the native body, and its events. */
export const buffered = (
  body: Fields,
  choice: Fields,
  decoded: DecodeResult,
  legacy: boolean,
  count: number,
  text: JsonText | undefined
): DecodeResult => {
  if (Result.isFailure(decoded)) return Result.fail(withAnswer(decoded.failure, [nativeOf(body, "buffered")]))
  const message = fieldsOf(choice["message"]) ?? {}
  const raw = listAt(message, "tool_calls")
  const calls = callsOf(decoded.success)
  const rebuilt = raw.some(isOther)
    ? raw
    : calls.map((call, at) => callOf(raw.length === calls.length ? raw[at] : undefined, call))
  const { reason } = decoded.success.at(-1) as Finish
  const repaired = {
    ...choice,
    message: messageWith(message, rebuilt, legacy),
    finish_reason: finishOf(choice["finish_reason"], reason)
  }
  const content = calls.length > 0 || raw.some(isOther) ||
    contentFieldsOf(message).some((name) => isContent(name) && name !== "annotations")
  const requested = requestedOf(body, count)
  const isUnchanged = text !== undefined && requested === body && isSame(repaired, choice)
  const choices = listAt(requested, "choices").map((one) => one === choice ? repaired : one)
  const native = isUnchanged
    ? { ...nativeOf(body, "buffered"), text }
    : nativeOf({ ...body, choices }, "buffered")
  return Result.succeed([eventOf(native, content), ...decoded.success])
}
