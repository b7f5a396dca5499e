/**
 * The prompt of a text completion as the beginning of its answer, with the log-probability of each token after the first.
 *
 * **Details**
 *
 * A token that the vocabulary puts before a text is not part of the echo. The text is the caller's own where the prompt is one,
 * since a tokenizer may change white space.
 *
 * **Gotchas**
 *
 * A slot keeps what it has computed of a prompt, but not the probabilities: with log-probabilities all of the prompt is computed.
 */
import type { Token } from "node-llama-cpp"
import { promptPiece } from "../../domain/EngineProtocol.ts"
import type { ChosenLogprob, GenerateJob } from "../../domain/Job.ts"
import type { Echo, JobSignals } from "../job/JobRunner.ts"
import type { Loaded } from "./LlamaLoad.ts"
import { logprobsOf } from "./LlamaLogprobs.ts"
import type { Slot } from "./LlamaSlots.ts"

/** Tokens before a token that its text depends on. */
const contextTokens = 4

/** Whether the echo needs the probabilities of the prompt. */
export const hasProbabilities = ({ completion, logprobs }: GenerateJob): boolean =>
  completion?.echo === true && logprobs !== undefined

const textOf = ({ model }: Loaded, { completion, messages: [prompt] }: GenerateJob): string =>
  completion?.tokens === undefined ? prompt?.content ?? "" : model.detokenize(completion.tokens as Array<Token>, true)

/** The tokens of the prompt that the caller has not written: a token that begins a text. */
const addedBy = ({ model }: Loaded, { completion, messages: [prompt] }: GenerateJob, [first]: Array<Token>): number => {
  const { bos, bosString } = model.tokens
  if (completion?.tokens !== undefined || first !== bos || bosString === null) return 0
  return prompt?.content.startsWith(bosString) === true ? 0 : 1
}

/**
 * Computes all tokens of the prompt but the last one, in pieces.
 *
 * @returns an entry per token of the echo; undefined if the job is cancelled
 */
const readPrompt = async (
  loaded: Loaded,
  { computed, sequence }: Slot,
  prompt: Array<Token>,
  job: GenerateJob,
  { isCancelled, progress }: JobSignals
): Promise<ReadonlyArray<ChosenLogprob> | undefined> => {
  const { answers, contextLock, textOf } = loaded
  const added = addedBy(loaded, job, prompt)
  const entries: Array<ChosenLogprob> = [{ ...textOf(prompt[added]!, []), logprob: null, top: [] }]
  for (let begin = 0; begin < prompt.length - 1; begin += promptPiece) {
    const end = Math.min(begin + promptPiece, prompt.length - 1)
    await answers.read(sequence, prompt.slice(begin, end), (index) => prompt[begin + index + 1]!, (index, found) => {
      const at = begin + index + 1
      const before = prompt.slice(Math.max(added, at - contextTokens), at)
      if (at > added) entries[at - added] = logprobsOf(textOf, prompt[at]!, before, found, job.logprobs!)
    })
    if (end - begin === promptPiece) computed(promptPiece)
    progress()
    await contextLock.pause()
    if (isCancelled()) return undefined
  }
  return entries
}

/** The echo of a job; undefined if the job is cancelled. */
export const echoOf = async (
  loaded: Loaded,
  slot: Slot,
  prompt: Array<Token>,
  job: GenerateJob,
  signals: JobSignals
): Promise<Echo | undefined> => {
  const text = textOf(loaded, job)
  if (!hasProbabilities(job)) return { text }
  try {
    const logprobs = await readPrompt(loaded, slot, prompt, job, signals)
    return logprobs && { text, logprobs }
  } catch (cause) {
    slot.invalidate()
    throw cause
  }
}
