/** Encoding that dialects other than OpenAI's share: system messages, turns, arguments and unsupported options. Pure. */
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

/** Values that have no effect, of the options that have such a value. */
const neutral: Readonly<Partial<Record<keyof Sampling, number>>> = {
  minP: 0,
  repeatPenalty: 1,
  presencePenalty: 0,
  frequencyPenalty: 0
}

const isSet = (sampling: Sampling, name: keyof Sampling): boolean => {
  const value = sampling[name]
  if (value === undefined || value === neutral[name]) return false
  return typeof value === "number" || Object.keys(value).length > 0
}

/** Fails for the first of these options that is set, and for log probabilities. */
export const rejectOptions = (
  names: ReadonlyArray<keyof Sampling>,
  { logprobs, sampling }: Generation,
  target: Target
): Result.Result<void, Reason> => {
  const name = names.find((name) => isSet(sampling, name)) ?? (logprobs === undefined ? undefined : "logprobs")
  return name === undefined
    ? Result.succeed(undefined)
    : Result.fail(notSupported(target, name, "its API has no such option. Remove it."))
}

/** The system messages, wherever they are, as one text; undefined if there is none. */
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

/** The parts of consecutive messages of one role. */
export interface Turn<Part> {
  readonly role: string
  readonly parts: ReadonlyArray<Part>
}

/**
 * All messages except system messages as turns: consecutive messages of one role are one turn; empty ones are left out.
 *
 * @param turnOf encodes the message at a path, as `messages[1]`
 */
export const turnsOf = <Part>(
  { messages }: Generation,
  turnOf: (message: Message, path: string) => Result.Result<Turn<Part>, Reason>
): Result.Result<ReadonlyArray<Turn<Part>>, Reason> => {
  const turns: Array<Turn<Part>> = []
  for (const [index, message] of messages.entries()) {
    if (message.role === "system") continue
    const turn = turnOf(message, `messages[${index}]`)
    if (Result.isFailure(turn)) return Result.fail(turn.failure)
    const { parts, role } = turn.success
    const last = turns.at(-1)
    if (parts.length === 0) continue
    if (last?.role === role) turns.splice(-1, 1, { role, parts: [...last.parts, ...parts] })
    else turns.push({ role, parts })
  }
  return turns.length === 0
    ? Result.fail(invalid("messages", "Expected a message with content other than system messages"))
    : Result.succeed(turns)
}
