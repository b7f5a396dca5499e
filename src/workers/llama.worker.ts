/**
 * The llama engine's thread: a GGUF model with continuous batching over several slots, by node-llama-cpp.
 *
 * **Details**
 *
 * One context holds a sequence a slot; the tokens of all running jobs are computed in shared batches. The prompt is
 * made by the model file's own chat template, in which a caller's text can never become a control token. A slot keeps
 * what it has computed, and a prompt that begins alike goes on from there.
 *
 * **Gotchas**
 *
 * A prompt that does not fit would be cut silently by the library, so its length is checked here; and generation ends
 * where the window ends, since going on would shift the context silently. Ending this thread while it evaluates
 * aborts the process: jobs are cancelled between tokens, and the host waits for them.
 */
import type { LlamaGrammarEvaluationState, SequenceEvaluateOptions, Token } from "node-llama-cpp"
import { workerData } from "node:worker_threads"
import type { EngineDescription } from "../domain/EngineProtocol.ts"
import { promptPiece } from "../domain/EngineProtocol.ts"
import type { ChosenLogprob, GenerateJob } from "../domain/Job.ts"
import { failureFrom, refuse } from "../domain/Job.ts"
import type { Generation, JobTask, Watch } from "./job/JobRunner.ts"
import { notAble, runJob, runWhole } from "./job/JobRunner.ts"
import { takeOwned } from "./job/Slots.ts"
import { loadChecked } from "./llama/LlamaCheck.ts"
import type { LlamaSpec, Loaded } from "./llama/LlamaLoad.ts"
import { logprobsOf } from "./llama/LlamaLogprobs.ts"
import { biasOf, penaltiesOf } from "./llama/LlamaSampling.ts"
import type { Slot } from "./llama/LlamaSlots.ts"

const spec = workerData as LlamaSpec

// A throw on this thread in mid-generation aborts the whole process unless someone listens.
process.on("uncaughtException", (cause) => {
  process.stderr.write(`troupe: the llama engine thread caught: ${cause.message.replaceAll(/[^\x20-\x7e]/g, "?")}\n`)
})

const checked = loadChecked(spec).catch((cause) => refuse(failureFrom(cause, "load_failed")))
const loading = checked.then(({ loaded }) => loaded)
// Unhandled, the rejection would end the thread before anyone has asked `describe`.
loading.catch(() => {})

const optionsOf = (
  { library, model, prompts }: Loaded,
  { sampling, tools = [] }: GenerateJob,
  { answer, grammar }: State
): SequenceEvaluateOptions => ({
  temperature: sampling.temperature,
  topP: sampling.topP,
  topK: sampling.topK ?? 0,
  minP: sampling.minP ?? 0,
  seed: sampling.seed,
  yieldEogToken: true,
  ...penaltiesOf(sampling, answer),
  // A grammar takes a control token for the text that spells it, which most have not in an answer.
  ...biasOf(
    library,
    model,
    sampling,
    grammar === undefined ? [] : [
      ...prompts.otherTokens,
      ...tools.length === 0 ? prompts.callTokens : []
    ]
  ),
  ...(grammar === undefined ? {} : { grammarEvaluationState: grammar })
})

/** What is known of an answer so far. */
interface State {
  readonly grammar: LlamaGrammarEvaluationState | undefined
  readonly answer: Array<Token>
  /** Of the last token, and likeliest first; when asked for. */
  probabilities: ReadonlyMap<Token, number> | undefined
}

/** Computes a prompt up to its last piece, which it returns; undefined when nobody wants the answer any more. */
const evaluatePrompt = async (
  { interlude }: Loaded,
  { computed, sequence }: Slot,
  prompt: Array<Token>,
  { isCancelled, progress }: Watch
): Promise<Array<Token> | undefined> => {
  let rest = prompt
  while (rest.length > promptPiece) {
    await sequence.evaluateWithoutGeneratingNewTokens(rest.slice(0, promptPiece))
    computed(promptPiece)
    progress()
    rest = rest.slice(promptPiece)
    await interlude.pause()
    if (isCancelled()) return undefined
  }
  return rest
}

