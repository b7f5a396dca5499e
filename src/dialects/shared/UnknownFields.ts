/**
 * Errors about fields and types of a body that Troupe does not know, with the name that a misspelt one probably means. Pure.
 *
 * **Details**
 *
 * An unknown field excludes local deployments, so that the prompt goes to a provider. A misspelt field must not cause that:
 * the request is rejected, as is one with a misspelt `type`. A name that a provider documents is never misspelt, however
 * similar to another name it is.
 */
import { nearestName } from "../../domain/NearestName.ts"
import { formatPath, summary } from "../../domain/Problem.ts"
import type { Dialect } from "../../domain/ProviderKind.ts"
import type { Source, Task, UnknownField } from "../../domain/Source.ts"
import { requiredFields, valueAt } from "../../domain/Source.ts"
import * as Text from "../../domain/Text.ts"
import * as AnthropicFieldNames from "../anthropic/FieldNames.ts"
import * as OllamaFieldNames from "../ollama/FieldNames.ts"
import * as OpenAiFieldNames from "../openai/FieldNames.ts"
import { isByType, placeFor } from "./CallerRequest.ts"
import type { BodyFields, ByType, Place } from "./FieldNames.ts"
import { isObject, typeOf } from "./Json.ts"

type Names = ReadonlyArray<string>
type Path = UnknownField["path"]

const tables: Readonly<Record<Exclude<Dialect, "ollama"> | Task, BodyFields>> = {
  openai: OpenAiFieldNames.chat,
  anthropic: AnthropicFieldNames.messages,
  completions: OpenAiFieldNames.completions,
  embeddings: OpenAiFieldNames.embeddings,
  rerank: OpenAiFieldNames.rerank,
  classify: OpenAiFieldNames.classify,
  tokenize: OpenAiFieldNames.tokenize
}

/** Fields of OpenAI's, Anthropic's, vLLM's, llama.cpp's and OpenRouter's APIs that Troupe has no name for. */
const documented: ReadonlySet<string> = new Set([
  "audio",
  "best_of",
  "chat_template",
  "chat_template_kwargs",
  "container",
  "context_management",
  "enable_thinking",
  "extra_body",
  "function_call",
  "functions",
  "grammar",
  "guided_choice",
  "guided_grammar",
  "guided_json",
  "guided_regex",
  "ignore_eos",
  "inference_geo",
  "json_schema",
  "length_penalty",
  "lora",
  "mcp_servers",
  "metadata",
  "min_tokens",
  "modalities",
  "model_kwargs",
  "models",
  "n_predict",
  "options",
  "plugins",
  "prediction",
  "prompt_cache_key",
  "prompt_cache_retention",
  "prompt_logprobs",
  "provider",
  "reasoning",
  "reasoning_effort",
  "repetition_penalty",
  "route",
  "safe_prompt",
  "safety_identifier",
  "service_tier",
  "session_id",
  "speed",
  "stop_token_ids",
  "store",
  "thinking",
  "top_a",
  "transforms",
  "truncation",
  "typical_p",
  "usage",
  "use_beam_search",
  "user",
  "verbosity",
  "web_search_options"
])

/** A comparison with every known name costs about 0.1 ms of the event loop. */
const mostCompared = 100

const namesAt = ({ fields, optional }: Place): Names => [
  ...Object.keys(fields),
  ...(optional === "all" ? [] : Object.keys(optional))
]

/** The table of the value at a path, and that value; undefined if no table covers the path. */
const tableAt = (table: BodyFields, body: unknown, path: Path) => {
  let place: Place | ByType | undefined = table
  let value = body
  for (const step of path) {
    if (place === undefined) return undefined
    if (typeof step === "string") place = placeFor(place, value)?.fields[step]
    value = (value as Readonly<Record<string | number, unknown>>)[step]
  }
  return place === undefined ? undefined : { place, value }
}

