/** `troupe models`: lists the configured models and manages the models of the store. */
import { Console, Effect, Layer, Option } from "effect"
import { Argument, Command, Flag, Prompt } from "effect/cli"
import * as App from "../App.ts"
import { defaultSlots } from "../domain/Deployment.ts"
import { kindOf, pathOf } from "../services/engines/EngineKinds.ts"
import { ModelFiles } from "../services/engines/ModelFiles.ts"
import { processBytesOf } from "../services/models/LoadCandidates.ts"
import { Settings } from "../services/settings/Settings.ts"
import { architectureOf, bitsOf, numberOf, quantizationOf, textOf } from "../services/store/Gguf.ts"
import type { StoredModel } from "../services/store/ModelStore.ts"
import { ModelStore } from "../services/store/ModelStore.ts"
import { CommandFailed, config, json, loadWithoutSecrets } from "./Flags.ts"
import * as ModelUse from "./ModelUse.ts"
import { pull as pullModel } from "./NamedModels.ts"
import { asInvoked, bytesText, modelTable, printJson, table } from "./Output.ts"
import { asWritten, findShown } from "./ShownModel.ts"

const withStore = (file: Option.Option<string>) => <A, E, R>(use: Effect.Effect<A, E, R>) =>
  Effect.flatMap(
    // The settings as `troupe serve` uses them.
    loadWithoutSecrets(file, "process"),
    (settings) => Effect.provide(use, Layer.provideMerge(App.store, Layer.succeed(Settings, settings)))
  )

const stateOf = ({ inspected, quarantined }: StoredModel["manifest"]): string =>
  quarantined !== undefined ? "quarantined" : inspected !== undefined ? "yes" : "no"

/** The quantization of the file; empty if it cannot be read. */
const quantization = Effect.fnUntraced(function*(model: StoredModel) {
  if (model.manifest.kind === "onnx") return ""
  const files = yield* ModelFiles
  return yield* files.inspectFile(model.path).pipe(
    Effect.map(({ header }) => quantizationOf(header)),
    Effect.orElseSucceed(() => "")
  )
})

const describeModel = Effect.fnUntraced(function*(model: StoredModel) {
  const { kind, name, pulledAt, source } = model.manifest
  return {
    name,
    kind,
    path: model.path,
    bytes: model.bytes,
    quantization: yield* quantization(model),
    source,
    pulledAt,
    inspected: stateOf(model.manifest)
  }
})

const source = Argument.String("source").pipe(
  Argument.withDescription("hf:org/repo[:quantization][/file], https://host/model.gguf, or a local path")
)
const name = Flag.String("name").pipe(
  Flag.withDescription("Name of the model in the store (default: from the file or repository)"),
  Flag.optional
)
const sha256 = Flag.String("sha256").pipe(
  Flag.withDescription("Expected SHA-256 checksum of the file, 64 hexadecimal digits"),
  Flag.optional
)

const pull = Command.make("pull", { source, name, sha256, config, json }, (input) =>
  Effect.gen(function*() {
    const done = yield* pullModel(input.source, {
      name: Option.getOrUndefined(input.name),
      sha256: Option.getOrUndefined(input.sha256)
    })
    if (done === undefined) return
    const about = yield* describeModel(done.model)
    yield* input.json ? printJson(about) : Console.log(
      `${done.already ? "Already in the store" : "Pulled"}: ${about.name}, ${
        [about.quantization, bytesText(about.bytes)].filter((text) => text !== "").join(", ")
      }\nTry it: ${asInvoked("troupe run")} ${about.name} "Hello!"`
    )
  }).pipe(withStore(input.config))).pipe(
    Command.withDescription("Download a model into the store, verify it and test that it loads"),
    Command.withExamples([
      { command: "troupe models pull hf:org/repo:Q4_K_M", description: "Pull one quantization from Hugging Face" },
      { command: "troupe models pull ./model.gguf --name mine", description: "Add a local file under another name" }
    ])
  )

const list = Command.make("ls", { config, json }, (input) =>
  Effect.gen(function*() {
    const store = yield* ModelStore
    const models = yield* Effect.forEach(yield* store.list, describeModel)
    if (input.json) return yield* printJson(models)
    if (models.length === 0) {
      return yield* Console.log(asInvoked("No models in the store. Pull one: troupe models pull --help"))
    }
    yield* Console.log(table([
      ["NAME", "SIZE", "QUANTIZATION", "INSPECTED", "SOURCE"],
      ...models.map((model) => [
        model.name,
        bytesText(model.bytes),
        model.quantization,
        model.inspected,
        model.source
      ])
    ]))
  }).pipe(withStore(input.config))).pipe(Command.withDescription("List the models in the store"))

const nameOrPath = Argument.String("name").pipe(
  Argument.withDescription("Name of a model in the store or the configuration, or path of a GGUF file")
)

/** Properties from the header of a GGUF file. */
const headerFigures = Effect.fnUntraced(function*(path: string) {
  const { header } = yield* (yield* ModelFiles).inspectFile(path)
  const architecture = architectureOf(header)
  return {
    architecture,
    title: textOf(header, "general.name") ?? "",
    quantization: quantizationOf(header),
    bits: bitsOf(header) ?? null,
    layers: numberOf(header, `${architecture}.block_count`) ?? null,
    contextWindow: numberOf(header, `${architecture}.context_length`) ?? null,
    chatTemplate: textOf(header, "tokenizer.chat_template") ?? null
  }
})

