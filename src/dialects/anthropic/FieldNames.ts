/** The fields of the Anthropic dialect at each place of a body, and what the core calls them. Pure. */
import type { BodyFields, ByType, Place } from "../shared/FieldNames.ts"
import { accepting, always, emptyList, only, pathRenamer, placeOf } from "../shared/FieldNames.ts"
import { isObject, isOneOf, typeOf } from "../shared/Json.ts"
import { isEffort, isThinking } from "../shared/ReasoningFields.ts"
import * as Schema from "./Schema.ts"

/** The sampling options: the field, and the core's name. */
const sampling = [["temperature", "temperature"], ["top_p", "topP"], ["top_k", "topK"]] as const

/** For paths outside of messages. */
export const rename = pathRenamer({
  ...Object.fromEntries(sampling.map(([field, name]) => [name, field])),
  format: "output_config.format",
  maxTokens: "max_tokens",
  stop: "stop_sequences",
  toolChoice: "tool_choice"
}, [[/^tools\[(\d+)\]\.parameters/, "tools[$1].input_schema"]])

const isDirect = (value: unknown): boolean =>
  Array.isArray(value) ? value.every((caller) => caller === "direct") : isObject(value) && value["type"] === "direct"

/** Edits that take old thoughts and results of tools out of a prompt: a model without them gets the whole prompt. */
const onlyClears = (value: unknown): boolean => {
  const edits = isObject(value) ? value["edits"] : undefined
  return Array.isArray(edits) && edits.length > 0 &&
    edits.every((edit) => isObject(edit) && /^clear_(?:thinking|tool_uses)_\d+$/.test(String(edit["type"])))
}

const namesOf = (...names: ReadonlyArray<string>) => ({
  fields: Object.fromEntries(names.map((name) => [name, true]))
})

/** Fields of a block; clients send earlier answers back. */
const blockOf = (fields: Place["fields"], ...names: ReadonlyArray<string>): Place =>
  placeOf(namesOf("type", "cache_control", ...names), {
    fields,
    optional: { caller: isDirect, citations: emptyList }
  })

const text = blockOf({}, "text")

const image: Place = {
  ...blockOf({}, "source"),
  accepts: ({ source }) => isOneOf(["base64", "url"], typeOf(source))
}

/** The API has more types of blocks and tools with every version of its tools. */
const anyType =
  /^(?:[a-z0-9]+_)*(?:document|search_result|container_upload|tool_use|tool_result|tool_reference|thinking|compaction|toolset|\d{8})$/

const resultContent: ByType = { types: { text, image }, documented: ["document", "search_result"], others: anyType }

const block: ByType = {
  types: {
    text,
    image,
    tool_use: blockOf({}, "id", "name", "input"),
    tool_result: blockOf({ content: resultContent }, "tool_use_id", "is_error")
  },
  documented: ["container_upload", "document", "redacted_thinking", "search_result", "server_tool_use", "thinking"],
  others: anyType,
  optionalTypes: ["thinking", "redacted_thinking"]
}

/** The sources of an image, which the errors about it name. */
export const imageSources: ByType = {
  types: { base64: text, url: text },
  documented: ["content", "file", "text"],
  others: /^(?:content|file|text)$/
}

const tool: ByType = {
  types: {
    custom: placeOf(Schema.Tool, {
      optional: {
        allowed_callers: isDirect,
        defer_loading: only(false),
        eager_input_streaming: always,
        input_examples: emptyList,
        strict: always
      }
    })
  },
  documented: [],
  others: anyType,
  defaultType: "custom"
}

/** A message, and the count of its tokens. */
export const messages: BodyFields = placeOf(Schema.MessagesRequest, {
  fields: {
    messages: placeOf(Schema.MessageParam, { fields: { content: block } }),
    system: { types: { text }, documented: [] },
    tools: tool,
    metadata: placeOf(namesOf("user_id")),
    tool_choice: placeOf(namesOf("type", "name", "disable_parallel_tool_use")),
    output_config: placeOf(Schema.OutputConfig, {
      fields: { format: placeOf(namesOf("type", "schema")) },
      without: ["effort"],
      optional: { effort: isEffort },
      others: ["task_budget"]
    })
  },
  without: ["service_tier", "thinking"],
  optional: {
    context_management: accepting("edits of the types clear_thinking and clear_tool_uses", onlyClears),
    mcp_servers: emptyList,
    service_tier: always,
    speed: only("standard"),
    thinking: isThinking
  },
  others: ["cache_control", "container", "inference_geo"]
})
