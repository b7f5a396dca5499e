/**
 * The OpenAI chat dialect: bodies to requests, events to frames. Pure functions that know nothing of models.
 *
 * **Gotchas**
 *
 * A field that would change the answer and that Troupe cannot honour is refused by its name, not passed over. `null`
 * means what leaving the field out means, as clients send it so.
 */
import { Result, Schema } from "effect"
import type { Answer, Event, Message, Request } from "../../services/Inference.ts"
import { InvalidRequest } from "../../services/InferenceError.ts"
import type { TokenUsage } from "../../services/Job.ts"
import type { ChatCompletion, ErrorBody, Usage } from "../../services/OpenAi.ts"
import { ChatRequest } from "../../services/OpenAi.ts"
import type { Problem } from "../../services/Problem.ts"
import * as Problems from "../../services/Problem.ts"

/** A decoded body: one inference request a choice, and how to answer. */
export interface ChatCall {
  readonly model: string
  /** One for each of `n`; they differ in their seeds. */
  readonly requests: readonly [Request, ...Array<Request>]
  readonly stream: boolean
  readonly includeUsage: boolean
}

/** What all frames of one answer share. */
export interface Envelope {
  readonly id: string
  /** Seconds since 1970. */
  readonly created: number
  readonly model: string
  readonly includeUsage: boolean
}

type Body = Readonly<Record<string, unknown>>

const isBody = (json: unknown): json is Body => typeof json === "object" && json !== null && !Array.isArray(json)

const decodeBody = Schema.decodeUnknownResult(ChatRequest, { errors: "all" })

/** Fields of the dialect that change the answer and are not supported, with the values that ask for nothing. */
const unsupported: ReadonlyArray<readonly [field: string, asksForNothing: (value: unknown) => boolean]> = [
  ["tools", (value) => Array.isArray(value) && value.length === 0],
  ["tool_choice", (value) => value === "none" || value === "auto"],
  ["functions", (value) => Array.isArray(value) && value.length === 0],
  ["function_call", (value) => value === "none" || value === "auto"],
  ["response_format", (value) => (value as { type?: unknown }).type === "text"],
  ["logprobs", (value) => value === false],
  ["top_logprobs", (value) => value === 0],
  ["modalities", (value) => Array.isArray(value) && value.every((modality) => modality === "text")],
  ["audio", () => false],
  ["prediction", () => false],
  ["web_search_options", () => false]
]

/** Fields of a message likewise. */
const unsupportedInMessages: typeof unsupported = [
  ["tool_calls", (value) => Array.isArray(value) && value.length === 0],
  ["function_call", () => false],
  ["audio", () => false]
]

const dropNulls = (body: Body): Body => Object.fromEntries(Object.entries(body).filter(([, value]) => value !== null))

const withoutNulls = (json: Body): Body => {
  const body = dropNulls(json)
  const options = body["stream_options"]
  return isBody(options) ? { ...body, stream_options: dropNulls(options) } : body
}

const refuse = (path: string | undefined, detail: string): Result.Result<never, InvalidRequest> =>
  Result.fail(new InvalidRequest(path === undefined || path === "" ? { detail } : { detail, path }))

const messageOf = ({ content, role }: ChatRequest["messages"][number]): Message => ({
  role: role === "developer" ? "system" : role,
  content: typeof content === "string" ? content : content.map((part) => part.text).join("")
})

/** More than any context window has room for; checking each costs time that others wait for. */
const mostMessages = 10_000

const two32 = 2 ** 32
/** The lowest 32 bits, as a whole number of any size and sign has them. */
const seed32 = (seed: number): number => ((seed % two32) + two32) % two32

/** Fields that are the same under another name. */
const renamed = {
  temperature: "temperature",
  top_p: "topP",
  min_p: "minP",
  repeat_penalty: "repeatPenalty",
  presence_penalty: "presencePenalty",
  frequency_penalty: "frequencyPenalty",
  logit_bias: "logitBias"
} as const satisfies Partial<Record<keyof ChatRequest, keyof Request>>

const samplingOf = (body: ChatRequest): Partial<Request> => ({
  ...Object.fromEntries(
    Object.entries(renamed).flatMap(([field, name]) => field in body ? [[name, body[field as keyof ChatRequest]]] : [])
  ),
  // 0 means all elsewhere, and leaving it out means so here.
  ...(body.top_k === undefined || body.top_k === 0 ? {} : { topK: body.top_k })
})

const requestOf = (body: ChatRequest, choice: number): Request => {
  const maxTokens = body.max_completion_tokens ?? body.max_tokens
  const [first, ...rest] = body.messages
  return {
    ...samplingOf(body),
    model: body.model,
    messages: [messageOf(first), ...rest.map(messageOf)],
    ...(body.seed === undefined ? {} : { seed: seed32(seed32(body.seed) + choice) }),
    ...(maxTokens === undefined ? {} : { maxTokens }),
    ...(body.stop === undefined ? {} : { stop: typeof body.stop === "string" ? [body.stop] : body.stop })
  }
}

