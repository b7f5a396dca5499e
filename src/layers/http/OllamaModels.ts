/**
 * The models as Ollama's API lists, shows and counts them: what their files say, and which are loaded.
 *
 * **Details**
 *
 * A model is described by its first deployment. What is configured of a provider is not shown.
 */
import { Clock, DateTime, Duration, Effect, Option, Result } from "effect"
import { createHash } from "node:crypto"
import type { Details, ListedModel, RunningModel, ShownModel } from "../../dialects/ollama/Schema.ts"
import type { Deployment, Model } from "../../domain/Deployment.ts"
import { isRemote } from "../../domain/Deployment.ts"
import type { EngineCapability } from "../../domain/EngineProtocol.ts"
import { kindOf, pathOf, sourceOf, withPath } from "../../services/engines/EngineKinds.ts"
import type { GgufFile } from "../../services/engines/ModelFiles.ts"
import { ModelFiles } from "../../services/engines/ModelFiles.ts"
import { Models } from "../../services/models/Models.ts"
import { Registry } from "../../services/models/Registry.ts"
import { Router } from "../../services/routing/Router.ts"
import type { Header } from "../../services/store/Gguf.ts"
import { architectureOf, quantizationOf, textOf } from "../../services/store/Gguf.ts"

/** The tag that a name has without one. */
const latest = ":latest"

/** A model's name as Ollama's clients write names: with a tag. */
export const taggedName = (name: string): string =>
  name.slice(name.lastIndexOf("/") + 1).includes(":") ? name : name + latest

/** The registry's name of the model that a client names; the name itself if there is none. */
export const nameIn = (registry: Registry["Service"], name: string): string => {
  const has = (one: string) => Result.isSuccess(registry.find(one))
  const plain = name.endsWith(latest) ? name.slice(0, -latest.length) : name + latest
  return !has(name) && has(plain) ? plain : name
}

const units: ReadonlyArray<readonly [size: number, unit: string]> = [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "K"]]

/** A number of parameters, as `8.0B`. */
const parametersText = ({ tensors }: Header): string => {
  const count = tensors.reduce((sum, { dimensions }) => sum + dimensions.reduce((product, one) => product * one, 1), 0)
  const [size, unit] = units.find(([size]) => count >= size) ?? [1, ""]
  return `${(count / size).toFixed(1)}${unit}`
}

/** What is known of a model without loading it. */
interface Described {
  readonly deployment: Deployment
  readonly file: GgufFile | undefined
  readonly details: Details
}

const familyOf = ({ options }: Deployment, file: GgufFile | undefined): string => {
  if (isRemote(options)) return "remote"
  return file === undefined ? options.engine : architectureOf(file.header)
}

const formatOf = ({ options }: Deployment): string => isRemote(options) ? "" : kindOf(options).format ?? options.engine

const detailsOf = (deployment: Deployment, file: GgufFile | undefined): Details => {
  const family = familyOf(deployment, file)
  return {
    parent_model: "",
    format: formatOf(deployment),
    family,
    families: [family],
    parameter_size: file === undefined ? "" : parametersText(file.header),
    quantization_level: file === undefined ? "" : quantizationOf(file.header)
  }
}

const digestOf = ({ deployments, name }: Model, file: GgufFile | undefined): string =>
  createHash("sha256").update(JSON.stringify([
    name,
    deployments.map(({ id, options }) => [id, sourceOf(options)]),
    file?.bytes,
    file?.changedAt
  ])).digest("hex")

const timeText = (ms: number): string => DateTime.formatIso(DateTime.makeUnsafe(ms))

/** Longer than any model stays loaded, ms: a date that all clients can read. */
const forEverMs = Duration.toMillis(Duration.days(36_500))

const expiryOf = ({ idleUnload, pinned }: Deployment, now: number): string =>
  timeText(now + (pinned ? forEverMs : Math.min(forEverMs, Duration.toMillis(idleUnload))))

const names: ReadonlyArray<readonly [capability: EngineCapability, name: string]> = [
  ["generate", "completion"],
  ["tools", "tools"],
  ["images", "vision"]
]

const templateOf = ({ header }: GgufFile): string => textOf(header, "tokenizer.chat_template") ?? ""

const capabilityNames = (
  { options }: Deployment,
  capabilities: ReadonlyArray<EngineCapability>
): ReadonlyArray<string> => {
  const found = names.filter(([capability]) => capabilities.includes(capability))
  const embeds = capabilities.includes("embed") &&
    (options.abilities !== undefined || !capabilities.includes("generate"))
  return [...found.map(([, name]) => name), ...(embeds ? ["embedding"] : [])]
}

