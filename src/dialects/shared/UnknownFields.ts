/**
 * Request fields that Troupe does not know, and types that it does not know: which are misspelt, and the errors about
 * them. Pure.
 *
 * **Details**
 *
 * A field that no local deployment accepts leaves only remote ones. So a misspelt field must never choose where a prompt
 * goes: where it would, it is refused by name. So is a field with a misspelt `type`. Names that providers document are not
 * misspelt, however near another name they are; a name near a documented one is.
 */
import * as Bounded from "../../domain/Bounded.ts"
import { nearestName } from "../../domain/NearestName.ts"
import type { Dialect, Field, PassThrough, Task } from "../../domain/PassThrough.ts"
import { requiredFields } from "../../domain/PassThrough.ts"
import { formatPath } from "../../domain/Problem.ts"
import * as Anthropic from "../anthropic/Schema.ts"
import * as OpenAi from "../openai/Schema.ts"
import * as OpenAiTasks from "../openai/TaskSchema.ts"
import { isObject, typeOf } from "./ExtraFinder.ts"

type Names = ReadonlyArray<string>

/** By the path of an object, indexes left out. */
type Places = Readonly<Record<string, Names>>

const namesOf = (schema: { readonly fields: object }): Names => Object.keys(schema.fields)

/** What providers have in a message besides. */
const messageFields = [
  "annotations",
  "cache_control",
  "name",
  "reasoning",
  "reasoning_content",
  "reasoning_details",
  "refusal"
]

const tools: Places = {
  "tools": [...namesOf(OpenAi.Tool), "cache_control"],
  "tools.function": [...namesOf(OpenAi.Tool.fields.function), "strict"]
}

const messages: Places = {
  "messages": [...namesOf(OpenAi.ChatMessage), ...messageFields],
  "messages.content": [...namesOf(OpenAi.TextPart), ...namesOf(OpenAi.ImagePart), "cache_control"],
  "messages.content.image_url": namesOf(OpenAi.ImagePart.fields.image_url),
  "messages.tool_calls": namesOf(OpenAi.ToolCall)
}

const places: Readonly<Record<Dialect | Task, Places>> = {
  openai: {
    "": namesOf(OpenAi.ChatRequest),
    ...messages,
    ...tools,
    "response_format": ["type", "json_schema"],
    "response_format.json_schema": ["name", "description", "schema", "strict"],
    "stream_options": [...namesOf(OpenAi.StreamOptions), "include_obfuscation", "continuous_usage_stats"],
    "tool_choice": ["type", "function"],
    "tool_choice.function": ["name"]
  },
  anthropic: {
    "": namesOf(Anthropic.MessagesRequest),
    "messages": namesOf(Anthropic.MessageParam),
    "tools": namesOf(Anthropic.Tool),
    "metadata": ["user_id"],
    "output_config": namesOf(Anthropic.OutputConfig),
    "output_config.format": ["type", "schema"],
    "tool_choice": ["type", "name", "disable_parallel_tool_use"]
  },
  embeddings: { "": namesOf(OpenAiTasks.EmbeddingRequest) },
  rerank: { "": namesOf(OpenAiTasks.RerankRequest), "documents": ["text"] },
  classify: { "": namesOf(OpenAiTasks.ClassifyRequest) },
  tokenize: { "": namesOf(OpenAiTasks.TokenizeRequest), ...messages, ...tools }
}

/** Names that other APIs have for fields of a task. */
const aliases: Readonly<Partial<Record<Dialect | Task, Readonly<Record<string, string>>>>> = {
  embeddings: { content: "input", prompt: "input", text: "input", texts: "input" },
  rerank: { docs: "documents", passages: "documents", texts: "documents", top_k: "top_n" },
  classify: { content: "input", text: "input", texts: "input" },
  tokenize: { content: "prompt", input: "prompt", text: "prompt" }
}

/** The types of a value, by its path: those that Troupe knows, and those that providers document besides. */
interface Types {
  readonly known: Names
  readonly documented: Names
}

