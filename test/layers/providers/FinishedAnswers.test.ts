/** An answer with its finish reason is complete, whatever becomes of its connection: only its usage may be missing. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type { Fault, Play } from "../../support/FaultServer.ts"
import { startedEngine } from "../../support/StartedEngine.ts"
import { wires } from "../../support/Wires.ts"
import { engineAt, generation, outcome, served, textOf } from "./support.ts"

/** The piece with the finish reason. */
const finishes = { openai: 3, anthropic: 4 } as const

type Provider = keyof typeof finishes

const faultKinds: ReadonlyArray<Fault> = ["end", "cut", "reset", "stall", "trickle"]

/** What follows the finish reason. */
const endings = (provider: Provider): Readonly<Record<string, Play>> => {
  const { error, frame, pieces } = wires[provider]
  const begun = pieces.slice(0, finishes[provider] + 1)
  const comment = ": waiting\n\n"
  return {
    ...Object.fromEntries(
      faultKinds.map((kind) => [kind, { pieces: [...begun, comment], fault: { kind, after: begun.length } }])
    ),
    garbage: { pieces: [...begun, frame("{no JSON")] },
    "an error": { pieces: [...begun, error] },
    "more text": { pieces: [...begun, pieces[1]!], fault: { kind: "cut", after: begun.length + 1 } }
  }
}

describe.concurrent("after its finish reason, an answer", () => {
  for (const provider of ["openai", "anthropic"] as const) {
    for (const [ending, play] of Object.entries(endings(provider))) {
      for (const form of ["stream", "receiver"] as const) {
        it.live(`of ${provider} is complete if ${ending} follows, as a ${form}`, () =>
          Effect.scoped(Effect.gen(function*() {
            const server = yield* served(() => play)
            const engine = yield* engineAt(server.url, { provider })
            const { events, reason } = yield* outcome(form === "stream" ? engine : startedEngine(engine), generation)
            assert.isUndefined(reason)
            assert.strictEqual(textOf(events), wires[provider].text)
            const last = events.at(-1)!
            assert.strictEqual(last.type === "finish" && last.reason, "stop")
          })))
      }
    }
  }
})

describe.concurrent("before its finish reason, an answer", () => {
  for (const provider of ["openai", "anthropic"] as const) {
    for (const form of ["stream", "receiver"] as const) {
      it.live(`of ${provider} fails if its connection is cut, as a ${form}`, () =>
        Effect.scoped(Effect.gen(function*() {
          const { pieces } = wires[provider]
          const server = yield* served(() => ({ pieces, fault: { kind: "cut", after: finishes[provider] } }))
          const engine = yield* engineAt(server.url, { provider })
          const { events, reason } = yield* outcome(form === "stream" ? engine : startedEngine(engine), generation)
          assert.strictEqual(textOf(events), wires[provider].text)
          assert.include(reason, { _tag: "UpstreamFailed", kind: "cut" })
        })))
    }
  }
})
