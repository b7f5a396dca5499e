/**
 * Encodes errors of Ollama's API: the statuses of OpenAI's dialect, a body of one text, and each endpoint's names of fields in
 * it. Pure.
 */
import type { Reason } from "../../domain/InferenceError.ts"
import * as Text from "../../domain/Text.ts"
import * as OpenAi from "../openai/EncodeError.ts"
import type { ErrorNames } from "../shared/FieldNames.ts"
import { pathRenamer } from "../shared/FieldNames.ts"
import { sampling } from "./FieldNames.ts"
import type { ErrorBody } from "./Schema.ts"

const optionNames: Readonly<Record<string, string>> = {
  ...Object.fromEntries(sampling.map(([field, name]) => [name, `options.${field}`])),
  maxTokens: "options.num_predict",
  seed: "options.seed",
  stop: "options.stop",
  topK: "options.top_k"
}

const renameField = pathRenamer(optionNames, [
  [/^tools\[(\d+)\]\.(name|description|parameters)/, "tools[$1].function.$2"],
  [/^(messages\[\d+\])\.toolCalls\[(\d+)\]\.(name|arguments)/, "$1.tool_calls[$2].function.$3"],
  [/^(messages\[\d+\])\.toolCalls/, "$1.tool_calls"],
  [/^(messages\[\d+\])\.toolCallId/, "$1.tool_name"],
  [/^format\.schema/, "format"],
  [/^assistantPrefix/, "messages"]
])

/** The images of a message follow its text in the core. */
const imageIn = (path: string): readonly [message: string, image: string] | undefined => {
  const [, message, part = "0"] = /^(messages\[\d+\])\.content\[(\d+)\]/.exec(path) ?? []
  return message === undefined || part === "0" ? undefined : [message, `images[${Number(part) - 1}]`]
}

export const chatErrors: ErrorNames = {
  prompt: "messages",
  rename: (path) => imageIn(path)?.join(".") ?? renameField(path)
}

/** `/api/generate` has the only message in fields of its own. */
export const generateErrors: ErrorNames = {
  prompt: "prompt",
  rename: (path) => imageIn(path)?.[1] ?? renameField(path).replace(/^messages.*/, "prompt")
}

export const embedErrors: ErrorNames = { prompt: "input", rename: pathRenamer({ inputs: "input" }) }

export const embeddingsErrors: ErrorNames = {
  prompt: "prompt",
  rename: (path) => renameField(path).replace(/^inputs.*/, "prompt")
}

/** An error response. */
export interface OllamaError {
  readonly status: number
  readonly body: ErrorBody
  readonly headers: Readonly<Record<string, string>>
}

/**
 * @param message for people: what was wrong, the limit and what to do
 * @param docUrl the path of the explanation, if the error has a code
 */
export const make = (
  status: number,
  message: string,
  headers: Readonly<Record<string, string>> = {},
  docUrl?: string
): OllamaError => ({
  status,
  headers,
  body: { error: Text.cut(message, Text.longestMessage), ...(docUrl === undefined ? {} : { doc_url: docUrl }) }
})

/** @param names the field names of the endpoint */
export const fromReason = (reason: Reason, names: ErrorNames): OllamaError => {
  const { body, headers, status } = OpenAi.fromReason(reason, names)
  return make(status, body.error.message, headers, body.error.doc_url)
}
