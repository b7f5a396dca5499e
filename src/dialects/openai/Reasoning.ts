/**
 * The fields that tell a host of OpenAI's dialect how much to reason. Pure.
 *
 * **Details**
 *
 * Models without reasoning reject `reasoning_effort`, and those with it accept different efforts. Both are known by the
 * model's name; the deployment's `reasoning` says it for other names.
 *
 * **Gotchas**
 *
 * Sources: OpenAI's model pages and its reference of `reasoning_effort`, and OpenAI's and Groq's pages on gpt-oss.
 */
import type { Generation } from "../../domain/Generation.ts"
import type { Effort, Reasoning } from "../../domain/Reasoning.ts"
import { effortOf, within } from "../../domain/Reasoning.ts"
import type { Fields } from "../shared/Json.ts"
import type { Target } from "../shared/ProviderDialect.ts"

type Efforts = ReadonlyArray<Effort>

const lowToHigh: Efforts = ["low", "medium", "high"]

/** The efforts of models by their names, which hosts may put a vendor before; the first match counts. */
const models: ReadonlyArray<readonly [name: RegExp, efforts: Efforts | undefined]> = [
  [/\bgpt-(?:[5-9]|\d\d)(?:\.\d+)?-chat\b/, undefined],
  [/\bgpt-5-pro\b/, ["high"]],
  [/\bgpt-5\.1\b/, ["none", "low", "medium", "high"]],
  [/\bgpt-5\b(?!\.)/, ["minimal", "low", "medium", "high"]],
  [/\bgpt-(?:[5-9]|\d\d)\b/, ["none", "low", "medium", "high", "xhigh"]],
  [/\bo[134](?:-|$)/, lowToHigh],
  [/\bgpt-oss\b/, lowToHigh]
]

/** The efforts of a deployment's model; undefined if it takes none. */
const effortsOf = ({ options: { model, reasoning } }: Target): Efforts | undefined => {
  if (reasoning === false) return undefined
  return models.find(([name]) => name.test(model))?.[1] ?? (reasoning === true ? lowToHigh : undefined)
}

/** Whether a deployment's model reasons, as far as is known. */
export const reasons = (target: Target): boolean => effortsOf(target) !== undefined

/** Fields for a host of the dialect. The caller's own field of the dialect is sent as it is. */
export const fieldsFor = ({ reasoning, source }: Generation, target: Target): Fields => {
  if (reasoning === undefined) return {}
  const own = source?.dialect === "openai" && source.body["reasoning_effort"] !== undefined
  const efforts = own ? undefined : effortsOf(target)
  const effort = effortOf(reasoning)
  return efforts === undefined || effort === undefined ? {} : { reasoning_effort: within(effort, efforts) }
}

/** Fields for another instance of this service, which decodes every one. */
export const fieldsForTroupe = (reasoning: Reasoning | undefined): Fields => {
  if (reasoning === undefined) return {}
  if ("budget" in reasoning) return { reasoning: { max_tokens: reasoning.budget } }
  return reasoning.effort === "auto" ? { reasoning: { enabled: true } } : { reasoning_effort: reasoning.effort }
}
