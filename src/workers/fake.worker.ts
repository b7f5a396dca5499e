/**
 * The fake engine's thread: deterministic tokens, delays and faults, no weights.
 *
 * **Details**
 *
 * It keeps every promise a real engine keeps (window, stop sequences, seeds, counts, cancellation) and passes the
 * same conformance suite. A token is three bytes of UTF-8, so that characters are often split over tokens. At
 * temperature 0 it repeats its reply; above, the seed picks the words.
 */
import { setTimeout as sleep } from "node:timers/promises"
import { workerData } from "node:worker_threads"
import type { EngineDescription, FakeSpec } from "../services/EngineProtocol.ts"
import type { EngineFailure, GenerateJob } from "../services/Job.ts"
import type { Generation, JobTask } from "./JobRunner.ts"
import { notAble, runJob, runWhole } from "./JobRunner.ts"

type FakeToken = Uint8Array

const bytesPerToken = 3
const spec = workerData as FakeSpec

const tokenize = (text: string): Array<FakeToken> => {
  const bytes = Buffer.from(text)
  const tokens: Array<FakeToken> = []
  for (let at = 0; at < bytes.length; at += bytesPerToken) tokens.push(bytes.subarray(at, at + bytesPerToken))
  return tokens
}

/** Shuffles the words by a small seeded generator (mulberry32, Tommy Ettinger, public domain). */
const shuffle = (text: string, seed: number): string => {
  let state = seed >>> 0
  const random = () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), state | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
  return text.split(" ").map((word) => ({ word, key: random() })).sort((a, b) => a.key - b.key)
    .map(({ word }) => word).join(" ")
}

const replyTo = (job: GenerateJob): string => {
  const reply = spec.reply ?? `fake: ${job.messages.at(-1)?.content ?? ""}`
  return job.sampling.temperature === 0 ? reply : shuffle(reply, job.sampling.seed)
}

const faultOf = (job: GenerateJob) =>
  spec.fault !== undefined && (spec.fault.trigger === undefined ||
      job.messages.at(-1)?.content.includes(spec.fault.trigger) === true)
    ? spec.fault
    : undefined

const breakDown = async (kind: NonNullable<FakeSpec["fault"]>["kind"]): Promise<void> => {
  switch (kind) {
    case "error":
      throw { kind: "failed", message: "The fake engine failed as configured." } satisfies EngineFailure
    case "abort":
    case "load-abort":
      // What `abort()` in native code does; `process.abort` refuses to in a thread.
      process.kill(process.pid, "SIGABRT")
      return new Promise(() => {})
    case "hang":
      return new Promise(() => {})
    case "load":
      throw { kind: "load_failed", message: "The fake engine does not load, as configured." } satisfies EngineFailure
  }
}

async function* generate(job: GenerateJob): AsyncGenerator<FakeToken, void, undefined> {
  const fault = faultOf(job)
  let count = 0
  for (const token of tokenize(replyTo(job))) {
    if (fault !== undefined && count >= fault.afterTokens) await breakDown(fault.kind)
    if (spec.tokenDelayMs > 0) await sleep(spec.tokenDelayMs)
    yield token
    count++
  }
  if (fault !== undefined) await breakDown(fault.kind)
}

const prepare = async (job: GenerateJob): Promise<Generation<FakeToken>> => {
  const promptTokens = tokenize(job.messages.map((message) => message.content).join("\n")).length
  const room = spec.contextSize - promptTokens
  if (room <= 0) {
    throw { kind: "context_length_exceeded", promptTokens, contextWindow: spec.contextSize } satisfies EngineFailure
  }
  if (spec.promptDelayMs > 0) await sleep(spec.promptDelayMs)
  return {
    promptTokens,
    cachedTokens: 0,
    room,
    tokens: generate(job),
    decode: (tokens) => Buffer.concat(tokens).toString("utf8")
  }
}

const load = async (): Promise<EngineDescription> => {
  if (spec.loadDelayMs > 0) await sleep(spec.loadDelayMs)
  if (spec.fault?.kind === "load" || spec.fault?.kind === "load-abort") await breakDown(spec.fault.kind)
  return {
    engine: "fake",
    contextWindow: spec.contextSize,
    slots: spec.slots,
    abilities: ["generate"],
    details: { weights: "none" }
  }
}

const loading = load()
loading.catch(() => {})

/** Resolves once the engine is loaded. */
export const describe = (): Promise<EngineDescription> => loading

export const dispose = (): void => {}

export default ({ job, port }: JobTask): Promise<void> =>
  job.kind === "generate"
    ? runJob({ job, port }, () => prepare(job), () => {})
    : runWhole(port, () => notAble(job.kind))
