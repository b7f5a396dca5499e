/** Loads a model folder in the layout that transformers.js reads, with failures that say what was wrong with which file. */
import { readFile } from "node:fs/promises"
import { basename, join } from "node:path"
import type { Ability, EngineDescription, OnnxSpec } from "../services/EngineProtocol.ts"
import { failureFrom, refuse } from "../services/Job.ts"
import type { ChatTemplate } from "./ChatTemplate.ts"
import { makeChatTemplate } from "./ChatTemplate.ts"
import type { Decoder } from "./OnnxDecoder.ts"
import { makeDecoder } from "./OnnxDecoder.ts"
import type { Encoder, Pooling } from "./OnnxEncoder.ts"
import { checkEncoder, makeEncoder, vectorOutputOf } from "./OnnxEncoder.ts"
import type { Session } from "./OnnxRuntime.ts"
import { importRuntime, openSession } from "./OnnxRuntime.ts"
import type { OnnxTokenizer, TokenizerFile } from "./OnnxTokenizer.ts"
import { makeTokenizer } from "./OnnxTokenizer.ts"

/** A JSON file's object. */
type Fields = Readonly<Record<string, unknown>>

/** Tokens a slot gets when nobody says how many, since a model's own window may need more memory than there is. */
const largestDefaultWindow = 4096

const readText = (file: string): Promise<string | undefined> =>
  readFile(file, "utf8").catch((cause: NodeJS.ErrnoException) =>
    cause.code === "ENOENT" ? undefined : refuse({ kind: "load_failed", message: `${file}: ${cause.message}` })
  )

/** A JSON file's value; undefined where there is no file. */
const readJson = async (file: string): Promise<unknown> => {
  const text = await readText(file)
  if (text === undefined) return undefined
  try {
    return JSON.parse(text)
  } catch (cause) {
    return refuse({ kind: "load_failed", message: `${file} is not JSON: ${(cause as Error).message}` })
  }
}

const readFields = async (file: string): Promise<Fields | undefined> => {
  const value = await readJson(file)
  return value === undefined || (typeof value === "object" && value !== null && !Array.isArray(value))
    ? value as Fields | undefined
    : refuse({ kind: "load_failed", message: `${file} holds no JSON object` })
}

const required = async (file: string): Promise<Fields> =>
  await readFields(file) ?? refuse({ kind: "load_failed", message: `There is no readable file at ${file}` })

const numberOf = (fields: Fields, ...names: ReadonlyArray<string>): number | undefined =>
  names.map((name) => fields[name]).find((value) => typeof value === "number")

/** A token's text, which some files wrap in an object. */
const tokenOf = (value: unknown): string | undefined =>
  typeof value === "string" ? value : typeof value === "object" && value !== null && "content" in value
    ? String(value.content)
    : undefined

const readFolder = async (folder: string) => ({
  config: await required(join(folder, "config.json")),
  tokenizer: await required(join(folder, "tokenizer.json")),
  tokenizerConfig: await readFields(join(folder, "tokenizer_config.json")) ?? {},
  generation: await readFields(join(folder, "generation_config.json")) ?? {},
  template: await readText(join(folder, "chat_template.jinja")),
  pooling: await readFields(join(folder, "1_Pooling", "config.json")) ?? {}
})

type Folder = Awaited<ReturnType<typeof readFolder>>

const loadTokenizer = async (folder: string, { tokenizer, tokenizerConfig }: Folder): Promise<OnnxTokenizer> => {
  const { Tokenizer } = await import("@huggingface/tokenizers").catch((cause: NodeJS.ErrnoException) =>
    cause.code === "ERR_MODULE_NOT_FOUND"
      ? refuse({ kind: "package_missing", packageName: "@huggingface/tokenizers" })
      : refuse(failureFrom(cause, "load_failed"))
  )
  try {
    return makeTokenizer(new Tokenizer(tokenizer, tokenizerConfig), tokenizer as TokenizerFile)
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause)
    return refuse({ kind: "load_failed", message: `${join(folder, "tokenizer.json")} is no tokeniser: ${why}` })
  }
}

/** What the folder's files say the model's window is. */
const trainedWindow = ({ config, tokenizerConfig }: Folder): number | undefined => {
  const inner = config["text_config"] as Fields | undefined
  const limits = [
    numberOf({ ...config, ...inner }, "max_position_embeddings", "n_positions", "max_sequence_length"),
    numberOf(tokenizerConfig, "model_max_length")
  ].filter((limit) => limit !== undefined)
  return limits.length === 0 ? undefined : Math.min(...limits)
}

const windowOf = (folder: Folder, { contextSize }: OnnxSpec): number => {
  const trained = trainedWindow(folder)
  if (contextSize !== undefined && trained !== undefined && contextSize > trained) {
    refuse({
      kind: "load_failed",
      message: `contextSize is ${contextSize} tokens, and the model was trained for at most ${trained}`
    })
  }
  return contextSize ?? Math.min(trained ?? largestDefaultWindow, largestDefaultWindow)
}

/** The template by name `default`, where there are several. */
const templateOf = ({ template, tokenizerConfig }: Folder): string | undefined => {
  const given = template ?? tokenizerConfig["chat_template"]
  if (!Array.isArray(given)) return typeof given === "string" ? given : undefined
  const named = (given as ReadonlyArray<Fields>).find(({ name }) => name === "default")
  return typeof named?.["template"] === "string" ? named["template"] : undefined
}

