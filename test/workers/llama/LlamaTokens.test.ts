import { assert } from "@effect/vitest"
import type { Llama, LlamaContext, LlamaContextSequence, LlamaModel, Token } from "node-llama-cpp"
import { afterEach, describe, it, vi } from "vitest"
import { Answer, Answers } from "../../../src/workers/llama/LlamaTokens.ts"

afterEach(() => void vi.unstubAllEnvs())

type Sampled = number | [token: number, pairs?: Array<number> | undefined, confidence?: number]

/**
 * A context of two sequences that computes batches of one sequence each. The result of a sample is the place of its logits,
 * so that it is known which of them was used.
 */
const makeContext = (failure?: Error) => {
  const calls: Array<string> = []
  let places = 0
  const native = Object.create({
    initBatch: () => void calls.push("init"),
    addToBatch: (_: number, __: number, ___: Uint32Array, logits: Uint32Array) =>
      Uint32Array.from(logits, () => places++),
    decodeBatch: async () => {
      calls.push("decode begins")
      await Promise.resolve()
      calls.push("decode ends")
      if (failure !== undefined) throw failure
    },
    sampleToken: async (place: number, _: unknown, probabilities?: boolean, confidence?: boolean): Promise<Sampled> => {
      calls.push(`sample ${place}`)
      await Promise.resolve()
      if (confidence === true) return [place, undefined, 0.75]
      return probabilities === true ? [place, [place, 0.75, 7, 0.25]] : place
    }
  }) as {
    readonly initBatch: (size: number) => void
    readonly addToBatch: (id: number, first: number, tokens: Uint32Array, logits: Uint32Array) => Uint32Array
    readonly decodeBatch: () => Promise<void>
    readonly sampleToken: (place: number) => Promise<Sampled>
  }
  const sequence = (id: number) =>
    ({
      _sequenceId: id,
      needsCheckpoints: false,
      _resolveSamplerConfig: (options: object) => options,
      // As the library does: it samples once the batch is computed.
      async _decodeTokens(
        tokens: Array<number>,
        logits: Array<true>,
        _: number,
        __: unknown,
        ___: unknown,
        sample: (place: number) => Promise<Sampled>
      ) {
        native.initBatch(tokens.length)
        const [place] = native.addToBatch(id, 0, Uint32Array.from(tokens), Uint32Array.of(logits.length - 1))
        await native.decodeBatch()
        const sampled: Array<Sampled> = []
        sampled[tokens.length - 1] = await sample(place!)
        return sampled
      }
    }) as unknown as LlamaContextSequence
  class AddonSampler {
    applyConfig(config: object) {
      calls.push(`configure ${JSON.stringify(config)}`)
    }
    dispose() {
      calls.push("dispose")
    }
  }
  const answers = new Answers(
    { _bindings: { AddonSampler } } as unknown as Llama,
    { _model: {} } as unknown as LlamaModel,
    { _ctx: native } as unknown as LlamaContext
  )
  return { answers, calls, native, sequence }
}

const tokens = (...ids: Array<number>) => ids as Array<Token>

describe("Answer", () => {
  it("requests its token together with the batch if one thread computes both", async () => {
    vi.stubEnv("UV_THREADPOOL_SIZE", "1")
    const { answers, calls, sequence } = makeContext()
    const answer = new Answer(answers, sequence(0), { temperature: 1 }, false)
    assert.strictEqual(await answer.after(tokens(5, 6)), 0)
    assert.strictEqual(await answer.after(tokens(0)), 1)
    await answer.end()
    assert.deepStrictEqual(calls, [
      "configure {\"temperature\":1}",
      ...[0, 1].flatMap((place) => ["init", "decode begins", `sample ${place}`, "decode ends"]),
      "dispose"
    ])
  })

  it("requests its token after the batch if several threads compute", async () => {
    vi.stubEnv("UV_THREADPOOL_SIZE", "4")
    const { answers, calls, sequence } = makeContext()
    const answer = new Answer(answers, sequence(0), { temperature: 1 }, false)
    assert.strictEqual(await answer.after(tokens(5)), 0)
    await answer.end()
    assert.deepStrictEqual(calls.slice(1), ["init", "decode begins", "decode ends", "sample 0", "dispose"])
  })

  it("samples no batch of other sequences, and none after its end", async () => {
    vi.stubEnv("UV_THREADPOOL_SIZE", "1")
    const { answers, calls, native, sequence } = makeContext()
    const answer = new Answer(answers, sequence(0), {}, false)
    const compute = async (id: number) => {
      native.initBatch(1)
      native.addToBatch(id, 0, Uint32Array.of(5), Uint32Array.of(0))
      await native.decodeBatch()
    }
    await compute(1)
    await answer.end()
    await compute(0)
    assert.isFalse(calls.some((call) => call.startsWith("sample")))
  })

  it("fails with its batch, and frees its sampler when the request has ended", async () => {
    vi.stubEnv("UV_THREADPOOL_SIZE", "1")
    const failure = new Error("Eval has failed")
    const { answers, calls, sequence } = makeContext(failure)
    const answer = new Answer(answers, sequence(0), {}, false)
    assert.strictEqual(await answer.after(tokens(5)).catch((cause: unknown) => cause), failure)
    await answer.end()
    assert.strictEqual(calls.at(-1), "dispose")
  })

  it("configures its penalties for each token", async () => {
    const { answers, calls, sequence } = makeContext()
    const repeatPenalty = { punishTokens: () => [], penalty: 2 }
    const answer = new Answer(answers, sequence(0), { repeatPenalty }, false)
    await answer.after(tokens(5))
    await answer.after(tokens(0))
    assert.strictEqual(calls.filter((call) => call.startsWith("configure")).length, 2)
  })

  it.each(["1", "4"])("has the probabilities of the unchanged logits (%s threads)", async (threads) => {
    vi.stubEnv("UV_THREADPOOL_SIZE", threads)
    const { answers, sequence } = makeContext()
    const answer = new Answer(answers, sequence(0), {}, true)
    assert.strictEqual(await answer.after(tokens(5)), 0)
    assert.deepStrictEqual([...answer.probabilities!], [[0 as Token, 0.75], [7 as Token, 0.25]])
    await answer.end()
  })
})
