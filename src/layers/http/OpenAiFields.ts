/**
 * What the dialect calls the fields that engines and `Inference` find wrong. Pure.
 */

/** An endpoint's own names. */
export interface Fields {
  /** Of what does not fit the context window. */
  readonly prompt: string
  /** Of the path of an `InvalidRequest`. */
  readonly rename: (path: string) => string
}

type Names = ReadonlyArray<readonly [path: RegExp, name: string]>

/** What all endpoints have. */
const shared: Names = [[/^route/, "troupe"]]

/** By the first pattern that fits. */
const renaming = (names: Names) => (path: string): string => {
  const found = [...names, ...shared].find(([pattern]) => pattern.test(path))
  return found === undefined ? path : path.replace(found[0], found[1])
}

const conversation: Names = [
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
  [/^logprobs/, "top_logprobs"],
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
