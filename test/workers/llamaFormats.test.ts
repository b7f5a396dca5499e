/** Formats of text and further sampling options of GGUF models, on real weights. */
import { assert } from "@effect/vitest"
import { fileURLToPath } from "node:url"
import { afterAll, beforeAll, describe, it } from "vitest"
import type { EngineHost } from "../../src/domain/EngineProtocol.ts"
import type { GenerateJob, JobEvent } from "../../src/domain/Job.ts"
import { isTerminal } from "../../src/domain/Job.ts"
import { makePoolHost } from "../../src/layers/engines/PoolHost.ts"
import type { LlamaSpec } from "../../src/workers/llama/LlamaLoad.ts"

const file = fileURLToPath(new URL("../../models/tiny-chat-q8_0.gguf", import.meta.url))

const spec: LlamaSpec = { engine: "llama", file, slots: 4, threads: 1 }

let host: EngineHost

beforeAll(async () => {
  host = makePoolHost({ spec, replicas: 1, cancelGraceMs: 10_000, closeGraceMs: 10_000 })
  await host.ready
})
afterAll(() => host.close())

interface Answer {
  readonly text: string
  readonly last: JobEvent
}

const generate = (job: Partial<GenerateJob>): Promise<Answer> =>
  new Promise((resolve) => {
    let text = ""
    const whole: GenerateJob = {
      kind: "generate",
      messages: [{ role: "user", content: "What is the capital of Japan?" }],
      sampling: { temperature: 0, topP: 1, seed: 1 },
      stop: [],
      window: 10_000,
      maxTokens: 60,
      ...job
    }
    host.start(whole, (events) => {
      for (const event of events) if (event.type === "tokens") text += event.text
      const last = events.find(isTerminal)
      if (last !== undefined) resolve({ text, last })
    })
  })

const usageOf = ({ last }: Answer) => last.type === "finished" ? last.usage : assert.fail(JSON.stringify(last))

const warm = { temperature: 1.5, topP: 1, seed: 7 }

describe("a GGUF model", () => {
  it("answers in the format of a regular expression, a choice or a grammar", async () => {
    const [pattern, choice, grammar] = await Promise.all([
      generate({ format: { type: "regex", pattern: "\\d{3}-[a-f]{2}!?" }, sampling: warm }),
      generate({ format: { type: "choice", choices: ["Osaka", "Oslo", "Tokyo", "Tokyo, Japan"] } }),
      generate({
        format: {
          type: "grammar",
          grammar: "root ::= \"<\" word (\", \" word){2} \">\"\nword ::= [a-zé]{1,4} # short"
        },
        sampling: warm
      })
    ])
    assert.match(pattern.text, /^\d{3}-[a-f]{2}!?$/)
    assert.include(["Osaka", "Oslo", "Tokyo", "Tokyo, Japan"], choice.text)
    assert.match(grammar.text, /^<[a-zé]{1,4}, [a-zé]{1,4}, [a-zé]{1,4}>$/)
    for (const { last } of [pattern, choice, grammar]) assert.deepInclude(last, { type: "finished", reason: "stop" })
  })

  it("answers a text completion in a format", async () => {
    const { last, text } = await generate({
      messages: [{ role: "user", content: "The number is " }],
      completion: {},
      format: { type: "regex", pattern: "\\d{3}-[a-f]{2}" },
      sampling: warm
    })
    assert.match(text, /^\d{3}-[a-f]{2}$/)
    assert.deepInclude(last, { reason: "stop" })
  })

  it("does not end at tokens that a bias bans, and refuses a ban where a format ends the answer", async () => {
    const sampling = { temperature: 0, topP: 1, seed: 1, logitBias: { 0: -100, 1: -100, 2: -100 } }
    assert.deepInclude((await generate({})).last, { reason: "stop" })
    assert.deepInclude((await generate({ sampling, maxTokens: 40 })).last, { reason: "length" })
    const { last } = await generate({ sampling, format: { type: "choice", choices: ["Tokyo"] } })
    assert.nestedPropertyVal(last, "failure.kind", "invalid_request")
    assert.match(last.type === "failed" && "path" in last.failure ? last.failure.path ?? "" : "", /^logitBias\.[0-2]$/)
  })

  it("refuses a format before the native code reads it, and goes on", async () => {
    const refused = await Promise.all([
      generate({ format: { type: "grammar", grammar: "root ::= root \"a\" | \"b\"" } }),
      generate({ format: { type: "grammar", grammar: "root ::= \"x\" root \"a\" | \"x\" root \"b\" | \"y\"" } }),
      generate({ format: { type: "grammar", grammar: "root ::= [" } }),
      generate({ format: { type: "regex", pattern: "(" } })
    ])
    for (const { last } of refused) assert.nestedPropertyVal(last, "failure.kind", "invalid_request")
    assert.deepInclude((await generate({ format: { type: "choice", choices: ["yes"] } })).text, "yes")
  })

  it("does not end before the least number of tokens, and ends at tokens that stop", async () => {
    const plain = await generate({})
    const ended = usageOf(plain).completionTokens
    assert.isBelow(ended, 30)
    const long = await generate({ decoding: { minTokens: ended + 3 } })
    assert.isAtLeast(usageOf(long).completionTokens, ended + 3)
    assert.isTrue(long.text.startsWith(plain.text))
    const endless = await generate({ decoding: { minTokens: 1_000_000 }, maxTokens: 40 })
    assert.deepInclude(endless.last, { reason: "length" })
    assert.strictEqual(usageOf(endless).completionTokens, 40)
    const all = Array.from({ length: 400 }, (_, id) => id + 3)
    const stopped = await generate({ decoding: { stopTokens: all } })
    assert.deepInclude(stopped.last, { reason: "stop" })
    assert.isBelow(usageOf(stopped).completionTokens, ended)
    assert.isTrue(plain.text.startsWith(stopped.text))
  })

  it("samples without its first choices, and without repetitions", async () => {
    const sampling = { temperature: 1, topP: 1, seed: 3 }
    const plain = await generate({ sampling })
    const other = await generate({ sampling, decoding: { xtc: { probability: 1, threshold: 0.00001 } } })
    assert.notStrictEqual(other.text, plain.text)
    const repeats = { maxTokens: 100, decoding: { minTokens: 1_000_000 } }
    const dry = { multiplier: 50, base: 3, allowedLength: 1, sequenceBreakers: [] }
    const [looping, varied] = await Promise.all([
      generate(repeats),
      generate({ ...repeats, decoding: { ...repeats.decoding, dry } })
    ])
    assert.isAbove(looping.text.split("\"function\": {").length, 2)
    assert.isBelow(varied.text.split("\"function\": {").length, 3)
  })
}, 60_000)
