/** How each dialect requests the continuation of an earlier text. */
import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import { anthropic } from "../../../src/dialects/anthropic/Provider.ts"
import { gemini } from "../../../src/dialects/gemini/Provider.ts"
import { ollama } from "../../../src/dialects/ollama/Provider.ts"
import { azureOpenAi, openAi } from "../../../src/dialects/openai/Provider.ts"
import { makePrefixStopMatcher } from "../../../src/dialects/shared/PrefixStopMatcher.ts"
import type { Dialect } from "../../../src/dialects/shared/ProviderDialect.ts"
import { troupe } from "../../../src/dialects/troupe/Provider.ts"
import type { Generation } from "../../../src/domain/Generation.ts"
import type { Event } from "../../../src/domain/Inference.ts"
import { makeCheck } from "../../../src/layers/providers/BufferedAnswer.ts"

const generation: Generation = {
  messages: [{ role: "system", content: "Be brief." }, { role: "user", content: "Hello" }],
  sampling: { temperature: 1, topP: 1, seed: 1 },
  stop: [],
  assistantPrefix: "The capital"
}

const targetOf = (model: string) => ({
  deployment: "subject#0",
  model: "subject",
  options: { engine: "remote", provider: "openai", model } as const
})

interface Body extends Record<string, unknown> {
  readonly messages?: ReadonlyArray<unknown>
  readonly contents?: ReadonlyArray<unknown>
}

const bodyOf = (dialect: Dialect, model: string, asked: Generation = generation): Body =>
  Result.getOrThrow(dialect.generate.request(asked, targetOf(model), true)).body as Body

const { assistantPrefix: _, ...plain } = generation

describe("a text so far", () => {
  it("is the beginning of an answer of Anthropic's earlier models", () => {
    for (
      const model of ["claude-3-5-haiku-20241022", "claude-sonnet-4-20250514", "claude-opus-4-1", "claude-sonnet-4-5"]
    ) {
      const { messages } = bodyOf(anthropic, model)
      assert.deepStrictEqual(messages!.at(-1), { role: "assistant", content: [{ type: "text", text: "The capital" }] })
    }
  })

  it("is the beginning of Ollama's answer", () => {
    assert.deepStrictEqual(bodyOf(ollama, "m").messages!.at(-1), { role: "assistant", content: "The capital" })
  })

  it("is continued exactly by another instance", () => {
    const body = bodyOf(troupe, "m")
    assert.strictEqual(body["continue_final_message"], true)
    assert.deepStrictEqual(body.messages!.at(-1), { role: "assistant", content: "The capital" })
  })

  const asking: ReadonlyArray<readonly [subject: string, dialect: Dialect, model: string]> = [
    ["OpenAI", openAi, "m"],
    ["Azure", azureOpenAi, "m"],
    ["Gemini", gemini, "gemini-2.5-flash"],
    ["Anthropic's later models", anthropic, "claude-opus-4-6"],
    ["an unknown model of Anthropic", anthropic, "claude-sonnet-6"]
  ]
  for (const [subject, dialect, model] of asking) {
    it(`is followed by a request to continue for ${subject}`, () => {
      const { contents, messages = contents } = bodyOf(dialect, model)
      const [before, last] = messages!.slice(-2).map((message) => JSON.stringify(message))
      assert.match(before!, /"role":"(assistant|model)".*The capital/)
      assert.match(last!, /"role":"user".*exactly where it stops/)
      assert.notProperty(bodyOf(dialect, model), "continue_final_message")
    })
  }

  it("changes nothing without an earlier text", () => {
    for (
      const [dialect, model] of [[openAi, "m"], [troupe, "m"], [ollama, "m"], [anthropic, "claude-3-haiku"]] as const
    ) {
      const { messages } = bodyOf(dialect, model, plain)
      assert.include(JSON.stringify(messages!.at(-1)), "Hello")
    }
  })
})

describe("an answer that continues a prefix", () => {
  const options = { engine: "remote", provider: "openai", model: "m" } as const
  const text = (text: string): Event => ({ type: "text", text, tokens: 1 })
  const finish: Event = {
    type: "finish",
    reason: "stop",
    usage: { promptTokens: 1, completionTokens: 9, cachedTokens: 0 }
  }

  it("ends at a stop sequence that the text so far begins, which the provider cannot see", () => {
    const join = makePrefixStopMatcher({ ...generation, stop: ["capital of"] }, options)
    assert.deepStrictEqual(join([text(" o")]), [text("")])
    const [, last, ...more] = join([text("f Japan"), text(" is"), finish])
    assert.deepInclude(last, { type: "finish", reason: "stop" })
    assert.deepStrictEqual(more, [])
  })

  it("is passed on in full if the stop sequence was incomplete", () => {
    const join = makePrefixStopMatcher({ ...generation, stop: ["capital of"] }, options)
    const events = [...join([text(" o")]), ...join([text("n"), finish])]
    assert.strictEqual(events.map((event) => event.type === "text" ? event.text : "").join(""), " on")
    assert.deepStrictEqual(events.at(-1), finish)
  })

  it("may be nothing: the text so far was all", () => {
    assert.isUndefined(makeCheck(targetOf("m"), generation)([finish]))
    assert.strictEqual(makeCheck(targetOf("m"), plain)([finish])?._tag, "UpstreamFailed")
  })
})
