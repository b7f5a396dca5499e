/**
 * Models by a wildcard: `openai/*` serves `openai/gpt-x` with the deployment's `model`, in which `gpt-x` takes the place of
 * `*`.
 *
 * **Details**
 *
 * Each name that is requested becomes a model with deployments of its own, as `openai/gpt-x#0`: with its own circuit, queue,
 * measurements and published price. Of several wildcards the one with the longest prefix serves a name, and a model that is
 * configured by its name comes before all of them.
 *
 * **Gotchas**
 *
 * The provider is not asked which models it has: a name that it does not know fails there. A model that is called stays as
 * long as the process, with what is measured of it, so that wildcards have a limit of names. A name that is only looked up does
 * not count.
 */
import type { Deployment, Model } from "../../domain/Deployment.ts"
import { isRemote } from "../../domain/Deployment.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import { InvalidRequest, make } from "../../domain/InferenceError.ts"

/** The most names of all wildcards together that are called, and of those that are only looked up. */
export const mostNames = 500

/** Names of each wildcard that have series of metrics of their own: those that are called first. */
export const mostLabels = 20

/** Characters of a name that a wildcard serves. */
export const longestName = 256

/** A name with such a part could leave the path of a provider's URL. */
const climbs = /(?:^|\/)\.{1,2}(?:\/|$)/

/** Whether a model is a wildcard. */
export const isWildcard = (name: string): boolean => name.endsWith("*")

const prefixOf = ({ name }: Pick<Model, "name">): string => name.slice(0, -1)

/** Wildcards in the order in which they are tried: the longest prefix first. */
export const wildcardsIn = (models: ReadonlyArray<Model>): ReadonlyArray<Model> =>
  models.filter(({ name }) => isWildcard(name)).toSorted((one, other) => other.name.length - one.name.length)

/** The wildcard that serves a name, which no model has. */
export const wildcardFor = <M extends Pick<Model, "name">>(wildcards: ReadonlyArray<M>, name: string): M | undefined =>
  wildcards.find((one) => name.length >= one.name.length && name.startsWith(prefixOf(one)))

const deploymentOf = (
  name: string,
  rest: string,
  { options, ...deployment }: Deployment,
  index: number
): Deployment => ({
  ...deployment,
  id: `${name}#${index}`,
  model: name,
  options: isRemote(options) ? { ...options, model: options.model.replace("*", () => rest) } : options
})

const modelOf = (wildcard: Model, name: string): Model => {
  const rest = name.slice(prefixOf(wildcard).length)
  const [first, ...others] = wildcard.deployments
  return {
    ...wildcard,
    name,
    deployments: [
      deploymentOf(name, rest, first, 0),
      ...others.map((one, index) => deploymentOf(name, rest, one, index + 1))
    ]
  }
}

const full = make(
  new InvalidRequest({
    path: "model",
    detail: `The wildcards of this service serve ${mostNames} different names, and have served as many. ` +
      "Configure the model by its name, or restart the service."
  })
)

/** What to write in place of a wildcard: a part of two sentences. */
export const nameInstead = (wildcard: string): string =>
  `\`${wildcard}\` stands for many models: write the name of one in place of \`*\``

const unspecific = (name: string) => make(new InvalidRequest({ path: "model", detail: `${nameInstead(name)}.` }))

/** The models that wildcards serve. */
export class Wildcards {
  readonly #wildcards: ReadonlyArray<Model>
  readonly #called = new Map<string, Model>()
  /** Those of the called names that are labels of metrics, and how many each wildcard has. */
  readonly #labels = new Set<string>()
  readonly #labelsOf = new Map<string, number>()
  /** Looked up only; the oldest is made again. */
  readonly #seen = new Map<string, Model>()

  constructor(models: ReadonlyArray<Model>) {
    this.#wildcards = wildcardsIn(models)
  }

  /** Whether these models have the same wildcards: the called names stay then. */
  isOf(models: ReadonlyArray<Model>): boolean {
    const own = new Set(this.#wildcards)
    const given = models.filter(({ name }) => isWildcard(name))
    return given.length === own.size && given.every((model) => own.has(model))
  }

  get isEmpty(): boolean {
    return this.#wildcards.length === 0
  }

  /** The wildcard that serves a name; undefined if none does. */
  of(name: string): Model | undefined {
    return wildcardFor(this.#wildcards, name)
  }

  /** Whether metrics have series of a name that a wildcard serves, or else one series for the wildcard. */
  isLabel(name: string): boolean {
    return this.#labels.has(name)
  }

  /** The model of a name; undefined if no wildcard serves it. */
  find(name: string): Model | undefined {
    const known = this.#called.get(name) ?? this.#seen.get(name)
    if (known !== undefined) return known
    if (name.length > longestName || climbs.test(name)) return undefined
    const wildcard = wildcardFor(this.#wildcards, name)
    if (wildcard === undefined) return undefined
    const model = modelOf(wildcard, name)
    for (const oldest of this.#seen.keys()) {
      if (this.#seen.size < mostNames) break
      this.#seen.delete(oldest)
    }
    this.#seen.set(name, model)
    return model
  }

  /** Counts a name that is called; why it cannot be, or undefined. */
  call(name: string): InferenceError | undefined {
    if (this.#called.has(name)) return undefined
    if (name.includes("*")) return unspecific(name)
    const model = this.find(name)
    if (model === undefined) return undefined
    if (this.#called.size >= mostNames) return full
    this.#seen.delete(name)
    this.#called.set(name, model)
    this.#addLabel(name)
    return undefined
  }

  #addLabel(name: string): void {
    const wildcard = this.of(name)?.name
    if (wildcard === undefined) return
    const count = this.#labelsOf.get(wildcard) ?? 0
    if (count >= mostLabels) return
    this.#labelsOf.set(wildcard, count + 1)
    this.#labels.add(name)
  }
}