async function* evaluate(
  loaded: Loaded,
  slot: Slot,
  prompt: Array<Token>,
  job: GenerateJob,
  state: State,
  watch: Watch
): AsyncGenerator<Token, void, undefined> {
  const { interlude, model, prompts } = loaded
  try {
    const rest = await evaluatePrompt(loaded, slot, prompt, watch)
    if (rest === undefined) return
    const metadata = { confidence: job.logprobs !== undefined } as const
    for await (
      const evaluated of slot.sequence.evaluateWithMetadata(rest, metadata, optionsOf(loaded, job, state))
    ) {
      const { token } = evaluated
      if (model.isEogToken(token) || prompts.endTokens.has(token)) return
      if (job.logprobs !== undefined) state.probabilities = probabilitiesOf(evaluated)
      state.answer.push(token)
      yield token
      await interlude.pause()
    }
  } catch (cause) {
    slot.spoil()
    throw cause
  }
}

/** `mendSampling` gives them with the confidence. */
const probabilitiesOf = (evaluated: object) =>
  (evaluated as { readonly probabilities?: ReadonlyMap<Token, number> }).probabilities

const logprobOf = (
  { textOf }: Loaded,
  { logprobs = 0 }: GenerateJob,
  { answer, probabilities }: State
): ChosenLogprob => logprobsOf(textOf, answer.at(-1)!, answer.slice(-5, -1), probabilities ?? new Map(), logprobs)

/** The text of tokens; a control token has none, except one that announces a tool call where there are tools. */
const decoderOf = ({ model, prompts: { callTokens } }: Loaded, { tools = [] }: GenerateJob) =>
  tools.length === 0 || callTokens.size === 0
    ? (tokens: Array<Token>, before: ReadonlyArray<Token>) => model.detokenize(tokens, false, before)
    : (tokens: Array<Token>, before: ReadonlyArray<Token>) =>
      model.detokenize(tokens, tokens.some((token) => callTokens.has(token)), before)

const prepare = async (
  loaded: Loaded,
  job: GenerateJob,
  watch: Watch,
  take: (prompt: Array<Token>) => Slot
): Promise<Generation<Token>> => {
  const { checks, description: { abilities, contextWindow }, prompts } = loaded
  if (!abilities.includes("generate")) notAble("generate")
  const goesOn = prompts.goesOn(checks.fit, job.assistantPrefix ?? "")
  const asked = prompts.tokensOf(checks.fit, job.messages, job.toolChoice === "none" ? [] : job.tools)
  const prompt = [...asked, ...goesOn]
  const room = contextWindow - prompt.length
  if (room <= 0) refuse({ kind: "context_length_exceeded", promptTokens: prompt.length, contextWindow })
  const grammar = await loaded.grammarOf(job)
  const slot = take(prompt)
  const cachedTokens = await slot.begin(prompt)
  const state: State = { grammar, answer: [...goesOn], probabilities: undefined }
  return {
    promptTokens: prompt.length,
    cachedTokens,
    room,
    goesOn,
    tokens: evaluate(loaded, slot, prompt.slice(cachedTokens), job, state, watch),
    logprobOf: () => logprobOf(loaded, job, state),
    decode: decoderOf(loaded, job)
  }
}

const generate = async (task: JobTask<GenerateJob>): Promise<void> => {
  const loaded = await loading
  let slot: Slot | undefined
  const take = (prompt: Array<Token>): Slot => {
    slot = takeOwned(
      loaded.free,
      prompt.length,
      spec.sharePrefixes === true ? "" : task.job.owner ?? "",
      (one) => one.keptOf(prompt),
      (one) => one.spoil()
    )
    return slot ?? refuse({ kind: "failed", message: "More jobs than slots reached the engine." })
  }
  await runJob(
    task,
    (watch) => prepare(loaded, task.job, watch, take),
    () => {
      if (slot !== undefined) loaded.free.push(slot)
    }
  )
}

const answer = async ({ job, port }: JobTask): Promise<void> => {
  if (job.kind === "generate") return generate({ job, port })
  await runWhole(port, async (watch) => (await checked).whole(job, watch))
}

/** Resolves once the model is loaded. */
export const describe = async (): Promise<EngineDescription> => (await loading).description

/** Frees the model's memory; no job may be running. */
export const dispose = async (): Promise<void> => {
  const loaded = await loading.catch(() => undefined)
  await loaded?.llama.dispose()
}

export default answer
