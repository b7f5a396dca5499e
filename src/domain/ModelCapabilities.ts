/**
 * The capabilities of a local model, by the metadata of its files. Pure.
 *
 * **Details**
 *
 * The same rules hold before a load, for metadata that is read from the files, and after it, for what the engine reports. Only
 * whether a chat template shows tools is known better after the load, which renders it.
 *
 * **Gotchas**
 *
 * Engine threads import this module, so it must not import `effect`: see `EngineProtocol`.
 */
import type { EngineCapability } from "./EngineProtocol.ts"

type Capabilities = ReadonlyArray<EngineCapability>

/** The metadata of a GGUF model that its capabilities depend on. */
export interface GgufTraits {
  /** `general.architecture`, such as `llama`. */
  readonly architecture: string
  /** `<architecture>.attention.causal`; undefined: causal. */
  readonly causal: boolean | undefined
  /** `<architecture>.pooling_type`, as in llama.cpp's `llama_pooling_type`: 0 is none. Embedding models have one. */
  readonly pooling: number | undefined
  /** Whether it has the head of a reranker, whose output is a score. */
  readonly ranks: boolean
  /** Whether its chat template shows tools to the model. */
  readonly supportsTools: boolean
}

/** The tensors of a reranker's head in a GGUF file. */
export const rankingTensors: ReadonlyArray<string> = ["cls.weight", "cls.output.weight"]

/** Whether a chat template may show tools: they are a variable of this name. */
export const mentionsTools = (template: string): boolean => template.includes("tools")

const embedding: Capabilities = ["embed", "embedTokens"]

const generating = (supportsTools: boolean): Capabilities => [
  "generate",
  "complete",
  "format",
  "logprobs",
  ...(supportsTools ? ["tools" as const] : [])
]

/**
 * Of a GGUF model. An encoder, an embedding model and a reranker do not generate; a reranker has no vectors, because it pools
 * its output to a score.
 */
export const ofGguf = ({ architecture, causal, pooling, ranks, supportsTools }: GgufTraits): Capabilities => {
  const encodesAndDecodes = architecture === "t5"
  if (ranks && !encodesAndDecodes) return ["rerank", "tokenize"]
  const generates = causal !== false && architecture !== "t5encoder" && (pooling ?? 0) === 0
  return [
    ...(generates ? [...generating(supportsTools), "echo" as const] : []),
    ...(encodesAndDecodes ? [] : embedding),
    "tokenize"
  ]
}

/** The inputs and outputs of an ONNX graph. */
export interface OnnxGraph {
  readonly inputs: ReadonlyArray<string>
  readonly outputs: ReadonlyArray<string>
  /** The last dimension of the output `logits`; undefined if it is not fixed. */
  readonly logits: number | undefined
}

/** The output with a vector per text, and those with a vector per token. */
const vectorOutputs = ["sentence_embedding", "last_hidden_state", "token_embeddings"]

/** The output with vectors, if any. */
export const vectorOutputOf = (outputs: ReadonlyArray<string>): string | undefined =>
  vectorOutputs.find((name) => outputs.includes(name))

type Config = Readonly<Record<string, unknown>>

/** The model's architecture by its `config.json`; empty if unknown. */
export const architectureOf = (config: Config): string =>
  [config["architectures"], config["model_type"]].flat().find((name) => typeof name === "string") ?? ""

const labelsOf = (config: Config): number => Object.keys(config["id2label"] ?? {}).length

/** What an ONNX model computes. */
export type OnnxTask = "generate" | "embed" | "rerank" | "classify"

/** The task of a graph; the architecture distinguishes graphs with an output named `logits`. Undefined: none that Troupe runs. */
export const taskOf = ({ inputs, logits, outputs }: OnnxGraph, config: Config): OnnxTask | undefined => {
  if (inputs.some((name) => name.startsWith("past_key_values."))) return "generate"
  if (vectorOutputOf(outputs) !== undefined) return "embed"
  const architecture = architectureOf(config)
  const classifies = !architecture.includes("For") || architecture.endsWith("ForSequenceClassification")
  if (!outputs.includes("logits") || !classifies) return undefined
  // A label per logit where the files do not name them.
  return (logits ?? (labelsOf(config) || 2)) === 1 ? "rerank" : "classify"
}

/** Of an ONNX model. */
export const ofOnnx = (task: OnnxTask, supportsTools: boolean): Capabilities =>
  task === "generate"
    ? [...generating(supportsTools), "tokenize"]
    : [...(task === "embed" ? embedding : [task]), "tokenize"]

/** Files of chat templates in a model's folder. */
export const templateFiles = {
  default: "chat_template.jinja",
  toolUse: "additional_chat_templates/tool_use.jinja"
} as const

/** The source of a model's chat template, and of the one for conversations with tools. */
export interface Templates {
  readonly source: string
  readonly toolUse?: string
}

/** The chat templates in a model's folder: those of `templateFiles`, else those of `tokenizer_config.json`, where they may have names. */
export const templatesIn = (
  { default: file, toolUse }: { readonly default?: string | undefined; readonly toolUse?: string | undefined },
  tokenizerConfig: Config
): Templates => {
  const given = file ?? tokenizerConfig["chat_template"]
  const named = (wanted: string): unknown =>
    Array.isArray(given)
      ? (given as ReadonlyArray<Config>).find(({ name }) => name === wanted)?.["template"]
      : undefined
  const source = named("default") ?? given
  const forTools = toolUse ?? named("tool_use")
  return {
    source: typeof source === "string" ? source : "",
    ...(typeof forTools === "string" ? { toolUse: forTools } : {})
  }
}
