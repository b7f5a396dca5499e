/**
 * What a chat body says that has no place in a request of ours, for deployments that speak OpenAI's dialect. Pure.
 *
 * **Details**
 *
 * Whatever is not known here is handed on with its place in the body. Hints, and values that ask for nothing, may be left
 * out by whoever has no words for them; anything else must reach a deployment that has, or the request is refused.
 */
import type { PassThrough, Task } from "../../domain/PassThrough.ts"
import type { Body } from "../shared/BodyChecks.ts"
import type { Finder, Path, Place } from "../shared/ExtraFinder.ts"
import * as ExtraFinder from "../shared/ExtraFinder.ts"
import { ChatMessage, ChatRequest, ImagePart, StreamOptions, TextPart, Tool, ToolCall } from "./Schema.ts"

const isFalse = (value: unknown): boolean => value === false

const { always, isObject, listOf, placeOf, typeOf } = ExtraFinder

/** Of the body; a value that is OpenAI's own default asks for nothing. */
const body = placeOf(ChatRequest, {
  function_call: (value) => value === "none" || value === "auto",
  functions: (value) => Array.isArray(value) && value.length === 0,
  metadata: (value) => typeof value === "object" && value !== null && Object.keys(value).length === 0,
  modalities: (value) => Array.isArray(value) && value.every((modality) => modality === "text"),
  prompt_cache_key: always,
  prompt_cache_retention: always,
  service_tier: (value) => value === "auto" || value === "default",
  store: isFalse,
  verbosity: (value) => value === "medium"
})

/** Of a message; what an assistant said beside its text comes back with the conversation. */
const message = placeOf(ChatMessage, {
  annotations: always,
  cache_control: always,
  name: always,
  reasoning: always,
  reasoning_content: always,
  reasoning_details: always,
  refusal: always
}, ["audio", "function_call", "refusal"])

const tool = placeOf(Tool, { cache_control: always })
const toolFunction = placeOf(Tool.fields.function, { strict: always })
const text = placeOf(TextPart, { cache_control: always })
const image = placeOf(ImagePart, { cache_control: always })
const imageUrl = placeOf(ImagePart.fields.image_url, {})
const call: Place = { known: new Set(Object.keys(ToolCall.fields)), isHint: always }

/** What a format is called binds no answer, and whether it is strict is for the host to say. */
const schemaFormat: Place = {
  known: new Set(["schema"]),
  isHint: (name) => ["name", "description", "strict"].includes(name)
}

/** Of a format of each type. */
const formats: Readonly<Record<string, Place>> = {
  text: placeOf({ fields: { type: true } }, {}),
  json_object: placeOf({ fields: { type: true } }, {}),
  json_schema: placeOf({ fields: { type: true, json_schema: true } }, {})
}

const streamOptions = placeOf(StreamOptions, { include_obfuscation: always, continuous_usage_stats: isFalse })
const choice = placeOf({ fields: { type: true, function: true } }, {})
const choiceFunction = placeOf({ fields: { name: true } }, {})

const lookAtPart = ({ add, look }: Finder, part: unknown, path: Path) => {
  const type = typeOf(part)
  if (type === "text") return look(part, text, path)
  if (type !== "image_url") return add(part, path, type === "refusal")
  look(part, image, path)
  look((part as Body)["image_url"], imageUrl, [...path, "image_url"])
}

const lookAtMessage = (finder: Finder, one: unknown, index: number) => {
  if (!isObject(one)) return
  finder.look(one, message, ["messages", index])
  for (const [at, part] of listOf(one["content"]).entries()) {
    lookAtPart(finder, part, ["messages", index, "content", at])
  }
  for (const [at, called] of listOf(one["tool_calls"]).entries()) {
    const path = ["messages", index, "tool_calls", at]
    if (typeOf(called) === "function") finder.look(called, call, path)
    else finder.add(called, path)
  }
}

const lookAtTools = ({ add, look }: Finder, tools: unknown) => {
  for (const [index, one] of listOf(tools).entries()) {
    if (typeOf(one) !== "function") {
      add(one, ["tools", index])
      continue
    }
    look(one, tool, ["tools", index])
    look((one as Body)["function"], toolFunction, ["tools", index, "function"])
  }
}

const lookAtFormat = ({ add, look }: Finder, asked: unknown) => {
  if (!isObject(asked)) return
  const type = String(asked["type"])
  if (!Object.hasOwn(formats, type)) return add(asked, ["response_format"])
  look(asked, formats[type]!, ["response_format"])
  if (type === "json_schema") look(asked["json_schema"], schemaFormat, ["response_format", "json_schema"])
}

const lookAtChoice = ({ add, look }: Finder, asked: unknown) => {
  if (!isObject(asked)) return
  if (asked["type"] !== "function") return add(asked, ["tool_choice"])
  look(asked, choice, ["tool_choice"])
  look(asked["function"], choiceFunction, ["tool_choice", "function"])
}

const lookAtMessages = (finder: Finder, messages: unknown) => {
  for (const [index, one] of listOf(messages).entries()) lookAtMessage(finder, one, index)
}

/** Of a body that is a chat request; undefined where nothing is left. */
export const extraOf = (json: Body): PassThrough | undefined => {
  const finder = ExtraFinder.make()
  finder.look(json, body, [])
  lookAtMessages(finder, json["messages"])
  lookAtTools(finder, json["tools"])
  finder.look(json["stream_options"], streamOptions, ["stream_options"])
  lookAtChoice(finder, json["tool_choice"])
  lookAtFormat(finder, json["response_format"])
  return finder.extra("openai")
}

const document = placeOf({ fields: { text: true } }, {})

/**
 * Of a body of another endpoint; undefined where nothing is left.
 *
 * @param place of the body itself
 */
export const extraOfTask = (json: Body, place: Place, task: Task): PassThrough | undefined => {
  const finder = ExtraFinder.make()
  finder.look(json, place, [])
  if (task === "rerank") {
    for (const [index, one] of listOf(json["documents"]).entries()) finder.look(one, document, ["documents", index])
  }
  if (task === "tokenize") {
    lookAtMessages(finder, json["messages"])
    lookAtTools(finder, json["tools"])
  }
  return finder.extra("openai", task)
}
