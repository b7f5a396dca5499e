/**
 * Requests of lm-evaluation-harness (`--model local-completions`), and what it reads of the answers: `parse_logprobs` and
 * `parse_generations` of its `openai_completions.py`, restated.
 */
import { assert } from "@effect/vitest"
import { describe, it } from "vitest"
import type { Service } from "./Service.ts"

const model = "tiny-chat"
const seed = 1234

interface Choice {
  readonly index: number
  readonly text: string
  readonly finish_reason: string
  readonly logprobs: {
    readonly tokens: ReadonlyArray<string>
    readonly token_logprobs: ReadonlyArray<number | null>
    readonly top_logprobs: ReadonlyArray<Readonly<Record<string, number>> | null>
  }
}

/** @param serviceOf started, with the embedded model */
export const evaluationHarness = (serviceOf: () => Service): void => {
  const post = async (path: string, body: object): Promise<unknown> => {
    const headers = { "content-type": "application/json" }
    const response = await fetch(`${serviceOf().url}/v1/${path}`, {
      method: "POST",
      headers,
      body: JSON.stringify(body)
    })
    assert.strictEqual(response.status, 200, await response.clone().text())
    return response.json()
  }

  const tokenize = async (prompt: string): Promise<ReadonlyArray<number>> =>
    (await post("tokenize", { model, prompt }) as { readonly tokens: ReadonlyArray<number> }).tokens

  const complete = async (body: object): Promise<ReadonlyArray<Choice>> =>
    (await post("completions", { model, ...body }) as { readonly choices: ReadonlyArray<Choice> }).choices

  /** The sum of the continuation's log-probabilities, and whether each of its tokens is the likeliest. */
  const parseLogprobs = (choices: ReadonlyArray<Choice>, contexts: ReadonlyArray<number>) =>
    choices.toSorted((a, b) => a.index - b.index).map(({ logprobs }, at) => {
      const values = logprobs.token_logprobs.slice(contexts[at], -1)
      const tops = logprobs.top_logprobs.slice(contexts[at], -1)
      return {
        count: values.length,
        sum: values.reduce<number>((sum, value) => sum + value!, 0),
        isGreedy: values.every((value, index) => value === Math.max(...Object.values(tops[index]!)))
      }
    })

  const likelihoods = async (pairs: ReadonlyArray<readonly [context: string, continuation: string]>) => {
    const tokens = await Promise.all(pairs.map(async ([context, continuation]) => {
      const [before, all] = await Promise.all([tokenize(context), tokenize(context + continuation)])
      return { context: before.length, all }
    }))
    const prompt = tokens.map(({ all }) => all)
    const choices = await complete({ prompt, temperature: 0, max_tokens: 1, logprobs: 1, seed, echo: true })
    const parsed = parseLogprobs(choices, tokens.map(({ context }) => context))
    for (const [index, { count }] of parsed.entries()) {
      assert.strictEqual(count, tokens[index]!.all.length - tokens[index]!.context)
    }
    return parsed
  }

  const context = "The cat sat on the"

  describe("a request for log-likelihoods", () => {
    it("is a batch of token ids, whose continuations have one value per token, also beside others of other lengths", async () => {
      const [first] = await complete({ prompt: context, temperature: 0, max_tokens: 3, seed })
      const pairs = [
        [context, first!.text],
        [context, " zebra crossing of Tuesday"],
        ["Where is the dog? " + context, first!.text]
      ] as const
      const [likely, unlikely, other] = await likelihoods(pairs)
      assert.isTrue(likely!.isGreedy)
      assert.isFalse(unlikely!.isGreedy)
      assert.isAbove(likely!.sum, unlikely!.sum)
      assert.isBelow(other!.sum, 0)
      const [alone] = await likelihoods([pairs[1]])
      assert.closeTo(alone!.sum, unlikely!.sum, 0.1)
    })

    it("has a value for the token after the prompt, also where the model ends there", async () => {
      let text = context
      for (let round = 0; round < 20; round++) {
        const [{ finish_reason: reason, text: next }] = await complete({
          prompt: text,
          temperature: 0,
          max_tokens: 64,
          seed
        }) as [Choice]
        text += next
        if (reason === "stop") break
      }
      const tokens = await tokenize(text)
      const [ended] = await complete({ prompt: [tokens], temperature: 0, max_tokens: 1, logprobs: 1, seed, echo: true })
      assert.strictEqual(ended!.finish_reason, "stop")
      assert.lengthOf(ended!.logprobs.token_logprobs, tokens.length + 1)
      assert.lengthOf(ended!.logprobs.top_logprobs, tokens.length + 1)
    })
  })

  describe("a request to generate until a text", () => {
    it("has the texts by their index, without the stop sequence", async () => {
      const prompt = [await tokenize(context), await tokenize("A dog and a bird")]
      const choices = await complete({ prompt, max_tokens: 24, temperature: 0, stop: ["\n\n", "."], seed })
      assert.sameMembers(choices.map(({ index }) => index), [0, 1])
      for (const { text } of choices) assert.notInclude(text, ".")
    })
  })
}