const lines = (about: Readonly<Record<string, string | number | null>>): string =>
  table(
    Object.entries(about).flatMap(([key, value]) =>
      value === null || value === "" ? [] : [[key, String(value).trim().replaceAll("\n", "\n  ")]]
    )
  )

/** Shows a quarantined model without reading its file. */
const showQuarantined = Effect.fnUntraced(function*(model: StoredModel, asJson: boolean) {
  const about = { ...(yield* describeModel(model)), quarantined: model.manifest.quarantined?.detail ?? "" }
  yield* asJson ? printJson(about) : Console.log(lines(about))
})

const show = Command.make("show", { nameOrPath, config, json }, (input) =>
  Effect.gen(function*() {
    const shown = yield* findShown(input.nameOrPath)
    const { options, stored } = shown
    if (stored?.manifest.quarantined !== undefined) return yield* showQuarantined(stored, input.json)
    const path = pathOf(options)!
    const described = yield* (yield* ModelFiles).describe(options)
    const { computeBytes, kvCacheBytes, weightsBytes } = described
    const processBytes = processBytesOf(options, (yield* Settings).engineHost)
    const totalBytes = described.totalBytes + processBytes
    const memory = { weightsBytes, kvCacheBytes, computeBytes, processBytes, totalBytes }
    const availableBytes = process.availableMemory()
    const about = {
      ...(stored === undefined
        ? { path }
        : yield* describeModel(stored)),
      ...(kindOf(options).format === "gguf" ? yield* headerFigures(path) : {})
    }
    const fits = memory.totalBytes <= availableBytes
    if (input.json) return yield* printJson({ ...about, memory, availableBytes, fits })
    const { chatTemplate, ...figures } = { chatTemplate: null, ...about }
    yield* Console.log(lines({
      ...figures,
      memory: `about ${bytesText(memory.totalBytes)} with ${options.slots ?? defaultSlots} slots: ` +
        `${fits ? "fits" : "does not fit"} the ${bytesText(availableBytes)} available on this machine now`
    }))
    yield* Console.log(`\nIn troupe.yaml:\n\n${asWritten(shown)}`)
    if (chatTemplate !== null) yield* Console.log(`\nchatTemplate\n${chatTemplate}`)
  }).pipe(withStore(input.config))).pipe(
    Command.withDescription("Show the details of a model, the memory it needs and its entry for troupe.yaml")
  )

const yes = Flag.Boolean("yes").pipe(
  Flag.withDescription("Remove without confirmation; implied when there is no terminal"),
  Flag.withDefault(false)
)

/** The model of this name; if a confirmation follows, also the only one that begins with it. */
const namedInStore = Effect.fnUntraced(function*(wanted: string, isAsked: boolean) {
  const store = yield* ModelStore
  const names = (yield* store.list).map(({ manifest }) => manifest.name)
  if (names.includes(wanted)) return wanted
  const [first, ...others] = names.filter((name) => name.startsWith(wanted))
  if (first === undefined || !isAsked) return wanted
  return others.length === 0 ? first : yield* new CommandFailed({
    message: `"${wanted}" is ambiguous: ${[first, ...others].join(", ")}. Use the full name.`
  })
})

const storedName = Argument.String("name").pipe(Argument.withDescription("Name of a model in the store"))

const force = Flag.Boolean("force").pipe(
  Flag.withDescription("Remove it also where a configuration or a running service uses it"),
  Flag.withDefault(false)
)

/** Fails where something uses the model. */
const checkUnused = Effect.fnUntraced(function*(name: string, file: Option.Option<string>) {
  const found = yield* Effect.option((yield* ModelStore).get(name))
  const uses = Option.isNone(found) ? [] : yield* ModelUse.usesOf(found.value, file)
  if (uses.length === 0) return
  return yield* new CommandFailed({
    message: `${name} is used by ${uses.join(" and by ")}. Remove it anyway with --force.`
  })
})

const remove = Command.make("rm", { name: storedName, yes, force, config }, (input) =>
  Effect.gen(function*() {
    const store = yield* ModelStore
    const isAsked = process.stdin.isTTY && !input.yes
    const name = yield* namedInStore(input.name, isAsked)
    if (!input.force) yield* checkUnused(name, input.config)
    if (isAsked && !(yield* Prompt.run(Prompt.Confirm({ message: `Remove ${name} from the store?` })))) return
    yield* store.remove(name)
    yield* Console.log(`Removed ${name}.`)
  }).pipe(withStore(input.config))).pipe(
    Command.withDescription("Remove a model from the store")
  )

/** Lists the configured models; the subcommands manage the store. */
export const models = Command.make("models", { config, json }, ({ config, json }) =>
  Effect.gen(function*() {
    const settings = yield* loadWithoutSecrets(config)
    if (json) {
      return yield* printJson(settings.models.map(({ deployments, name }) => ({
        name,
        deployments: deployments.map(({ id, options }) => ({ id, ...options }))
      })))
    }
    yield* Console.log(modelTable(settings))
  })).pipe(
    Command.withDescription("List the configured models, or manage the models in the store"),
    Command.withSubcommands([pull, list, show, remove])
  )
