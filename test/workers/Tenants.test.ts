/** Cached prompts of engines belong to one owner, unless the deployment shares them. */
import { assert } from "@effect/vitest"
import { fileURLToPath } from "node:url"
import { describe, it } from "vitest"
import type { EngineHost, EngineSpec } from "../../src/domain/EngineProtocol.ts"
import type { GenerateJob } from "../../src/domain/Job.ts"
import { makePoolHost } from "../../src/layers/engines/PoolHost.ts"

const models = fileURLToPath(new URL("../../models/", import.meta.url))

const cachedFor = (host: EngineHost, owner: string | undefined): Promise<number> =>
  new Promise((resolve, reject) => {
    const job: GenerateJob = {
      kind: "generate",
      messages: [{ role: "user", content: "b ".repeat(300) }],
      sampling: { temperature: 0, topP: 1, seed: 1 },
      maxTokens: 1,
      stop: [],
      window: 100,
      owner
    }
    host.start(job, (events) => {
      const last = events.at(-1)
      if (last?.type === "finished") resolve(last.usage.cachedTokens)
      if (last?.type === "failed") reject(new Error(JSON.stringify(last.failure)))
    })
  })

const specs: Readonly<Record<string, EngineSpec>> = {
  llama: { engine: "llama", file: `${models}tiny-chat-q8_0.gguf`, slots: 2, threads: 1 },
  onnx: { engine: "onnx", folder: `${models}tiny-chat-onnx`, model: "model", slots: 2, threads: 1 }
}

const cachedInTurn = async (spec: EngineSpec): Promise<ReadonlyArray<boolean>> => {
  const host = makePoolHost({ spec, replicas: 1, cancelGraceMs: 10_000, closeGraceMs: 10_000 })
  const found: Array<boolean> = []
  for (const owner of [undefined, "a", "a", "b", "a", undefined]) found.push(await cachedFor(host, owner) > 200)
  await host.close()
  return found
}

describe("cached tokens", () => {
  for (const [name, spec] of Object.entries(specs)) {
    it(`of ${name} come from the owner's own prompts`, async () => {
      // Two slots: b takes the first owner's slot, whose cache is lost.
      assert.deepStrictEqual(await cachedInTurn(spec), [false, false, true, false, true, false])
    })

    it(`of ${name} come from all prompts if the deployment shares them`, async () => {
      const shared = { ...spec, sharePrefixes: true } as EngineSpec
      assert.deepStrictEqual(await cachedInTurn(shared), [false, true, true, true, true, true])
    })
  }
})
