/**
 * Ollama as a provider: `/api/chat` in lines of JSON, `/api/generate` for text completions, and `/api/embed`; for callers of
 * its own dialect also `/api/embeddings`. Pure.
 *
 * **Gotchas**
 *
 * Source: Ollama's API documentation. It cannot be forced to call a tool, and truncates a prompt that does not fit without
 * an error. It continues an assistant's message at the end. Options that the caller did not set are not sent.
 */
import { Result } from "effect"
import * as ExactNumber from "../../domain/ExactNumber.ts"
import type { Generation } from "../../domain/Generation.ts"
import { withAssistantPrefix } from "../../domain/Generation.ts"
import type { Event } from "../../domain/Inference.ts"
import type { Reason } from "../../domain/InferenceError.ts"
import type { ChosenLogprob, FinishReason, OutputFormat, ReportedUsage } from "../../domain/Job.ts"
import type { Content, Message } from "../../domain/Message.ts"
import { imageOfTool, textOf, thoughtsOf } from "../../domain/Message.ts"
import { effortOf, isOff, within } from "../../domain/Reasoning.ts"
import * as Source from "../../domain/Source.ts"
import { chosenOf } from "../openai/DecodeAnswer.ts"
import { toolsOf } from "../openai/EncodeRequest.ts"
import { embeddingsOf } from "../shared/Embeddings.ts"
import type { ErrorDetails } from "../shared/ErrorMapping.ts"
import { cut, inBandReason, malformed, notSupported, reasonOf } from "../shared/ErrorMapping.ts"
import { at, codeOf, countAt, type Fields, fieldsOf, listAt, ownOf, parse, textAt } from "../shared/Json.ts"
import type { DecodeResult, Dialect, EventDecoder, Target } from "../shared/ProviderDialect.ts"
import { makeCounter, taskUsage } from "../shared/TokenCounter.ts"
import * as ToolCallAssembler from "../shared/ToolCallAssembler.ts"
import * as PassThrough from "./PassThrough.ts"

/** Base64 only: the API has no URLs of images. */
const imagesOf = (content: Content): ReadonlyArray<string> =>
  typeof content === "string" ?
    [] :
    content.flatMap((part) => part.type === "image" && part.source.type === "base64" ? [part.source.data] : [])

const thinkingOf = (thoughts: string | undefined) => thoughts === undefined ? {} : { thinking: thoughts }

/**
 * A tool's result has the name of the preceding call with its id: ids may occur again in a later turn. Images are separate
 * from the text.
 */
const messagesOf = (messages: ReadonlyArray<Message>) => {
  const names = new Map<string, string>()
  const named = (toolCalls: NonNullable<Message["toolCalls"]>) => {
    for (const { id, name } of toolCalls) names.set(id, name)
    return toolCalls
  }
  return messages.map(({ content, reasoning, role, thoughts, toolCallId = "", toolCalls = [] }) => ({
    role,
    content: textOf(content),
    ...(role === "assistant" ? thinkingOf(thoughtsOf({ reasoning, thoughts })) : {}),
    ...(imagesOf(content).length === 0 ? {} : { images: imagesOf(content) }),
    ...(toolCalls.length === 0 ? {} : {
      tool_calls: named(toolCalls).map(({ arguments: text, name }) => ({
        function: { name, arguments: fieldsOf(parse(text)) ?? {} }
      }))
    }),
    ...(role === "tool" ? { tool_name: names.get(toolCallId) ?? "" } : {})
  }))
}

/** The caller's own seed, which may have more than the 32 bits of `sampling`. A negative one would mean a random one. */
const seedOf = ({ sampling, source }: Generation): unknown => {
  const seed = source?.dialect === "openai" ? ExactNumber.integerOf(source.body["seed"]) : undefined
  return seed === undefined ? sampling.seed : ExactNumber.fromInteger(BigInt.asUintN(63, seed))
}

/** Undefined options are not sent. */
const optionsOf = (generation: Generation, { options }: Target) => {
  const { maxTokens, sampling, stop } = generation
  const fields = {
    temperature: sampling.temperature,
    top_p: sampling.topP,
    top_k: sampling.topK,
    min_p: sampling.minP,
    seed: seedOf(generation),
    repeat_penalty: sampling.repeatPenalty,
    presence_penalty: sampling.presencePenalty,
    frequency_penalty: sampling.frequencyPenalty,
    num_predict: maxTokens ?? options.maxTokens,
    stop: stop.length === 0 ? undefined : stop,
    num_ctx: options.contextSize
  }
  return Object.values(fields).every((value) => value === undefined) ? {} : { options: fields }
}

