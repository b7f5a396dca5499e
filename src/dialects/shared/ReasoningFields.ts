/**
 * Decodes the fields by which callers say how much a model reasons. Pure.
 *
 * **Details**
 *
 * OpenAI has `reasoning_effort`. Clients of its dialect also send OpenRouter's `reasoning`, Anthropic's `thinking`, and
 * the variables of chat templates: `chat_template_kwargs` of vLLM, SGLang and llama.cpp, and Qwen's `enable_thinking`.
 */
import type { Reasoning } from "../../domain/Reasoning.ts"
import { efforts, ofEffort, ofSwitch } from "../../domain/Reasoning.ts"
import type { IsOptional } from "./FieldNames.ts"
import { accepting } from "./FieldNames.ts"
import type { Fields } from "./Json.ts"
import { countAt, fieldsOf } from "./Json.ts"

/** The largest budget of the core, tokens. */
const mostTokens = 1_000_000

/** A number of tokens as a budget; undefined for other values. */
const ofTokens = (fields: Fields, name: string): Reasoning | undefined => {
  const budget = countAt(fields, name)
  return budget === undefined || budget > mostTokens ? undefined : { budget }
}

/** Anthropic's `thinking`: `adaptive` leaves it to the model. Undefined for a type that is not known. */
export const ofThinking = (value: unknown): Reasoning | undefined => {
  const fields = fieldsOf(value)
  switch (fields?.["type"]) {
    case "enabled":
      return ofTokens(fields, "budget_tokens") ?? ofSwitch(true)
    case "adaptive":
    case "auto":
      return ofSwitch(true)
    case "disabled":
      return ofSwitch(false)
    default:
      return undefined
  }
}

/** OpenRouter's `reasoning`. Undefined if the answer must not have its reasoning, which no other dialect can say. */
export const ofReasoning = (value: unknown): Reasoning | undefined => {
  const fields = fieldsOf(value)
  if (fields === undefined || fields["exclude"] === true) return undefined
  if (fields["enabled"] === false) return ofSwitch(false)
  return ofEffort(fields["effort"]) ?? ofTokens(fields, "max_tokens") ??
    (fields["enabled"] === true ? ofSwitch(true) : undefined)
}

/** The variables of chat templates that say how much a model reasons. */
const variables: ReadonlySet<string> = new Set(["enable_thinking", "reasoning_effort", "thinking", "thinking_budget"])

/** Variables of a chat template; undefined if there are others. */
export const ofVariables = (value: unknown): Reasoning | undefined => {
  const fields = fieldsOf(value)
  if (fields === undefined || !Object.keys(fields).every((name) => variables.has(name))) return undefined
  const on = fields["enable_thinking"] ?? fields["thinking"]
  if (on === false) return ofSwitch(false)
  return ofEffort(fields["reasoning_effort"]) ?? ofTokens(fields, "thinking_budget") ??
    (on === true ? ofSwitch(true) : undefined)
}

/** Qwen's `enable_thinking`. */
export const ofFlag = (value: unknown): Reasoning | undefined =>
  typeof value === "boolean" ? ofSwitch(value) : undefined

const quoted = (names: Iterable<string>): string => [...names].map((name) => JSON.stringify(name)).join(", ")

/** Anthropic's `thinking`: the values that every deployment accepts. */
export const isThinking = accepting(
  `an object whose type is one of ${quoted(["enabled", "adaptive", "disabled"])}`,
  (value) => ofThinking(value) !== undefined
)

/** An effort: the values that every deployment accepts. */
export const isEffort = accepting(`one of ${quoted(efforts)}`, (value) => ofEffort(value) !== undefined)

type Decode = (value: unknown) => Reasoning | undefined

/** The fields of OpenAI's dialect, with their values in words: if a body has several, the first counts. */
const fields: ReadonlyArray<readonly [name: string, decode: Decode, expected: string]> = [
  ["reasoning_effort", ofEffort, isEffort.expected!],
  ["reasoning", ofReasoning, "an object with effort, max_tokens or enabled, and without exclude: true"],
  ["thinking", ofThinking, isThinking.expected!],
  ["chat_template_kwargs", ofVariables, `an object that has only ${[...variables].join(", ")}`],
  ["enable_thinking", ofFlag, "true or false"]
]

/** The reasoning that a body of OpenAI's dialect asks for; undefined if it asks for none in particular. */
export const reasoningIn = (body: Fields): { readonly reasoning?: Reasoning } => {
  for (const [name, decode] of fields) {
    const reasoning = Object.hasOwn(body, name) ? decode(body[name]) : undefined
    if (reasoning !== undefined) return { reasoning }
  }
  return {}
}

/** By field, whether a value is understood, so that every deployment accepts the field. */
export const understood: Readonly<Record<string, IsOptional>> = Object.fromEntries(
  fields.map(([name, decode, expected]) => [name, accepting(expected, (value) => decode(value) !== undefined)])
)
