/**
 * Encodes answers of Ollama's API that are not streamed, and the parts that lines of a stream share with them. Pure.
 *
 * **Details**
 *
 * The answer of a provider of the same dialect is passed on with the name of the model that answered, and its other fields
 * unchanged. If the provider streamed it, its lines are joined.
 */
import { Result } from "effect"
import type { Answer } from "../../domain/Inference.ts"
import * as InferenceError from "../../domain/InferenceError.ts"
import type { ChosenLogprob, FinishReason, TokenLogprob, TokenUsage, ToolCall as Call } from "../../domain/Job.ts"
import type { Native } from "../../domain/Source.ts"
import { at, type Fields, fieldsOf, listAt, parse, textAt } from "../shared/Json.ts"
import type * as Schema from "./Schema.ts"

/** What the lines of an answer share, and the options of its request. */
export interface Envelope {
  /** As the caller wrote it. */
  readonly model: string
  /** The model that a stream names from here on, where this deployment answers; undefined, or left out, `model`. */
  readonly servedModel?: (deployment: string) => string | undefined
  /** Where the text is: in a message, or in a field of its own. */
  readonly endpoint: "chat" | "generate"
  /** False: reasoning is left out. */
  readonly thinking: boolean
  /** Nanoseconds since the request. */
  readonly elapsed: () => number
  /** Nanoseconds from the request until the model was loaded; 0 if it was before. */
  readonly loaded: () => number
  /** The time of day, RFC 3339. */
  readonly now: () => string
}

const doneReasons: Readonly<Record<FinishReason, string>> = {
  stop: "stop",
  length: "length",
  tool_calls: "stop",
  content_filter: "content_filter"
}

/** Only the first token of an echoed prompt has none, and Ollama's API has no echo. */
const tokenOf = ({ bytes, logprob, token }: TokenLogprob | ChosenLogprob) => ({ token, logprob: logprob ?? 0, bytes })

export const logprobsOf = (logprobs: ReadonlyArray<ChosenLogprob>): ReadonlyArray<Schema.Logprob> =>
  logprobs.map((chosen) => ({ ...tokenOf(chosen), top_logprobs: chosen.top.map(tokenOf) }))

/** The content of a line. */
export interface Content {
  readonly text?: string
  readonly thoughts?: string
  readonly calls?: ReadonlyArray<Schema.ToolCall>
  readonly logprobs?: ReadonlyArray<ChosenLogprob> | undefined
}

/** A line with content, at the place of the endpoint. */
export const lineOf = (
  { endpoint, model, now }: Envelope,
  { calls = [], logprobs, text = "", thoughts = "" }: Content,
  done: boolean
): Fields => {
  const thinking = thoughts === "" ? {} : { thinking: thoughts }
  return {
    model,
    created_at: now(),
    ...(endpoint === "generate" ? { response: text, ...thinking } : {
      message: {
        role: "assistant",
        content: text,
        ...thinking,
        ...(calls.length === 0 ? {} : { tool_calls: calls })
      }
    }),
    done,
    ...(logprobs === undefined ? {} : { logprobs: logprobsOf(logprobs) })
  }
}

/**
 * The end of an answer.
 *
 * @param firstAt when the first content came, nanoseconds since the request; undefined if that is not known
 */
export const endOf = (
  { elapsed, loaded }: Envelope,
  reason: FinishReason,
  { completionTokens, promptTokens }: TokenUsage,
  firstAt: number | undefined
): Fields => {
  const total = elapsed()
  const load = Math.min(loaded(), firstAt ?? total)
  return {
    done_reason: doneReasons[reason],
    total_duration: total,
    load_duration: load,
    prompt_eval_count: promptTokens,
    ...(firstAt === undefined ? {} : { prompt_eval_duration: firstAt - load }),
    eval_count: completionTokens,
    eval_duration: total - (firstAt ?? load)
  }
}

/** A call with its arguments as an object; undefined if they are not one. */
export const callOf = ({ arguments: text, id, name }: Call, index: number): Schema.ToolCall | undefined => {
  const parsed = text === "" ? {} : fieldsOf(parse(text))
  return parsed && { id, function: { index, name, arguments: parsed } }
}

