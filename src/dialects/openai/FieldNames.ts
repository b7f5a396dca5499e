/** The fields of the OpenAI dialect at each place of a body, and what the core calls them. Pure. */
import type { BodyFields, ByType, ErrorNames, Place } from "../shared/FieldNames.ts"
import { accepting, always, emptyList, only, pathRenamer, placeOf } from "../shared/FieldNames.ts"
import { understood } from "../shared/ReasoningFields.ts"
import { CompletionRequest } from "./CompletionSchema.ts"
import { ChatMessage, ChatRequest, ImagePart, StreamOptions, TextPart, Tool, ToolCall } from "./Schema.ts"
import * as ServerFields from "./ServerFields.ts"
import { ClassifyRequest, EmbeddingRequest, RerankRequest, TokenizeRequest } from "./TaskSchema.ts"

/** The sampling options: the field, and the core's name. */
export const sampling = [
  ["temperature", "temperature"],
  ["top_p", "topP"],
  ["seed", "seed"],
  ["top_k", "topK"],
  ["min_p", "minP"],
  ["repeat_penalty", "repeatPenalty"],
  ["presence_penalty", "presencePenalty"],
  ["frequency_penalty", "frequencyPenalty"],
  ["logit_bias", "logitBias"]
] as const

const nestedInConversation = [
  [/^(messages\[\d+\]\.content\[\d+\])\.source(?:\.\w+)?/, "$1.image_url.url"],
  [/^(messages\[\d+\]\.content\[\d+\])\.detail/, "$1.image_url.detail"],
  [/^tools\[(\d+)\]\.(name|description|parameters)/, "tools[$1].function.$2"],
  [/^(messages\[\d+\])\.toolCalls\[(\d+)\]\.(name|arguments)/, "$1.tool_calls[$2].function.$3"],
  [/^(messages\[\d+\])\.toolCalls/, "$1.tool_calls"],
  [/^(messages\[\d+\])\.toolCallId/, "$1.tool_call_id"]
] as const

const inFormats = [
  [/^format\.schema/, "response_format.json_schema.schema"],
  [/^format\.pattern/, "structured_outputs.regex"],
  [/^format\.choices/, "structured_outputs.choice"],
  [/^format\.grammar/, "grammar"]
] as const

export const chatErrors: ErrorNames = {
  prompt: "messages",
  rename: pathRenamer({
    ...Object.fromEntries(sampling.map(([field, name]) => [name, field])),
    assistantPrefix: "continue_final_message",
    format: "response_format",
    maxTokens: "max_completion_tokens",
    parallelToolCalls: "parallel_tool_calls",
    toolChoice: "tool_choice"
  }, [
    ...nestedInConversation,
    [/^toolChoice\.name/, "tool_choice.function.name"],
    ...inFormats,
    ...ServerFields.renamed
  ])
}

export const completionErrors: ErrorNames = {
  prompt: "prompt",
  rename: pathRenamer({
    ...Object.fromEntries(sampling.map(([field, name]) => [name, field])),
    format: "response_format",
    maxTokens: "max_tokens"
  }, [
    ...inFormats,
    ...ServerFields.renamed,
    [/^messages\[0\]\.content/, "prompt"],
    [/^messages\[1\]\.content/, "suffix"],
    [/^completion\.tokens/, "prompt"],
    [/^messages/, "prompt"]
  ])
}

/** For embeddings and classification. */
export const textErrors: ErrorNames = { prompt: "input", rename: pathRenamer({ inputs: "input" }) }

export const rerankErrors: ErrorNames = { prompt: "documents", rename: pathRenamer({}) }

const renameInConversation = pathRenamer({}, nestedInConversation)

export const tokenizeErrors: ErrorNames = {
  prompt: "prompt",
  rename: (path) => path === "input" ? "prompt" : renameInConversation(path.replace(/^input\./, ""))
}

const isFalse = only(false)

const cached = { cache_control: always }

const contentPart: ByType = {
  types: {
    text: placeOf(TextPart, { optional: cached }),
    image_url: placeOf(ImagePart, { fields: { image_url: placeOf(ImagePart.fields.image_url) }, optional: cached })
  },
  documented: ["audio_url", "file", "input_audio", "input_text", "refusal", "thinking", "video_url"],
  others: /^(?:file|input_audio|refusal|thinking)$/,
  optionalTypes: ["refusal", "thinking"]
}

