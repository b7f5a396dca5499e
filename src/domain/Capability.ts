/**
 * What a deployment can do: its kind says what is possible, its configuration narrows that, and an engine that was loaded
 * says what its model has. Pure.
 */
import type { DeploymentOptions } from "./Deployment.ts"
import { isRemote } from "./Deployment.ts"
import type { Ability } from "./EngineProtocol.ts"
import { providerKindOf } from "./ProviderKind.ts"

/** Whether it can tell how many tokens a prompt has: by its tokens, or by an endpoint of the provider's. */
export const counts = (options: DeploymentOptions, abilities: ReadonlyArray<Ability>): boolean =>
  abilities.includes("tokenize") ||
  (isRemote(options) && providerKindOf(options.provider).counts === true && abilities.includes("generate"))

/** What can be found missing: an ability, or token counting. */
export type Capability = Ability | "count"

/** What engines have said of deployments since the service began, by deployment. */
export class Observed {
  readonly #abilities = new Map<string, ReadonlyArray<Ability>>()
  /** Capabilities that were refused, and until when each is held to be missing, monotonic ms. */
  readonly #missing = new Map<string, Map<Capability, number>>()
  /** When the next refusal ends, monotonic ms: `expire` has nothing to do before. */
  nextEnd = Number.POSITIVE_INFINITY

  /** An engine was loaded; what was said of the one before no longer counts. Tells whether that changes anything. */
  loaded(deployment: string, abilities: ReadonlyArray<Ability>): boolean {
    const known = this.#abilities.get(deployment)
    const isSame = known !== undefined && known.length === abilities.length &&
      known.every((ability) => abilities.includes(ability))
    this.#abilities.set(deployment, abilities)
    return this.#missing.delete(deployment) || !isSame
  }

  /**
   * An engine has refused a request that needs this capability. Returns whether that is new.
   *
   * @param until when it may be asked again, monotonic ms
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

  /** Whether its engine, as loaded now, has refused to count tokens. */
  lacksCount(deployment: string): boolean {
    return this.#missing.get(deployment)?.has("count") === true
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
