/** What attempts are charged, however they end: the first attempt without a fiber, and the driver of effects. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import type { Record as Decided } from "../../../src/services/routing/DecisionRecord.ts"
import type { Scenario, Script, Way } from "../../support/ScriptedProviders.ts"
import { observe } from "../../support/ScriptedProviders.ts"

const streamed: ReadonlyArray<Way> = [
  { operation: "deliver", starts: true },
  { operation: "deliver", starts: false },
  { operation: "open", starts: false }
]

/** Pieces of a stream, 10 ms apart. */
const pieces = (...frames: ReadonlyArray<object>): Script["pieces"] =>
  frames.map((frame) => [10, Buffer.from(`data: ${JSON.stringify(frame)}\n\n`)] as const)

const chunk = (content: string, more: object = {}) => ({
  choices: [{ index: 0, delta: { content }, finish_reason: null }],
  ...more
})

/** Charges of a request by usage and whether they are estimates. */
const chargesOf = (given: Scenario, way: Way) =>
  Effect.map(
    observe({ policy: { retries: 0 }, ...given }, way),
    ({ observation: { charges } }) =>
      charges.map((charge) => {
        const { isEstimated, usage } = charge as { readonly isEstimated: boolean; readonly usage: object }
        return { ...usage, isEstimated }
      })
  )

const assertCharges = (ways: ReadonlyArray<Way>, given: Scenario, expected: ReadonlyArray<object>) =>
  Effect.forEach(ways, (way) =>
    Effect.map(chargesOf(given, way), (charges) => {
      assert.deepStrictEqual(charges, expected, JSON.stringify(way))
    }))

const buffered: ReadonlyArray<Way> = [{ operation: "generate", starts: true }, { operation: "generate", starts: false }]

const all = [...streamed, ...buffered]

const json = { "content-type": "application/json" }

const body = (value: unknown, more: Partial<Script> = {}): Script => ({
  headers: json,
  pieces: [[10, Buffer.from(typeof value === "string" ? value : JSON.stringify(value))]],
  ...more
})

const usage = { prompt_tokens: 20, completion_tokens: 30, total_tokens: 50 }

const anthropic: NonNullable<Scenario["options"]> = { provider: "anthropic", key: Redacted.make("sk-secret") }

/** The prompt's estimate. */
const prompt = { promptTokens: undefined, completionTokens: 0, cachedTokens: 0, isEstimated: true }

describe("a stream that ends after a first piece shorter than a token", () => {
  const short = pieces(chunk("The"))
  const charged = [{ promptTokens: undefined, completionTokens: 0, cachedTokens: 0, isEstimated: true }]

  it.live("is charged where the provider breaks it off", () =>
    assertCharges(streamed, { scripts: [[{ pieces: short, end: "cut" }]] }, charged))

  it.live("is charged where the caller leaves", () =>
    assertCharges(streamed, { scripts: [[{ pieces: short, end: "stall" }]], leavesMs: 50 }, charged))

  it.live("is charged where a time limit ends it", () =>
    assertCharges(
      streamed,
      { scripts: [[{ pieces: short, end: "stall" }]], policy: { retries: 0, timeouts: { stallMs: 33 } } },
      charged
    ))
})

describe("usage that the provider has reported before an answer breaks off", () => {
  const running = [1, 2, 3].map((at) => chunk("abc ", { usage: { prompt_tokens: 5000, completion_tokens: at * 100 } }))

  const start = {
    type: "message_start",
    message: {
      role: "assistant",
      content: [],
      usage: { input_tokens: 5000, cache_creation_input_tokens: 1000, output_tokens: 1 }
    }
  }
  const block = { type: "content_block_start", index: 0, content_block: { type: "text", text: "" } }
  const delta = { type: "content_block_delta", index: 0, delta: { type: "text_delta", text: "abcd abcd " } }

  for (const end of ["cut", "stall"] as const) {
    const leaves = end === "stall" ? { leavesMs: 100 } : {}

    it.live(`is charged for running counts of OpenAI's dialect: ${end}`, () =>
      assertCharges(streamed, { scripts: [[{ pieces: pieces(...running), end }]], ...leaves }, [
        { promptTokens: 5000, completionTokens: 300, cachedTokens: 0, isEstimated: false }
      ]))

    it.live(`is charged for the prompt of Anthropic's dialect, with the tokens that have arrived: ${end}`, () =>
      assertCharges(
        streamed,
        { scripts: [[{ pieces: pieces(start, block, delta, delta), end }]], options: anthropic, ...leaves },
        [{ promptTokens: 6000, completionTokens: 5, cachedTokens: 0, cacheWriteTokens: 1000, isEstimated: true }]
      ))
  }
})

