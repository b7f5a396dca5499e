/** What the dialects that do not speak OpenAI's make of a generation alike. Pure. */
import { Result } from "effect"
import type { Generation, Sampling } from "../../domain/Generation.ts"
import type { Reason } from "../../domain/InferenceError.ts"
import { InvalidRequest } from "../../domain/InferenceError.ts"
import type { Message } from "../../domain/Message.ts"
import { textOf } from "../../domain/Message.ts"
import { notSupported } from "./ErrorMapping.ts"
import { type Fields, fieldsOf, parse } from "./Json.ts"
import type { Target } from "./ProviderDialect.ts"

export const invalid = (path: string, detail: string): Reason => new InvalidRequest({ path, detail })

/** What an option says when it asks for nothing; left out, nothing does. */
const neutral: Readonly<Partial<Record<keyof Sampling, number>>> = {
  minP: 0,
  repeatPenalty: 1,
  presencePenalty: 0,
  frequencyPenalty: 0
}

const asks = (sampling: Sampling, name: keyof Sampling): boolean => {
  const value = sampling[name]
  if (value === undefined || value === neutral[name]) return false
  return typeof value === "number" || Object.keys(value).length > 0
}

/** Fails for the first of these options that asks for something, and for log-probabilities. */
export const without = (
  names: ReadonlyArray<keyof Sampling>,
  { logprobs, sampling }: Generation,
  target: Target
): Result.Result<void, Reason> => {
  const name = names.find((name) => asks(sampling, name)) ?? (logprobs === undefined ? undefined : "logprobs")
  return name === undefined
    ? Result.succeed(undefined)
    : Result.fail(notSupported(target, name, "its API has no such option. Remove it."))
}

/** The system messages, wherever they are, as one text; undefined where there is none. */
export const systemOf = ({ messages }: Generation): string | undefined => {
  const texts = messages.filter(({ role }) => role === "system").map(({ content }) => textOf(content))
    .filter((text) => text !== "")
  return texts.length === 0 ? undefined : texts.join("\n\n")
}

/** The arguments of a call as an object. */
export const argumentsOf = (path: string, text: string): Result.Result<Fields, Reason> => {
  const fields = text === "" ? {} : fieldsOf(parse(text))
  return fields === undefined
    ? Result.fail(invalid(path, "Expected the JSON text of an object"))
    : Result.succeed(fields)
}

/** One side's say. */
export interface Turn<Part> {
  readonly role: string
  readonly parts: ReadonlyArray<Part>
}

/**
 * All messages but the system's as turns: neighbors of one role are one, and those that say nothing are none.
 *
 * @param turnOf of the message at this path, as `messages[1]`
 */
export const turnsOf = <Part>(
  { messages }: Generation,
  turnOf: (message: Message, path: string) => Result.Result<Turn<Part>, Reason>
): Result.Result<ReadonlyArray<Turn<Part>>, Reason> => {
  const turns: Array<Turn<Part>> = []
  for (const [index, message] of messages.entries()) {
    if (message.role === "system") continue
    const told = turnOf(message, `messages[${index}]`)
    if (Result.isFailure(told)) return Result.fail(told.failure)
    const { parts, role } = told.success
    const last = turns.at(-1)
    if (parts.length === 0) continue
    if (last?.role === role) turns.splice(-1, 1, { role, parts: [...last.parts, ...parts] })
    else turns.push({ role, parts })
  }
  return turns.length === 0
    ? Result.fail(invalid("messages", "Expected a message with content beside the system's"))
    : Result.succeed(turns)
}
