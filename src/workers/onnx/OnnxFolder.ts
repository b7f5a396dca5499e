/** Reads the files of a model folder in the layout of transformers.js. */
import { readFile } from "node:fs/promises"
import { basename, join } from "node:path"
import { largestDefaultWindow } from "../../domain/EngineProtocol.ts"
import { failureFrom, refuse } from "../../domain/Job.ts"
import { templateFiles, templatesIn } from "../../domain/ModelCapabilities.ts"
import type { ThoughtStyle } from "../job/ThoughtSyntax.ts"
import { channelEnds } from "../job/ThoughtSyntax.ts"
import type { ChatTemplate } from "../model/ChatTemplate.ts"
import { makeNamedTemplates } from "../model/NamedTemplates.ts"
import type { OnnxSpec } from "./OnnxRuntime.ts"
import type { Pooling } from "./OnnxTasks.ts"
import type { OnnxTokenizer } from "./OnnxTokenizer.ts"
import { makeTokenizer } from "./OnnxTokenizer.ts"

/** The object in a JSON file. */
type Fields = Readonly<Record<string, unknown>>

const readText = (file: string): Promise<string | undefined> =>
  readFile(file, "utf8").catch((cause: NodeJS.ErrnoException) =>
    cause.code === "ENOENT" ? undefined : refuse({ kind: "load_failed", message: `${file}: ${cause.message}` })
  )

/** The value in a JSON file; undefined if the file does not exist. */
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
    : refuse({ kind: "load_failed", message: `${file} is not a JSON object` })
}

const required = async (file: string): Promise<Fields> =>
  await readFields(file) ?? refuse({ kind: "load_failed", message: `${file} does not exist or is not readable` })

const numberOf = (fields: Fields, ...names: ReadonlyArray<string>): number | undefined =>
  names.map((name) => fields[name]).find((value) => typeof value === "number")

/** The text of a token, which is an object's field in some files. */
const tokenOf = (value: unknown): string | undefined =>
  typeof value === "string" ? value : typeof value === "object" && value !== null && "content" in value
    ? String(value.content)
    : undefined

export const readFolder = async (folder: string) => ({
  path: folder,
  config: await required(join(folder, "config.json")),
  tokenizer: await required(join(folder, "tokenizer.json")),
  tokenizerConfig: await readFields(join(folder, "tokenizer_config.json")) ?? {},
  generation: await readFields(join(folder, "generation_config.json")) ?? {},
  templates: {
    default: await readText(join(folder, templateFiles.default)),
    toolUse: await readText(join(folder, templateFiles.toolUse))
  },
  pooling: await readFields(join(folder, "1_Pooling", "config.json")) ?? {}
})

export type Folder = Awaited<ReturnType<typeof readFolder>>

export const loadTokenizer = async ({ path, tokenizer, tokenizerConfig }: Folder): Promise<OnnxTokenizer> => {
  const { Tokenizer } = await import("@huggingface/tokenizers").catch((cause: NodeJS.ErrnoException) =>
    cause.code === "ERR_MODULE_NOT_FOUND"
      ? refuse({ kind: "package_missing", packageName: "@huggingface/tokenizers" })
      : refuse(failureFrom(cause, "load_failed"))
  )
  try {
    return makeTokenizer(new Tokenizer(tokenizer, tokenizerConfig), tokenizer)
  } catch (cause) {
    const detail = cause instanceof Error ? cause.message : String(cause)
    return refuse({
      kind: "load_failed",
      message: `${join(path, "tokenizer.json")} is not a valid tokenizer: ${detail}`
    })
  }
}

/** The model's context window by the folder's files. */
const trainedWindow = ({ config, tokenizerConfig }: Folder): number | undefined => {
  const inner = config["text_config"] as Fields | undefined
  const limits = [
    numberOf({ ...config, ...inner }, "max_position_embeddings", "n_positions", "max_sequence_length"),
    numberOf(tokenizerConfig, "model_max_length")
  ].filter((limit) => limit !== undefined)
  return limits.length === 0 ? undefined : Math.min(...limits)
}

export const windowOf = (folder: Folder, { contextSize }: OnnxSpec): number => {
  const trained = trainedWindow(folder)
  if (contextSize !== undefined && trained !== undefined && contextSize > trained) {
    refuse({
      kind: "load_failed",
      message: `contextSize is ${contextSize} tokens, and the model was trained for at most ${trained}`
    })
  }
  return contextSize ?? Math.min(trained ?? largestDefaultWindow, largestDefaultWindow)
}

/** The model's own chat template, which text generation requires. */
export const templateOf = (folder: Folder, { control }: OnnxTokenizer): ChatTemplate => {
  const { source, toolUse } = templatesIn(folder.templates, folder.tokenizerConfig)
  const bos = tokenOf(folder.tokenizerConfig["bos_token"])
  const eos = tokenOf(folder.tokenizerConfig["eos_token"])
  const template = makeNamedTemplates({ name: basename(folder.path), source, bos, eos, control }, toolUse)
  return "problem" in template
    ? refuse({
      kind: "load_failed",
      message: `${folder.path} has no usable chat template: ${template.problem}. Expected chat_template in ` +
        "tokenizer_config.json, or chat_template.jinja"
    })
    : template
}

/** Tokens that end an answer: those in the files, and the control token that ends a turn in the template. */
export const endTokensOf = (
  { config, generation, tokenizerConfig }: Folder,
  tokenizer: OnnxTokenizer,
  template: ChatTemplate,
  style: ThoughtStyle | undefined
): ReadonlySet<number> => {
  if (style?.type === "channels") {
    return new Set(channelEnds.map(tokenizer.idOf).filter((id) => id !== undefined))
  }
  const named = [generation["eos_token_id"], config["eos_token_id"]].flat()
  const turnEnd = tokenizer.control.find((text) => template.turnEnd.trimStart().startsWith(text))
  const texts = [tokenOf(tokenizerConfig["eos_token"]), turnEnd].filter((text) => text !== undefined)
  return new Set([...named, ...texts.map(tokenizer.idOf)].filter((id) => typeof id === "number"))
}

const poolings: Readonly<Record<string, Pooling>> = {
  pooling_mode_mean_tokens: "mean",
  pooling_mode_cls_token: "cls",
  pooling_mode_max_tokens: "max",
  pooling_mode_lasttoken: "lasttoken"
}

export const poolingOf = ({ pooling }: Folder): Pooling => {
  const modes = Object.keys(pooling).filter((name) => name.startsWith("pooling_mode_") && pooling[name] === true)
  const known = modes.length === 1 ? poolings[modes[0]!] : undefined
  if (modes.length > 0 && known === undefined) {
    refuse({
      kind: "load_failed",
      message: `1_Pooling/config.json requires ${modes.join(" and ")}, which Troupe does not support`
    })
  }
  return known ?? "mean"
}

/** The names of a classifier's labels, by index. */
export const labelsOf = ({ config }: Folder): ReadonlyArray<string> =>
  Object.entries(config["id2label"] ?? {}).sort(([a], [b]) => Number(a) - Number(b)).map(([, label]) => String(label))

/** The padding token for shorter texts of a batch; the attention mask excludes it. */
export const padOf = ({ config, tokenizerConfig }: Folder, tokenizer: OnnxTokenizer): number => {
  const text = tokenOf(tokenizerConfig["pad_token"])
  return numberOf(config, "pad_token_id") ?? (text === undefined ? undefined : tokenizer.idOf(text)) ?? 0
}