export const malformedCall = (name: string): string =>
  `The arguments of its call of "${name}" are not the JSON of an object.`

type Calls = Result.Result<ReadonlyArray<Schema.ToolCall>, InferenceError.InferenceError>

/** An incomplete call of an answer that reached its limit is left out. */
const callsOf = ({ deployment, finishReason, toolCalls }: Answer): Calls => {
  const calls: Array<Schema.ToolCall> = []
  for (const [index, call] of toolCalls.entries()) {
    const encoded = callOf(call, index)
    if (encoded !== undefined) calls.push(encoded)
    else if (finishReason !== "length") {
      const reason = new InferenceError.EngineFailed({ deployment, detail: malformedCall(call.name) })
      return Result.fail(InferenceError.make(reason))
    }
  }
  return Result.succeed(calls)
}

/** Whether a provider of this dialect sent it. */
export const isOllama = ({ dialect }: Native): boolean => dialect === "ollama"

const joinedText = (lines: ReadonlyArray<Fields>, ...path: ReadonlyArray<string>): Fields => {
  const texts = lines.flatMap((line) => textAt(line, ...path) ?? [])
  return texts.length === 0 ? {} : { [path.at(-1)!]: texts.join("") }
}

const joinedList = (lines: ReadonlyArray<Fields>, ...path: ReadonlyArray<string>): Fields => {
  const all = lines.flatMap((line) => listAt(line, ...path))
  return all.length === 0 ? {} : { [path.at(-1)!]: all }
}

/** One answer of the lines of a stream: the last one, with the content of all. */
const joined = (lines: ReadonlyArray<Fields>): Fields => {
  const last = lines.at(-1) ?? {}
  const message = fieldsOf(lines[0]?.["message"])
  return {
    ...last,
    ...joinedText(lines, "response"),
    ...joinedText(lines, "thinking"),
    ...joinedList(lines, "logprobs"),
    ...(message === undefined ? {} : {
      message: {
        ...message,
        ...fieldsOf(at(last, "message")),
        ...joinedText(lines, "message", "content"),
        ...joinedText(lines, "message", "thinking"),
        ...joinedList(lines, "message", "tool_calls")
      }
    })
  }
}

/** The provider's answer, which is not checked; undefined if the provider has another dialect. */
const nativeAnswer = (parts: ReadonlyArray<Native> | undefined, { model }: Envelope): Fields | undefined => {
  if (parts === undefined || parts.length === 0 || !parts.every(isOllama)) return undefined
  const found = parts.find(({ form }) => form === "buffered")?.body ?? joined(parts.map(({ body }) => body))
  return { ...found, model }
}

/** The JSON of `encodeAnswer`: the provider's own text where it can be passed on. */
export const encodeText = (
  envelope: Envelope,
  answer: Answer
): Result.Result<string, InferenceError.InferenceError> => {
  const [part, ...others] = answer.native ?? []
  const text = part !== undefined && others.length === 0 && isOllama(part)
    ? part.text?.with(part.body, { model: envelope.model })
    : undefined
  return text === undefined ? Result.map(encodeAnswer(envelope, answer), JSON.stringify) : Result.succeed(text)
}

/** The body of an answer that is not streamed. */
export const encodeAnswer = (
  envelope: Envelope,
  answer: Answer
): Result.Result<Fields, InferenceError.InferenceError> => {
  const native = nativeAnswer(answer.native, envelope)
  if (native !== undefined) return Result.succeed(native)
  const { finishReason, logprobs, text, thoughts = "", usage } = answer
  return Result.map(callsOf(answer), (calls) => ({
    ...lineOf(envelope, { text, thoughts: envelope.thinking ? thoughts : "", calls, logprobs }, true),
    ...endOf(envelope, finishReason, usage, undefined)
  }))
}

/** The answer to a request that loads or unloads the model. */
export const encodeLoad = (envelope: Envelope, type: "load" | "unload"): Fields => ({
  ...lineOf(envelope, {}, true),
  done_reason: type
})
