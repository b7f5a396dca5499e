/**
 * Fields that clients of llama.cpp's server and of vLLM send beyond OpenAI's API, and what models on this machine make of
 * them. Pure.
 *
 * **Details**
 *
 * A deployment of the dialect is sent the fields as they are. A model on this machine honors those that it can; a value that
 * would change its answer and cannot be honored is rejected by name, and one that changes no answer is ignored.
 *
 * Sources: vLLM's OpenAI-compatible server ("Extra parameters", structured outputs) and `tools/server/README.md` of llama.cpp.
 */
import { mostPenaltyTokens, mostStopTokens, mostTokens } from "../../domain/Decoding.ts"
import type { Request } from "../../domain/Inference.ts"
import type { DecodingOptions } from "../../domain/Job.ts"
import { isNestedDeeper, mostLevels } from "../../domain/JsonScan.ts"
import { longestChoice, mostChoices } from "../../domain/OutputFormat.ts"
import type { Problem } from "../../domain/Problem.ts"
import type { IsOptional } from "../shared/FieldNames.ts"
import { accepting, always, emptyList, only } from "../shared/FieldNames.ts"
import type { Fields } from "../shared/Json.ts"
import { fieldsOf, isObject, parse } from "../shared/Json.ts"

type Format = NonNullable<Request["format"]>

const isNumber = (value: unknown, least: number, most: number): value is number =>
  typeof value === "number" && value >= least && value <= most

const number = (least: number, most: number): IsOptional =>
  accepting(`a number from ${least} to ${most}`, (value) => isNumber(value, least, most))

const whole = (least: number, most: number): IsOptional =>
  accepting(
    `a whole number from ${least} to ${most}`,
    (value) => isNumber(value, least, most) && Number.isInteger(value)
  )

const either: IsOptional = accepting("true or false", (value) => typeof value === "boolean")

const schemaOf = (value: unknown): Fields | undefined => {
  const schema = fieldsOf(typeof value === "string" ? parse(value) : value)
  return schema === undefined || isNestedDeeper(schema, mostLevels) ? undefined : schema
}

const isText = (value: unknown): value is string => typeof value === "string" && value !== ""

const isChoices = (value: unknown): value is ReadonlyArray<string> =>
  Array.isArray(value) && value.length > 0 && value.length <= mostChoices &&
  value.every((one) => typeof one === "string" && one.length <= longestChoice && one.isWellFormed())

/** How a kind of format is written. */
interface FormatKind {
  readonly accepts: IsOptional
  readonly formatOf: (value: unknown) => Format
}

const json: FormatKind = {
  accepts: accepting(
    `a JSON Schema: an object of at most ${mostLevels} levels, or its text`,
    (value) => schemaOf(value) !== undefined
  ),
  formatOf: (value) => ({ type: "json_schema", schema: schemaOf(value)! })
}

const regex: FormatKind = {
  accepts: accepting("a regular expression", isText),
  formatOf: (value) => ({ type: "regex", pattern: value as string })
}

const choice: FormatKind = {
  accepts: accepting(`1 to ${mostChoices} texts of at most ${longestChoice} characters`, isChoices),
  formatOf: (value) => ({ type: "choice", choices: value as ReadonlyArray<string> })
}

const grammar: FormatKind = {
  accepts: accepting("a grammar in GBNF", isText),
  formatOf: (value) => ({ type: "grammar", grammar: value as string })
}

/** vLLM's `structured_outputs`. */
const kinds: Readonly<Record<string, FormatKind>> = { json, regex, choice, grammar }

/** Options of it that change no answer here. */
const formatHints: ReadonlySet<string> = new Set([
  "disable_additional_properties",
  "disable_any_whitespace",
  "disable_fallback"
])

/** The given kinds of an object of structured outputs; undefined if it has others or a wrong value. */
const structuredIn = (value: unknown): ReadonlyArray<readonly [kind: FormatKind, value: unknown]> | undefined => {
  if (!isObject(value)) return undefined
  const given = Object.entries(value).filter(([name, one]) => one !== null && !formatHints.has(name))
  const found = given.flatMap(([name, one]) => {
    const kind = Object.hasOwn(kinds, name) ? kinds[name] : undefined
    return kind?.accepts(one) === true ? [[kind, one] as const] : []
  })
  return found.length === given.length && found.length > 0 ? found : undefined
}

/** The fields of a format, and their kinds. */
const formats: Readonly<Record<string, FormatKind>> = {
  grammar,
  guided_choice: choice,
  guided_grammar: grammar,
  guided_json: json,
  guided_regex: regex,
  json_schema: json
}

/** The order of llama.cpp's server, in which nothing that is set changes the result here. */
const samplerOrder = "penalties;dry;top_n_sigma;top_k;typ_p;top_p;min_p;xtc;temperature"

const isOrder = (value: unknown): boolean =>
  (Array.isArray(value) ? value.join(";") : value) === samplerOrder || value === "edskypmxt"

