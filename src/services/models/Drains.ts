/**
 * The deployments that an operator has drained: the router gives them no new requests until they are resumed, or until the
 * service restarts.
 *
 * **Details**
 *
 * Requests that were routed before, those that wait for a slot included, are answered. A local engine is unloaded after the last
 * of them. A remote deployment has nothing to unload.
 */
import { Duration } from "effect"
import type { Deployment } from "../../domain/Deployment.ts"
import { isRemote } from "../../domain/Deployment.ts"
import type { Drain, Status } from "./Actor.ts"

/** It is unloaded as soon as it is unused, and again after a late caller. */
export const endingOf = (deployment: Deployment): Deployment => ({
  ...deployment,
  pinned: false,
  idleUnload: Duration.zero
})

/** How far the drain of a deployment is. */
export const progressOf = (
  { options }: Pick<Deployment, "options">,
  { queued, running, state }: Pick<Status, "queued" | "running" | "state">
): Drain =>
  running + queued === 0 && (isRemote(options) || state === "cold" || state === "failed") ? "drained" : "draining"

/** The drained deployments of one process. */
export class Drains {
  /** The deployments as they were, by id. */
  readonly #before = new Map<string, Deployment>()
  /** Applies another configuration of a deployment. */
  readonly #renew: (deployment: Deployment) => void

  /** Those that are drained, by id. */
  readonly all: ReadonlyMap<string, Deployment> = this.#before

  constructor(renew: (deployment: Deployment) => void) {
    this.#renew = renew
  }

  has(id: string): boolean {
    return this.#before.size > 0 && this.#before.has(id)
  }

  /** @param current as it is configured now */
  drain(current: Deployment): void {
    if (this.#before.has(current.id)) return
    this.#before.set(current.id, current)
    if (!isRemote(current.options)) this.#renew(endingOf(current))
  }

  /**
   * Undoes `drain`; a deployment that is not drained stays as it is.
   *
   * @param configured as it is configured now; an operator may have pinned it
   */
  resume(configured: Deployment): void {
    const before = this.#before.get(configured.id)
    if (before === undefined) return
    this.#before.delete(configured.id)
    if (!isRemote(configured.options)) this.#renew({ ...configured, pinned: before.pinned })
  }

  /** Another configuration of a deployment: the one that applies now. */
  renewed(next: Deployment): Deployment {
    if (!this.has(next.id)) return next
    this.#before.set(next.id, next)
    return isRemote(next.options) ? next : endingOf(next)
  }

  /** The deployment no longer exists. */
  forget(id: string): void {
    this.#before.delete(id)
  }
}