/** The families of Ollama's library that think: it refuses `think` for a model that does not. */
const thinkers =
  /^(?:.*\/)?(?:gpt-oss|qwen3|qwq|deepseek-(?:r1|v3\.[1-9])|magistral|phi4-(?:mini-)?reasoning|glm-4\.[5-9]|glm-[5-9]|kimi-k2-thinking|minimax-m|nemotron-3|cogito|granite3\.2|exaone-deep|smallthinker|openthinker)/

/** Models that take an effort and cannot be switched off. */
const graded = /^(?:.*\/)?gpt-oss/

/** Any model accepts that it must not think. */
const thinkOf = ({ reasoning }: Generation, { options: { model, reasoning: configured } }: Target): Fields => {
  if (reasoning === undefined) return {}
  if (graded.test(model)) {
    const effort = effortOf(reasoning)
    return effort === undefined ? {} : { think: within(effort, ["low", "medium", "high"]) }
  }
  if (isOff(reasoning)) return { think: false }
  return configured ?? thinkers.test(model) ? { think: true } : {}
}

const formatOf = (format: OutputFormat) => format.type === "json_schema" ? format.schema : "json"

const unsupported = (
  { messages, sampling, toolChoice, tools = [] }: Generation,
  target: Target
): Reason | undefined => {
  if (tools.length > 0 && toolChoice !== undefined && toolChoice !== "auto" && toolChoice !== "none") {
    return notSupported(target, "toolChoice", "its API cannot force a tool call. Use `auto`.")
  }
  const image = imageOfTool(messages)
  if (image !== undefined) return notSupported(target, image, "its API has no images in tool results.")
  return Object.keys(sampling.logitBias ?? {}).length > 0
    ? notSupported(target, "logitBias", "its API has no `logit_bias`. Remove it.")
    : undefined
}

/** A text completion: without a template, or with Ollama's own for a gap. */
const completionOf: Dialect["generate"]["request"] = (generation, target, stream) => {
  const { completion, format, logprobs, messages: [prompt, suffix] } = generation
  if (completion?.tokens !== undefined) {
    return Result.fail(notSupported(target, "completion.tokens", "its API has no tokens as a prompt. Send the text."))
  }
  const reason = unsupported(generation, target)
  return reason !== undefined ? Result.fail(reason) : Result.succeed({
    path: "/api/generate",
    body: {
      model: target.options.model,
      prompt: textOf(prompt!.content),
      ...(suffix === undefined ? { raw: true } : { suffix: textOf(suffix.content) }),
      stream,
      ...optionsOf(generation, target),
      ...(format === undefined ? {} : { format: formatOf(format) }),
      ...(logprobs === undefined ? {} : { logprobs: true, top_logprobs: logprobs })
    }
  })
}

const requestOf: Dialect["generate"]["request"] = (generation, target, stream) => {
  const { format, logprobs, toolChoice, tools = [] } = generation
  const { messages } = withAssistantPrefix(generation)
  const reason = unsupported(generation, target)
  if (reason !== undefined) return Result.fail(reason)
  return Result.succeed({
    path: "/api/chat",
    body: {
      model: target.options.model,
      messages: messagesOf(messages),
      stream,
      ...optionsOf(generation, target),
      ...(tools.length === 0 || toolChoice === "none" ? {} : { tools: toolsOf(tools) }),
      ...thinkOf(generation, target),
      ...(format === undefined ? {} : { format: formatOf(format) }),
      ...(logprobs === undefined ? {} : { logprobs: true, top_logprobs: logprobs })
    }
  })
}

/** @param body `{ error }` */
const detailsIn = (body: unknown): ErrorDetails => ({
  message: textAt(body, "error") ?? textAt(body, "error", "message") ?? ""
})

const failure: Dialect["failure"] = (refusal, target) => reasonOf(refusal, target, detailsIn(refusal.body))

const inBand = (body: unknown, target: Target): Reason => inBandReason(body, target, detailsIn(body), undefined)

const errorIn: Dialect["errorIn"] = (body, target) => at(body, "error") === undefined ? undefined : inBand(body, target)

/** `load` and `unload` have no answer. */
const finishes: Readonly<Record<string, FinishReason>> = { stop: "stop", length: "length" }

const usageIn = (line: unknown): ReportedUsage => ({
  promptTokens: countAt(line, "prompt_eval_count"),
  completionTokens: countAt(line, "eval_count")
})

/** Ollama has no logprobs before version 0.12.11. */
const logprobsOf = (line: unknown): { readonly logprobs?: ReadonlyArray<ChosenLogprob> } => {
  const logprobs = listAt(line, "logprobs").flatMap(chosenOf)
  return logprobs.length === 0 ? {} : { logprobs }
}

/** The reasoning and the text of a line, which `/api/generate` has outside of a message. */
const contentEvents = (line: unknown, count: (text: string) => number): ReadonlyArray<Event> => {
  const message = at(line, "message") ?? line
  const thoughts = textAt(message, "thinking") ?? ""
  const text = textAt(message, "content") ?? textAt(message, "response") ?? ""
  return [
    ...(thoughts === "" ? [] : [{ type: "thoughts" as const, text: thoughts, tokens: count(thoughts) }]),
    ...(text === "" ? [] : [{ type: "text" as const, text, tokens: count(text), ...logprobsOf(line) }])
  ]
}

