/** The fields of the Responses dialect, and what the core calls them. Pure. */
import type { BodyFields, ErrorNames } from "../shared/FieldNames.ts"
import { pathRenamer, placeOf } from "../shared/FieldNames.ts"
import * as Schema from "./Schema.ts"

/** The field that does not fit the context window, and the names of the core's fields. */
export const errors: ErrorNames = {
  prompt: "input",
  rename: pathRenamer({
    topP: "top_p",
    presencePenalty: "presence_penalty",
    frequencyPenalty: "frequency_penalty",
    logprobs: "top_logprobs",
    maxTokens: "max_output_tokens",
    parallelToolCalls: "parallel_tool_calls",
    toolChoice: "tool_choice"
  }, [
    // A message of the core stands for several items, or for the instructions.
    [/^messages(?:\[.*)?$/, "input"],
    [/^(?:input\.)?messages(?:\[.*)?$/, "input"],
    [/^input\.tools/, "tools"],
    [/^toolChoice\.name/, "tool_choice.name"],
    [/^format\.schema/, "text.format.schema"],
    [/^format/, "text.format"]
  ])
}

const table = (schema: { readonly fields: object }): BodyFields => ({
  ...placeOf(schema),
  aliases: { messages: "input", max_tokens: "max_output_tokens", response_format: "text", system: "instructions" }
})

export const create = table(Schema.CreateRequest)
export const count = table(Schema.CountRequest)
export const compact = table(Schema.CompactRequest)
export const newConversation = placeOf(Schema.NewConversation)
export const conversationUpdate = placeOf(Schema.ConversationUpdate)
export const newItems = placeOf(Schema.NewItems)

/** Fields of `unsupported` that a deployment with the Responses API takes. */
export const foreign: ReadonlySet<string> = new Set([
  "context_management",
  "moderation",
  "prompt",
  "prompt_cache_options"
])

/** Fields of OpenAI's API that Troupe does not serve, and why. */
export const unsupported: Readonly<Record<string, string>> = {
  access_programs: "Troupe has no access programs",
  context_management: "Troupe compacts only when POST /v1/responses/compact is called",
  image: "Troupe does not compress images",
  moderation: "Troupe does not moderate by this field; see `guard` in troupe.yaml",
  personality: "Troupe has no personalities",
  prompt: "Troupe stores no prompt templates. Send `instructions` and `input`",
  prompt_cache_options: "Troupe has no options of prompt caches",
  stream_id: "Troupe answers the messages of a connection one after the other"
}
