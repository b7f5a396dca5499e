/**
 * Every example runs and says what it should, with the built package, as programs of others run it. A start of the sources takes
 * a fifth more computing time: one example has them.
 */
import { assert } from "@effect/vitest"
import { execFile } from "node:child_process"
import { readdirSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { describe, it } from "vitest"
import { isBrief } from "./support/Repetitions.ts"

const folder = new URL("../examples/", import.meta.url)

const expected: Record<string, ReadonlyArray<string>> = {
  "ai-sdk-fallback.ts": ["The provider failed: AI_APICallError: Cannot connect to API", "tiny-chat: Snow is white."],
  "ai-sdk.ts": ["The weather in Paris?", "tiny-chat#0: tool-calls, 0 USD", "It is sunny in Paris."],
  "embedded-configuration.ts": ["fake/parrot: success, with tokens", "Hello, too!"],
  "handler.ts": ["handler: Snow is white.", "listener: Snow is white."],
  "inference.ts": ["The capital of Japan is Tokyo.", "Once upon a time, a sad fox named Hugo"],
  "language-model-deployment.ts": [
    "parrot#0: You said: What day comes after Friday?",
    "tiny-chat#0: Saturday comes after Friday."
  ],
  "language-model.ts": ["The opposite of loud is quiet.", "1, 2, 3, 4, 5, 6, 7."],
  "parts-cache.ts": ["remote#0: Snow is white.", "cached-responses: Snow is white."],
  "parts-engines.ts": ["Snow is white.", "models.tiny-chat.deployments[0]: Expected the part App.llama"],
  "parts-monitoring.ts": ["llm_requests_total{model=\"fake/chat\",success=\"true\"} 1"],
  "parts-providers.ts": ["remote#0: Snow is white."],
  "parts-strategy.ts": ["fake/chat#1: I am wide."],
  "plain.ts": ["7 + 5 = 12.", "Snow is white.", "ModelNotFound The model \"no-such-model\" does not exist."],
  "replaced-router.ts": [
    "route: fake/chat#0, fake/chat#1",
    "I am small.",
    "route: fake/chat#1, fake/chat#0",
    "I am large."
  ],
  "retrieval.ts": [
    "login details. Use the link on the login page",
    "parcel? Orders are shipped",
    "refund? A product can be"
  ],
  "structured-output.ts": ["Ruby, 34, lives in Oslo."],
  "tools.ts": ["The weather in Paris?", "It is sunny in Paris."]
}

/** Those that run in `npm test`: each starts a process and loads a model. A step of `.ci/run` runs all. */
const inBrief = new Set(["plain.ts", "tools.ts", "parts-engines.ts", "replaced-router.ts"])

/** As `npm run example` does. */
const ofSources = "plain.ts"

describe("examples", () => {
  it("are all tested", () => {
    assert.sameMembers(readdirSync(folder).filter((name) => name.endsWith(".ts")), Object.keys(expected))
  })
  for (const [name, lines] of Object.entries(expected)) {
    it.skipIf(isBrief && !inBrief.has(name))(name, async () => {
      const { stderr, stdout } = await promisify(execFile)(process.execPath, [
        ...(name === ofSources ? ["--conditions=troupe:source"] : []),
        fileURLToPath(new URL(name, folder))
      ])
      for (const line of lines) assert.include(stdout, line)
      // The promise API writes nothing of its own.
      if (/plain|ai-sdk|handler/.test(name)) assert.notInclude(stdout, "INFO")
      assert.strictEqual(stderr, "")
    })
  }
})
