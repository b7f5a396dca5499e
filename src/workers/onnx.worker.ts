/**
 * The thread of the onnx engine: an ONNX model folder in onnxruntime, native or WASM.
 *
 * **Details**
 *
 * Text generation has a KV cache per slot, and concurrent jobs take turns token by token; a prompt that begins like a
 * slot's last one continues its cache. Encoder models (sentence vectors, reranking, classification) compute batches.
 *
 * **Gotchas**
 *
 * A run blocks this thread, and ending the thread during a run aborts the process: jobs are cancelled between runs, and
 * the host waits for them.
 */
import type { EngineDescription, EngineWorker } from "../domain/EngineProtocol.ts"
import type { GenerateJob, JobResult, TaskJob } from "../domain/Job.ts"
import { failureFrom, refuse } from "../domain/Job.ts"
import type { JobSignals, JobTask } from "./job/JobRunner.ts"
import { notCapable, runJob, runTask } from "./job/JobRunner.ts"
import { serveJobs } from "./job/JobServer.ts"
import { takeOwnedSlot } from "./job/Slots.ts"
import { countCheck } from "./model/TextLimits.ts"
import { prepare, promptOf } from "./onnx/OnnxGenerate.ts"
import type { Loaded } from "./onnx/OnnxLoad.ts"
import { load } from "./onnx/OnnxLoad.ts"
import type { OnnxSpec } from "./onnx/OnnxRuntime.ts"
import type { Slot } from "./onnx/OnnxSlots.ts"
import { cachedOf } from "./onnx/OnnxSlots.ts"

const tokenize = (
  { contextWindow, tokenizer, work }: Loaded,
  { input }: Extract<TaskJob, { kind: "tokenize" }>
): JobResult => {
  const check = countCheck(contextWindow, tokenizer.longestToken)
  if (typeof input === "string") {
    check(input.length)
    return { kind: "tokenize", tokens: tokenizer.encode([{ text: input, special: false }]) }
  }
  if (work.kind !== "generate") return notCapable("generate")
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

const answer = (loaded: Loaded, job: TaskJob, signals: JobSignals): Promise<JobResult> | JobResult => {
  if (job.kind === "tokenize") return tokenize(loaded, job)
  const { work } = loaded
  if (work.kind === "generate" || work.kind !== job.kind) return notCapable(job.kind)
  switch (job.kind) {
    case "embed":
      return work.tasks.embed(job.inputs, signals)
    case "rerank":
      return work.tasks.rerank(job.requests, signals)
    case "classify":
      return work.tasks.classify(job.inputs, signals)
  }
}

const generate = async (loaded: Loaded, task: JobTask<GenerateJob>): Promise<void> => {
  const free = loaded.work.kind === "generate" ? loaded.work.free : []
  let slot: Slot | undefined
  const take = (prompt: ReadonlyArray<number>): Slot => {
    slot = takeOwnedSlot(
      free,
      prompt.length,
      loaded.sharesPrefixes ? "" : task.job.owner ?? "",
      (one) => cachedOf(one, prompt),
      (one) => {
        one.tokens = []
        one.inPieces = 0
      }
    )
    return slot ?? refuse({ kind: "failed", message: "More jobs than slots reached the engine." })
  }
  await runJob(
    task,
    (signals) => prepare(loaded, task.job, signals, take),
    () => {
      if (slot !== undefined) free.push(slot)
    }
  )
}

const run = async (loading: Promise<Loaded>, { channel, job }: JobTask): Promise<void> => {
  const loaded = await loading
  if (job.kind === "generate") return generate(loaded, { job, channel })
  await runTask(channel, (signals) => answer(loaded, job, signals))
}

let loaded: Promise<Loaded> | undefined

export const connect: EngineWorker["connect"] = async ({ port, spec }): Promise<EngineDescription> => {
  const loading = load(spec as OnnxSpec).catch((cause) => refuse(failureFrom(cause, "load_failed")))
  loaded = loading
  serveJobs(port, (task) => run(loading, task))
  return (await loading).description
}

export const dispose: EngineWorker["dispose"] = async () => {
  const { session } = await loaded?.catch(() => undefined) ?? {}
  await session?.release()
}
