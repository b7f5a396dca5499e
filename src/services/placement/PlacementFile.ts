/**
 * The file of `troupe placement plan`: nodes and models, in the units of `troupe.yaml`.
 *
 * **Details**
 *
 * A name of a model that a node has and the list of models does not is an error here, because it may be a misspelling:
 * `replicas: 0` unloads a model.
 */
import { Duration, Result, Schema } from "effect"
import { Bytes, described, optional, Span } from "../../domain/Fields.ts"
import { didYouMean } from "../../domain/NearestName.ts"
import * as Problem from "../../domain/Problem.ts"
import type { Input } from "./Placement.ts"
import { defaults } from "./Placement.ts"

const Share = Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 1 }))
const Device = Schema.Literals(["cpu", "gpu"])

const Loaded = Schema.Union([
  Schema.NonEmptyString,
  Schema.Struct({
    model: described("Name of the model.", Schema.NonEmptyString),
    device: optional("Default gpu if the model fits there, else cpu.", Device)
  })
]).annotate({ expected: "the name of a model, or { model: name, device: gpu }" })

const Node = Schema.Struct({
  name: described("Name of the node.", Schema.NonEmptyString),
  memory: optional("Memory for models. Default none.", Bytes),
  gpuMemory: optional("Memory of its GPUs for models. Default none.", Bytes),
  load: optional("Share of the time that something else keeps it busy. Default 0.", Share),
  models: optional("Models that it has loaded. Default none.", Schema.Array(Loaded)),
  files: optional("Further models whose files it has. Default none.", Schema.Array(Schema.NonEmptyString)),
  reads: optional("Rate at which it reads files that it has, a second. Default 1 GiB.", Bytes),
  downloads: optional("Rate at which it fetches others, a second. Default 100 MiB.", Bytes),
  lost: optional("Whether it does not answer. Default false.", Schema.Boolean)
})

const Model = Schema.Struct({
  name: described("Name of the model.", Schema.NonEmptyString),
  memory: described("Memory of a replica.", Bytes),
  file: optional("Size of its file. Default memory.", Bytes),
  replicas: optional("Replicas, 0 to unload it. Default 1.", Problem.wholeNumber(0)),
  device: optional("The only device that it may run on. Default any.", Device),
  load: optional("Share of the time that a replica keeps its place busy. Default 0.", Share),
  cpuLoad: optional("The same without a GPU. Default load.", Share)
})

/** The schema of the file. */
export const PlacementFile = Schema.Struct({
  nodes: described("The machines.", Schema.NonEmptyArray(Node)),
  models: described("The models that they run together.", Schema.Array(Model)),
  horizon: optional("For how long loads are expected to stay as they are. Default 1 hour.", Span),
  margin: optional(
    "How many times its cost a move has to save. Default 1.2.",
    Schema.Finite.check(Schema.isGreaterThanOrEqualTo(1))
  ),
  cold: optional("What the cold caches of a replica cost that has just been loaded. Default 30 seconds.", Span)
})
type PlacementFile = typeof PlacementFile.Type

const decode = Schema.decodeUnknownResult(PlacementFile, { errors: "all", onExcessProperty: "error" })

const repeated = (list: "models" | "nodes", named: ReadonlyArray<{ readonly name: string }>) =>
  named.flatMap(({ name }, index): ReadonlyArray<Problem.Problem> => {
    const first = named.findIndex((one) => one.name === name)
    return first === index
      ? []
      : [{ path: `${list}[${index}].name`, expected: `Expected another name: ${list}[${first}] has it` }]
  })

const unknownName = (name: string, names: ReadonlyArray<string>): string => {
  const meant = didYouMean(name, names)
  return `Expected a name in models: ${names.join(", ") || "there is none"}${meant === "" ? "" : `.${meant}`}`
}

const unknown = ({ models, nodes }: PlacementFile): ReadonlyArray<Problem.Problem> => {
  const names = models.map(({ name }) => name)
  const check = (path: string, name: string) =>
    names.includes(name)
      ? []
      : [{ path, expected: unknownName(name, names) }]
  return nodes.flatMap(({ files = [], models = [] }, node) => [
    ...models.flatMap((one, index) =>
      typeof one === "string"
        ? check(`nodes[${node}].models[${index}]`, one)
        : check(`nodes[${node}].models[${index}].model`, one.model)
    ),
    ...files.flatMap((one, index) => check(`nodes[${node}].files[${index}]`, one))
  ])
}

const inputOf = ({ cold, horizon, margin = defaults.margin, models, nodes }: PlacementFile): Input => ({
  models,
  nodes: nodes.map(({ lost: isLost, models = [], ...node }) => ({
    ...node,
    isLost,
    models: models.map((one) => typeof one === "string" ? { model: one } : one)
  })),
  margin,
  horizonMs: horizon === undefined ? defaults.horizonMs : Duration.toMillis(horizon),
  coldMs: cold === undefined ? defaults.coldMs : Duration.toMillis(cold)
})

/** The nodes and models of a file's content, or every problem of it. */
export const read = (content: unknown): Result.Result<Input, ReadonlyArray<Problem.Problem>> => {
  const decoded = decode(content)
  if (Result.isFailure(decoded)) return Result.fail(Problem.fromSchemaError(decoded.failure))
  const file = decoded.success
  const problems = [...repeated("nodes", file.nodes), ...repeated("models", file.models), ...unknown(file)]
  return problems.length > 0 ? Result.fail(problems) : Result.succeed(inputOf(file))
}