const makeLines = (generation: Generation, target: Target) => {
  const counter = makeCounter(generation)
  const calls = ToolCallAssembler.make(generation, counter.count)
  let places = 0

  const callEvents = (line: unknown): ReadonlyArray<Event> =>
    listAt(line, "message", "tool_calls").flatMap((call) => {
      const given = ToolCallAssembler.argumentsText(at(call, "function", "arguments"))
      // Calls are not streamed in pieces: each is a new one.
      return calls.push({
        place: places++,
        id: textAt(call, "id"),
        name: textAt(call, "function", "name"),
        arguments: given === "" ? "{}" : given
      })
    })
  const finish = (line: unknown): DecodeResult => {
    const reason = ownOf(finishes, codeOf(at(line, "done_reason"))) ?? "stop"
    const held = calls.end()
    if (held === undefined) return Result.fail(malformed(target, "a tool call without a name"))
    return Result.succeed([...held, {
      type: "finish",
      reason: reason === "stop" && calls.size() > 0 ? "tool_calls" : reason,
      usage: counter.usage(usageIn(line))
    }])
  }
  const push = (line: unknown): DecodeResult => {
    if (fieldsOf(line) === undefined) return Result.fail(malformed(target, "a line that is not a JSON object"))
    const error = errorIn(line, target)
    if (error !== undefined) return Result.fail(error)
    const nameless = listAt(line, "message", "tool_calls").some((call) =>
      (textAt(call, "function", "name") ?? "") === ""
    )
    if (nameless) return Result.fail(malformed(target, "a tool call without a name"))
    const events = [...contentEvents(line, counter.count), ...callEvents(line)]
    return at(line, "done") === true ? Result.map(finish(line), (last) => [...events, ...last]) : Result.succeed(events)
  }
  return { push }
}

const events = (generation: Generation, target: Target): EventDecoder => {
  const { push } = makeLines(generation, target)
  const native = Source.isNative(generation, target.options) ? PassThrough.makeLines() : undefined
  return {
    push: ({ data }) => {
      const line = parse(data)
      const decoded = push(line)
      return native === undefined ? decoded : native(fieldsOf(line) ?? {}, decoded)
    },
    end: () => Result.fail(cut(target))
  }
}

const buffered: Dialect["generate"]["buffered"] = (body, generation, target, text) => {
  const decoded = makeLines(generation, target).push(body)
  if (Result.isSuccess(decoded) && decoded.success.at(-1)?.type !== "finish") return Result.fail(cut(target))
  return Source.isNative(generation, target.options)
    ? PassThrough.buffered(fieldsOf(body) ?? {}, decoded, text)
    : decoded
}

const embed: NonNullable<Dialect["embed"]> = {
  request: (input, { options: { model } }) =>
    Result.succeed({ path: "/api/embed", body: { model, input, truncate: false } }),
  answer: (body, inputs, target) =>
    embeddingsOf(listAt(body, "embeddings"), inputs, countAt(body, "prompt_eval_count"), target)
}

/** The number of inputs: `input` is a text or texts; the older `prompt` is one. */
const inputsOf = ({ body: { input } }: Source.Source): number => Array.isArray(input) ? input.length : 1

/** The vectors of an answer, of the newer endpoint or the older one. */
const vectorsIn = (body: Fields): number => Array.isArray(body["embedding"]) ? 1 : listAt(body, "embeddings").length

/** Passes the caller's own request and the provider's answer through. */
const embedNative: NonNullable<Dialect["embedNative"]> = {
  request: (source, { options: { model } }) =>
    Result.succeed({
      path: source.body["input"] === undefined ? "/api/embeddings" : "/api/embed",
      body: Source.bodyWith(source, { model })
    }),
  answer: (body, source, target) => {
    const fields = fieldsOf(body)
    return fields === undefined || vectorsIn(fields) !== inputsOf(source)
      ? Result.fail(malformed(target, "not one vector per input"))
      : Result.succeed({
        native: { dialect: "ollama", form: "buffered", body: fields, hasMore: false },
        ...taskUsage(countAt(fields, "prompt_eval_count"), source.body["input"] ?? source.body["prompt"])
      })
  }
}

export const ollama: Dialect = {
  images: "bytes",
  framing: "ndjson",
  generate: { request: requestOf, passThrough: PassThrough.makeRequest(requestOf), events, buffered, usageIn },
  complete: { request: completionOf, passThrough: PassThrough.makeRequest(completionOf), events, buffered, usageIn },
  embed,
  embedNative,
  failure,
  errorIn
}
