/** The fields of Ollama's API at each place of a body. Pure. */
import { samplingFields } from "../openai/ServerFields.ts"
import type { BodyFields, Place } from "../shared/FieldNames.ts"
import { always, emptyList, only, placeOf } from "../shared/FieldNames.ts"
import * as Schema from "./Schema.ts"

/** The options of sampling that need no conversion: the option, and the core's name. */
export const sampling = [
  ["temperature", "temperature"],
  ["top_p", "topP"],
  ["min_p", "minP"],
  ["repeat_penalty", "repeatPenalty"],
  ["presence_penalty", "presencePenalty"],
  ["frequency_penalty", "frequencyPenalty"]
] as const

/** Whether a field that is not supported has the value that stands for none. */
const is = (expected: unknown) => (value: unknown): boolean => value === expected

/**
 * Options beside those of sampling. Those that place and compute the model change no answer. Those that sample in ways that
 * engines here do not have may be ignored with their defaults only.
 */
const options: Place = placeOf(Schema.Options, {
  optional: {
    f16_kv: always,
    logits_all: always,
    low_vram: always,
    main_gpu: always,
    num_batch: always,
    num_ctx: always,
    num_gpu: always,
    num_keep: always,
    num_thread: always,
    numa: always,
    use_mlock: always,
    use_mmap: always,
    vocab_only: only(false),
    mirostat: only(0),
    mirostat_eta: always,
    mirostat_tau: always,
    penalize_newline: only(true),
    repeat_last_n: samplingFields["repeat_last_n"]!,
    tfs_z: only(1),
    typical_p: only(1)
  }
})

const calls = placeOf(Schema.ToolCall, {
  fields: { function: placeOf(Schema.ToolCall.fields.function) },
  optional: { type: always }
})

/** The name of a tool was in `name` before `tool_name`. */
const message: Place = placeOf(Schema.ChatMessage, {
  fields: { tool_calls: calls },
  without: ["thinking"],
  optional: { thinking: always, name: always }
})

const tool = placeOf(Schema.Tool, {
  fields: { function: placeOf(Schema.Tool.fields.function, { optional: { strict: always, type: always } }) }
})

/** A model without reasoning complies with any value. */
const generation = { think: always, truncate: always, shift: always }

export const chat: BodyFields = placeOf(Schema.ChatRequest, {
  fields: { messages: message, tools: tool, options },
  without: Object.keys(generation),
  optional: generation
})

export const generate: BodyFields = placeOf(Schema.GenerateRequest, {
  fields: { options },
  without: [...Object.keys(generation), "suffix", "raw", "template", "context"],
  optional: { ...generation, suffix: is(""), raw: is(false), template: is(""), context: (value) => emptyList(value) },
  others: ["height", "steps", "width"]
})

/** A prompt without a template, or one with a gap. */
export const completion: BodyFields = {
  ...generate,
  fields: { ...generate.fields, suffix: undefined, raw: undefined },
  // Ollama ignores the system prompt of a raw prompt too.
  optional: { ...generate.optional as object, system: always }
}

export const embed: BodyFields = {
  ...placeOf(Schema.EmbedRequest, { fields: { options }, without: ["truncate"], optional: { truncate: always } }),
  aliases: { prompt: "input", text: "input", texts: "input" }
}

export const embeddings: BodyFields = {
  ...placeOf(Schema.EmbeddingsRequest, { fields: { options } }),
  aliases: { input: "prompt", text: "prompt" }
}

/** The table of a body: the endpoints differ in the field of their prompt. */
export const tableOf = (body: Readonly<Record<string, unknown>>, isEmbedding: boolean): BodyFields => {
  if (isEmbedding) return body["prompt"] === undefined ? embed : embeddings
  return body["prompt"] === undefined ? chat : generate
}
