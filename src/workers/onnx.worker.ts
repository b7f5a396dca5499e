/**
 * The onnx engine's thread: an ONNX model folder on onnxruntime, natively or by WASM.
 *
 * **Details**
 *
 * Text generation keeps a KV cache a slot, and jobs that run side by side take turns token by token; a prompt that
 * begins like a slot's last one goes on from there. Models that read a whole text (sentence vectors, reranking,
 * classification) compute batches.
 *
 * **Gotchas**
 *
 * A run blocks this thread, and ending the thread during one aborts the process: jobs are cancelled between runs, and
 * the host waits for them.
 */
import { workerData } from "node:worker_threads"
import type { EngineDescription } from "../domain/EngineProtocol.ts"
import type { GenerateJob, JobResult, WholeJob } from "../domain/Job.ts"
import { failureFrom, refuse } from "../domain/Job.ts"
import type { JobTask, Watch } from "./job/JobRunner.ts"
import { notAble, runJob, runWhole } from "./job/JobRunner.ts"
import { takeOwned } from "./job/Slots.ts"
import { countCheck } from "./model/TextLimits.ts"
import { prepare, promptOf } from "./onnx/OnnxGenerate.ts"
import type { Loaded } from "./onnx/OnnxLoad.ts"
import { load } from "./onnx/OnnxLoad.ts"
import type { OnnxSpec } from "./onnx/OnnxRuntime.ts"
import type { Slot } from "./onnx/OnnxSlots.ts"
import { keptOf } from "./onnx/OnnxSlots.ts"

const spec = workerData as OnnxSpec

const loading = load(spec).catch((cause) => refuse(failureFrom(cause, "load_failed")))
// Unhandled, the rejection would end the thread before anyone has asked `describe`.
loading.catch(() => {})

/** Resolves once the model is loaded. */
export const describe = async (): Promise<EngineDescription> => (await loading).description

/** Frees the model's memory; no job may be running. */
export const dispose = async (): Promise<void> => {
  const loaded = await loading.catch(() => undefined)
  await loaded?.session.release()
}

const tokenize = (
  { contextWindow, tokenizer, work }: Loaded,
  { input }: Extract<WholeJob, { kind: "tokenize" }>
): JobResult => {
  const check = countCheck(contextWindow, tokenizer.longestToken)
  if (typeof input === "string") {
    check(input.length)
    return { kind: "tokenize", tokens: tokenizer.encode([{ text: input, special: false }]) }
  }
  if (work.kind !== "generate") return notAble("generate")
  const { assistantPrefix = "", messages, tools } = input
  check(assistantPrefix.length)
  return {
    kind: "tokenize",
    tokens: [
      ...promptOf(check, tokenizer, work.template, messages, tools),
      ...(assistantPrefix === "" ? [] : tokenizer.encode([{ text: assistantPrefix, special: false }]))
    ]
  }
}

const answer = (loaded: Loaded, job: WholeJob, watch: Watch): Promise<JobResult> | JobResult => {
  if (job.kind === "tokenize") return tokenize(loaded, job)
  const { work } = loaded
  if (work.kind === "generate" || work.kind !== job.kind) return notAble(job.kind)
  switch (job.kind) {
    case "embed":
      return work.whole.embed(job.inputs, watch)
    case "rerank":
      return work.whole.rerank(job.query, job.documents, watch)
    case "classify":
      return work.whole.classify(job.inputs, watch)
  }
}

const generate = async (loaded: Loaded, task: JobTask<GenerateJob>): Promise<void> => {
  const free = loaded.work.kind === "generate" ? loaded.work.free : []
  let slot: Slot | undefined
  const take = (prompt: ReadonlyArray<number>): Slot => {
    slot = takeOwned(
      free,
      prompt.length,
      spec.sharePrefixes === true ? "" : task.job.owner ?? "",
      (one) => keptOf(one, prompt),
      (one) => {
        one.tokens = []
        one.whole = 0
      }
    )
    return slot ?? refuse({ kind: "failed", message: "More jobs than slots reached the engine." })
  }
  await runJob(
    task,
    (watch) => prepare(loaded, task.job, watch, take),
    () => {
      if (slot !== undefined) free.push(slot)
    }
  )
}

export default async ({ job, port }: JobTask): Promise<void> => {
  const loaded = await loading
  if (job.kind === "generate") return generate(loaded, { job, port })
  await runWhole(port, (watch) => answer(loaded, job, watch))
}
