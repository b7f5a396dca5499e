/** Decodes request bodies of the Responses dialect, and checks what a schema cannot express. Pure. */
import { Result } from "effect"
import type { Request } from "../../domain/Inference.ts"
import type { InvalidRequest } from "../../domain/InferenceError.ts"
import * as Problem from "../../domain/Problem.ts"
import { ofEffort } from "../../domain/Reasoning.ts"
import type { Need, Source } from "../../domain/Source.ts"
import * as Text from "../../domain/Text.ts"
import { mostTools } from "../openai/Schema.ts"
import type { CallerIdentity, Shape } from "../shared/CallerRequest.ts"
import { cacheOf, callerOf, decodeBody } from "../shared/CallerRequest.ts"
import type { BodyFields } from "../shared/FieldNames.ts"
import type { Fields } from "../shared/Json.ts"
import { isObject, isOneOf } from "../shared/Json.ts"
import * as UnknownFields from "../shared/UnknownFields.ts"
import * as FieldNames from "./FieldNames.ts"
import type { Item, ItemProblem } from "./Items.ts"
import * as Items from "./Items.ts"
import * as Schema from "./Schema.ts"
import * as Tools from "./Tools.ts"

/** What a prompt consists of, and whose it is. */
export interface Prompt {
  /** The tenant that stored objects belong to. */
  readonly owner: string
  readonly model: string
  readonly instructions: string | undefined
  /** Checked items, as the caller sent them. */
  readonly input: ReadonlyArray<Fields>
  readonly previous: string | undefined
  readonly conversation: string | undefined
}

/** A decoded request for a response. */
export interface ResponseCall extends Prompt {
  /** Without the messages, which depend on stored items. */
  readonly request: Omit<Request, "messages">
  readonly settings: Schema.Settings
  readonly stream: boolean
}

/** A decoded request for the number of tokens of a prompt, or for a compaction. */
export interface PromptCall extends Prompt {
  readonly request: Omit<Request, "messages">
}

/**
 * The owner of stored objects: the tenant of the key, or of the instance that calls. Not of a field of the body, which
 * requests for stored objects do not have.
 */
export const ownerOf = (caller: CallerIdentity): string => callerOf({}, caller).tenant ?? ""

/** A text is a message of the user. */
const inputOf = (input: string | ReadonlyArray<Fields> | undefined): ReadonlyArray<Fields> =>
  typeof input === "string" ? [{ type: "message", role: "user", content: input }] : input ?? []

const conversationOf = (conversation: Schema.CreateRequest["conversation"]): string | undefined =>
  typeof conversation === "object" ? conversation.id : conversation

const promptOf = (
  body: Schema.CompactRequest & Pick<Schema.CreateRequest, "conversation">,
  caller: CallerIdentity
): Prompt => ({
  owner: ownerOf(caller),
  model: body.model,
  instructions: body.instructions,
  input: inputOf(body.input),
  previous: body.previous_response_id,
  conversation: conversationOf(body.conversation)
})

/** Fields of OpenAI's chat completions that the core does not have. Deployments of other dialects ignore them. */
const passedFields = (body: Schema.CreateRequest): Fields => {
  const fields: Fields = {
    reasoning_effort: body.reasoning?.effort ?? undefined,
    verbosity: body.text?.verbosity ?? undefined,
    service_tier: body.service_tier === "auto" ? undefined : body.service_tier,
    prompt_cache_key: body.prompt_cache_key,
    prompt_cache_retention: body.prompt_cache_retention,
    safety_identifier: body.safety_identifier,
    user: body.user
  }
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined))
}

/** Fields that Troupe decides: what is stored, and how it is sent. */
const own: ReadonlySet<string> = new Set([
  "background",
  "client_metadata",
  "conversation",
  "previous_response_id",
  "store",
  "stream",
  "stream_options"
])

/** Fields of Open Responses that OpenAI's API does not have. */
const penalties = ["presence_penalty", "frequency_penalty"] as const

/** The request for deployments with the Responses API, without the conversation before; undefined if that has not all of it. */
const nativeOf = (body: Schema.CreateRequest, json: Fields, needs: ReadonlyArray<Need>): Source["responses"] => {
  const [need, ...others] = needs
  if (need === undefined && penalties.some((name) => (body[name] ?? 0) !== 0)) return undefined
  const native = Object.fromEntries(
    Object.entries(json).filter(([name, value]) =>
      value !== null && !own.has(name) && !(value === 0 && isOneOf(penalties, name))
    )
  )
  return need === undefined ? { body: native } : { body: native, needs: [need, ...others] }
}

/** The request for deployments with the Responses API: its input are all items of the conversation. */
export const withItems = (source: Source, before: ReadonlyArray<Item>, input: ReadonlyArray<Item>): Source => {
  const { responses } = source
  if (responses === undefined) return source
  const [need, ...needs] = [...responses.needs ?? [], ...Items.foreignIn(before)]
  const body = { ...responses.body, input: [...before, ...input] }
  return { ...source, responses: need === undefined ? { body } : { body, needs: [need, ...needs] } }
}

