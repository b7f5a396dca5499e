/** What the OpenAI dialect calls the fields that engines and `Inference` find wrong. Pure. */

import type { Fields, Names } from "../shared/FieldNames.ts"
import { renaming } from "../shared/FieldNames.ts"

const conversation: Names = [
  [/^(messages\[\d+\]\.content\[\d+\])\.source(?:\.\w+)?/, "$1.image_url.url"],
  [/^(messages\[\d+\]\.content\[\d+\])\.detail/, "$1.image_url.detail"],
  [/^tools\[(\d+)\]\.(name|description|parameters)/, "tools[$1].function.$2"],
  [/^(messages\[\d+\])\.toolCalls\[(\d+)\]\.(name|arguments)/, "$1.tool_calls[$2].function.$3"],
  [/^(messages\[\d+\])\.toolCalls/, "$1.tool_calls"],
  [/^(messages\[\d+\])\.toolCallId/, "$1.tool_call_id"]
]

const chatNames: Names = [
  ...conversation,
  [/^toolChoice\.name/, "tool_choice.function.name"],
  [/^toolChoice/, "tool_choice"],
  [/^format\.schema/, "response_format.json_schema.schema"],
  [/^format/, "response_format"],
  [/^assistantPrefix/, "continue_final_message"],
  [/^maxTokens/, "max_completion_tokens"],
  [/^(top)P/, "$1_p"],
  [/^(top)K/, "$1_k"],
  [/^(min)P/, "$1_p"],
  [/^(repeat|presence|frequency)Penalty/, "$1_penalty"],
  [/^logitBias/, "logit_bias"],
  [/^keepAlive/, "keep_alive"]
]

export const chat: Fields = { prompt: "messages", rename: renaming(chatNames) }

/** Of embeddings and classification. */
export const texts: Fields = { prompt: "input", rename: renaming([[/^inputs/, "input"]]) }

export const rerank: Fields = { prompt: "documents", rename: renaming([]) }

const tokenizeRenaming = renaming(conversation)

export const tokenize: Fields = {
  prompt: "prompt",
  rename: (path) => path === "input" ? "prompt" : tokenizeRenaming(path.replace(/^input\./, ""))
}