/** The metadata of a file without the lists of its tokenizer; of other models, their context window. */
const infoOf = (
  { deployment: { options }, details: { family }, file }: Described
): Readonly<Record<string, unknown>> => {
  if (file !== undefined) {
    const isShown = ([key, value]: readonly [string, unknown]): boolean =>
      typeof value !== "object" && key !== "tokenizer.chat_template"
    return Object.fromEntries([...file.header.metadata].filter(isShown))
  }
  const { contextSize } = options
  return {
    "general.architecture": family,
    ...(contextSize === undefined ? {} : { [`${family}.context_length`]: contextSize })
  }
}

const modelBase = (model: Model, { details, file }: Described, size: number) => ({
  name: taggedName(model.name),
  model: taggedName(model.name),
  size,
  digest: digestOf(model, file),
  details
})

type IsAllowed = (name: string) => boolean

interface Services {
  readonly registry: Registry["Service"]
  readonly models: Models["Service"]
  readonly router: Router["Service"]
  /** Undefined: no file is read. */
  readonly files: ModelFiles["Service"] | undefined
  /** Of the service, ms since 1970. */
  readonly startedAt: number
}

/** Lists and describes the models. */
export class OllamaModels {
  readonly #services: Services

  constructor(services: Services) {
    this.#services = services
  }

  /** All models that are allowed. */
  list(isAllowed: IsAllowed): Effect.Effect<ReadonlyArray<ListedModel>> {
    return Effect.forEach(this.#models(isAllowed), (model) =>
      Effect.map(this.#describe(model), (described) => ({
        ...modelBase(model, described, described.file?.bytes ?? 0),
        modified_at: this.#modifiedAt(described)
      })))
  }

  /** The models on this machine that are loaded. */
  running(isAllowed: IsAllowed): Effect.Effect<ReadonlyArray<RunningModel>> {
    const each = Effect.forEach(this.#models(isAllowed), (model) => this.#running(model))
    return Effect.map(each, (found) => found.flat())
  }

  show(model: Model): Effect.Effect<ShownModel> {
    const { facts } = this.#services.router
    return Effect.map(this.#describe(model), (described) => ({
      modelfile: "",
      parameters: "",
      template: described.file === undefined ? "" : templateOf(described.file),
      details: described.details,
      model_info: infoOf(described),
      capabilities: capabilityNames(model.deployments[0], facts(model)[0]?.capabilities ?? []),
      modified_at: this.#modifiedAt(described)
    }))
  }

  #models(isAllowed: IsAllowed): ReadonlyArray<Model> {
    return this.#services.registry.models().filter(({ name }) => isAllowed(name))
  }

  #modifiedAt({ file }: Described): string {
    return timeText(file?.changedAt ?? this.#services.startedAt)
  }

  #fileOf({ options }: Deployment): Effect.Effect<GgufFile | undefined> {
    const { files } = this.#services
    const path = isRemote(options) || kindOf(options).format !== "gguf" ? undefined : pathOf(options)
    // A file that cannot be read fails where it is loaded.
    return path === undefined || files === undefined
      ? Effect.undefined
      : Effect.orElseSucceed(files.inspectFile(path), () => undefined)
  }

  #describe({ deployments: [deployment] }: Model): Effect.Effect<Described> {
    return this.#describeOne(deployment)
  }

  #describeOne(deployment: Deployment): Effect.Effect<Described> {
    return Effect.map(this.#fileOf(deployment), (file) => ({ deployment, file, details: detailsOf(deployment, file) }))
  }

  #running(model: Model): Effect.Effect<ReadonlyArray<RunningModel>> {
    const local = model.deployments.filter(({ options }) => !isRemote(options))
    return Effect.gen({ self: this }, function*() {
      const statuses = yield* Effect.forEach(local, this.#services.models.status)
      const index = statuses.findIndex(({ state }) => state === "ready")
      const [deployment, status] = [local[index], statuses[index]]
      if (deployment === undefined || status === undefined) return []
      const { options } = deployment
      const { contextSize } = options
      const { variant } = status
      const loaded = variant === undefined ? deployment : { ...deployment, options: withPath(options, variant) }
      return [{
        ...modelBase(model, yield* this.#describeOne(loaded), status.memoryBytes),
        expires_at: expiryOf(deployment, yield* Clock.currentTimeMillis),
        size_vram: 0,
        ...(contextSize === undefined ? {} : { context_length: contextSize })
      }]
    })
  }
}

export const make = Effect.gen(function*() {
  return new OllamaModels({
    registry: yield* Registry,
    models: yield* Models,
    router: yield* Router,
    files: Option.getOrUndefined(yield* Effect.serviceOption(ModelFiles)),
    startedAt: yield* Clock.currentTimeMillis
  })
})
