/** The environment of processes that run native code on model files. */
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import type { ForkOptions } from "node:child_process"
import { describe, vi } from "vitest"
import { makeChildHost } from "../../../src/layers/engines/ChildHost.ts"
import { start } from "../../../src/layers/store/Inspection.ts"

const started = vi.hoisted((): Array<ForkOptions> => [])

vi.mock("node:child_process", async (importOriginal) => {
  const original = await importOriginal<typeof import("node:child_process")>()
  return {
    ...original,
    fork: (entry: string, args: ReadonlyArray<string>, options: ForkOptions) => {
      started.push(options)
      return original.fork(entry, args, options)
    }
  }
})

const secrets = { OPENAI_API_KEY: "sk-1", HF_TOKEN: "hf-2", AWS_SECRET_ACCESS_KEY: "aws-3", NVIDIA_API_KEY: "nv-4" }

const check = () => {
  const [options] = started.splice(0)
  assert.isDefined(options?.env?.["PATH"])
  for (const name of Object.keys(secrets)) assert.notProperty(options?.env, name)
  // Its standard error is read and cleaned: native code may quote a file's bytes.
  assert.strictEqual((options.stdio as ReadonlyArray<string>)[2], "pipe")
}

describe("an engine process", () => {
  it.live("gets no keys", () =>
    Effect.gen(function*() {
      for (const [name, value] of Object.entries(secrets)) vi.stubEnv(name, value)
      yield* Effect.addFinalizer(() => Effect.sync(() => vi.unstubAllEnvs()))
      const host = makeChildHost({
        spec: {
          engine: "fake",
          contextSize: 128,
          slots: 1,
          loadDelayMs: 0,
          promptDelayMs: 0,
          tokenDelayMs: 0
        },
        replicas: 1,
        cancelGraceMs: 1000,
        closeGraceMs: 1000
      })
      yield* Effect.promise(() => host.ready)
      yield* Effect.promise(() => host.close())
      check()
      yield* Effect.scoped(start)
      check()
    }))
})
