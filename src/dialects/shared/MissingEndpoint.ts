/**
 * Recognizes error responses of a provider that does not have an operation for a model: the deployment lacks a capability,
 * and its other operations are not affected. Pure.
 */
import type { Capability } from "../../domain/Capability.ts"
import { capabilityNames } from "../../domain/EngineProtocol.ts"
import * as InferenceError from "../../domain/InferenceError.ts"
import type { Refusal, Target } from "./ProviderDialect.ts"

/** Characters of an error response that are read. */
const mostRead = 4000

/** Messages about a model that does not have the operation: Gemini (404), OpenAI (403), Ollama, vLLM. */
const modelLacks =
  /(?:is|are) not supported (?:for|by|with)|does(?: not|n't) support|not allowed to (?:generate|create|sample) [\w ]{1,40} from this model/i

/** Codes and messages about a model that the provider does not have: OpenAI, Azure, Mistral, Ollama, gateways. */
const modelIsUnknown =
  /model_not_found|deploymentnotfound|invalid_model|\b(?:model|deployment)\b.{0,200}?\b(?:not found|(?:does|do)(?: not|n't) exist|not exist|unknown)\b|\b(?:unknown|no such|invalid) (?:model|deployment)\b/is

const textOf = (body: unknown): string =>
  (typeof body === "string" ? body : JSON.stringify(body) ?? "").slice(0, mostRead)

const isWord = /[\p{L}\p{N}_]/u

/** Whether the text has the name as a word of its own. */
const hasWord = (text: string, name: string): boolean => {
  for (let at = text.indexOf(name); at >= 0; at = text.indexOf(name, at + 1)) {
    if (!isWord.test(text[at - 1] ?? " ") && !isWord.test(text[at + name.length] ?? " ")) return true
  }
  return false
}

const isMissing = ({ body, status }: Refusal, model: string): boolean => {
  if (status === 405 || status === 501) return true
  if (status !== 404 && status !== 403) return false
  const text = textOf(body)
  if (modelLacks.test(text)) return true
  return status === 404 && !modelIsUnknown.test(text) && !hasWord(text.toLowerCase(), model.toLowerCase())
}

const inWords = (capability: Capability): string =>
  capability === "count" ? "token counting" : capabilityNames[capability]

/**
 * The reason of an error response which means that the provider does not have the operation: HTTP 405, 501, or a 404 that
 * does not name the model. Undefined for others: a 404 that names the model is about the model.
 *
 * @param capability what the endpoint is for
 */
export const reasonOf = (
  refusal: Refusal,
  { deployment, options }: Target,
  capability: Capability
): InferenceError.NotSupported | undefined =>
  isMissing(refusal, options.model)
    ? new InferenceError.NotSupported({
      deployment,
      path: "model",
      capability,
      detail: `its provider does not offer ${inWords(capability)} for this model (HTTP status ${refusal.status}).`
    })
    : undefined