/** Also without such fields: a provider of OpenAI's dialect then sends refusals as they are. */
const sourceOf = (body: Schema.CreateRequest, json?: Fields, needs: ReadonlyArray<Need> = []): Source => {
  const fields = passedFields(body)
  const unknownFields = Object.keys(fields).map((name) => ({ path: [name], optional: true }))
  const responses = json && nativeOf(body, json, needs)
  return {
    dialect: "openai",
    body: fields,
    ...(unknownFields.length === 0 ? {} : { unknownFields }),
    ...(responses === undefined ? {} : { responses })
  }
}

const formatOf = ({ text }: Pick<Schema.CreateRequest, "text">): Pick<Request, "format"> => {
  const format = text?.format ?? undefined
  if (format?.type === "json_schema") return { format: { type: "json_schema", schema: format.schema } }
  return format?.type === "json_object" ? { format: { type: "json_object" } } : {}
}

const logprobsText = "message.output_text.logprobs"

const logprobsOf = ({ include = [], top_logprobs }: Schema.CreateRequest): Pick<Request, "logprobs"> =>
  top_logprobs === undefined && !include.includes(logprobsText) ? {} : { logprobs: top_logprobs ?? 0 }

/** Fields that the core has with other names. */
const named = [
  ["temperature", "temperature"],
  ["top_p", "topP"],
  ["presence_penalty", "presencePenalty"],
  ["frequency_penalty", "frequencyPenalty"],
  ["max_output_tokens", "maxTokens"]
] as const

const optionsOf = (body: Schema.CreateRequest): Partial<Request> =>
  Object.fromEntries(named.flatMap(([field, name]) => body[field] === undefined ? [] : [[name, body[field]]]))

const reasoningOf = ({ reasoning }: Schema.CreateRequest): Pick<Request, "reasoning"> => {
  const decoded = ofEffort(reasoning?.effort)
  return decoded === undefined ? {} : { reasoning: decoded }
}

const requestOf = (
  body: Schema.CreateRequest,
  caller: CallerIdentity,
  source = sourceOf(body)
): Omit<Request, "messages"> => ({
  model: body.model,
  ...optionsOf(body),
  ...Tools.toolingOf(body.tool_choice, body.tools ?? [], body.parallel_tool_calls),
  ...formatOf(body),
  ...logprobsOf(body),
  ...reasoningOf(body),
  source,
  ...callerOf(body, caller),
  ...cacheOf(caller)
})

const echoedText = (text: Schema.CreateRequest["text"]): Schema.Settings["text"] => {
  const format = text?.format ?? { type: "text" as const }
  const { description = null, name, schema, strict = null } = format as Fields
  return {
    format: format.type === "json_schema"
      ? { type: format.type, name, description, schema, strict } as typeof format
      : format,
    verbosity: text?.verbosity ?? "medium"
  }
}

const echoedReasoning = (
  { effort = null, generate_summary, summary }: NonNullable<Schema.CreateRequest["reasoning"]>
) => ({
  effort,
  summary: summary ?? generate_summary ?? null
})

/** Of settings that a response has as the request does. */
const defaults = {
  background: false,
  frequency_penalty: 0,
  instructions: null,
  max_output_tokens: null,
  max_tool_calls: null,
  metadata: {},
  parallel_tool_calls: true,
  presence_penalty: 0,
  previous_response_id: null,
  prompt_cache_key: null,
  prompt_cache_retention: null,
  safety_identifier: null,
  store: true,
  temperature: 1,
  tool_choice: "auto",
  top_logprobs: 0,
  top_p: 1,
  truncation: "disabled",
  user: null
} as const satisfies Partial<Schema.Settings>

type Simple = Pick<Schema.Settings, keyof typeof defaults>

/** The settings with the defaults of those that the caller left out. */
const settingsOf = (body: Schema.CreateRequest): Schema.Settings => {
  const conversation = conversationOf(body.conversation)
  const { service_tier: tier = "auto", tools = [] } = body
  const names = Object.keys(defaults) as Array<keyof typeof defaults>
  return {
    ...Object.fromEntries(names.map((name) => [name, body[name] ?? defaults[name]])) as unknown as Simple,
    conversation: conversation === undefined ? null : { id: conversation },
    model: body.model,
    reasoning: echoedReasoning(body.reasoning ?? {}),
    service_tier: tier === "auto" ? "default" : tier,
    text: echoedText(body.text),
    tools: Tools.echoed(tools)
  }
}

/** More unknown fields are not reported. */
const mostReported = 20

