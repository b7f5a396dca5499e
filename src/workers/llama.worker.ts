/**
 * The thread of the llama engine: a GGUF model with continuous batching over several slots, by node-llama-cpp.
 *
 * **Details**
 *
 * One context has a sequence per slot; the tokens of all running jobs are computed in shared batches. The model file's
 * chat template renders the prompt, in which a caller's text cannot become a control token. A slot keeps what it has
 * computed, and a prompt with the same beginning continues it.
 *
 * **Gotchas**
 *
 * The library would silently truncate a prompt that does not fit, so its length is checked here. Generation ends at the
 * end of the window, where the library would silently shift the context. Ending this thread while it evaluates aborts the
 * process: jobs are cancelled between tokens, and the host waits for them.
 */
import type { LlamaGrammarEvaluationState, SequenceEvaluateOptions, Token } from "node-llama-cpp"
import { flushCompileCache } from "node:module"
import type { EngineDescription, EngineWorker } from "../domain/EngineProtocol.ts"
import { promptPiece } from "../domain/EngineProtocol.ts"
import type { ChosenLogprob, GenerateJob } from "../domain/Job.ts"
import { failureFrom, refuse } from "../domain/Job.ts"
import type { Generation, JobSignals, JobTask } from "./job/JobRunner.ts"
import { notCapable, runJob, runTask } from "./job/JobRunner.ts"
import { serveJobs } from "./job/JobServer.ts"
import { takeOwnedSlot } from "./job/Slots.ts"
import { loadChecked } from "./llama/LlamaCheck.ts"
import { echoOf, hasProbabilities } from "./llama/LlamaEcho.ts"
import type { LlamaSpec, Loaded } from "./llama/LlamaLoad.ts"
import { logprobsOf } from "./llama/LlamaLogprobs.ts"
import { biasOf, furtherOf, penaltiesOf } from "./llama/LlamaSampling.ts"
import { chooseSlot } from "./llama/LlamaSlotChoice.ts"
import type { Slot } from "./llama/LlamaSlots.ts"
import { Answer } from "./llama/LlamaTokens.ts"
import type { CallChange, CallGrammar } from "./model/CallGrammar.ts"
import { callGrammarOf } from "./model/CallGrammar.ts"

// Without a listener, an exception on this thread during a generation aborts the process.
process.on("uncaughtException", (cause) => {
  process.stderr.write(`troupe: the llama engine thread caught: ${cause.message.replaceAll(/[^\x20-\x7e]/g, "?")}\n`)
})

type Checked = Awaited<ReturnType<typeof loadChecked>>

/** Control tokens that a grammar has no place for. */
const controlTokensOf = ({ callTokens, otherTokens }: Loaded["prompts"], mayCall: boolean): ReadonlyArray<Token> =>
  mayCall ? otherTokens : [...otherTokens, ...callTokens]

const optionsOf = (
  { description, library, model, prompts }: Loaded,
  { decoding, sampling, tools = [] }: GenerateJob,
  { answer, grammar, isTooShort }: Pick<State, "answer" | "grammar" | "isTooShort">
): SequenceEvaluateOptions => ({
  temperature: sampling.temperature,
  topP: sampling.topP,
  topK: sampling.topK ?? 0,
  minP: sampling.minP ?? 0,
  seed: sampling.seed,
  ...penaltiesOf(sampling, answer, decoding?.penaltyWindow),
  ...(decoding === undefined ? {} : furtherOf(decoding, description.contextWindow)),
  // A grammar treats a control token like its text, so that control tokens must be excluded.
  ...biasOf(library, model, sampling, {
    never: grammar === undefined ? [] : controlTokensOf(prompts, tools.length > 0),
    ends: [...isTooShort ? prompts.endTokens : [], ...grammar === undefined ? [] : prompts.messageEnds],
    isGuarded: grammar !== undefined
  }),
  ...(grammar === undefined ? {} : { grammarEvaluationState: grammar })
})

/** The state of one answer. */
interface State {
  readonly grammar: LlamaGrammarEvaluationState | undefined
  readonly answer: Array<Token>
  /** The grammar of calls, if the model may call tools. */
  readonly calls: CallGrammar | undefined
  /** Of the last token, likeliest first; if the job requests log-probabilities. */
  probabilities: ReadonlyMap<Token, number> | undefined
  /** The answer may not end yet. */
  isTooShort: boolean
  /** From this length of `answer` on it may. */
  readonly shortest: number
  readonly stopTokens: ReadonlyArray<number>
  /** The last token is the one that ends the answer. */
  hasEnded: boolean
}

