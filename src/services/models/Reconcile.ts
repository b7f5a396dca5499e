/**
 * Which deployments another configuration adds, changes and removes. Pure.
 *
 * **Details**
 *
 * A deployment that is equal stays the same object with the same id, wherever it is in the list of its model: it stays loaded,
 * and keeps its circuit, its queue and its measurements. So a new deployment at the head of the list gets a free id. After a
 * restart the ids are those of the list again.
 */
import { Equal } from "effect"
import type { Deployment, Model } from "../../domain/Deployment.ts"
import { isRemote } from "../../domain/Deployment.ts"
import { traits } from "../../domain/Fields.ts"

/** A deployment with other settings. */
export interface Changed {
  readonly before: Deployment
  readonly after: Deployment
  /** Its engine has to be another one. */
  readonly needsEngine: boolean
}

export interface Reconciled {
  /** The models of the new configuration; what is equal is the same object as before. */
  readonly models: ReadonlyArray<Model>
  readonly added: ReadonlyArray<Deployment>
  readonly changed: ReadonlyArray<Changed>
  readonly removed: ReadonlyArray<Deployment>
}

const isSame = (one: Deployment, { id: _, ...other }: Deployment): boolean => {
  const { id: __, ...own } = one
  return Equal.equals(own, other)
}

/** The options that an engine is made of: the router alone uses the others. */
const engineOptions = (options: Deployment["options"]): unknown =>
  isRemote(options)
    ? options
    : Object.fromEntries(Object.entries(options).filter(([field]) => !(field in traits)))

const needsEngine = (before: Deployment, after: Deployment): boolean =>
  !Equal.equals(engineOptions(before.options), engineOptions(after.options)) ||
  !isRemote(after.options) && !Equal.equals(before.stallAfter, after.stallAfter)

const freeId = (model: string, used: ReadonlySet<string>): string => {
  for (let index = 0;; index++) {
    const id = `${model}#${index}`
    if (!used.has(id)) return id
  }
}

/** The deployments of one model, in their order, by what they are. */
class Matching {
  readonly #before: ReadonlyArray<Deployment>
  readonly #used: Set<string>
  readonly added: Array<Deployment> = []
  readonly changed: Array<Changed> = []
  readonly deployments: ReadonlyArray<Deployment>
  readonly removed: ReadonlyArray<Deployment>

  constructor(before: ReadonlyArray<Deployment>, after: ReadonlyArray<Deployment>) {
    this.#before = before
    this.#used = new Set(before.map(({ id }) => id))
    const left = new Set(before)
    const kept = after.map((deployment) => {
      const own = [...left].find((one) => one.id === deployment.id && isSame(one, deployment)) ??
        [...left].find((one) => isSame(one, deployment))
      if (own !== undefined) left.delete(own)
      return own
    })
    this.deployments = after.map((deployment, index) => kept[index] ?? this.#place(deployment, left))
    this.removed = [...left]
  }

  /** A deployment that is not the same as before: that of its id changes, or it is new. */
  #place(deployment: Deployment, left: Set<Deployment>): Deployment {
    const before = [...left].find(({ id }) => id === deployment.id)
    if (before !== undefined) {
      left.delete(before)
      this.changed.push({ before, after: deployment, needsEngine: needsEngine(before, deployment) })
      return deployment
    }
    const id = this.#used.has(deployment.id) ? freeId(deployment.model, this.#used) : deployment.id
    const added = id === deployment.id ? deployment : { ...deployment, id }
    this.#used.add(id)
    this.added.push(added)
    return added
  }

  get isUnchanged(): boolean {
    return this.added.length + this.changed.length + this.removed.length === 0 &&
      this.deployments.every((one, index) => one === this.#before[index])
  }
}

const rest = ({ deployments: _, ...model }: Model): unknown => model

/** Compares the models that are in use with those of another configuration. */
export const reconcile = (before: ReadonlyArray<Model>, after: ReadonlyArray<Model>): Reconciled => {
  const byName = new Map(before.map((model) => [model.name, model]))
  const all = after.map((model) => {
    const old = byName.get(model.name)
    byName.delete(model.name)
    const matching = new Matching(old?.deployments ?? [], model.deployments)
    const [first, ...others] = matching.deployments
    const isSameModel = old !== undefined && matching.isUnchanged && Equal.equals(rest(old), rest(model))
    return { matching, model: isSameModel ? old : { ...model, deployments: [first!, ...others] } satisfies Model }
  })
  const gone = [...byName.values()].flatMap(({ deployments }) => deployments)
  return {
    models: all.map(({ model }) => model),
    added: all.flatMap(({ matching }) => matching.added),
    changed: all.flatMap(({ matching }) => matching.changed),
    removed: [...all.flatMap(({ matching }) => matching.removed), ...gone]
  }
}