/** Tokens that end an answer: what the files name, and the control token that the template ends a turn with. */
const endTokensOf = (
  { config, generation, tokenizerConfig }: Folder,
  tokenizer: OnnxTokenizer,
  template: ChatTemplate | undefined
): ReadonlySet<number> => {
  const named = [generation["eos_token_id"], config["eos_token_id"]].flat()
  const turnEnd = tokenizer.control.find((text) => template?.turnEnd.trimStart().startsWith(text) === true)
  const texts = [tokenOf(tokenizerConfig["eos_token"]), turnEnd].filter((text) => text !== undefined)
  return new Set([...named, ...texts.map(tokenizer.idOf)].filter((id) => typeof id === "number"))
}

const poolings: Readonly<Record<string, Pooling>> = {
  pooling_mode_mean_tokens: "mean",
  pooling_mode_cls_token: "cls",
  pooling_mode_max_tokens: "max",
  pooling_mode_lasttoken: "lasttoken"
}

const poolingOf = ({ pooling }: Folder): Pooling => {
  const modes = Object.keys(pooling).filter((name) => name.startsWith("pooling_mode_") && pooling[name] === true)
  const known = modes.length === 1 ? poolings[modes[0]!] : undefined
  if (modes.length > 0 && known === undefined) {
    refuse({
      kind: "load_failed",
      message: `1_Pooling/config.json asks for ${modes.join(" and ")}, which Troupe cannot do`
    })
  }
  return known ?? "mean"
}

/** The names of a classifier's labels, by their index. */
const labelsOf = ({ config }: Folder): ReadonlyArray<string> =>
  Object.entries(config["id2label"] ?? {}).sort(([a], [b]) => Number(a) - Number(b)).map(([, label]) => String(label))

/** What a graph is for: the first architecture tells graphs apart whose outputs have one name. */
const kindOf = (
  session: Session,
  architecture: string,
  labels: number
): "generate" | "embed" | "rerank" | "classify" => {
  if (session.inputNames.some((name) => name.startsWith("past_key_values."))) return "generate"
  if (vectorOutputOf(session) !== undefined) return "embed"
  const classifies = architecture === "" || architecture.endsWith("ForSequenceClassification")
  if (session.outputNames.includes("logits") && classifies) return labels === 1 ? "rerank" : "classify"
  return refuse({
    kind: "load_failed",
    message:
      `This is a ${architecture || "model"} with the outputs ${session.outputNames.slice(0, 3).join(", ")}. Troupe ` +
      "runs text generation with a KV cache, sentence vectors, reranking and classification of texts."
  })
}

/** Labels where the files do not name them: as many as the graph has logits. */
const labelCount = ({ outputMetadata }: Session, { config }: Folder): number => {
  const logits = outputMetadata.find(({ name }) => name === "logits")
  const last = logits?.isTensor === true ? logits.shape.at(-1) : undefined
  return typeof last === "number"
    ? last
    : labelsOf({ config } as Folder).length || (numberOf(config, "num_labels") ?? 2)
}

/** What a loaded model does. */
export type Work =
  | {
    readonly kind: "generate"
    readonly decoder: Decoder
    readonly template: ChatTemplate
    readonly endTokens: ReadonlySet<number>
  }
  | { readonly kind: "embed" | "rerank" | "classify"; readonly encoder: Encoder }

/** A loaded model; rejects with an `EngineFailure`. */
export const load = async (spec: OnnxSpec) => {
  const folder = await readFolder(spec.folder)
  const tokenizer = await loadTokenizer(spec.folder, folder)
  const runtime = await importRuntime(spec)
  const session = await openSession(runtime, join(spec.folder, "onnx", `${spec.model}.onnx`), spec.threads)
  const contextWindow = windowOf(folder, spec)
  const architecture = String([folder.config["architectures"]].flat()[0] ?? "")
  const kind = kindOf(session, architecture, labelCount(session, folder))
  const work = kind === "generate" ? generatorOf() : encoderOf(kind)

  function generatorOf(): Work {
    const source = templateOf(folder)
    const template = source === undefined ? undefined : makeChatTemplate({
      source,
      bos: tokenOf(folder.tokenizerConfig["bos_token"]),
      eos: tokenOf(folder.tokenizerConfig["eos_token"]),
      control: tokenizer.control
    })
    if (template === undefined) {
      return refuse({
        kind: "load_failed",
        message: `${spec.folder} has no chat template that works (chat_template in ` +
          "tokenizer_config.json, or chat_template.jinja)"
      })
    }
    const endTokens = endTokensOf(folder, tokenizer, template)
    return { kind: "generate", decoder: makeDecoder(runtime.library, session), template, endTokens }
  }
  function encoderOf(kind: "embed" | "rerank" | "classify"): Work {
    checkEncoder(session)
    const padToken = tokenOf(folder.tokenizerConfig["pad_token"])
    const encoder = makeEncoder({
      library: runtime.library,
      session,
      tokenizer,
      contextWindow,
      pad: numberOf(folder.config, "pad_token_id") ?? (padToken === undefined ? undefined : tokenizer.idOf(padToken)) ??
        0,
      pooling: poolingOf(folder),
      labels: labelsOf(folder)
    })
    return { kind, encoder }
  }

  const abilities: ReadonlyArray<Ability> = [work.kind, "tokenize"]
  const description: EngineDescription = {
    engine: "onnx",
    contextWindow,
    slots: spec.slots,
    abilities,
    details: {
      name: String(folder.config["_name_or_path"] ?? basename(spec.folder)),
      architecture: architecture || String(folder.config["model_type"] ?? ""),
      device: runtime.device
    }
  }
  return { contextWindow, description, session, tokenizer, work }
}

export type Loaded = Awaited<ReturnType<typeof load>>
