/**
 * The `thinkingConfig` that tells a model at the Gemini API how much to think. Pure.
 *
 * **Details**
 *
 * Gemini 3 takes a level, Gemini 2.5 a budget in tokens; earlier models take neither and reject the field. Models are known by
 * their names; the deployment's `reasoning` says that one of another name takes a level. Thoughts are requested with it:
 * the API sends none otherwise.
 *
 * **Gotchas**
 *
 * Not every model can answer without thinking: it thinks as little as it can then. Source: the Gemini API's page "Gemini
 * thinking".
 */
import type { Effort, Reasoning } from "../../domain/Reasoning.ts"
import { budgetOf, effortOf, isOff, within } from "../../domain/Reasoning.ts"
import type { Fields } from "../shared/Json.ts"
import type { Target } from "../shared/ProviderDialect.ts"

/** The least budget that is not 0, the greatest one, tokens, and whether 0 is allowed. */
const budgets = {
  pro: [128, 32_768, false],
  lite: [512, 24_576, true],
  flash: [1, 24_576, true]
} as const

const kindOf = (model: string): keyof typeof budgets =>
  model.includes("-pro") ? "pro" : model.includes("-lite") ? "lite" : "flash"

/** The budget that the model accepts; -1: the model decides. */
const budgetFor = (reasoning: Reasoning, model: string): number => {
  const [least, most, canBeOff] = budgets[kindOf(model)]
  const budget = budgetOf(reasoning)
  if (budget === undefined) return -1
  return budget === 0 && canBeOff ? 0 : Math.min(Math.max(budget, least), most)
}

const levelsOf = (model: string): ReadonlyArray<Effort> => {
  if (/gemini-3-pro/.test(model)) return ["low", "high"]
  return model.includes("-pro") ? ["low", "medium", "high"] : ["minimal", "low", "medium", "high"]
}

/** The field of `generationConfig`. */
export const fieldsFor = (reasoning: Reasoning | undefined, { options }: Target): Fields => {
  if (reasoning === undefined || options.reasoning === false) return {}
  const { model } = options
  const includeThoughts = !isOff(reasoning)
  if (/gemini-2\.5/.test(model)) {
    return { thinkingConfig: { thinkingBudget: budgetFor(reasoning, model), includeThoughts } }
  }
  if (!/gemini-(?:[3-9]|\d\d)/.test(model) && options.reasoning !== true) return {}
  const effort = effortOf(reasoning)
  const level = effort === undefined ? {} : { thinkingLevel: within(effort, levelsOf(model)) }
  return { thinkingConfig: { ...level, includeThoughts } }
}