/** The known name that a top-level field of the body probably means. */
const suggestionAtTop = (name: string, table: BodyFields, isTask: boolean): string | undefined => {
  const names = namesAt(table)
  if (names.includes(name) || documented.has(name)) return undefined
  if (table.aliases !== undefined && Object.hasOwn(table.aliases, name)) return table.aliases[name]
  return nearestName(name, isTask ? names : [...names, ...documented])
}

/** Suggests a name for an unknown field of a body. */
export const makeSuggest = (table: BodyFields, isTask: boolean) => (name: string): string | undefined =>
  suggestionAtTop(name, table, isTask)

const tableOf = ({ body, dialect, task }: Source): BodyFields =>
  dialect === "ollama" ? OllamaFieldNames.tableOf(body, task === "embeddings") : tables[task ?? dialect]

/** The known name that a field probably means; undefined for documented ones, and if no name is near. */
const suggestionFor = (source: Source, path: Path): string | undefined => {
  const name = path.at(-1)
  if (typeof name !== "string") return undefined
  if (path.length === 1) return suggestionAtTop(name, tableOf(source), source.task !== undefined)
  const found = tableAt(tableOf(source), source.body, path.slice(0, -1))
  const place = found && placeFor(found.place, found.value)
  if (place === undefined) return undefined
  const names = namesAt(place)
  return names.includes(name) ? undefined : nearestName(name, names)
}

/** A type that is not known. */
interface UnknownType {
  readonly path: Path
  readonly type: string
  readonly known: Names
  readonly documented: Names
  readonly others: RegExp | undefined
}

/** The unknown type of a value; for an image, that of its source. */
const unknownType = (source: Source, { path }: UnknownField): UnknownType | undefined => {
  const found = tableAt(tableOf(source), source.body, path)
  if (found === undefined || !isByType(found.place)) return undefined
  const { place, value } = found
  const type = typeOf(value)
  if (typeof type !== "string") return undefined
  const typeAt = (path: Path, type: string, { documented, others, types }: ByType): UnknownType => ({
    path: [...path, "type"],
    type,
    known: Object.keys(types),
    documented,
    others
  })
  if (placeFor(place, value) === undefined) return typeAt(path, type, place)
  const inner = isObject(value) ? typeOf(value["source"]) : undefined
  return typeof inner === "string" ? typeAt([...path, "source"], inner, AnthropicFieldNames.imageSources) : undefined
}

const hasOther = (place: Place, name: string): boolean =>
  Object.hasOwn(place.fields, name) || (place.optional !== "all" && Object.hasOwn(place.optional, name)) ||
  place.others?.includes(name) === true

/** Whether the dialect has a field that Troupe does not know. */
const isOfDialect = (source: Source, field: UnknownField): boolean => {
  const { path } = field
  const found = unknownType(source, field)
  if (found !== undefined) return found.others?.test(found.type) === true
  const name = path.at(-1)
  if (typeof name !== "string") return false
  const parent = tableAt(tableOf(source), source.body, path.slice(0, -1))
  const place = parent && placeFor(parent.place, parent.value)
  return place !== undefined && hasOther(place, name)
}

/** The fields that no deployment may ignore and that the dialect does not have. */
export const foreignFields = (source: Source | undefined): ReadonlyArray<UnknownField> =>
  requiredFields(source).filter((field) => !isOfDialect(source!, field))

const nearestType = ({ documented, known, type }: UnknownType): string | undefined =>
  documented.includes(type) ? undefined : nearestName(type, [...known, ...documented])

const quoted = (names: Names): string => {
  const [last, ...others] = names.map((name) => `"${name}"`).toReversed()
  return others.length === 0 ? last! : `${others.toReversed().join(", ")} or ${last}`
}

/** An error about a field. */
export interface Unknown {
  readonly path: string
  readonly detail: string
}

const placeNameOf = (path: Path): string => path.filter((step) => typeof step === "string").join(".")

type UnknownFields = ReadonlyArray<UnknownField>

