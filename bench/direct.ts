/**
 * Process entry: node-llama-cpp called directly, with the options of the llama engine and nothing around it.
 *
 * **Details**
 *
 * Same model, context, batch, slots, threads, chat template and sampling as `src/workers/llama.worker.ts`; every token
 * is turned into text. This is what the service is held against.
 */
import type { ChatHistoryItem, LlamaContextSequence, Token } from "node-llama-cpp"
import { getLlama, JinjaTemplateChatWrapper, LlamaLogLevel } from "node-llama-cpp"
import { fileURLToPath } from "node:url"
import { answerParent } from "./Child.ts"
import type { Round, Sample } from "./ClosedLoop.ts"
import { closedLoop } from "./ClosedLoop.ts"

/** One round asked of this process. */
export interface DirectQuestion {
  readonly prompt: string
  readonly maxTokens: number
  readonly streams: number
  readonly milliseconds: number
}

export type DirectAnswer = Round

const slots = 8
const largestBatch = 512
/** Tokens before a token that its text may depend on. */
const contextTokens = 4

const llama = await getLlama({ gpu: false, build: "never", logLevel: LlamaLogLevel.error, maxThreads: 0 })
const model = await llama.loadModel({
  modelPath: fileURLToPath(new URL("../models/tiny-chat-q8_0.gguf", import.meta.url))
})
const contextSize = Math.min(model.trainContextSize, 4096)
const context = await model.createContext({
  contextSize,
  sequences: slots,
  threads: 1,
  batchSize: Math.min(contextSize * slots, largestBatch)
})
const free: Array<LlamaContextSequence> = Array.from({ length: slots }, () => context.getSequence())
const chatWrapper = new JinjaTemplateChatWrapper({ template: model.fileInfo.metadata.tokenizer.chat_template! })

const generate = async (sequence: LlamaContextSequence, prompt: string, maxTokens: number): Promise<Sample> => {
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

answerParent<DirectQuestion, DirectAnswer>(
  ({ maxTokens, milliseconds, prompt, streams }) =>
    closedLoop(streams, milliseconds, async () => {
      const sequence = free.pop()!
      const sample = await generate(sequence, prompt, maxTokens)
      free.push(sequence)
      return sample
    }),
  () => llama.dispose()
)
