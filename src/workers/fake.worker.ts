/**
 * The thread of the fake engine: deterministic tokens, delays and faults, without weights.
 *
 * **Details**
 *
 * It supports what a real engine supports (window, stop sequences, seeds, counts, cancellation) and passes the same
 * conformance suite. A token is three bytes of UTF-8, so that characters are often split over tokens. It continues an
 * assistant prefix by skipping that many characters of its reply. At temperature 0 it repeats its reply; above, the seed
 * orders the words. As JSON, the reply is the value of `fake`; a required tool gets it as an argument of that name.
 */
import { setTimeout as sleep } from "node:timers/promises"
import type { EngineDescription, EngineWorker } from "../domain/EngineProtocol.ts"
import type { ChosenLogprob, EngineFailure, GenerateJob, JobResult, TaskJob, TokenLogprob } from "../domain/Job.ts"
import { refuse } from "../domain/Job.ts"
import type { Check, FakeSpec, FakeToken } from "./fake/FakeTasks.ts"
import { answerTask, bytesPerToken, promptOf, textOfInput, textOfTokens, tokenize } from "./fake/FakeTasks.ts"
import type { Generation, JobTask } from "./job/JobRunner.ts"
import { runJob, runTask } from "./job/JobRunner.ts"
import { serveJobs } from "./job/JobServer.ts"
import type { Thoughts } from "./job/ThoughtSyntax.ts"
import { mayThink, styleOf } from "./job/ThoughtSyntax.ts"
import { makeRandom } from "./model/Sampler.ts"
import { countCheck } from "./model/TextLimits.ts"

/** Set by `connect`. */
let spec: FakeSpec

/** Shuffles the words by the seed. */
const shuffle = (text: string, seed: number): string => {
  const random = makeRandom(seed)
  return text.split(" ").map((word) => ({ word, key: random() })).sort((a, b) => a.key - b.key)
    .map(({ word }) => word).join(" ")
}

/** The tool that must be called. */
const mustCall = ({ toolChoice, tools = [] }: GenerateJob): string | undefined =>
  toolChoice === "required" ? tools[0]?.name : typeof toolChoice === "object" ? toolChoice.name : undefined

/** What the fake engine echoes: the last message, or the prompt of a completion with a mark for its gap. */
const promptTextOf = ({ completion, messages }: GenerateJob): string => {
  if (completion?.tokens !== undefined) return textOfTokens(completion.tokens)
  const texts = messages.map(({ content }) => content)
  return completion === undefined ? texts.at(-1) ?? "" : texts.join("[gap]")
}

const replyTo = (job: GenerateJob): string => {
  const fallback = `fake: ${promptTextOf(job)}`
  const name = mustCall(job)
  if (spec.reply === undefined && name !== undefined) {
    return `<tool_call>${JSON.stringify({ name, arguments: { fake: fallback } })}</tool_call>`
  }
  const reply = spec.reply ?? fallback
  const words = job.sampling.temperature === 0 ? reply : shuffle(reply, job.sampling.seed)
  return job.format === undefined ? words : JSON.stringify({ fake: words })
}

const faultIn = (text: string) =>
  spec.fault !== undefined && (spec.fault.trigger === undefined || text.includes(spec.fault.trigger))
    ? spec.fault
    : undefined

const failedAsConfigured: EngineFailure = { kind: "failed", message: "The fake engine failed as configured." }

const injectFault = async (kind: NonNullable<FakeSpec["fault"]>["kind"]): Promise<void> => {
  switch (kind) {
    case "error":
      return refuse(failedAsConfigured)
    case "abort":
    case "load-abort":
      // As native `abort()` does; `process.abort` is not available in a thread.
      process.kill(process.pid, "SIGABRT")
      return new Promise(() => {})
    case "hang":
      return new Promise(() => {})
    case "load":
      return refuse({ kind: "load_failed", message: "The fake engine does not load, as configured." })
  }
}

/** @param onToken called with each token before it is yielded */
async function* generate(
  job: GenerateJob,
  onToken: (token: FakeToken) => void
): AsyncGenerator<FakeToken, void, undefined> {
  const fault = faultIn(job.messages.at(-1)?.content ?? "")
  let count = 0
  for (const token of tokenize(replyTo(job).slice(job.assistantPrefix?.length ?? 0))) {
    if (fault !== undefined && count >= fault.afterTokens) await injectFault(fault.kind)
    if (spec.tokenDelayMs > 0) await sleep(spec.tokenDelayMs)
    onToken(token)
    yield token
    count++
  }
  if (fault !== undefined) await injectFault(fault.kind)
}