const types: Readonly<Record<Dialect, Readonly<Record<string, Types>>>> = {
  openai: {
    "messages.content": {
      known: ["text", "image_url"],
      documented: ["audio_url", "file", "input_audio", "input_text", "refusal", "thinking", "video_url"]
    },
    "messages.tool_calls": { known: ["function"], documented: ["custom"] },
    "response_format": {
      known: ["text", "json_object", "json_schema"],
      documented: ["ebnf", "grammar", "python", "regex", "structural_tag"]
    },
    "tool_choice": { known: ["function"], documented: ["allowed_tools", "custom"] },
    "tools": { known: ["function"], documented: ["custom"] }
  },
  anthropic: {
    "messages.content": {
      known: ["text", "image", "tool_use", "tool_result"],
      documented: ["container_upload", "document", "redacted_thinking", "search_result", "server_tool_use", "thinking"]
    },
    "messages.content.content": { known: ["text", "image"], documented: ["document", "search_result"] },
    "messages.content.source": { known: ["base64", "url"], documented: ["content", "file", "text"] },
    "system": { known: ["text"], documented: [] },
    "tools": { known: ["custom"], documented: [] }
  }
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

/** A comparison with every known name costs some 0.1 ms, and others wait for it. */
const mostCompared = 100

const placeOf = (path: Field["path"]): string => path.filter((step) => typeof step === "string").join(".")

/** The known name that a field was probably meant to have; undefined for documented ones and where no name is near. */
const meant = (extra: Pick<PassThrough, "dialect" | "task">, path: Field["path"]): string | undefined => {
  const name = path.at(-1)
  const of = extra.task ?? extra.dialect
  const names = places[of][placeOf(path.slice(0, -1))]
  if (typeof name !== "string" || names === undefined || names.includes(name)) return undefined
  if (path.length > 1) return nearestName(name, names)
  if (documented.has(name)) return undefined
  const alias = aliases[of]
  if (alias !== undefined && Object.hasOwn(alias, name)) return alias[name]
  return nearestName(name, extra.task === undefined ? [...names, ...documented] : names)
}

/** Of a body's own field: see `Shape.meant`. */
export const meantBy = (of: Dialect | Task) => (name: string): string | undefined =>
  meant(of === "openai" || of === "anthropic" ? { dialect: of } : { dialect: "openai", task: of }, [name])

/** A type that is not known. */
interface UnknownType extends Types {
  readonly path: Field["path"]
  readonly type: string
}

/** Of a field that is a whole value; of an image whose type is known, that of its source. */
const unknownType = ({ dialect }: PassThrough, { path, value }: Field): UnknownType | undefined => {
  const found = Object.hasOwn(types[dialect], placeOf(path)) ? types[dialect][placeOf(path)]! : undefined
  const type = typeOf(value)
  if (found === undefined || typeof type !== "string") return undefined
  if (!found.known.includes(type)) return { ...found, path: [...path, "type"], type }
  const inner = types[dialect][`${placeOf(path)}.source`]
  const source = isObject(value) ? typeOf(value["source"]) : undefined
  return inner === undefined || typeof source !== "string" || inner.known.includes(source)
    ? undefined
    : { ...inner, path: [...path, "source", "type"], type: source }
}

const nearestType = ({ documented, known, type }: UnknownType): string | undefined =>
  documented.includes(type) ? undefined : nearestName(type, [...known, ...documented])

const quoted = (names: Names): string => {
  const [last, ...others] = names.map((name) => `"${name}"`).toReversed()
  return others.length === 0 ? last! : `${others.toReversed().join(", ")} or ${last}`
}

/** A field, as an error names it. */
export interface Unknown {
  readonly path: string
  readonly detail: string
}

const distinct = (extra: PassThrough): ReadonlyArray<Field> => {
  const byName = new Map<string, Field>()
  for (const field of requiredFields(extra)) {
    const type = typeOf(field.value)
    const key = `${placeOf(field.path)} ${typeof type === "string" ? type : ""}`
    if (!byName.has(key)) byName.set(key, field)
    if (byName.size === mostCompared) break
  }
  return [...byName.values()]
}

const typeProblem = (found: UnknownType, nearest: string | undefined): Unknown => ({
  path: formatPath(found.path),
  detail: `Expected ${quoted(found.known)}, got ${JSON.stringify(Bounded.name(found.type))}.` +
    (nearest === undefined ? "" : ` Did you mean "${nearest}"?`)
})

const problemOf = (extra: PassThrough, field: Field): Unknown | undefined => {
  const found = unknownType(extra, field)
  if (found !== undefined) {
    const nearest = nearestType(found)
    return nearest === undefined ? undefined : typeProblem(found, nearest)
  }
  const name = meant(extra, field.path)
  return name === undefined
    ? undefined
    : { path: formatPath(field.path), detail: `Unknown field. Did you mean ${name}?` }
}

/** The first field that is probably misspelt. */
export const misspelt = (extra: PassThrough): Unknown | undefined => {
  for (const field of distinct(extra)) {
    const problem = problemOf(extra, field)
    if (problem !== undefined) return problem
  }
  return undefined
}

/**
 * The error where no deployment of the model accepts the fields: about a misspelt one first, else the first.
 *
 * @param model whose deployments do not accept it
 */
export const refused = (extra: PassThrough, model: string): Unknown => {
  const found = misspelt(extra)
  if (found !== undefined) return found
  const [first, ...others] = distinct(extra)
  const type = unknownType(extra, first!)
  if (type !== undefined && !type.documented.includes(type.type)) return typeProblem(type, undefined)
  const also = others.slice(0, 9).map(({ path }) => formatPath(path))
  return {
    path: formatPath(first!.path),
    detail: `No deployment of "${model}" accepts this field. Remove it` +
      (also.length === 0 ? "." : `, and likewise ${also.join(", ")}${others.length > also.length ? ", ..." : ""}.`)
  }
}