const toolCall: ByType = {
  types: { function: { ...placeOf(ToolCall), optional: "all" } },
  documented: ["custom"],
  others: /^custom$/
}

/** An assistant's other content: clients send earlier answers back. */
const message: Place = placeOf(ChatMessage, {
  fields: { content: contentPart, tool_calls: toolCall },
  without: ["audio", "function_call", "reasoning", "reasoning_content", "reasoning_details", "refusal"],
  optional: {
    annotations: always,
    name: always,
    reasoning: always,
    reasoning_content: always,
    reasoning_details: always,
    refusal: always,
    ...cached
  }
})

const tool: ByType = {
  types: {
    function: placeOf(Tool, {
      fields: { function: placeOf(Tool.fields.function, { optional: { strict: always } }) },
      optional: cached
    })
  },
  documented: ["custom"],
  others: /^custom$/
}

const namesOf = (...names: ReadonlyArray<string>) => ({
  fields: Object.fromEntries(names.map((name) => [name, true]))
})

const responseFormat: ByType = {
  types: {
    text: placeOf(namesOf("type")),
    json_object: placeOf(namesOf("type")),
    json_schema: placeOf(namesOf("type"), {
      fields: {
        // A deployment may ignore the name of a format and `strict`.
        json_schema: placeOf(namesOf("schema"), { optional: { name: always, description: always, strict: always } })
      }
    })
  },
  documented: ["ebnf", "grammar", "python", "regex", "structural_tag"]
}

const toolChoice: ByType = {
  types: { function: placeOf(namesOf("type"), { fields: { function: placeOf(namesOf("name")) } }) },
  documented: ["allowed_tools", "custom"],
  others: /^(?:allowed_tools|custom)$/
}

/**
 * A chat completion. A value that is OpenAI's default is optional, and so is what changes no answer or is a hint. Fields of
 * reasoning are decoded from the body.
 */
export const chat: BodyFields = placeOf(ChatRequest, {
  fields: {
    messages: message,
    tools: tool,
    stream_options: placeOf(StreamOptions, {
      optional: { include_obfuscation: always, continuous_usage_stats: isFalse }
    }),
    tool_choice: toolChoice,
    response_format: responseFormat
  },
  optional: {
    function_call: accepting("\"none\" or \"auto\"", (value) => value === "none" || value === "auto"),
    functions: emptyList,
    metadata: always,
    modalities: accepting(
      "[\"text\"]",
      (value) => Array.isArray(value) && value.every((modality) => modality === "text")
    ),
    prompt_cache_key: always,
    prompt_cache_retention: always,
    service_tier: always,
    store: always,
    verbosity: always,
    ...understood,
    ...ServerFields.chatFields
  },
  others: ["audio", "prediction", "reasoning_effort", "safety_identifier", "user", "web_search_options"]
})

/** A text completion. */
export const completions: BodyFields = {
  ...placeOf(CompletionRequest, {
    fields: {
      stream_options: placeOf(StreamOptions, {
        optional: { include_obfuscation: always, continuous_usage_stats: isFalse }
      }),
      response_format: responseFormat
    },
    optional: ServerFields.completionFields
  }),
  aliases: { input: "prompt", messages: "prompt", text: "prompt", max_completion_tokens: "max_tokens" }
}

export const embeddings: BodyFields = {
  ...placeOf(EmbeddingRequest),
  aliases: { content: "input", prompt: "input", text: "input", texts: "input" }
}

export const rerank: BodyFields = {
  ...placeOf(RerankRequest, {
    fields: { documents: placeOf(namesOf("text")) },
    // Cohere's field for documents of several fields.
    optional: {
      rank_fields: emptyList,
      max_chunks_per_doc: always,
      max_tokens_per_doc: always
    }
  }),
  aliases: { docs: "documents", passages: "documents", texts: "documents", top_k: "top_n" }
}

export const classify: BodyFields = {
  ...placeOf(ClassifyRequest),
  aliases: { content: "input", text: "input", texts: "input" }
}

export const tokenize: BodyFields = {
  ...placeOf(TokenizeRequest, {
    fields: { messages: message, tools: tool },
    // vLLM's; its defaults are what Troupe does.
    optional: { add_generation_prompt: only(true), return_token_strs: isFalse }
  }),
  aliases: { content: "prompt", input: "prompt", text: "prompt" }
}
