/**
 * Process entry: node-llama-cpp called directly, with the options of the llama engine and nothing around it.
 *
 * **Details**
 *
 * Same model, context, batch, slots, threads, chat template and sampling as `src/workers/llama.worker.ts`; every token is
 * decoded to text. Prompts are computed from their beginning: those of the bench are shorter, or have a shorter common
 * beginning, than the pieces that the service keeps. This is the service's baseline.
 */
import type { ChatHistoryItem, LlamaContextSequence, Token } from "node-llama-cpp"
import { getLlama, JinjaTemplateChatWrapper, LlamaLogLevel } from "node-llama-cpp"
import { answerParent } from "./Child.ts"
import type { Round, Sample } from "./ClosedLoop.ts"
import { closedLoop } from "./ClosedLoop.ts"

/** What to load. */
export interface DirectSetup {
  readonly file: string
  /** Tokens per slot. */
  readonly contextSize: number
  readonly slots: number
  readonly threads: number
}

/** One round of requests to this process. */
export interface DirectRound {
  /** Used in turn. */
  readonly prompts: ReadonlyArray<string>
  readonly maxTokens: number
  readonly streams: number
  readonly milliseconds: number
}

/** The first message loads, all others are rounds. */
export type DirectQuestion = { readonly load: DirectSetup } | { readonly round: DirectRound }

/** The result of a load. */
export type DirectAnswer = Round | null

const largestBatch = 512
/** Tokens before a token that can affect its text. */
const contextTokens = 4

const load = async ({ contextSize, file, slots, threads }: DirectSetup) => {
  const llama = await getLlama({ gpu: false, build: "never", logLevel: LlamaLogLevel.error, maxThreads: 0 })
  const model = await llama.loadModel({ modelPath: file, gpuLayers: 0 })
  const context = await model.createContext({
    contextSize,
    sequences: slots,
    threads,
    batchSize: Math.min(contextSize * slots, largestBatch)
  })
  return {
    llama,
    model,
    free: Array.from({ length: slots }, (): LlamaContextSequence => context.getSequence()),
    chatWrapper: new JinjaTemplateChatWrapper({ template: model.fileInfo.metadata.tokenizer.chat_template! })
  }
}

type Loaded = Awaited<ReturnType<typeof load>>

const generate = async (
  { chatWrapper, model }: Loaded,
  sequence: LlamaContextSequence,
  prompt: string,
  maxTokens: number
): Promise<Sample> => {
  const begun = performance.now()
  const chatHistory: Array<ChatHistoryItem> = [{ type: "user", text: prompt }, { type: "model", response: [] }]
  const tokens = chatWrapper.generateContextState({ chatHistory }).contextText.tokenize(model.tokenizer)
  await sequence.clearHistory()
  const options = { temperature: 0, topK: 0, topP: 1, minP: 0, yieldEogToken: true }
  let before: Array<Token> = []
  let text = ""
  let count = 0
  let firstTokenMs = 0
  for await (const token of sequence.evaluate(tokens, options)) {
    if (model.isEogToken(token)) break
    text += model.detokenize([token], false, before)
    before = [...before, token].slice(-contextTokens)
    if (count === 0) firstTokenMs = performance.now() - begun
    count++
    if (count >= maxTokens) break
  }
  return { tokens: count, firstTokenMs, text }
}

const runRound = (loaded: Loaded, { maxTokens, milliseconds, prompts, streams }: DirectRound): Promise<Round> => {
  let asked = 0
  return closedLoop(streams, milliseconds, async () => {
    const sequence = loaded.free.pop()!
    const sample = await generate(loaded, sequence, prompts[asked++ % prompts.length]!, maxTokens)
    loaded.free.push(sequence)
    return sample
  })
}

let loading: Promise<Loaded> | undefined

answerParent<DirectQuestion, DirectAnswer>(
  async (question) => {
    if ("round" in question) return runRound(await loading!, question.round)
    loading = load(question.load)
    await loading
    return null
  },
  async () => (await loading)?.llama.dispose()
)