const callOf = (request: ChatRequest): ChatCall => ({
  model: request.model,
  requests: [
    requestOf(request, 0),
    ...Array.from({ length: (request.n ?? 1) - 1 }, (_, index) => requestOf(request, index + 1))
  ],
  stream: request.stream ?? false,
  includeUsage: request.stream_options?.include_usage ?? false
})

const unsupportedProblems = (body: Body, fields: typeof unsupported, prefix: string): ReadonlyArray<Problem> =>
  fields.filter(([field, asksForNothing]) => (body[field] ?? null) !== null && !asksForNothing(body[field])).map((
    [field]
  ) => ({ path: `${prefix}${field}`, expected: "This field is not supported; leave it out" }))

const messageProblems = ({ messages }: Body): ReadonlyArray<Problem> =>
  !Array.isArray(messages) ?
    [] :
    messages.flatMap((message: unknown, index) =>
      isBody(message) ? unsupportedProblems(message, unsupportedInMessages, `messages[${index}].`) : []
    )

const optionProblems = ({ stream, stream_options }: Body): ReadonlyArray<Problem> =>
  stream_options === undefined || stream === true
    ? []
    : [{ path: "stream_options", expected: "Only allowed with stream: true" }]

/** The call that a parsed JSON body asks for; of several problems, the first is the error's path, all are its text. */
export const decode = (json: unknown): Result.Result<ChatCall, InvalidRequest> => {
  if (!isBody(json)) return refuse(undefined, "Expected the body to be a JSON object")
  const body = withoutNulls(json)
  if (Array.isArray(body["messages"]) && body["messages"].length > mostMessages) {
    return refuse("messages", `Expected at most ${mostMessages} messages`)
  }
  const decoded = decodeBody(body)
  const [first, ...others] = [
    ...unsupportedProblems(body, unsupported, ""),
    ...messageProblems(body),
    ...(Result.isFailure(decoded) ? Problems.fromSchemaError(decoded.failure) : []),
    ...optionProblems(body)
  ]
  if (first !== undefined) return refuse(first.path, Problems.summary(first, others))
  return Result.map(Result.mapError(decoded, () => new InvalidRequest({ detail: "Expected a chat request" })), callOf)
}

/** The prompt counts once, however many answers it had. */
const usageOf = (usages: ReadonlyArray<TokenUsage>): Usage => {
  const prompt_tokens = usages[0]?.promptTokens ?? 0
  const completion_tokens = usages.reduce((sum, usage) => sum + usage.completionTokens, 0)
  return { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens }
}

/** The body of an answer that is not streamed. */
export const encodeAnswers = ({ created, id, model }: Envelope, answers: ReadonlyArray<Answer>): ChatCompletion => ({
  id,
  object: "chat.completion",
  created,
  model,
  choices: answers.map((answer, index) => ({
    index,
    message: { role: "assistant", content: answer.text, refusal: null },
    logprobs: null,
    finish_reason: answer.finishReason
  })),
  usage: usageOf(answers.map((answer) => answer.usage))
})

const frame = (data: string): string => `data: ${data}\n\n`

/** An error in the middle of a stream, which then ends without `[DONE]`. */
export const encodeError = (body: ErrorBody): string => frame(JSON.stringify(body))

/** Writes a stream's frames; what all frames share is written once. */
export interface FrameEncoder {
  /** Frames for the events of one choice; texts that came together leave in one frame. */
  readonly events: (choice: number, events: ReadonlyArray<Event>) => string
  /** The last frames, after all choices have finished. */
  readonly end: () => string
}

export const makeFrameEncoder = ({ created, id, includeUsage, model }: Envelope): FrameEncoder => {
  const head = `{"id":${JSON.stringify(id)},"object":"chat.completion.chunk","created":${created},` +
    `"model":${JSON.stringify(model)},"choices":[`
  const tail = includeUsage ? "],\"usage\":null}" : "]}"
  const begun = new Set<number>()
  const usages: Array<TokenUsage> = []

  const chunk = (choice: number, delta: string, finishReason: string | null) =>
    frame(
      `${head}{"index":${choice},"delta":${delta},"logprobs":null,"finish_reason":${
        JSON.stringify(finishReason)
      }}${tail}`
    )
  const begin = (choice: number) => {
    if (begun.has(choice)) return ""
    begun.add(choice)
    return chunk(choice, "{\"role\":\"assistant\",\"content\":\"\"}", null)
  }

  return {
    events(choice, events) {
      let text = ""
      let finish = ""
      for (const event of events) {
        if (event.type === "text") {
          text += event.text
        } else if (event.type === "finish") {
          usages.push(event.usage)
          finish = chunk(choice, "{}", event.reason)
        }
      }
      const content = text === "" ? "" : chunk(choice, `{"content":${JSON.stringify(text)}}`, null)
      return begin(choice) + content + finish
    },
    end() {
      const usage = includeUsage ? frame(`${head}],"usage":${JSON.stringify(usageOf(usages))}}`) : ""
      return `${usage}data: [DONE]\n\n`
    }
  }
}
