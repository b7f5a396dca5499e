/**
 * What a body of the Anthropic dialect says that has no place in a request of ours, for deployments that speak the dialect.
 * Pure; see `OpenAiExtra`.
 */
import type { PassThrough } from "../../domain/PassThrough.ts"
import type { Body } from "../shared/BodyChecks.ts"
import type { Finder, Path, Place } from "../shared/ExtraFinder.ts"
import * as ExtraFinder from "../shared/ExtraFinder.ts"
import * as Anthropic from "./Schema.ts"

const { always, isObject, listOf, placeOf, typeOf } = ExtraFinder

const isEmptyList = (value: unknown): boolean => Array.isArray(value) && value.length === 0
const isDirect = (value: unknown): boolean =>
  Array.isArray(value) ? value.every((caller) => caller === "direct") : isObject(value) && value["type"] === "direct"

/** The model decides whether it thinks: one that does not think complies. */
const isOptional = (thinking: unknown): boolean => ["disabled", "adaptive"].includes(String(typeOf(thinking)))

const body = placeOf(Anthropic.MessagesRequest, {
  mcp_servers: isEmptyList,
  service_tier: always,
  speed: (value) => value === "standard",
  thinking: isOptional
}, ["service_tier", "thinking"])

const outputConfig = placeOf(Anthropic.OutputConfig, { effort: (value) => value === "high" }, ["effort"])

/** Of a block; what an answer had comes back with the conversation. */
const block: Place = {
  known: new Set([
    "type",
    "text",
    "source",
    "id",
    "name",
    "input",
    "tool_use_id",
    "content",
    "is_error",
    "cache_control"
  ]),
  isHint: (name, value) => name === "caller" ? isDirect(value) : name === "citations" && isEmptyList(value)
}

const tool = placeOf(Anthropic.Tool, {
  allowed_callers: isDirect,
  defer_loading: (value) => value === false,
  eager_input_streaming: always,
  input_examples: isEmptyList,
  strict: always
})

const metadata = placeOf({ fields: { user_id: true } }, {})
const outputFormat = placeOf({ fields: { type: true, schema: true } }, {})
const choice = placeOf({ fields: { type: true, name: true, disable_parallel_tool_use: true } }, {})

const thoughts = new Set<unknown>(["thinking", "redacted_thinking"])
const understood = new Set<unknown>(["text", "tool_use", "tool_result"])

const isImage = (value: unknown): boolean =>
  isObject(value) && value["type"] === "image" && ["base64", "url"].includes(String(typeOf(value["source"])))

const lookAtBlock = (finder: Finder, value: unknown, path: Path): void => {
  const type = typeOf(value)
  if (!understood.has(type) && !isImage(value)) return finder.add(value, path, thoughts.has(type))
  finder.look(value, block, path)
  for (const [at, inner] of listOf((value as Body)["content"]).entries()) {
    lookAtBlock(finder, inner, [...path, "content", at])
  }
}

const lookAtTools = ({ add, look }: Finder, tools: unknown) => {
  for (const [index, one] of listOf(tools).entries()) {
    if ((typeOf(one) ?? "custom") === "custom") look(one, tool, ["tools", index])
    else add(one, ["tools", index])
  }
}

/** Of a body that asks for a message, or to count its tokens; undefined where nothing is left. */
export const extraOf = (json: Body): PassThrough | undefined => {
  const finder = ExtraFinder.make()
  finder.look(json, body, [])
  for (const [at, one] of listOf(json["system"]).entries()) lookAtBlock(finder, one, ["system", at])
  for (const [index, message] of listOf(json["messages"]).entries()) {
    for (const [at, one] of listOf((message as Body)["content"]).entries()) {
      lookAtBlock(finder, one, ["messages", index, "content", at])
    }
  }
  lookAtTools(finder, json["tools"])
  const output = json["output_config"]
  finder.look(output, outputConfig, ["output_config"])
  if (isObject(output)) finder.look(output["format"], outputFormat, ["output_config", "format"])
  finder.look(json["metadata"], metadata, ["metadata"])
  finder.look(json["tool_choice"], choice, ["tool_choice"])
  return finder.extra("anthropic")
}