const noLimit: IsOptional = accepting(
  "0 or less, since answers have no limit of time; use `max_tokens`",
  (value) => typeof value === "number" && value <= 0
)

/** Fields that set how tokens are sampled and where the answer ends, and those that change nothing. */
export const samplingFields: Readonly<Record<string, IsOptional>> = {
  // Honored.
  repetition_penalty: number(0.01, 10),
  repeat_last_n: whole(0, mostPenaltyTokens),
  xtc_probability: number(0, 1),
  xtc_threshold: number(0, 1),
  dry_multiplier: number(0, 100),
  dry_base: number(1, 100),
  dry_allowed_length: whole(1, 10_000),
  dry_penalty_last_n: whole(-1, 1_000_000),
  dry_sequence_breakers: accepting(
    "at most 100 texts that are not empty",
    (value) => Array.isArray(value) && value.length <= 100 && value.every(isText)
  ),
  min_tokens: whole(0, mostTokens),
  ignore_eos: either,
  stop_token_ids: accepting(
    `at most ${mostStopTokens} ids of tokens`,
    (value) =>
      Array.isArray(value) && value.length <= mostStopTokens &&
      value.every((id) => Number.isInteger(id) && isNumber(id, 0, 2 ** 31 - 1))
  ),
  n_predict: accepting(
    "-1 or a whole number from 1 to 1000000",
    (value) => value === -1 || (Number.isInteger(value) && isNumber(value, 1, 1_000_000))
  ),
  // Only values that change nothing.
  mirostat: only(0),
  typical_p: only(1),
  tfs_z: only(1),
  top_n_sigma: accepting("0 or less", (value) => typeof value === "number" && value <= 0),
  dynatemp_range: only(0),
  n_indent: only(0),
  min_keep: only(0),
  samplers: accepting(`the default order, ${samplerOrder}`, isOrder),
  t_max_predict_ms: noLimit,
  t_max_prompt_ms: noLimit,
  use_beam_search: only(false),
  skip_special_tokens: only(true),
  include_stop_str_in_output: only(false),
  bad_words: emptyList,
  lora: emptyList,
  response_fields: emptyList,
  return_tokens: only(false),
  return_token_ids: only(false),
  return_tokens_as_token_ids: only(false),
  post_sampling_probs: only(false),
  timings_per_token: only(false),
  return_progress: only(false),
  // Hints, and options of what is turned off.
  mirostat_eta: always,
  mirostat_tau: always,
  dynatemp_exponent: always,
  length_penalty: always,
  early_stopping: always,
  spaces_between_special_tokens: always,
  cache_prompt: always,
  cache_salt: always,
  id_slot: always,
  slot_id: always,
  n_cache_reuse: always,
  n_discard: always,
  n_keep: always,
  request_id: always
}

/** The fields of the answer's format. */
const formatFields: Readonly<Record<string, IsOptional>> = {
  ...Object.fromEntries(Object.entries(formats).map(([name, { accepts }]) => [name, accepts])),
  structured_outputs: accepting(
    "an object with json, regex, choice or grammar",
    (value) => structuredIn(value) !== undefined
  ),
  guided_decoding_backend: always
}

/** The fields of a text completion. */
export const completionFields: Readonly<Record<string, IsOptional>> = { ...formatFields, ...samplingFields }

/** The fields of a chat. */
export const chatFields: Readonly<Record<string, IsOptional>> = {
  ...formatFields,
  n_probs: whole(0, 20),
  add_generation_prompt: only(true),
  add_special_tokens: only(false),
  best_of: only(1),
  echo: only(false),
  ...samplingFields
}

/** The fields of the core's options of sampling, for errors. */
export const renamed = [
  [/^decoding\.xtc/, "xtc_probability"],
  [/^decoding\.dry/, "dry_multiplier"],
  [/^decoding\.minTokens/, "min_tokens"],
  [/^decoding\.stopTokens/, "stop_token_ids"],
  [/^decoding\.penaltyWindow/, "repeat_last_n"]
] as const

type Mutable<A> = { -readonly [K in keyof A]: A[K] }

/** The value of a field, if it is one that is honored. */
const valueOf = (body: Fields, name: string): unknown => {
  const value = body[name]
  return value !== undefined && value !== null && chatFields[name]?.(value) === true ? value : undefined
}

/** The value of a field whose values are numbers. */
const numberIn = (body: Fields, name: string): number | undefined => valueOf(body, name) as number | undefined

/** The value of a field whose values are texts. */
const textsIn = (body: Fields, name: string): ReadonlyArray<string> | undefined =>
  valueOf(body, name) as ReadonlyArray<string> | undefined

const breakers: ReadonlyArray<string> = ["\n", ":", "\"", "*"]

