/** Each engine gives the greedy answers in tiny-chat's model card. */
import { assert, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { describe } from "vitest"
import type { DeploymentOptions } from "../../src/domain/Deployment.ts"
import * as Engines from "../../src/layers/engines/Engines.ts"
import type { Engine } from "../../src/services/engines/Engine.ts"
import { deploymentOf } from "./engine.ts"

const models = fileURLToPath(new URL("../../models/", import.meta.url))

/** Rows of the card's first table of prompts and answers. */
const card = readFileSync(`${models}README.md`, "utf8").split("| prompt | answer |\n|---|---|\n")[1]!.split("\n\n")[0]!
  .split("\n").map((row) => row.slice(2, -2).split(" | ") as [prompt: string, answer: string])

const subjects: ReadonlyArray<DeploymentOptions> = [
  { engine: "llama", file: `${models}tiny-chat-q8_0.gguf` },
  { engine: "onnx", folder: `${models}tiny-chat-onnx`, device: "cpu" },
  { engine: "onnx", folder: `${models}tiny-chat-onnx`, device: "wasm" }
]

const answer = (engine: Engine, prompt: string) =>
  Effect.map(
    Stream.runCollect(engine.generate({
      messages: [{ role: "system", content: "You are a helpful assistant." }, { role: "user", content: prompt }],
      sampling: { temperature: 0, topP: 1, seed: 1 },
      stop: []
    })),
    (events) => events.map((event) => event.type === "text" ? event.text : "").join("")
  )

describe("tiny-chat's card", () => {
  it("has the prompts that the next tests need", () => assert.isAtLeast(card.length, 14))

  for (const options of subjects) {
    it.live(`is true of ${options.engine}${options.engine === "onnx" ? ` on ${String(options.device)}` : ""}`, () =>
      Effect.gen(function*() {
        const engine = yield* Engines.make("thread").start(deploymentOf(options))
        const answers = yield* Effect.forEach(card, ([prompt]) => answer(engine, prompt), { concurrency: 4 })
        assert.deepStrictEqual(answers, card.map(([, expected]) => expected))
      }).pipe(Effect.scoped))
  }
})