/** Fields, one for each place and type. */
const distinct = (source: Source, fields: UnknownFields = requiredFields(source)): UnknownFields => {
  const byName = new Map<string, UnknownField>()
  for (const field of fields) {
    const type = typeOf(valueAt(source, field.path))
    const key = `${placeNameOf(field.path)} ${typeof type === "string" ? type : ""}`
    if (!byName.has(key)) byName.set(key, field)
    if (byName.size === mostCompared) break
  }
  return [...byName.values()]
}

const typeProblem = (found: UnknownType, nearest: string | undefined): Unknown => ({
  path: formatPath(found.path),
  detail: `Expected ${quoted(found.known)}, got ${JSON.stringify(Text.cutName(found.type))}.` +
    (nearest === undefined ? "" : ` Did you mean "${nearest}"?`)
})

const problemOf = (source: Source, field: UnknownField): Unknown | undefined => {
  const found = unknownType(source, field)
  if (found !== undefined) {
    const nearest = nearestType(found)
    return nearest === undefined ? undefined : typeProblem(found, nearest)
  }
  const name = suggestionFor(source, field.path)
  return name === undefined
    ? undefined
    : { path: formatPath(field.path), detail: `Unknown field. Did you mean ${name}?` }
}

/** The first field that is probably misspelt; default of all. */
export const misspelt = (source: Source, fields?: UnknownFields): Unknown | undefined => {
  for (const field of distinct(source, fields)) {
    const problem = problemOf(source, field)
    if (problem !== undefined) return problem
  }
  return undefined
}

/** The values of a field that every deployment accepts, in words; undefined if the field as such is not accepted. */
const expectedAt = (source: Source, { path }: UnknownField): string | undefined => {
  const name = path.at(-1)
  if (typeof name !== "string") return undefined
  const parent = tableAt(tableOf(source), source.body, path.slice(0, -1))
  const place = parent && placeFor(parent.place, parent.value)
  if (place === undefined || place.optional === "all" || !Object.hasOwn(place.optional, name)) return undefined
  return place.optional[name]!.expected
}

/** What to do about a field, or about a part of a type that few deployments read, such as a file. */
const insteadOf = (type: UnknownType | undefined): string =>
  type === undefined
    ? "Remove it"
    : `Its type is ${JSON.stringify(type.type)}. Expected ${quoted(type.known)}, or remove it`

/** Why fields are not accepted, for the message: the field, or its value. */
export type Why = (what: "field" | "value") => string

/**
 * The error if fields are not accepted: about a misspelt one first, else about the first.
 *
 * @param fields default all that no deployment may ignore
 */
export const refused = (source: Source, why: Why, fields?: UnknownFields): Unknown => {
  const needs = source.responses?.needs
  if (needs !== undefined && fields === undefined) return { path: needs[0].path, detail: `${why("field")} Remove it.` }
  const found = misspelt(source, fields)
  if (found !== undefined) return found
  const [first, ...others] = distinct(source, fields)
  const type = unknownType(source, first!)
  if (type !== undefined && !type.documented.includes(type.type)) return typeProblem(type, undefined)
  const expected = expectedAt(source, first!)
  const also = others.slice(0, 9).map(({ path }) => formatPath(path))
  return {
    path: formatPath(first!.path),
    detail: (expected === undefined
      ? `${why("field")} ${insteadOf(type)}`
      : `${why("value")} Expected ${expected}, or remove it`) +
      (also.length === 0 ? "." : `, and also ${also.join(", ")}${others.length > also.length ? ", ..." : ""}.`)
  }
}

/** The error if no deployment of the model accepts fields. */
export const refusedBy = (source: Source, model: string): Unknown => {
  const [need, ...others] = source.responses?.needs ?? []
  return need === undefined
    ? refused(source, (what) => `No deployment of "${model}" accepts this ${what}.`)
    : { path: need.path, detail: summary(need, others) }
}