/** Computes a prompt up to its last piece, and returns that piece; undefined if the job is cancelled. */
const evaluatePrompt = async (
  { contextLock }: Loaded,
  { computed, sequence }: Slot,
  prompt: Array<Token>,
  { isCancelled, progress }: JobSignals
): Promise<Array<Token> | undefined> => {
  let rest = prompt
  while (rest.length > promptPiece) {
    await sequence.evaluateWithoutGeneratingNewTokens(rest.slice(0, promptPiece))
    computed(promptPiece)
    progress()
    rest = rest.slice(promptPiece)
    await contextLock.pause()
    if (isCancelled()) return undefined
  }
  return rest
}

/** The grammar after a change, compiled; a call whose grammar the engine rejects is left to the model. */
const grammarAfter = (loaded: Loaded, job: GenerateJob, calls: CallGrammar, change: CallChange) =>
  change.type === "ends" ? undefined : loaded.callOf(job, change).catch(() => {
    calls.leave()
    return undefined
  })

/** Begins the grammar of a call after its marker, and ends it after the call. */
const constrainCall = async (loaded: Loaded, job: GenerateJob, state: State, calls: CallGrammar, answer: Answer) => {
  const text = decoderOf(loaded, job)(state.answer.slice(-1), state.answer.slice(-5, -1))
  const change = calls.push(text)
  if (change === undefined) return
  const grammar = await grammarAfter(loaded, job, calls, change)
  answer.use(optionsOf(loaded, job, { answer: state.answer, grammar, isTooShort: state.isTooShort }))
}

/** @param prefix tokens of the assistant prefix */
const limitsOf = ({ decoding = {} }: GenerateJob, prefix: number) => {
  const { minTokens = 0, stopTokens = [] } = decoding
  return { isTooShort: minTokens > 0, shortest: prefix + minTokens, stopTokens }
}

/** Lets the answer end once it is long enough. */
const endWhenLong = (loaded: Loaded, job: GenerateJob, state: State, answer: Answer): void => {
  if (state.answer.length < state.shortest) return
  state.isTooShort = false
  answer.use(optionsOf(loaded, job, state))
}

async function* evaluate(
  loaded: Loaded,
  slot: Slot,
  prompt: Array<Token>,
  job: GenerateJob,
  state: State,
  signals: JobSignals
): AsyncGenerator<Token, void, undefined> {
  const { contextLock, prompts } = loaded
  let answer: Answer | undefined
  try {
    const rest = await evaluatePrompt(loaded, slot, prompt, signals)
    if (rest === undefined) return
    answer = new Answer(loaded.answers, slot.sequence, optionsOf(loaded, job, state), job.logprobs !== undefined)
    for (let tokens = rest;;) {
      const token = await answer.after(tokens)
      state.hasEnded = prompts.isEnd(token) || state.stopTokens.includes(token)
      state.probabilities = answer.probabilities
      state.answer.push(token)
      if (state.hasEnded) return
      if (state.isTooShort) endWhenLong(loaded, job, state, answer)
      if (state.calls !== undefined) await constrainCall(loaded, job, state, state.calls, answer)
      yield token
      const pause = contextLock.pause()
      if (pause !== undefined) await pause
      tokens = [token]
    }
  } catch (cause) {
    slot.invalidate()
    throw cause
  } finally {
    await answer?.end()
  }
}

/** Of the last token, and for an echo also of the token that ends the answer. */
const logprobsIn = (
  { textOf }: Loaded,
  job: GenerateJob,
  state: State
): Pick<Generation<Token>, "endLogprobOf" | "logprobOf"> => {
  const logprobOf = (): ChosenLogprob =>
    logprobsOf(
      textOf,
      state.answer.at(-1)!,
      state.answer.slice(-5, -1),
      state.probabilities ?? new Map(),
      job.logprobs ?? 0
    )
  return hasProbabilities(job)
    ? { logprobOf, endLogprobOf: () => state.hasEnded ? logprobOf() : undefined }
    : { logprobOf }
}

/**
 * Decodes tokens. Control tokens have no text, except those that mark thoughts, and those that begin a tool call if the job
 * has tools.
 */
const decoderOf = ({ model, prompts: { callTokens, thoughtTokens } }: Loaded, { tools = [] }: GenerateJob) => {
  const calls = tools.length === 0 ? thoughtTokens : callTokens
  return calls.size === 0 && thoughtTokens.size === 0
    ? (tokens: Array<Token>, before: ReadonlyArray<Token>) => model.detokenize(tokens, false, before)
    : (tokens: Array<Token>, before: ReadonlyArray<Token>) =>
      model.detokenize(tokens, tokens.some((token) => calls.has(token) || thoughtTokens.has(token)), before)
}

