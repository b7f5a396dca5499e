/** Numbers of a caller's schemas that a double does not hold, at a provider of another dialect. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Result } from "effect"
import * as Anthropic from "../../../src/dialects/anthropic/DecodeRequest.ts"
import * as OpenAi from "../../../src/dialects/openai/DecodeRequest.ts"
import * as ExactNumber from "../../../src/domain/ExactNumber.ts"
import type { Request } from "../../../src/domain/Inference.ts"
import { startedEngine } from "../../support/StartedEngine.ts"
import { engineAt, generation, outcome, served } from "./support.ts"

const number = "9007199254740993"
const schema = `{"type":"object","properties":{"id":{"type":"integer","const":${number}}}}`
const messages = `"model":"m","messages":[{"role":"user","content":"Hello!"}]`

const openAiText = `{${messages},
  "tools":[{"type":"function","function":{"name":"find","parameters":${schema}}},{"type":"function","function":{"name":"end"}}],
  "response_format":{"type":"json_schema","json_schema":{"name":"n","schema":${schema}}}}`
const anthropicText = `{${messages},"max_tokens":5,
  "tools":[{"name":"find","input_schema":${schema}}],
  "output_config":{"format":{"type":"json_schema","schema":${schema}}}}`

const requestOf = {
  openai: () => Result.getOrThrow(OpenAi.decode(JSON.parse(openAiText), {}, ExactNumber.parse(openAiText))).requests[0],
  anthropic: () =>
    Result.getOrThrow(Anthropic.decode(JSON.parse(anthropicText), {}, ExactNumber.parse(anthropicText))).request
} satisfies Record<string, () => Request>

/** Callers of one dialect, and providers of others. */
const pairs = [["openai", "anthropic"], ["openai", "gemini"], ["anthropic", "openai"], ["anthropic", "ollama"]] as const

describe("a number of a schema that a double does not hold", () => {
  for (const [caller, provider] of pairs) {
    for (const form of ["stream", "receiver"] as const) {
      it.live(`is sent from ${caller} to ${provider} as the caller wrote it, as a ${form}`, () =>
        Effect.scoped(Effect.gen(function*() {
          const sent: Array<string> = []
          const server = yield* served((_, { text }) => {
            sent.push(text)
            return { status: 400, pieces: [] }
          })
          const engine = yield* engineAt(server.url, { provider })
          const { format, source, tools } = requestOf[caller]()
          yield* outcome(form === "stream" ? engine : startedEngine(engine), { ...generation, format, source, tools })
          assert.strictEqual(sent[0]?.split(number).length, 3)
        })))
    }
  }

  it("is a double for engines on threads and for checks of schemas", () => {
    for (const make of Object.values(requestOf)) {
      const { format, tools } = make()
      for (const value of [format, tools]) assert.deepStrictEqual(ExactNumber.textsIn(value), {})
    }
  })
})