const overflow = (promptTokens: number): EngineFailure => ({
  kind: "context_length_exceeded",
  promptTokens,
  contextWindow: spec.contextSize
})

const logprobOf = (token: string, bytes: Uint8Array, rank: number): TokenLogprob => ({
  token,
  bytes: [...bytes],
  logprob: (rank + 1) * Math.log(0.5)
})

/** Every token has the probability 1/2, the next ones 1/4, 1/8 and so on. */
const chosenOf = (token: FakeToken, top: number): ChosenLogprob => {
  const chosen = logprobOf(Buffer.from(token).toString("utf8"), token, 0)
  const others = Array.from({ length: Math.max(0, top - 1) }, (_, index) => `fake ${index + 1}`)
  return {
    ...chosen,
    top: [chosen, ...others.map((text, index) => logprobOf(text, Buffer.from(text), index + 1))].slice(0, top)
  }
}

/** The thoughts of the reply, if the deployment names their markers. */
const thoughtsOf = (job: GenerateJob): Thoughts | undefined => {
  const style = styleOf("", spec.reasoning)
  return style && { style, begins: mayThink(job) ? "before" : "text" }
}

const prepare = async (job: GenerateJob): Promise<Generation<FakeToken>> => {
  if (job.format !== undefined && job.format.type !== "json_object") {
    refuse({ kind: "not_supported", path: "format.type", message: "the fake engine supports json_object only" })
  }
  const promptTokens = job.completion?.tokens?.length ??
    tokenize(promptOf(job.messages) + (job.assistantPrefix ?? "")).length
  const room = spec.contextSize - promptTokens
  if (room <= 0) refuse(overflow(promptTokens))
  if (spec.promptDelayMs > 0) await sleep(spec.promptDelayMs)
  let last: FakeToken = Buffer.of()
  const { logprobs } = job
  return {
    promptTokens,
    thoughts: thoughtsOf(job),
    cachedTokens: 0,
    room,
    tokens: generate(job, (token) => {
      last = token
    }),
    logprobOf: logprobs === undefined ? undefined : () => chosenOf(last, logprobs),
    decode: (tokens) => Buffer.concat(tokens).toString("utf8")
  }
}

const load = async (): Promise<EngineDescription> => {
  if (spec.loadDelayMs > 0) await sleep(spec.loadDelayMs)
  if (spec.fault?.kind === "load" || spec.fault?.kind === "load-abort") await injectFault(spec.fault.kind)
  return {
    engine: "fake",
    contextWindow: spec.contextSize,
    slots: spec.slots,
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
    details: { weights: "none" }
  }
}

export const gpuMemory: EngineWorker["gpuMemory"] = () => spec.gpuMemory

export const dispose: EngineWorker["dispose"] = () => {}

/** A text with the trigger of the fault `error` fails alone. */
const check: Check = (text, promptTokens) => {
  if (faultIn(text)?.kind === "error") return failedAsConfigured
  return promptTokens > spec.contextSize ? overflow(promptTokens) : undefined
}

const textsOf = (job: TaskJob): ReadonlyArray<string> => {
  if (job.kind === "tokenize") return []
  return job.kind === "rerank" ? job.requests.flatMap(({ documents }) => documents) : job.inputs.map(textOfInput)
}

const answer = async (job: TaskJob): Promise<JobResult> => {
  if (spec.promptDelayMs > 0) await sleep(spec.promptDelayMs)
  const fault = textsOf(job).map(faultIn).find((found) => found !== undefined && found.kind !== "error")
  if (fault !== undefined) await injectFault(fault.kind)
  return answerTask(job, check, countCheck(spec.contextSize, bytesPerToken))
}

const run = ({ channel, job }: JobTask): Promise<void> =>
  job.kind === "generate"
    ? runJob({ job, channel }, () => prepare(job), () => {})
    : runTask(channel, () => answer(job))

export const connect: EngineWorker["connect"] = (connection) => {
  spec = connection.spec as FakeSpec
  serveJobs(connection.port, run)
  return load()
}
