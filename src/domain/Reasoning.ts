/**
 * How much a model reasons before it answers: an effort, or a budget of tokens. Every dialect of callers decodes its own
 * fields to it, and every provider and engine is told in its own fields. Pure.
 *
 * **Details**
 *
 * It is a hint: a model that does not reason answers without. The tokens of an effort are those that Gemini's API documents
 * for OpenAI's efforts (ai.google.dev/gemini-api/docs/openai, "Thinking").
 *
 * **Example**
 *
 * ```ts
 * const request = Inference.request({
 *   model: "thinker",
 *   messages: [{ role: "user", content: "Is 7919 prime?" }],
 *   reasoning: { effort: "high" }
 * })
 * ```
 */
import { Schema } from "effect"
import { wholeNumber } from "./Problem.ts"

/** From least to most. */
export const efforts = ["none", "minimal", "low", "medium", "high", "xhigh", "max"] as const
export type Effort = typeof efforts[number]

export const Reasoning = Schema.Union([
  /** `auto`: the model reasons, as much as it decides. */
  Schema.Struct({ effort: Schema.Literals([...efforts, "auto"]) }),
  /** The most tokens of the reasoning; 0: none. */
  Schema.Struct({ budget: wholeNumber(0, 1_000_000) })
])
export type Reasoning = typeof Reasoning.Type

/** Tokens. */
const budgets: Readonly<Record<Effort, number>> = {
  none: 0,
  minimal: 1024,
  low: 1024,
  medium: 8192,
  high: 24_576,
  xhigh: 32_768,
  max: 65_536
}

/** The reasoning that a text names; undefined for a text that is no effort. */
export const ofEffort = (text: unknown): Reasoning | undefined =>
  text === "auto" || (efforts as ReadonlyArray<unknown>).includes(text) ? { effort: text as Effort } : undefined

/** The reasoning that a switch stands for. */
export const ofSwitch = (on: boolean): Reasoning => ({ effort: on ? "auto" : "none" })

export const isOff = (reasoning: Reasoning): boolean =>
  "budget" in reasoning ? reasoning.budget === 0 : reasoning.effort === "none"

/** The most tokens of the reasoning; undefined if the model decides. */
export const budgetOf = (reasoning: Reasoning): number | undefined => {
  if ("budget" in reasoning) return reasoning.budget
  return reasoning.effort === "auto" ? undefined : budgets[reasoning.effort]
}

/** The effort, or that of a budget; undefined if the model decides. */
export const effortOf = (reasoning: Reasoning): Effort | undefined => {
  if ("effort" in reasoning) return reasoning.effort === "auto" ? undefined : reasoning.effort
  if (reasoning.budget === 0) return "none"
  return reasoning.budget <= budgets.low ? "low" : reasoning.budget <= budgets.medium ? "medium" : "high"
}

/** The least of a model's efforts that is no less than this one; for a greater one, the greatest. */
export const within = <A extends Effort>(effort: Effort, supported: ReadonlyArray<A>): A =>
  supported.find((one) => efforts.indexOf(one) >= efforts.indexOf(effort)) ?? supported.at(-1)!
