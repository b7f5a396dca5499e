/** Answers of a provider of the OpenAI dialect, for its callers: the id and the model are ours, all else is theirs. Pure. */
import type { Native } from "../../domain/Source.ts"
import type { Body } from "../shared/BodyChecks.ts"
import { isObject, listOf } from "../shared/Json.ts"
import type { ChatCompletion, Usage } from "./Schema.ts"

interface Envelope {
  readonly id: string
  readonly created: number
  readonly model: string
  readonly includeUsage: boolean
}

type Mutable = Record<string, unknown>

const isOurs = ({ dialect }: Native): boolean => dialect === "openai"

/** Calls in a delta have indexes. */
const deltaOf = (message: unknown): unknown =>
  isObject(message) && Array.isArray(message["tool_calls"])
    ? { ...message, tool_calls: message["tool_calls"].map((call: object, index) => ({ index, ...call })) }
    : message

/** A whole answer as one chunk. */
const chunkOf = ({ choices, usage: _, ...body }: Body): Body => ({
  ...body,
  object: "chat.completion.chunk",
  choices: listOf(choices).map((choice) => {
    const { message, ...rest } = choice as Body
    return { ...rest, delta: deltaOf(message) }
  })
})

/** With what clients count on, where the provider leaves it out. */
const completed = (body: Body, defaults: Body): Body => {
  const missing = Object.keys(defaults).filter((name) => (body[name] ?? null) === null)
  return missing.length === 0
    ? body
    : { ...body, ...Object.fromEntries(missing.map((name) => [name, defaults[name]])) }
}

/** Without usage that the caller did not request: it is in a chunk of its own, and null in the others. */
const ownOf = (given: Body, { created, id, includeUsage, model }: Envelope): Body => {
  const body = completed(given, { object: "chat.completion.chunk", created })
  if (includeUsage || body["usage"] !== null) return { ...body, id, model }
  const { usage: _, ...rest } = body
  return { ...rest, id, model }
}

/** One chunk's JSON; undefined for a provider of another dialect. */
export const chunk = (native: Native, envelope: Envelope): Body | undefined =>
  isOurs(native)
    ? ownOf(native.form === "whole" ? chunkOf(native.body) : native.body, envelope)
    : undefined

/** The value of a field after another piece of it. */
const joined = (name: string, before: unknown, piece: unknown): unknown => {
  if (isNothing(piece)) return before === undefined ? piece : before
  if (name === "tool_calls") return joinCalls(listOf(before), piece)
  return isNothing(before) || whole.has(name) ? piece : joinedValue(before, piece)
}

const isNothing = (value: unknown): boolean => value === undefined || value === null

const joinedValue = (before: unknown, piece: unknown): unknown => {
  if (typeof before === "string" && typeof piece === "string") return before + piece
  if (Array.isArray(before) && Array.isArray(piece)) return [...before as Array<unknown>, ...piece as Array<unknown>]
  return isObject(before) && isObject(piece) ? joinFields(before, piece) : piece
}

/** Texts that every piece has whole. */
const whole: ReadonlySet<string> = new Set(["id", "role", "type", "name", "format"])

const joinFields = (before: Body, piece: Body): Body => {
  const both: Mutable = { ...before }
  for (const name of Object.keys(piece)) both[name] = joined(name, both[name], piece[name])
  return both
}

/** By their indexes, which a whole answer does not have. */
const joinCalls = (before: ReadonlyArray<unknown>, pieces: unknown): ReadonlyArray<unknown> => {
  const calls = [...before]
  for (const [at, piece] of listOf(pieces).entries()) {
    const { index = at, ...call } = piece as Body
    const place = index as number
    const known = calls[place]
    calls[place] = isObject(known) ? joinFields(known, call) : call
  }
  return calls
}

interface Choice {
  readonly fields: Mutable
  message: Body
}

const addChoice = (choices: Array<Choice>, one: unknown): void => {
  const { delta, finish_reason, logprobs, ...fields } = one as Body
  const index = Number(fields["index"] ?? 0)
  const choice = choices[index] ??= {
    fields: { index, message: null, logprobs: null, finish_reason: null },
    message: {}
  }
  Object.assign(choice.fields, fields)
  if (isObject(delta)) choice.message = joinFields(choice.message, delta)
  choice.fields["logprobs"] = joined("logprobs", choice.fields["logprobs"], logprobs) ?? null
  choice.fields["finish_reason"] = finish_reason ?? choice.fields["finish_reason"]
}

/** A whole answer out of its chunks. */
const assembled = (chunks: ReadonlyArray<Native>): Body => {
  const body: Mutable = {}
  const choices: Array<Choice> = []
  for (const { body: { choices: some, ...rest } } of chunks) {
    for (const name of Object.keys(rest)) if (rest[name] !== null || !(name in body)) body[name] = rest[name]
    for (const one of listOf(some)) addChoice(choices, one)
  }
  return {
    ...body,
    object: "chat.completion",
    choices: choices.map(({ fields, message }) => ({
      ...fields,
      message: { role: "assistant", content: null, refusal: null, ...message }
    }))
  }
}

/** The body of a whole answer, which is trusted to be one; undefined where no provider of the dialect has given it. */
export const answer = (
  parts: ReadonlyArray<Native> | undefined,
  { created, id, model }: Pick<Envelope, "created" | "id" | "model">,
  usage: Usage
): ChatCompletion | undefined => {
  if (parts === undefined || parts.length === 0 || !parts.every(isOurs)) return undefined
  const found = parts.find(({ form }) => form === "whole")?.body ?? assembled(parts)
  const { completion_tokens, prompt_tokens, total_tokens } = usage
  const completeUsage = isObject(found["usage"])
    ? completed(found["usage"], { prompt_tokens, completion_tokens, total_tokens })
    : usage
  const body = completed(found, { object: "chat.completion", created })
  return { ...body, id, model, usage: completeUsage } as Body as ChatCompletion
}
