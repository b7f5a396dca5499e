/** Events of a stream that are not JSON: one between two good ones is left out, if it has no text of the answer. */
import { assert, describe, it } from "@effect/vitest"
import { anthropic } from "../../../src/dialects/anthropic/Provider.ts"
import { ollama } from "../../../src/dialects/ollama/Provider.ts"
import { openAi } from "../../../src/dialects/openai/Provider.ts"
import type { Dialect } from "../../../src/dialects/shared/ProviderDialect.ts"
import { makeEventReader } from "../../../src/layers/providers/EventReader.ts"
import type { Meter } from "../../../src/services/engines/Engine.ts"
import { generationOf, targetOf } from "../../support/Dialects.ts"
import { wires } from "../../support/Wires.ts"

/** What becomes of a stream. */
const outcomeOf = (dialect: Dialect, name: keyof typeof wires, pieces: ReadonlyArray<string>) => {
  const meter: Meter = { isSent: false, reporter: undefined }
  const reader = makeEventReader(dialect, targetOf(name), generationOf(), meter)
  for (const piece of pieces) reader.push(Buffer.from(piece))
  reader.end()
  const { events, failure } = reader.take()
  const text = events.map((event) => event.type === "text" ? event.text : "").join("")
  return { text, isOver: reader.isOver(), failure: failure?._tag, skipped: meter.skippedEvents }
}

const { pieces, text } = wires.openai
const data = (text: string): string => `data: ${text}\n\n`
const cut = data("{\"choices\":[{\"index\":0,\"del")

describe("an event that is not JSON", () => {
  it("is left out between two good ones, and counted, in every framing", () => {
    const dialects: ReadonlyArray<readonly [keyof typeof wires, Dialect, string]> = [
      ["openai", openAi, cut],
      ["openai", openAi, data("upstream is busy")],
      ["anthropic", anthropic, "event: content_block_delta\ndata: {\"type\":\"content_bl\n\n"],
      ["ollama", ollama, "{\"model\":\"m\",\"mess\n"]
    ]
    for (const [name, dialect, noise] of dialects) {
      const { pieces } = wires[name]
      for (const place of [1, 2, 3]) {
        assert.deepStrictEqual(outcomeOf(dialect, name, [...pieces.slice(0, place), noise, ...pieces.slice(place)]), {
          text,
          isOver: true,
          failure: undefined,
          skipped: 1
        })
      }
    }
  })

  it("may come three times in one stream", () => {
    const [first, second, third, ...others] = pieces
    const noisy = [first!, cut, second!, cut, third!, cut, ...others]
    assert.deepInclude(outcomeOf(openAi, "openai", noisy), { text, isOver: true, skipped: 3 })
    const long = [...pieces.slice(0, 3), ...Array.from({ length: 4 }, () => [cut, pieces[0]!]).flat(), ...others]
    assert.deepInclude(outcomeOf(openAi, "openai", long), { isOver: false, failure: "UpstreamFailed", skipped: 3 })
  })

  const failing: ReadonlyArray<readonly [why: string, pieces: ReadonlyArray<string>]> = [
    ["it is the first one", [cut, ...pieces]],
    ["another one follows", [...pieces.slice(0, 2), cut, cut, ...pieces.slice(2)]],
    ["none follows", [...pieces.slice(0, 2), cut]],
    ["it has text of the answer", [
      ...pieces.slice(0, 2),
      data("{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"wor"),
      ...pieces.slice(2)
    ]],
    ["it is damaged in its middle", [
      ...pieces.slice(0, 2),
      data("{\"choices\":[{\"index\":0,\"delta\":{\"conte\"nt\":\"word\"}}]}"),
      ...pieces.slice(2)
    ]]
  ]
  for (const [why, some] of failing) {
    it(`fails the stream if ${why}`, () => {
      assert.deepInclude(outcomeOf(openAi, "openai", some), { isOver: false, failure: "UpstreamFailed" })
    })
  }
})