const dryOf = (body: Fields): DecodingOptions["dry"] => {
  const multiplier = numberIn(body, "dry_multiplier") ?? 0
  if (multiplier === 0) return undefined
  const lastTokens = numberIn(body, "dry_penalty_last_n") ?? -1
  return {
    multiplier,
    base: numberIn(body, "dry_base") ?? 1.75,
    allowedLength: numberIn(body, "dry_allowed_length") ?? 2,
    ...(lastTokens === -1 ? {} : { lastTokens }),
    sequenceBreakers: textsIn(body, "dry_sequence_breakers") ?? breakers
  }
}

const xtcOf = (body: Fields): DecodingOptions["xtc"] => {
  const probability = numberIn(body, "xtc_probability") ?? 0
  return probability === 0 ? undefined : { probability, threshold: numberIn(body, "xtc_threshold") ?? 0.1 }
}

const isEndless = (body: Fields): boolean => valueOf(body, "ignore_eos") === true

const minTokensOf = (body: Fields): number | undefined => {
  const count = isEndless(body) ? mostTokens : numberIn(body, "min_tokens") ?? 0
  return count === 0 ? undefined : count
}

const stopTokensOf = (body: Fields): DecodingOptions["stopTokens"] => {
  const ids = (valueOf(body, "stop_token_ids") ?? []) as ReadonlyArray<number>
  return ids.length === 0 ? undefined : ids
}

const penaltyWindowOf = (body: Fields): number | undefined => {
  const count = numberIn(body, "repeat_last_n")
  return count === 64 ? undefined : count
}

/** The options of sampling in a body; undefined if it has none. */
export const decodingIn = (body: Fields): DecodingOptions | undefined => {
  const all: DecodingOptions = {
    dry: dryOf(body),
    xtc: xtcOf(body),
    minTokens: minTokensOf(body),
    stopTokens: stopTokensOf(body),
    penaltyWindow: penaltyWindowOf(body)
  }
  const given = Object.entries(all).filter(([, value]) => value !== undefined)
  return given.length === 0 ? undefined : Object.fromEntries(given)
}

const addSampling = (request: Mutable<Omit<Request, "messages">>, body: Fields): void => {
  const penalty = numberIn(body, "repetition_penalty")
  if (request.repeatPenalty === undefined && penalty !== undefined) request.repeatPenalty = penalty
  const decoding = decodingIn(body)
  if (decoding !== undefined) request.decoding = decoding
}

/** A format and the field that has it. */
interface GivenFormat {
  readonly field: string
  readonly format: Format
}

/** The formats in a body. A grammar that is an empty text is none. */
const formatsIn = (body: Fields): ReadonlyArray<GivenFormat> => [
  ...Object.entries(formats).flatMap(([field, { formatOf }]) => {
    const value = valueOf(body, field)
    return value === undefined ? [] : [{ field, format: formatOf(value) }]
  }),
  ...(structuredIn(body["structured_outputs"]) ?? []).map(([kind, value]) => ({
    field: "structured_outputs",
    format: kind.formatOf(value)
  }))
]

/** Adds what the fields of a text completion say. */
export const addToCompletion = (request: Mutable<Omit<Request, "messages">>, body: Fields): void => {
  addSampling(request, body)
  const [given] = formatsIn(body)
  if (given !== undefined) request.format = given.format
}

/** Adds what the fields of a chat say. */
export const add = (request: Mutable<Request>, body: Fields): void => {
  addToCompletion(request, body)
  const limit = numberIn(body, "n_predict") ?? -1
  if (request.maxTokens === undefined && limit !== -1) request.maxTokens = limit
  const logprobs = numberIn(body, "n_probs") ?? 0
  if (request.logprobs === undefined && logprobs > 0) request.logprobs = logprobs
}

const mustCall = ({ toolChoice }: Request): boolean => toolChoice === "required" || typeof toolChoice === "object"

/** Why a format is not allowed beside other fields of the request. */
const besideFormat = (request: Request, body: Fields): string | undefined => {
  const { type = "text" } = fieldsOf(body["response_format"]) ?? {}
  if (type !== "text") return "Not allowed with response_format"
  if (mustCall(request)) return "Not allowed with a tool_choice that requires a call"
  return request.assistantPrefix === undefined ? undefined : "Not allowed with continue_final_message"
}

/**
 * A problem between the fields and others of the request.
 *
 * @param request with the fields added
 */
export const problemIn = (request: Request, body: Fields): Problem | undefined => {
  const [first, second] = formatsIn(body)
  if (first !== undefined && second !== undefined) {
    return { path: second.field, expected: `Expected one format for the answer: ${first.field} has another` }
  }
  const expected = first && besideFormat(request, body)
  if (expected !== undefined) return { path: first!.field, expected }
  if (request.decoding?.minTokens === undefined || (request.format === undefined && !mustCall(request))) {
    return undefined
  }
  return {
    path: isEndless(body) ? "ignore_eos" : "min_tokens",
    expected: "Not allowed with a format or a required tool call, which end an answer"
  }
}
