/**
 * The capabilities of a deployment: its kind has the possible ones, its configuration restricts them, and a loaded engine
 * confirms those of its model.
 */
import type { DeploymentOptions } from "./Deployment.ts"
import { isRemote } from "./Deployment.ts"
import type { EngineCapability } from "./EngineProtocol.ts"
import { providerKindOf } from "./ProviderKind.ts"

/** Whether a deployment can count the tokens of a prompt: with its tokenizer, or by an endpoint of the provider. */
export const canCount = (options: DeploymentOptions, capabilities: ReadonlyArray<EngineCapability>): boolean =>
  capabilities.includes("tokenize") ||
  (isRemote(options) && providerKindOf(options.provider).canCountTokens === true && capabilities.includes("generate"))

/** A capability that an engine may refuse although its kind has it. */
export type Capability = EngineCapability | "count"

/** The capabilities that engines confirmed or refused since the start of the service, by deployment. */
export class Observed {
  readonly #capabilities = new Map<string, ReadonlyArray<EngineCapability>>()
  /** Capabilities that were refused, and the end of each refusal, monotonic ms. */
  readonly #missing = new Map<string, Map<Capability, number>>()
  /** When the next refusal ends, monotonic ms: before that, `expire` does nothing. */
  nextEnd = Number.POSITIVE_INFINITY

  /** Forgets what another engine of the deployment could do. */
  forget(deployment: string): void {
    this.#capabilities.delete(deployment)
    this.#missing.delete(deployment)
  }

  /** Records the capabilities of a newly loaded engine, which replace earlier ones. Returns whether anything has changed. */
  loaded(deployment: string, capabilities: ReadonlyArray<EngineCapability>): boolean {
    const known = this.#capabilities.get(deployment)
    const isSame = known !== undefined && known.length === capabilities.length &&
      known.every((capability) => capabilities.includes(capability))
    this.#capabilities.set(deployment, capabilities)
    return this.#missing.delete(deployment) || !isSame
  }

  /**
   * Records that an engine refused a request that needs this capability. Returns whether that is new.
   *
   * @param until when a request may try it again, monotonic ms
   */
  refused(deployment: string, capability: Capability, until: number): boolean {
    const known = this.#missing.get(deployment) ?? new Map<Capability, number>()
    const isNew = !known.has(capability)
    this.#missing.set(deployment, known.set(capability, until))
    this.nextEnd = Math.min(this.nextEnd, until)
    return isNew
  }

  /** Removes refusals that have ended. Returns whether there were any. */
  expire(now: number): boolean {
    if (now < this.nextEnd) return false
    this.nextEnd = Number.POSITIVE_INFINITY
    let expired = false
    for (const missing of this.#missing.values()) {
      for (const [capability, until] of missing) {
        if (until > now) this.nextEnd = Math.min(this.nextEnd, until)
        else expired = missing.delete(capability)
      }
    }
    return expired
  }

  /** Whether the deployment has refused to count tokens. */
  hasRefusedCount(deployment: string): boolean {
    return this.#missing.get(deployment)?.has("count") === true
  }

  /** The capabilities without those that the deployment's engine did not confirm or has refused. */
  narrow(deployment: string, capabilities: ReadonlyArray<EngineCapability>): ReadonlyArray<EngineCapability> {
    const confirmed = this.#capabilities.get(deployment)
    const missing = this.#missing.get(deployment)
    return confirmed === undefined && missing === undefined
      ? capabilities
      : capabilities.filter((capability) =>
        (confirmed?.includes(capability) ?? true) && missing?.has(capability) !== true
      )
  }
}
