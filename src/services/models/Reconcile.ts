/**
 * Which deployments another configuration adds, changes and removes. Pure.
 *
 * **Details**
 *
 * A deployment that is equal stays the same object with the same id, wherever it is in the list of its model: it stays loaded,
 * and keeps its circuit, its queue and its measurements. One that serves the same with other traits, such as another weight or
 * no `rollout: candidate`, keeps its id, too. So a new deployment at the head of the list gets a free id. After a restart the
 * ids are those of the list again; a process that starts again in a running service gets the ids in use (`Numbering`).
 */
import { Equal } from "effect"
import type { Deployment, Model } from "../../domain/Deployment.ts"
import { isRemote } from "../../domain/Deployment.ts"
import { traits } from "../../domain/Fields.ts"
import { optionsText } from "../rollout/KnownDeployment.ts"
import { listedId } from "./Numbering.ts"

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
    : Object.fromEntries(Object.entries(options).filter(([field]) => !(field in traits) && field !== "maxReplicas"))

const needsEngine = (before: Deployment, after: Deployment): boolean =>
  !Equal.equals(engineOptions(before.options), engineOptions(after.options)) ||
  !isRemote(after.options) && !Equal.equals(before.stallAfter, after.stallAfter)

const servesSame = (one: Deployment, other: Deployment): boolean => optionsText(one) === optionsText(other)

type Rule = (before: Deployment, after: Deployment) => boolean

/** How a deployment is recognized, the surest way first. */
const rules: ReadonlyArray<Rule> = [
  (before, after) => before.id === after.id && isSame(before, after),
  isSame,
  (before, after) => before.id === after.id && servesSame(before, after),
  servesSame
]

/** Of deployments that have their ids already. */
const byId: ReadonlyArray<Rule> = [(before, after) => before.id === after.id]

const freeId = (model: string, used: ReadonlySet<string>): string => {
  for (let index = 0;; index++) {
    const id = listedId(model, index)
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

  constructor(before: ReadonlyArray<Deployment>, after: ReadonlyArray<Deployment>, rules: ReadonlyArray<Rule>) {
    this.#before = before
    this.#used = new Set(before.map(({ id }) => id))
    const left = new Set(before)
    const found = new Map<Deployment, Deployment>()
    for (const rule of rules) {
      for (const deployment of after) {
        const own = found.has(deployment) ? undefined : [...left].find((one) => rule(one, deployment))
        if (own === undefined) continue
        found.set(deployment, own)
        left.delete(own)
      }
    }
    this.deployments = after.map((deployment) => this.#place(deployment, found.get(deployment), left))
    this.removed = [...left]
  }

  /** The deployment as it is from now on: the same object, a changed one, or a new one. */
  #place(deployment: Deployment, own: Deployment | undefined, left: Set<Deployment>): Deployment {
    if (own !== undefined && isSame(own, deployment)) return own
    const before = own ?? [...left].find(({ id }) => id === deployment.id)
    if (before !== undefined) {
      left.delete(before)
      const after = before.id === deployment.id ? deployment : { ...deployment, id: before.id }
      this.changed.push({ before, after, needsEngine: needsEngine(before, after) })
      return after
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

const reconcileBy = (
  rules: ReadonlyArray<Rule>,
  before: ReadonlyArray<Model>,
  after: ReadonlyArray<Model>
): Reconciled => {
  const byName = new Map(before.map((model) => [model.name, model]))
  const all = after.map((model) => {
    const old = byName.get(model.name)
    byName.delete(model.name)
    const matching = new Matching(old?.deployments ?? [], model.deployments, rules)
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

/** Compares the models that are in use with those of another configuration, whose ids are those of its lists. */
export const reconcile = (before: ReadonlyArray<Model>, after: ReadonlyArray<Model>): Reconciled =>
  reconcileBy(rules, before, after)

/** Compares the models that are in use with others whose deployments have their ids already. */
export const reconcileNumbered = (before: ReadonlyArray<Model>, after: ReadonlyArray<Model>): Reconciled =>
  reconcileBy(byId, before, after)
