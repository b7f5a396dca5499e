/**
 * What a deployment can do: its kind says what is possible, its configuration narrows that, and an engine that was loaded
 * says what its model has. Pure.
 */
import type { DeploymentOptions, Provider } from "./Deployment.ts"
import type { Ability } from "./EngineProtocol.ts"

type Kind = Exclude<DeploymentOptions["engine"], "remote">

/** What engines of a kind can do, whatever the model. */
export const ofEngine: Readonly<Record<Kind, ReadonlyArray<Ability>>> = {
  llama: ["generate", "tools", "format", "logprobs", "embed", "rerank", "tokenize"],
  onnx: ["generate", "tools", "format", "logprobs", "embed", "rerank", "classify", "tokenize"],
  fake: ["generate", "tools", "format", "logprobs", "embed", "rerank", "classify", "tokenize"],
  "language-model": ["generate", "tools", "format", "images"]
}

/** What a provider's API has, whatever the model. */
export const ofProvider: Readonly<Record<Provider, ReadonlyArray<Ability>>> = {
  openai: ["generate", "tools", "format", "logprobs", "embed", "images"],
  "azure-openai": ["generate", "tools", "format", "logprobs", "embed", "images"],
  anthropic: ["generate", "tools", "format", "images"],
  gemini: ["generate", "tools", "format", "embed", "images"],
  ollama: ["generate", "tools", "format", "embed", "images"],
  troupe: ["generate", "tools", "format", "logprobs", "embed", "rerank", "classify", "tokenize", "images"]
}

/** What a deployment can do before its engine has said more. */
export const configured = (options: DeploymentOptions): ReadonlyArray<Ability> => {
  const possible = options.engine === "remote" ? ofProvider[options.provider] : ofEngine[options.engine]
  const { abilities } = options
  return abilities === undefined ? possible : possible.filter((ability) => abilities.includes(ability))
}

/** Whether it can tell how many tokens a prompt has: by its tokens, or by an endpoint of the provider's. */
export const counts = (options: DeploymentOptions, abilities: ReadonlyArray<Ability>): boolean =>
  abilities.includes("tokenize") ||
  (options.engine === "remote" && options.provider === "anthropic" && abilities.includes("generate"))

/** What engines have said of deployments since the service began, by deployment. */
export class Observed {
  readonly #abilities = new Map<string, ReadonlyArray<Ability>>()
  readonly #missing = new Map<string, ReadonlySet<Ability>>()

  /** An engine was loaded; what was said of the one before no longer counts. Tells whether that changes anything. */
  loaded(deployment: string, abilities: ReadonlyArray<Ability>): boolean {
    const known = this.#abilities.get(deployment)
    const isSame = known !== undefined && known.length === abilities.length &&
      known.every((ability) => abilities.includes(ability))
    this.#abilities.set(deployment, abilities)
    return this.#missing.delete(deployment) || !isSame
  }

  /** An engine has refused a request that needs this ability. Tells whether that is new. */
  refused(deployment: string, ability: Ability): boolean {
    const known = this.#missing.get(deployment)
    if (known?.has(ability) === true) return false
    this.#missing.set(deployment, new Set([...known ?? [], ability]))
    return true
  }

  /** Of these abilities, those that the deployment's engine has confirmed, or has said nothing of. */
  narrow(deployment: string, abilities: ReadonlyArray<Ability>): ReadonlyArray<Ability> {
    const said = this.#abilities.get(deployment)
    const missing = this.#missing.get(deployment)
    return said === undefined && missing === undefined
      ? abilities
      : abilities.filter((ability) => (said?.includes(ability) ?? true) && missing?.has(ability) !== true)
  }
}