const prepare = async (
  loaded: Loaded,
  job: GenerateJob,
  signals: JobSignals,
  take: (prompt: Array<Token>) => Slot
): Promise<Generation<Token>> => {
  const { checks, description: { capabilities, contextWindow }, prefixes, prompts } = loaded
  if (!capabilities.includes("generate")) notCapable("generate")
  const prefixTokens = prompts.prefixTokens(checks.fit, job.assistantPrefix ?? "")
  const { thoughts, tokens: begin } = job.completion === undefined
    ? prompts.promptOf(checks.fit, job)
    : { tokens: prompts.completionOf(checks.fit, job) }
  const prompt = [...begin, ...prefixTokens]
  const room = contextWindow - prompt.length
  if (room <= 0) refuse({ kind: "context_length_exceeded", promptTokens: prompt.length, contextWindow })
  const grammar = await loaded.grammarOf(job)
  await prefixes.ready()
  const slot = take(prompt)
  const isRead = hasProbabilities(job)
  // The probabilities of a prompt that was computed before are not kept.
  if (isRead) slot.invalidate()
  else await prefixes.restore(slot, prompt)
  const cachedTokens = await slot.begin(prompt)
  const calls = callGrammarOf(job, prompts.callSyntax, thoughts)
  const state: State = {
    grammar,
    answer: [...prefixTokens],
    calls,
    probabilities: undefined,
    ...limitsOf(job, prefixTokens.length),
    hasEnded: false
  }
  return {
    promptTokens: prompt.length,
    cachedTokens,
    room,
    // The text of a completion goes on from the prompt.
    prefixTokens: job.completion === undefined ? prefixTokens : prompt,
    thoughts,
    tokens: evaluate(loaded, slot, prompt.slice(isRead ? -1 : cachedTokens), job, state, signals),
    ...(job.completion?.echo === true ? { echo: () => echoOf(loaded, slot, prompt, job, signals) } : {}),
    ...logprobsIn(loaded, job, state),
    decode: decoderOf(loaded, job)
  }
}

const generate = async (loaded: Loaded, task: JobTask<GenerateJob>): Promise<void> => {
  let slot: Slot | undefined
  const take = (prompt: Array<Token>): Slot => {
    slot = takeOwnedSlot(
      loaded.free,
      prompt.length,
      loaded.sharesPrefixes ? "" : task.job.owner ?? "",
      (one) => one.cachedOf(prompt),
      (one) => one.invalidate(),
      (free) => chooseSlot(free, loaded.description.slots)
    )
    return slot ?? refuse({ kind: "failed", message: "More jobs than slots reached the engine." })
  }
  loaded.prefixes.begun()
  await runJob(
    task,
    (signals) => prepare(loaded, task.job, signals, take),
    () => {
      if (slot !== undefined) loaded.free.push(slot)
      loaded.prefixes.ended()
    }
  )
}

const run = async (checked: Promise<Checked>, { channel, job }: JobTask): Promise<void> => {
  const { loaded, runTask: runTaskJob } = await checked
  if (job.kind === "generate") return generate(loaded, { job, channel })
  await runTask(channel, (signals) => runTaskJob(job, signals))
}

let loading: Promise<Checked> | undefined

export const connect: EngineWorker["connect"] = async ({ port, spec }): Promise<EngineDescription> => {
  const checked = loadChecked(spec as LlamaSpec).catch((cause) => refuse(failureFrom(cause, "load_failed")))
  loading = checked
  serveJobs(port, (task) => run(checked, task))
  const { loaded: { description } } = await checked
  // The library has 500 modules, and a service that is killed must not compile them at each start.
  flushCompileCache()
  return description
}

export const gpuMemory: NonNullable<EngineWorker["gpuMemory"]> = async () => {
  const checked = await loading?.catch(() => undefined)
  if (checked === undefined || checked.loaded.llama.gpu === false) return undefined
  const { total, used } = await checked.loaded.llama.getVramState()
  return total === 0 ? undefined : { usedBytes: used, totalBytes: total }
}

export const dispose: EngineWorker["dispose"] = async () => {
  const checked = await loading?.catch(() => undefined)
  await checked?.loaded.prefixes.close()
  await checked?.loaded.llama.dispose()
}
