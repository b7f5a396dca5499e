/**
 * The fields that tell a model at Anthropic's API how much to think. Pure.
 *
 * **Details**
 *
 * Models from Claude 4.6 on decide themselves (`adaptive`) and take an effort; earlier ones take a budget of at least 1,024
 * tokens within `max_tokens`. A model is known by its name; the deployment's `reasoning` says that one of another name takes
 * a budget.
 *
 * **Gotchas**
 *
 * Thinking excludes a temperature, `top_p` below 0.95, `top_k`, a forced call, an assistant prefix, and with a budget also
 * results of tools whose calls have no signed thoughts before them. It is left out then, since a request may require those,
 * and reasoning is a hint. Sources: Anthropic's pages "Extended thinking", "Adaptive thinking" and "Effort".
 */
import type { Generation } from "../../domain/Generation.ts"
import type { Effort, Reasoning } from "../../domain/Reasoning.ts"
import { budgetOf, effortOf, isOff, within } from "../../domain/Reasoning.ts"
import { readableBy } from "../../domain/SignedReasoning.ts"
import type { Fields } from "../shared/Json.ts"
import type { Target } from "../shared/ProviderDialect.ts"

/** Tokens. */
const leastBudget = 1024

/** The budget where the caller leaves it to the model, tokens. */
const usualBudget = 8192

const withoutThinking = /claude-(?:2|instant|3-(?:5-|opus|sonnet|haiku))/
const adaptive = /claude-(?:(?:opus|sonnet|haiku)-(?:4-[6-9](?!\d)|[5-9](?!\d)|\d\d)|mythos|fable)/
const efforts: ReadonlyArray<Effort> = ["low", "medium", "high", "max"]
/** Of models after Claude 4.6. */
const moreEfforts: ReadonlyArray<Effort> = ["low", "medium", "high", "xhigh", "max"]

const thinks = ({ options: { model, reasoning } }: Target): boolean =>
  reasoning ?? (/claude-/.test(model) && !withoutThinking.test(model))

/** Whether the API accepts thinking with the other options of the generation. */
const isAllowed = ({ assistantPrefix, sampling, toolChoice = "auto" }: Generation): boolean =>
  (sampling.temperature ?? 1) === 1 && (sampling.topP ?? 1) >= 0.95 && sampling.topK === undefined &&
  assistantPrefix === undefined && (toolChoice === "auto" || toolChoice === "none")

/** Whether the conversation ends in the result of a call without signed thoughts. */
const endsUnthought = ({ messages }: Generation, { options }: Target): boolean => {
  if (messages.at(-1)?.role !== "tool") return false
  const call = messages.findLast(({ role }) => role === "assistant")
  return call === undefined || readableBy(call, options).length === 0
}

/** The fields of a request, whose limit includes the thoughts. */
interface ThinkingFields {
  readonly thinking?: Fields
  readonly effort?: Effort
  readonly max_tokens: number
}

const adaptiveFields = (reasoning: Reasoning, model: string, limit: number): ThinkingFields => {
  if (isOff(reasoning)) return { thinking: { type: "disabled" }, max_tokens: limit }
  const effort = effortOf(reasoning)
  const supported = /-4-6(?!\d)/.test(model) ? efforts : moreEfforts
  const named = effort === undefined ? {} : { effort: within(effort, supported) }
  return { thinking: { type: "adaptive" }, ...named, max_tokens: limit }
}

/** Half of a caller's limit is the answer's; a limit of the deployment is the answer's alone. */
const budgetFields = (reasoning: Reasoning, maxTokens: number | undefined, usual: number): ThinkingFields => {
  const wanted = Math.max(budgetOf(reasoning) ?? usualBudget, leastBudget)
  const budget = maxTokens === undefined ? wanted : Math.min(wanted, Math.floor(maxTokens / 2))
  const max_tokens = maxTokens ?? usual + budget
  return budget < leastBudget ? { max_tokens } : { thinking: { type: "enabled", budget_tokens: budget }, max_tokens }
}

/**
 * The fields of thinking, and the limit of the answer.
 *
 * @param usual the limit of an answer without one of the caller, tokens
 */
export const fieldsFor = (generation: Generation, target: Target, usual: number): ThinkingFields => {
  const { maxTokens, reasoning } = generation
  const limit = maxTokens ?? usual
  if (reasoning === undefined || !thinks(target) || !isAllowed(generation)) return { max_tokens: limit }
  const { options: { model } } = target
  if (adaptive.test(model)) return adaptiveFields(reasoning, model, limit)
  return isOff(reasoning) || endsUnthought(generation, target)
    ? { max_tokens: limit }
    : budgetFields(reasoning, maxTokens, usual)
}
