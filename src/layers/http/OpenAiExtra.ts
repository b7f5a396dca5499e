/**
 * What a chat body says that has no place in a request of ours, for deployments that speak OpenAI's dialect. Pure.
 *
 * **Details**
 *
 * Whatever is not known here is handed on with its place in the body. Hints, and values that ask for nothing, may be left
 * out by whoever has no words for them; anything else must reach a deployment that has, or the request is refused.
 */
import type { Extra, Field } from "../../services/Extra.ts"
import { ChatMessage, ChatRequest, ImagePart, TextPart, Tool, ToolCall } from "../../services/OpenAi.ts"
import type { Body } from "./Body.ts"

type Hints = Readonly<Record<string, (value: unknown) => boolean>>

/** What may be left out in one place, by its name and value. */
interface Place {
  readonly known: ReadonlySet<string>
  readonly isHint: (name: string, value: unknown) => boolean
}

const placeOf = (schema: { readonly fields: object }, hints: Hints, more: ReadonlyArray<string> = []): Place => ({
  known: new Set([...Object.keys(schema.fields), ...more]),
  isHint: (name, value) => Object.hasOwn(hints, name) && hints[name]!(value)
})

const always = () => true

/** Fields whose only values that are taken ask for nothing: see `OpenAiChat`. */
const refusedElsewhere = ["audio", "function_call", "functions", "modalities"]

/** Of the body; a value that is OpenAI's own default asks for nothing. */
const body = placeOf(ChatRequest, {
  metadata: (value) => typeof value === "object" && value !== null && Object.keys(value).length === 0,
  prompt_cache_key: always,
  prompt_cache_retention: always,
  service_tier: (value) => value === "auto" || value === "default",
  store: (value) => value === false,
  verbosity: (value) => value === "medium"
}, refusedElsewhere)

/** Of a message; what an assistant said beside its text comes back with the conversation. */
const message = placeOf(ChatMessage, {
  annotations: always,
  cache_control: always,
  name: always,
  reasoning: always,
  reasoning_content: always,
  reasoning_details: always,
  refusal: always
})

const tool = placeOf(Tool, { cache_control: always })
const toolFunction = placeOf(Tool.fields.function, { strict: always })
const text = placeOf(TextPart, { cache_control: always })
const image = placeOf(ImagePart, { cache_control: always })
const imageUrl = placeOf(ImagePart.fields.image_url, {})
const call: Place = { known: new Set(Object.keys(ToolCall.fields)), isHint: always }

/** What a format is called binds no answer, and whether it is strict is for the host to say. */
const format: Place = { known: new Set(["schema"]), isHint: always }

const isObject = (value: unknown): value is Body => typeof value === "object" && value !== null && !Array.isArray(value)

const listOf = (value: unknown): ReadonlyArray<unknown> => Array.isArray(value) ? value : []

type Path = Field["path"]

/** Finds fields; null stands for what is left out. */
const makeFinder = () => {
  const fields: Array<Field> = []
  const look = (value: unknown, { isHint, known }: Place, path: Path) => {
    if (!isObject(value)) return
    for (const name of Object.keys(value)) {
      if (known.has(name) || value[name] === null) continue
      const optional = isHint(name, value[name])
      fields.push({ path: [...path, name], value: value[name], ...(optional ? { optional } : {}) })
    }
  }
  return { fields, look }
}

type Look = ReturnType<typeof makeFinder>["look"]

const lookAtMessage = (look: Look, one: unknown, index: number) => {
  if (!isObject(one)) return
  look(one, message, ["messages", index])
  for (const [at, part] of listOf(one["content"]).entries()) {
    const path = ["messages", index, "content", at]
    const isImage = isObject(part) && part["type"] === "image_url"
    look(part, isImage ? image : text, path)
    if (isImage) look(part["image_url"], imageUrl, [...path, "image_url"])
  }
  for (const [at, one_] of listOf(one["tool_calls"]).entries()) look(one_, call, ["messages", index, "tool_calls", at])
}

const lookAtTools = (look: Look, tools: unknown) => {
  for (const [index, one] of listOf(tools).entries()) {
    look(one, tool, ["tools", index])
    if (isObject(one)) look(one["function"], toolFunction, ["tools", index, "function"])
  }
}

/** Of a body that is a chat request; undefined where nothing is left. */
export const extraOf = (json: Body): Extra | undefined => {
  const { fields, look } = makeFinder()
  look(json, body, [])
  for (const [index, one] of listOf(json["messages"]).entries()) lookAtMessage(look, one, index)
  lookAtTools(look, json["tools"])
  const asked = json["response_format"]
  if (isObject(asked)) look(asked["json_schema"], format, ["response_format", "json_schema"])
  return fields.length === 0 ? undefined : { dialect: "openai", fields }
}
