/** Damaged model files: each loads, is rejected, or ends the process that loads it, but never this process. */
import { assert } from "@effect/vitest"
import { fork } from "node:child_process"
import { once } from "node:events"
import { fileURLToPath } from "node:url"
import { describe, it } from "vitest"
import type { Outcome } from "../../support/OnnxFuzzChild.ts"
import { repetitions } from "../../support/Repetitions.ts"

const mutations = repetitions(40, 200)

/** A process that loads the model of each seed: an outcome, or undefined if the process died. */
const startChild = () => {
  const child = fork(fileURLToPath(new URL("../../support/OnnxFuzzChild.ts", import.meta.url)), { execArgv: [] })
  const died = once(child, "exit").then(() => undefined)
  return {
    attempt(seed: number): Promise<Outcome | undefined> {
      const answered = new Promise<Outcome>((resolve) => child.once("message", resolve))
      child.send(seed)
      return Promise.race([answered, died])
    },
    end() {
      child.disconnect()
      return died
    }
  }
}

describe("damaged ONNX files", () => {
  it(`load, or fail with a message, ${mutations} times`, async () => {
    let child = startChild()
    const counts = { loaded: 0, refused: 0, failed: 0, crashed: 0 }
    for (let seed = 0; seed < mutations; seed++) {
      const outcome = await child.attempt(seed)
      if (outcome === undefined) {
        counts.crashed++
        child = startChild()
        continue
      }
      const { failure } = outcome
      if (failure === undefined) counts.loaded++
      else {
        assert.include(["load_failed", "failed"], failure.kind, JSON.stringify(outcome))
        const { message } = failure as { readonly message: string }
        assert.isNotEmpty(message)
        assert.match(message, /^[\x20-\x7e]*$/, JSON.stringify(outcome))
        counts[failure.kind === "load_failed" ? "refused" : "failed"]++
      }
    }
    await child.end()
    // Flipped weights still load, and half a file does not: both outcomes occur.
    assert.isAbove(counts.loaded, mutations * 0.1, JSON.stringify(counts))
    assert.isAbove(counts.refused, mutations * 0.3, JSON.stringify(counts))
  })
})