/** Fields that Troupe does not have: this dialect passes no unknown field on. */
const unknownProblems = (body: Fields, table: BodyFields): ReadonlyArray<ItemProblem> => {
  const suggest = UnknownFields.makeSuggest(table, true)
  const unknown = Object.keys(body).filter((name) => body[name] !== null && !Object.hasOwn(table.fields, name))
  return unknown.slice(0, mostReported).map((name) => {
    const nearest = suggest(name)
    const known = Object.hasOwn(FieldNames.unsupported, name) ? FieldNames.unsupported[name]! : undefined
    return {
      path: Text.cutName(name),
      expected: known ?? `Unknown field${nearest === undefined ? "" : `. Did you mean ${nearest}?`}`,
      ...(FieldNames.foreign.has(name) ? { isForeign: true as const } : {})
    }
  })
}

const stateProblems = (
  { conversation, input, previous_response_id: previous }: Pick<
    Schema.CreateRequest,
    "conversation" | "input" | "previous_response_id"
  >
): ReadonlyArray<Problem.Problem> => {
  if (conversation !== undefined && previous !== undefined) {
    return [{ path: "previous_response_id", expected: "Not allowed with conversation" }]
  }
  return input === undefined && conversation === undefined && previous === undefined
    ? [{ path: "input", expected: "`input` is required" }]
    : []
}

const promptProblems = (body: Schema.CountRequest): ReadonlyArray<ItemProblem> => [
  ...stateProblems(body),
  ...Items.problemsOf(inputOf(body.input), "input"),
  ...Tools.problemsOf(body.tool_choice, body.tools ?? [])
]

/** The option, whether it is used wrongly, and what is expected. */
const optionProblems = (
  { background = false, store = true, stream = false, stream_options }: Schema.CreateRequest
): ReadonlyArray<Problem.Problem> => [
  ...(background && !store ? [{ path: "store", expected: "A response in the background is stored" }] : []),
  ...(stream_options !== undefined && !stream
    ? [{ path: "stream_options", expected: "Allowed only with stream: true" }]
    : [])
]

type Limits = Shape<unknown>["most"]

const most: Limits = [["input", Schema.mostItems], ["items", Schema.mostItems], ["tools", mostTools]]

/** Makes the shape of a body without fields that its table does not have. */
const shapeOf = <A extends object>(
  table: BodyFields,
  decode: Shape<A>["decode"],
  problems: (body: A) => ReadonlyArray<Problem.Problem>
): Shape<A> => ({
  suggest: UnknownFields.makeSuggest(table, true),
  decode,
  most,
  problems
})

const createShape = shapeOf(
  FieldNames.create,
  Problem.decoderOf(Schema.CreateRequest),
  (body): ReadonlyArray<ItemProblem> => [...promptProblems(body), ...optionProblems(body)]
)

const countShape = shapeOf(
  FieldNames.count,
  Problem.decoderOf(Schema.CountRequest),
  (body) => Items.withoutDocumented(promptProblems(body))
)

const compactShape = shapeOf(
  FieldNames.compact,
  Problem.decoderOf(Schema.CompactRequest),
  (body) => [...stateProblems(body), ...Items.withoutDocumented(Items.problemsOf(inputOf(body.input), "input"))]
)

/** Decodes a body that may have the fields of the table only. */
export const decodeKnown = <A>(json: unknown, table: BodyFields, shape: Shape<A>): Result.Result<A, InvalidRequest> =>
  decodeBody(json, {
    ...shape,
    problems: (decoded) => [...unknownProblems(isObject(json) ? json : {}, table), ...shape.problems(decoded)]
  })

/** Decodes a parsed JSON body of `POST /v1/responses`. */
export const decode = (json: unknown, caller: CallerIdentity = {}): Result.Result<ResponseCall, InvalidRequest> => {
  const fields = isObject(json) ? json : {}
  let needs: ReadonlyArray<Need> = []
  const decoded = decodeBody(json, {
    ...createShape,
    problems: (body) => {
      const all: ReadonlyArray<ItemProblem> = [
        ...unknownProblems(fields, FieldNames.create),
        ...createShape.problems(body)
      ]
      needs = all.filter(({ isForeign }) => isForeign === true).map(({ expected, path }) => ({ path, expected }))
      return needs.length === 0 ? all : all.filter(({ isForeign }) => isForeign !== true)
    }
  })
  return Result.map(decoded, (body) => ({
    ...promptOf(body, caller),
    request: requestOf(body, caller, sourceOf(body, fields, needs)),
    settings: settingsOf(body),
    stream: body.stream ?? false
  }))
}

/** Decodes a parsed JSON body of `POST /v1/responses/input_tokens`. */
export const decodeCount = (json: unknown, caller: CallerIdentity = {}): Result.Result<PromptCall, InvalidRequest> =>
  Result.map(decodeKnown(json, FieldNames.count, countShape), (body) => ({
    ...promptOf(body, caller),
    request: requestOf(body, caller)
  }))

/** Decodes a parsed JSON body of `POST /v1/responses/compact`. */
export const decodeCompact = (json: unknown, caller: CallerIdentity = {}): Result.Result<PromptCall, InvalidRequest> =>
  Result.map(decodeKnown(json, FieldNames.compact, compactShape), (body) => ({
    ...promptOf(body, caller),
    request: { model: body.model, ...callerOf(body, caller), ...cacheOf(caller) }
  }))
