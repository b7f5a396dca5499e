/** The engine kind `onnx`: a folder with an ONNX model, its tokenizer and its configuration, in onnxruntime. */
import { Effect, Schema } from "effect"
import { defaultSlots } from "../../domain/Deployment.ts"
import { described, optional } from "../../domain/Fields.ts"
import * as ModelCapabilities from "../../domain/ModelCapabilities.ts"
import { contextSizeOf, ofOnnx, shapeOfConfig } from "../models/MemoryEstimate.ts"
import type { EngineKind } from "./EngineKind.ts"
import { contextSize, sharePrefixes, threadOptions, threads } from "./EngineKind.ts"
import type { FileReader } from "./ModelFiles.ts"
import { notAModel, unreadable } from "./ModelFiles.ts"

const name = "onnx"

const OnnxOptions = Schema.Struct({
  engine: Schema.Literal(name),
  folder: described(
    "The folder (config.json, tokenizer.json, onnx/model.onnx), relative to the configuration file's, or builtin:tiny-embed.",
    Schema.NonEmptyString
  ),
  model: optional("The file within onnx/, without .onnx. Default model.", Schema.NonEmptyString),
  device: optional(
    "Device that computes. cpu and wasm work on every machine. Default cpu, and wasm when onnxruntime-node is missing.",
    Schema.Literals(["cpu", "wasm", "webgpu", "cuda"])
  ),
  contextSize,
  threads,
  sharePrefixes,
  ...threadOptions
})
type OnnxOptions = typeof OnnxOptions.Type

const defaultModel = "model"

const decodeConfig = Schema.decodeEffect(Schema.fromJsonString(Schema.Record(Schema.String, Schema.Unknown)))

type Config = Readonly<Record<string, unknown>>

/** What the model can do; undefined if its files do not show it. */
const capabilitiesIn = Effect.fnUntraced(function*(folder: string, model: string, config: Config, files: FileReader) {
  const task = ModelCapabilities.taskOf(yield* files.inspectGraph(`${folder}/onnx/${model}`), config)
  if (task === undefined) return undefined
  const readTemplate = (name: string) => Effect.orElseSucceed(files.readText(`${folder}/${name}`), () => undefined)
  const templates = {
    default: yield* readTemplate(ModelCapabilities.templateFiles.default),
    toolUse: yield* readTemplate(ModelCapabilities.templateFiles.toolUse)
  }
  const tokenizer = yield* files.readText(`${folder}/tokenizer_config.json`).pipe(
    Effect.flatMap(decodeConfig),
    Effect.orElseSucceed((): Config => ({}))
  )
  const { source, toolUse = "" } = ModelCapabilities.templatesIn(templates, tokenizer)
  return ModelCapabilities.ofOnnx(task, ModelCapabilities.mentionsTools(source + toolUse))
})

const describe = Effect.fnUntraced(function*(options: OnnxOptions, files: FileReader) {
  const file = `${options.folder}/config.json`
  const text = yield* files.readText(file)
  const config = yield* decodeConfig(text).pipe(Effect.mapError(() => notAModel(file, "it is not a JSON object")))
  const folder = `${options.folder}/onnx`
  const model = `${options.model ?? defaultModel}.onnx`
  const names = yield* files.namesIn(folder)
  if (!names.includes(model)) return yield* unreadable(`${folder}/${model}`, "There is no such file")
  // Files with external data are in the model's folder and begin with its name: model.onnx_data, model.onnx.data,
  // model.onnx_data_1.
  const sizes = yield* Effect.forEach(
    names.filter((name) => name.startsWith(model)),
    (name) => files.sizeOf(`${folder}/${name}`)
  )
  const shape = shapeOfConfig(config)
  const estimate = ofOnnx(config, sizes.reduce((sum, size) => sum + size, 0), {
    ...options,
    slots: options.slots ?? defaultSlots,
    replicas: options.replicas ?? 1
  })
  // A graph that cannot be read fails where it is loaded.
  const capabilities = yield* Effect.orElseSucceed(
    capabilitiesIn(options.folder, model, config, files),
    () => undefined
  )
  return {
    ...estimate,
    capabilities,
    ...(shape.trainedWindow === undefined
      ? {}
      : { window: contextSizeOf(shape, options.contextSize), trainedWindow: shape.trainedWindow })
  }
})

export const onnx = {
  name,
  options: OnnxOptions,
  capabilities: [
    "generate",
    "complete",
    "tools",
    "format",
    "logprobs",
    "embed",
    "embedTokens",
    "rerank",
    "classify",
    "tokenize"
  ],
  path: "folder",
  format: "onnx",
  isNative: true,
  isExternal: false,
  filesIn: ({ model = defaultModel }) => ["config.json", "tokenizer.json", `onnx/${model}.onnx`],
  describe,
  spec: ({ maxReplicas: __, replicas: _, ...options }) => ({
    ...options,
    slots: options.slots ?? defaultSlots,
    model: options.model ?? defaultModel,
    threads: options.threads ?? 1
  }),
  inspection: (folder) => Effect.succeed({ engine: name, folder, model: defaultModel, slots: 1, threads: 1 })
} as const satisfies EngineKind<OnnxOptions>
