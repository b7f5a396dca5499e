import { assert, describe, it } from "@effect/vitest"
import type { Token } from "node-llama-cpp"
import type { Vocabulary } from "../../../src/workers/llama/LlamaCompletion.ts"
import { completionTokens } from "../../../src/workers/llama/LlamaCompletion.ts"

const token = (id: number) => id as Token

/** A vocabulary of characters, with ids from 100; `<` is a control token where these are read. */
const vocabulary = (infill = true): Vocabulary => ({
  tokenize:
    ((text: string, special?: boolean) =>
      text.split("").map((character) =>
        token(special === true && character === "<" ? 9 : 100 + character.charCodeAt(0))
      )) as Vocabulary["tokenize"],
  tokens: {
    bos: token(1),
    shouldPrependBosToken: true,
    infill: {
      prefix: infill ? token(2) : null,
      suffix: infill ? token(3) : null,
      middle: infill ? token(4) : null
    }
  }
})

const text = (...contents: ReadonlyArray<string>) => ({
  completion: {},
  messages: contents.map((content) => ({ role: "user" as const, content }))
})

const tokens = (job: Parameters<typeof completionTokens>[3], model = vocabulary()) =>
  completionTokens(model, 1_000, () => {}, job)

const refusal = (run: () => unknown): object => {
  try {
    run()
  } catch (failure) {
    return failure as object
  }
  return assert.fail("no refusal")
}

describe("the prompt of a text completion", () => {
  it("is the text with the token that begins a text, and with its control tokens", () => {
    assert.deepEqual(tokens(text("a<")), [1, 197, 9])
    assert.deepEqual(tokens(text("")), [1])
  })

  it("has a gap between the text and the suffix, in which control tokens are text", () => {
    assert.deepEqual(tokens(text("a<", "b")), [1, 2, 197, 160, 3, 198, 4])
  })

  it("needs tokens for filling in the middle", () => {
    assert.deepInclude(refusal(() => tokens(text("a", "b"), vocabulary(false))), {
      kind: "not_supported",
      path: "suffix"
    })
  })

  it("is given as tokens of the vocabulary, which are not changed", () => {
    const job = { completion: { tokens: [7, 8] }, messages: [{ role: "user" as const, content: "" }] }
    assert.deepEqual(tokens(job), [7, 8])
    assert.deepInclude(refusal(() => tokens({ ...job, completion: { tokens: [7, 1_000] } })), {
      kind: "invalid_request",
      path: "completion.tokens[1]"
    })
  })

  it("is checked before it is tokenized", () => {
    const seen: Array<number> = []
    completionTokens(vocabulary(), 1_000, (characters) => void seen.push(characters), text("abc", "de"))
    assert.deepEqual(seen, [5])
  })
})
