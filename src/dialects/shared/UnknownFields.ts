/**
 * Request fields that Troupe does not know: which of them are misspelt, and what the caller is told of them. Pure.
 *
 * **Details**
 *
 * A field that no local deployment accepts leaves only remote ones. So a misspelt field must never choose where a prompt
 * goes: where it would, it is refused by name. Fields that providers document are not misspelt, however near another name
 * they are.
 */
import { nearestName } from "../../domain/NearestName.ts"
import type { Dialect, Extra, Field } from "../../domain/PassThrough.ts"
import { requiredFields } from "../../domain/PassThrough.ts"
import { formatPath } from "../../domain/Problem.ts"
import * as Anthropic from "../anthropic/Schema.ts"
import * as OpenAi from "../openai/Schema.ts"

type Names = ReadonlyArray<string>

/** Lists whose elements have fields of their own: the first pattern that fits the path of the object, indexes left out. */
type Places = ReadonlyArray<readonly [path: string, names: Names]>

const namesOf = (schema: { readonly fields: object }): Names => Object.keys(schema.fields)

const places: Readonly<Record<Dialect, Places>> = {
  openai: [
    ["", namesOf(OpenAi.ChatRequest)],
    ["messages", namesOf(OpenAi.ChatMessage)],
    ["messages.content", [...namesOf(OpenAi.TextPart), ...namesOf(OpenAi.ImagePart)]],
    ["messages.content.image_url", namesOf(OpenAi.ImagePart.fields.image_url)],
    ["messages.tool_calls", namesOf(OpenAi.ToolCall)],
    ["tools", namesOf(OpenAi.Tool)],
    ["tools.function", namesOf(OpenAi.Tool.fields.function)],
    ["response_format.json_schema", ["name", "description", "schema", "strict"]]
  ],
  anthropic: [
    ["", namesOf(Anthropic.MessagesRequest)],
    ["messages", namesOf(Anthropic.MessageParam)],
    ["tools", namesOf(Anthropic.Tool)]
  ]
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

/** The known name that a field was probably meant to have; undefined for documented ones and where no name is near. */
const meant = (dialect: Dialect, path: Field["path"]): string | undefined => {
  const name = path.at(-1)
  if (typeof name !== "string" || documented.has(name)) return undefined
  const place = path.slice(0, -1).filter((step) => typeof step === "string").join(".")
  const names = places[dialect].find(([known]) => known === place)?.[1]
  return names === undefined || names.includes(name) ? undefined : nearestName(name, names)
}

/** A field, as an error names it. */
export interface Unknown {
  readonly path: string
  readonly detail: string
}

const distinct = (extra: Extra): ReadonlyArray<Field> => {
  const byName = new Map<string, Field>()
  for (const field of requiredFields(extra)) {
    const name = field.path.filter((step) => typeof step === "string").join(".")
    if (!byName.has(name)) byName.set(name, field)
    if (byName.size === mostCompared) break
  }
  return [...byName.values()]
}

/** The first field that is probably misspelt. */
export const misspelt = (extra: Extra): Unknown | undefined => {
  for (const { path } of distinct(extra)) {
    const name = meant(extra.dialect, path)
    if (name !== undefined) return { path: formatPath(path), detail: `Unknown field. Did you mean ${name}?` }
  }
  return undefined
}

/**
 * What to say of the fields where no deployment of the model accepts them: a misspelt one first, else the first.
 *
 * @param model whose deployments do not accept it
 */
export const refused = (extra: Extra, model: string): Unknown => {
  const found = misspelt(extra)
  if (found !== undefined) return found
  const [first, ...others] = distinct(extra)
  const also = others.slice(0, 9).map(({ path }) => formatPath(path))
  return {
    path: formatPath(first!.path),
    detail: `No deployment of "${model}" accepts this field. Remove it` +
      (also.length === 0 ? "." : `, and likewise ${also.join(", ")}${others.length > also.length ? ", ..." : ""}.`)
  }
}
