/**
 * The llama engine's thread: a GGUF model with continuous batching over several slots, by node-llama-cpp.
 *
 * **Details**
 *
 * One context holds a sequence a slot; the tokens of all running jobs are computed in shared batches. The prompt is
 * made by the model file's own chat template, in which a caller's text can never become a control token.
 *
 * **Gotchas**
 *
 * A prompt that does not fit would be cut silently by the library, so its length is checked here; and generation ends
 * where the window ends, since going on would shift the context silently. Ending this thread while it evaluates
 * aborts the process: jobs are cancelled between tokens, and the host waits for them.
 */
import type { ChatHistoryItem, ChatWrapper, LlamaContextSequence, LlamaModel, Token } from "node-llama-cpp"
import { workerData } from "node:worker_threads"
import type { EngineDescription, LlamaSpec } from "../services/EngineProtocol.ts"
import type { ChatMessage, GenerateJob } from "../services/Job.ts"
import { failureFrom, refuse } from "../services/Job.ts"
import type { Generation, JobTask } from "./JobRunner.ts"
import { notAble, runJob, runWhole } from "./JobRunner.ts"
import type { Loaded } from "./LlamaLoad.ts"
import { load } from "./LlamaLoad.ts"
import { biasOf, penaltiesOf } from "./LlamaSampling.ts"

const spec = workerData as LlamaSpec

// A throw on this thread in mid-generation aborts the whole process unless someone listens.
process.on("uncaughtException", (cause) => {
  process.stderr.write(`troupe: the llama engine thread caught: ${cause.message}\n`)
})

const historyOf = (messages: ReadonlyArray<ChatMessage>): Array<ChatHistoryItem> => [
  ...messages.map(({ content, role }): ChatHistoryItem =>
    role === "assistant"
      ? { type: "model", response: [content] }
      : { type: role === "tool" ? "user" : role, text: content }
  ),
  { type: "model", response: [] }
]

const loading = load(spec).catch((cause) => refuse(failureFrom(cause, "load_failed")))
// Unhandled, the rejection would end the thread before anyone has asked `describe`.
loading.catch(() => {})

/** Tokens that end an answer besides the vocabulary's own: the special ones that the template ends a turn with. */
const endTokensOf = (model: LlamaModel, triggers: ReturnType<ChatWrapper["generateContextState"]>) =>
  new Set(
    triggers.stopGenerationTriggers
      .map((trigger) => trigger.tokenize(model.tokenizer)[0])
      .filter((token): token is Token => token !== undefined && model.isSpecialToken(token))
  )

/**
 * Runs work that needs the context to itself, while every generation waits at its next token.
 *
 * The library computes batches under the context's lock for as long as any token is asked for, so without this a
 * newcomer would wait until all others have finished.
 */
const makeInterlude = () => {
  let waiting = 0
  let over = Promise.withResolvers<void>()
  return {
    async run(work: () => Promise<void>) {
      waiting++
      try {
        await work()
      } finally {
        waiting--
        if (waiting === 0) {
          over.resolve()
          over = Promise.withResolvers()
        }
      }
    },
    /** Resolves when no one needs the context to itself. */
    pause: (): Promise<void> | undefined => waiting === 0 ? undefined : over.promise
  }
}

const interlude = makeInterlude()

/** Tokens of a prompt that are computed before the next look at whether anyone still wants the answer. */
const promptPiece = 128

async function* evaluate(
  { library, model }: Loaded,
  sequence: LlamaContextSequence,
  prompt: Array<Token>,
  endTokens: ReadonlySet<Token>,
  { sampling }: GenerateJob,
  isCancelled: () => boolean
): AsyncGenerator<Token, void, undefined> {
  if (sequence.nextTokenIndex > 0) await interlude.run(() => sequence.clearHistory())
  let rest = prompt
  while (rest.length > promptPiece) {
    await sequence.evaluateWithoutGeneratingNewTokens(rest.slice(0, promptPiece))
    rest = rest.slice(promptPiece)
    await interlude.pause()
    if (isCancelled()) return
  }
  const answer: Array<Token> = []
  const tokens = sequence.evaluate(rest, {
    temperature: sampling.temperature,
    topP: sampling.topP,
    topK: sampling.topK ?? 0,
    minP: sampling.minP ?? 0,
    seed: sampling.seed,
    yieldEogToken: true,
    ...penaltiesOf(sampling, answer),
    ...biasOf(library, model, sampling)
  })
  for await (const token of tokens) {
    if (model.isEogToken(token) || endTokens.has(token)) return
    answer.push(token)
    yield token
    await interlude.pause()
  }
}

/** All jobs wait while a prompt becomes tokens, so one of megabytes is not made into any. */
const refuseWhatCannotFit = ({ messages }: GenerateJob, contextWindow: number, longestToken: number) => {
  const characters = messages.reduce((sum, { content }) => sum + content.length, 0)
  const promptTokens = Math.ceil(characters / longestToken)
  if (promptTokens >= contextWindow) {
    refuse({ kind: "context_length_exceeded", promptTokens, atLeast: true, contextWindow })
  }
}

/** Resolves once the model is loaded. */
export const describe = async (): Promise<EngineDescription> => (await loading).description

/** Frees the model's memory; no job may be running. */
export const dispose = async (): Promise<void> => {
  const loaded = await loading.catch(() => undefined)
  await loaded?.llama.dispose()
}

export default async (task: JobTask): Promise<void> => {
  const loaded = await loading
  const { chatWrapper, free, longestToken, model } = loaded
  const { job } = task
  if (job.kind !== "generate") return runWhole(task.port, () => notAble(job.kind))
  const sequence = free.pop()
  const prepare = async (isCancelled: () => boolean): Promise<Generation<Token>> => {
    if (sequence === undefined) return refuse({ kind: "failed", message: "More jobs than slots reached the engine." })
    const contextWindow = sequence.contextSize
    refuseWhatCannotFit(job, contextWindow, longestToken)
    const state = chatWrapper.generateContextState({ chatHistory: historyOf(job.messages) })
    const prompt = state.contextText.tokenize(model.tokenizer)
    const room = contextWindow - prompt.length
    if (room <= 0) refuse({ kind: "context_length_exceeded", promptTokens: prompt.length, contextWindow })
    return {
      promptTokens: prompt.length,
      cachedTokens: 0,
      room,
      tokens: evaluate(loaded, sequence, prompt, endTokensOf(model, state), job, isCancelled),
      decode: (tokens, before) => model.detokenize(tokens, false, before)
    }
  }
  await runJob({ port: task.port, job }, prepare, () => {
    if (sequence !== undefined) free.push(sequence)
  })
}
