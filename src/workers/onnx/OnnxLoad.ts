/** Loads a model folder, detects what its graph computes, and creates the matching engine parts. */
import { basename, join } from "node:path"
import type { EngineCapability, EngineDescription } from "../../domain/EngineProtocol.ts"
import { failureFrom, refuse } from "../../domain/Job.ts"
import type { JobSignals } from "../job/JobRunner.ts"
import type { ThoughtStyle } from "../job/ThoughtSyntax.ts"
import { markersOf, styleOf } from "../job/ThoughtSyntax.ts"
import type { ChatTemplate } from "../model/ChatTemplate.ts"
import { checkFirstOutput } from "../model/ModelCheck.ts"
import type { Decoder } from "./OnnxDecoder.ts"
import { makeDecoder } from "./OnnxDecoder.ts"
import { checkEncoder, makeEncoder, vectorOutputOf } from "./OnnxEncoder.ts"
import type { Folder } from "./OnnxFolder.ts"
import {
  architectureOf,
  endTokensOf,
  labelsOf,
  loadTokenizer,
  padOf,
  poolingOf,
  readFolder,
  templateOf,
  windowOf
} from "./OnnxFolder.ts"
import type { Library, OnnxSpec, Session } from "./OnnxRuntime.ts"
import { importRuntime, openSession } from "./OnnxRuntime.ts"
import type { Slot } from "./OnnxSlots.ts"
import { makeSlots } from "./OnnxSlots.ts"
import type { OnnxTasks } from "./OnnxTasks.ts"
import { makeOnnxTasks } from "./OnnxTasks.ts"
import type { OnnxTokenizer } from "./OnnxTokenizer.ts"

/** The purpose of a graph; the architecture distinguishes graphs with an output named `logits`. */
const kindOf = (
  session: Session,
  architecture: string,
  labels: number
): "generate" | "embed" | "rerank" | "classify" => {
  if (session.inputNames.some((name) => name.startsWith("past_key_values."))) return "generate"
  if (vectorOutputOf(session) !== undefined) return "embed"
  const classifies = !architecture.includes("For") || architecture.endsWith("ForSequenceClassification")
  if (session.outputNames.includes("logits") && classifies) return labels === 1 ? "rerank" : "classify"
  return refuse({
    kind: "load_failed",
    message:
      `This is a ${architecture || "model"} with the outputs ${session.outputNames.slice(0, 3).join(", ")}. Troupe ` +
      "runs text generation with a KV cache, sentence vectors, reranking and classification of texts."
  })
}

/** Labels if the files do not name them: one per logit of the graph. */
const labelCount = ({ outputMetadata }: Session, folder: Folder): number => {
  const logits = outputMetadata.find(({ name }) => name === "logits")
  const last = logits?.isTensor === true ? logits.shape.at(-1) : undefined
  return typeof last === "number"
    ? last
    : labelsOf(folder).length || 2
}

/** The engine parts of a loaded model. */
export type Work =
  | {
    readonly kind: "generate"
    readonly decoder: Decoder
    readonly template: ChatTemplate
    /** How the model marks thoughts; undefined if it does not. */
    readonly style: ThoughtStyle | undefined
    readonly endTokens: ReadonlySet<number>
    /** The slots that no job uses. */
    readonly free: Array<Slot>
  }
  | { readonly kind: "embed" | "rerank" | "classify"; readonly tasks: OnnxTasks }

interface Parts {
  readonly folder: Folder
  readonly tokenizer: OnnxTokenizer
  readonly library: Library
  readonly session: Session
  readonly contextWindow: number
}

const generatorOf = (
  { folder, library, session, tokenizer }: Parts,
  { reasoning, slots }: OnnxSpec
): Work => {
  const template = templateOf(folder, tokenizer)
  const decoder = makeDecoder(library, session)
  const style = styleOf(template.source, reasoning)
  tokenizer.show(markersOf(style))
  const endTokens = endTokensOf(folder, tokenizer, template, style)
  return { kind: "generate", decoder, template, style, endTokens, free: makeSlots(decoder, slots) }
}

const wholeOf = (
  kind: "embed" | "rerank" | "classify",
  { contextWindow, folder, library, session, tokenizer }: Parts
): Work => {
  checkEncoder(session)
  const encoder = makeEncoder({ library, session, tokenizer, contextWindow, pad: padOf(folder, tokenizer) })
  const vectors = vectorOutputOf(session)
  return { kind, tasks: makeOnnxTasks({ encoder, vectors, pooling: poolingOf(folder), labels: labelsOf(folder) }) }
}

const capabilitiesOf = (work: Work): ReadonlyArray<EngineCapability> =>
  work.kind !== "generate"
    ? [work.kind, "tokenize"]
    : [
      "generate",
      "complete",
      ...(work.template.supportsTools ? ["tools"] as const : []),
      "format",
      "logprobs",
      "tokenize"
    ]

const uncancelled: JobSignals = { isCancelled: () => false, progress: () => {} }

/** Computes one token or one text, to detect damaged weights at load time. */
const check = async (work: Work, { encode }: OnnxTokenizer): Promise<void> => {
  try {
    if (work.kind === "generate") {
      const [token = 0] = encode([{ text: "a", special: false }])
      checkFirstOutput((await work.decoder.step(work.decoder.empty(), [token])).logits)
    } else if (work.kind === "rerank") await work.tasks.rerank("a", ["a"], uncancelled)
    else await work.tasks[work.kind](["a"], uncancelled)
  } catch (cause) {
    const failure = failureFrom(cause, "load_failed")
    refuse(failure.kind === "failed" ? { kind: "load_failed", message: failure.message } : failure)
  }
}

/** A loaded model that has computed once; rejects with an `EngineFailure`. */
export const load = async (spec: OnnxSpec) => {
  const folder = await readFolder(spec.folder)
  const contextWindow = windowOf(folder, spec)
  const tokenizer = await loadTokenizer(folder)
  const { device, library } = await importRuntime(spec)
  const file = join(spec.folder, "onnx", `${spec.model}.onnx`)
  const session = await openSession({ device, library }, file, spec.threads)
  const architecture = architectureOf(folder)
  const parts: Parts = { folder, tokenizer, library, session, contextWindow }
  const kind = kindOf(session, architecture, labelCount(session, folder))
  const work = kind === "generate" ? generatorOf(parts, spec) : wholeOf(kind, parts)
  await check(work, tokenizer).catch(async (cause: unknown) => {
    await session.release()
    throw cause
  })
  const description: EngineDescription = {
    engine: "onnx",
    contextWindow,
    slots: spec.slots,
    capabilities: capabilitiesOf(work),
    details: { name: basename(spec.folder), architecture, device, file: basename(file) }
  }
  return { contextWindow, description, session, sharesPrefixes: spec.sharePrefixes === true, tokenizer, work }
}

export type Loaded = Awaited<ReturnType<typeof load>>