describe("a request that was sent, and has no answer", () => {
  it.live("is charged the prompt where the caller leaves", () =>
    assertCharges(all, { scripts: [[{ pieces: [], end: "silent" }]], leavesMs: 50 }, [prompt]))

  it.live("is charged the prompt where a time limit ends it", () =>
    assertCharges(
      all,
      { scripts: [[{ pieces: [], end: "silent" }]], policy: { retries: 0, timeouts: { totalMs: 177 } } },
      [prompt]
    ))

  it.live.each([["cut", true], ["cut", false], ["stall", true], ["stall", false]] as const)(
    "is charged an estimate of what has arrived of a buffered answer: %s, with a stream asked for: %s",
    ([end, stream]) =>
      assertCharges(buffered, {
        options: { stream },
        scripts: [[
          body(`{"choices":[{"index":0,"message":{"role":"assistant","content":"${"word ".repeat(67)}`, { end })
        ]]
      }, [{ promptTokens: undefined, completionTokens: 100, cachedTokens: 0, isEstimated: true }])
  )

  it.live("costs nothing where the provider answers with an error, also in the body of a success", () =>
    Effect.gen(function*() {
      const error = { error: { message: "No.", type: "server_error" } }
      yield* assertCharges(all, { scripts: [[body(error, { status: 500 })]] }, [])
      yield* assertCharges(all, { scripts: [[body(error, { status: 500, end: "stall" })]], leavesMs: 50 }, [])
      yield* assertCharges(all, { scripts: [[body(error)]] }, [])
      yield* assertCharges(streamed, { scripts: [[{ pieces: pieces(error) }]] }, [])
      yield* assertCharges(all, { scripts: [[body("<html>", { headers: { "content-type": "text/html" } })]] }, [])
    }))

  it.live("costs nothing where the connection could not be opened", () =>
    assertCharges(all, { scripts: [[{ pieces: [], end: "refused" }]] }, []))
})

describe("an answer with usage that is a failure", () => {
  const choice = (message: object, finish_reason = "stop") => ({
    choices: [{ index: 0, message, finish_reason }],
    usage
  })
  const answers: Readonly<Record<string, unknown>> = {
    "a refusal": choice({ content: null, refusal: "No." }),
    "a content filter": choice({ content: "" }, "content_filter"),
    "an empty answer": choice({ content: "" }),
    "a call without a name": choice({ content: null, tool_calls: [{ id: 5 }] }, "tool_calls"),
    "no choices": { usage }
  }
  const charged = [{ promptTokens: 20, completionTokens: 30, cachedTokens: 0, isEstimated: false }]
  for (const [name, answer] of Object.entries(answers)) {
    it.live(`is charged: ${name}`, () => assertCharges(all, { scripts: [[body(answer)]] }, charged))
  }

  it.live("is charged in a stream: a content filter", () =>
    assertCharges(
      streamed,
      {
        scripts: [[{
          pieces: pieces(
            { choices: [{ index: 0, delta: { role: "assistant" }, finish_reason: null }] },
            { choices: [{ index: 0, delta: {}, finish_reason: "content_filter" }] },
            { choices: [], usage }
          )
        }]]
      },
      charged
    ))

  it.live("is charged: a refusal of Anthropic's dialect", () =>
    assertCharges(
      buffered,
      {
        options: anthropic,
        scripts: [[body({
          type: "message",
          content: [],
          stop_reason: "refusal",
          usage: { input_tokens: 20, output_tokens: 30 }
        })]]
      },
      charged
    ))
})

describe("an answer that is complete", () => {
  const message = { choices: [{ index: 0, message: { content: "Hello" }, finish_reason: "stop" }] }

  it.live("is an estimate where its provider has not counted its tokens", () =>
    Effect.gen(function*() {
      const [own] = yield* chargesOf({ scripts: [[body(message)]] }, buffered[0]!)
      assert.isTrue(own?.isEstimated)
      const [counted] = yield* chargesOf({ scripts: [[body({ ...message, usage })]] }, buffered[0]!)
      assert.isFalse(counted?.isEstimated)
    }))
})

describe("the cost of a request", () => {
  const usage = { prompt_tokens: 20, completion_tokens: 30, total_tokens: 50 }
  const answer = body({ choices: [{ index: 0, message: { content: "Hi" }, finish_reason: "stop" }], usage })
  const costOf = (scripts: Scenario["scripts"]) =>
    Effect.map(observe({ scripts, policy: { retries: 1 } }, { operation: "generate", starts: true }), (seen) => {
      const [record] = seen.observation.records as ReadonlyArray<Decided>
      const [outcome] = seen.observation.outcomes
      assert.strictEqual(record!.usd, outcome!.usd)
      return {
        usd: record!.usd,
        unpriced: record!.unpriced,
        attempts: record!.attempts.flatMap(({ isUnpriced, outcome, usd }) =>
          usd === undefined && outcome === "failed" && isUnpriced === undefined
            ? []
            : [isUnpriced === true ? "unknown" : usd]
        )
      }
    })

  it.live("has the known part where an attempt at a deployment without a price used tokens", () =>
    Effect.gen(function*() {
      const cut = body("", { end: "cut" })
      assert.deepStrictEqual(yield* costOf([[cut], [answer]]), {
        usd: undefined,
        unpriced: 1,
        attempts: [0, "unknown"]
      })
      const late = body({ choices: [], usage }, { status: 200 })
      assert.deepStrictEqual(yield* costOf([[late], [answer]]), {
        usd: 0.000_03,
        unpriced: 1,
        attempts: [0.000_03, "unknown"]
      })
    }))

  it.live("is known where a deployment without a price answered with an error", () =>
    Effect.gen(function*() {
      const failing: Script = { status: 500, headers: json, pieces: [[0, Buffer.from("{}")]] }
      assert.deepStrictEqual(yield* costOf([[failing], [failing], [answer]]), {
        usd: 0.000_03,
        unpriced: undefined,
        attempts: [0.000_03]
      })
    }))
})
