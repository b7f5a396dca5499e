/** The batches of the real engine: all answers that go on are in each, and none waits for one that does not. */
import { assert } from "@effect/vitest"
import type { LlamaContextSequence, Token } from "node-llama-cpp"
import { getLlama, LlamaLogLevel } from "node-llama-cpp"
import { setImmediate } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { afterAll, beforeAll, describe, it } from "vitest"
import { makeBatches } from "../../src/workers/llama/LlamaBatches.ts"
import { Answer, Answers } from "../../src/workers/llama/LlamaTokens.ts"

const file = fileURLToPath(new URL("../../models/tiny-chat-q8_0.gguf", import.meta.url))
const slots = 4
const answerTokens = 12

/** A batch: the sequences of its tokens, in order. */
type Batch = ReadonlyArray<number>

/** Records the batches of a context. */
const recorded = (native: Answers["native"], batches: Array<Array<number>>) => {
  const init = native.initBatch.bind(native)
  const add = native.addToBatch.bind(native)
  const functions: Partial<Answers["native"]> = {
    initBatch(size) {
      batches.push([])
      init(size)
    },
    addToBatch(sequence, first, tokens, logits) {
      batches.at(-1)!.push(...Array.from(tokens, () => sequence))
      return add(sequence, first, tokens, logits)
    }
  }
  for (const [name, value] of Object.entries(functions)) Object.defineProperty(native, name, { value })
}

const load = async () => {
  const llama = await getLlama({ gpu: false, build: "never", logLevel: LlamaLogLevel.error, maxThreads: 0 })
  const model = await llama.loadModel({ modelPath: file, gpuLayers: 0 })
  // A clock that stands still: next tokens are always computed together.
  const { attach, strategy } = makeBatches(128, { answers: 1, prompts: 1 }, () => 0)
  const context = await model.createContext({
    contextSize: 256,
    sequences: slots,
    threads: 1,
    batchSize: 256,
    batching: { itemPrioritizationStrategy: strategy }
  })
  attach(context)
  const answers = new Answers(llama, model, context)
  const batches: Array<Array<number>> = []
  recorded(answers.native, batches)
  const sequences = Array.from({ length: slots }, () => context.getSequence())
  return { llama, model, answers, batches, sequences }
}

describe("batches of the llama engine", () => {
  let loaded: Awaited<ReturnType<typeof load>>
  beforeAll(async () => {
    loaded = await load()
  })
  afterAll(() => loaded.llama.dispose())

  const promptOf = (index: number): Array<Token> => loaded.model.tokenize(`Write a story about ${index} foxes.`, false)

  /** The answer of a sequence; `before` is called before each token, and ends the answer if it returns false. */
  const answerOf = async (
    sequence: LlamaContextSequence,
    index: number,
    before: (token: number) => Promise<void> | boolean | undefined = () => true
  ): Promise<ReadonlyArray<Token>> => {
    await sequence.clearHistory()
    const answer = new Answer(
      loaded.answers,
      sequence,
      { temperature: 1, topP: 1, topK: 0, minP: 0, seed: index },
      false
    )
    const tokens: Array<Token> = []
    try {
      for (let next = promptOf(index); tokens.length < answerTokens; next = tokens.slice(-1)) {
        const goesOn = before(tokens.length)
        if (goesOn === false) break
        if (typeof goesOn === "object") await goesOn
        tokens.push(await answer.after(next))
      }
    } finally {
      await answer.end()
    }
    return tokens
  }

  const batchesDuring = async <A>(work: () => Promise<A>): Promise<[batches: ReadonlyArray<Batch>, result: A]> => {
    const begin = loaded.batches.length
    const result = await work()
    return [loaded.batches.slice(begin), result]
  }

  /** Batches of next tokens only. */
  const nextIn = (batches: ReadonlyArray<Batch>) => batches.filter((batch) => new Set(batch).size === batch.length)

  it("have all answers in the order of their sequences, with the tokens that each has alone", async () => {
    const alone: Array<ReadonlyArray<Token>> = []
    for (const [index, sequence] of loaded.sequences.entries()) alone.push(await answerOf(sequence, index))
    const [batches, together] = await batchesDuring(() =>
      // In an order that is not that of the sequences.
      Promise.all(loaded.sequences.map((_, index) => answerOf(loaded.sequences[slots - 1 - index]!, index)))
    )
    assert.deepStrictEqual(together, alone)
    assert.deepStrictEqual(nextIn(batches), Array.from({ length: answerTokens - 1 }, () => [0, 1, 2, 3]))
  })

  it("go on without an answer that waits, ends early, or whose prompt is computed", async () => {
    const reader = Promise.withResolvers<void>()
    const [slow, cancelled, ...others] = loaded.sequences
    let slowTokens = 0
    const [batches] = await batchesDuring(async () => {
      const waiting = answerOf(slow!, 0, (token) => {
        slowTokens = token
        return token === 3 ? reader.promise : undefined
      })
      await Promise.all([
        answerOf(cancelled!, 1, (token) => token < 5),
        ...others.map((sequence, index) => answerOf(sequence, 2 + index))
      ])
      assert.strictEqual(slowTokens, 3)
      reader.resolve()
      assert.strictEqual((await waiting).length, answerTokens)
    })
    assert.deepStrictEqual(nextIn(batches), [
      ...Array.from({ length: 2 }, () => [0, 1, 2, 3]),
      ...Array.from({ length: 2 }, () => [1, 2, 3]),
      ...Array.from({ length: answerTokens - 5 }, () => [2, 3]),
      ...Array.from({ length: answerTokens - 3 }, () => [0])
    ])
    const long = loaded.model.tokenize("a ".repeat(200), false)
    const [mixed] = await batchesDuring(async () => {
      await slow!.clearHistory()
      const prompt = slow!.evaluateWithoutGeneratingNewTokens(long)
      await setImmediate()
      await Promise.all([prompt, answerOf(others[0]!, 2), answerOf(others[1]!, 3)])
    })
    // Each batch has prompts or next tokens.
    assert.isTrue(
      mixed.every((batch) =>
        new Set(batch).size === batch.length ||
        !batch.some((id, at) => batch.indexOf(id) === at && batch.lastIndexOf(id) === at)
      )
    )
    assert.strictEqual(nextIn(mixed).length, answerTokens - 1)
  })
})
