/** Loads a model folder, detects what its graph computes, and creates the matching engine parts. */
import { basename, join } from "node:path"
import type { EngineDescription } from "../../domain/EngineProtocol.ts"
import { failureFrom, refuse } from "../../domain/Job.ts"
import type { OnnxGraph, OnnxTask } from "../../domain/ModelCapabilities.ts"
import { architectureOf, ofOnnx, taskOf, vectorOutputOf } from "../../domain/ModelCapabilities.ts"
import type { JobSignals } from "../job/JobRunner.ts"
import type { ThoughtStyle } from "../job/ThoughtSyntax.ts"
import { markersOf, styleOf } from "../job/ThoughtSyntax.ts"
import type { ChatTemplate } from "../model/ChatTemplate.ts"
import { checkFirstOutput } from "../model/ModelCheck.ts"
import type { Decoder } from "./OnnxDecoder.ts"
import { makeDecoder } from "./OnnxDecoder.ts"
import { checkEncoder, makeEncoder } from "./OnnxEncoder.ts"
import type { Folder } from "./OnnxFolder.ts"
import {
  endTokensOf,
  labelsOf,
  loadTokenizer,
  padOf,
  poolingOf,
  readFolder,
  templateOf,
  windowOf
} from "./OnnxFolder.ts"
import type { Guards } from "./OnnxGuard.ts"
import { makeGuards } from "./OnnxGuard.ts"
import type { Library, OnnxSpec, Session } from "./OnnxRuntime.ts"
import { importRuntime, openSession } from "./OnnxRuntime.ts"
import type { Slot } from "./OnnxSlots.ts"
import { makeSlots } from "./OnnxSlots.ts"
import type { OnnxTasks } from "./OnnxTasks.ts"
import { makeOnnxTasks } from "./OnnxTasks.ts"
import type { OnnxTokenizer } from "./OnnxTokenizer.ts"

/** The graph as its file describes it. */
const graphOf = ({ inputNames, outputMetadata, outputNames }: Session): OnnxGraph => {
  const logits = outputMetadata.find(({ name }) => name === "logits")
  const last = logits?.isTensor === true ? logits.shape.at(-1) : undefined
  return { inputs: inputNames, outputs: outputNames, logits: typeof last === "number" ? last : undefined }
}

const kindOf = (session: Session, { config }: Folder): OnnxTask =>
  taskOf(graphOf(session), config) ?? refuse({
    kind: "load_failed",
    message: `This is a ${architectureOf(config) || "model"} with the outputs ${
      session.outputNames.slice(0, 3).join(", ")
    }. Troupe runs text generation with a KV cache, sentence vectors, reranking and classification of texts.`
  })

/** The engine parts of a loaded model. */
export type Work =
  | {
    readonly kind: "generate"
    readonly decoder: Decoder
    readonly template: ChatTemplate
    /** How the model marks thoughts; undefined if it does not. */
    readonly style: ThoughtStyle | undefined
    readonly endTokens: ReadonlySet<number>
    readonly guards: Guards
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
  const guards = makeGuards(tokenizer, decoder.vocabulary, endTokens)
  return { kind: "generate", decoder, template, style, endTokens, guards, free: makeSlots(decoder, slots) }
}

const wholeOf = (
  kind: "embed" | "rerank" | "classify",
  { contextWindow, folder, library, session, tokenizer }: Parts
): Work => {
  checkEncoder(session)
  const encoder = makeEncoder({ library, session, tokenizer, contextWindow, pad: padOf(folder, tokenizer) })
  const vectors = vectorOutputOf(session.outputNames)
  return { kind, tasks: makeOnnxTasks({ encoder, vectors, pooling: poolingOf(folder), labels: labelsOf(folder) }) }
}

const uncancelled: JobSignals = { isCancelled: () => false, progress: () => {} }

/** Computes one token or one text, to detect damaged weights at load time. */
const check = async (work: Work, { encode }: OnnxTokenizer): Promise<void> => {
  try {
    if (work.kind === "generate") {
      const [token = 0] = encode([{ text: "a", special: false }])
      checkFirstOutput((await work.decoder.step(work.decoder.empty(), [token])).logits)
    } else if (work.kind === "rerank") await work.tasks.rerank([{ query: "a", documents: ["a"] }], uncancelled)
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
  const parts: Parts = { folder, tokenizer, library, session, contextWindow }
  const kind = kindOf(session, folder)
  const work = kind === "generate" ? generatorOf(parts, spec) : wholeOf(kind, parts)
  await check(work, tokenizer).catch(async (cause: unknown) => {
    await session.release()
    throw cause
  })
  const description: EngineDescription = {
    engine: "onnx",
    contextWindow,
    slots: spec.slots,
    capabilities: ofOnnx(kind, work.kind === "generate" && work.template.supportsTools),
    details: { name: basename(spec.folder), architecture: architectureOf(folder.config), device, file: basename(file) }
  }
  return { contextWindow, description, session, sharesPrefixes: spec.sharePrefixes === true, tokenizer, work }
}

export type Loaded = Awaited<ReturnType<typeof load>>
