/** What attempts are charged, however they end: the first attempt without a fiber, and the driver of effects. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
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

describe("a stream that ends after a first piece shorter than a token", () => {
  const short = pieces(chunk("The"))
  const charged = [{ promptTokens: 0, completionTokens: 0, cachedTokens: 0, isEstimated: true }]

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
