import { assert } from "@effect/vitest"
import { truncateSync, utimesSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { describe, it } from "vitest"
import type { ContextIdentity } from "../../../src/workers/llama/LlamaFingerprint.ts"
import { filesOf, fingerprintOf, identityOf } from "../../../src/workers/llama/LlamaFingerprint.ts"
import type { LlamaSpec } from "../../../src/workers/llama/LlamaLoad.ts"
import { temporaryFolder } from "../../support/Service.ts"

const spec: LlamaSpec = { engine: "llama", file: "/m.gguf", slots: 2, threads: 1 }

const identity: ContextIdentity = {
  files: [["a"], []],
  spec,
  contextSize: 1_024,
  granularity: 64,
  build: {
    buildType: "prebuilt",
    gpu: false,
    llamaCppRelease: { repo: "ggml-org/llama.cpp", release: "b1" },
    systemInfo: "AVX"
  }
}

describe("the fingerprint of a context", () => {
  it("is the same for equal ones, and differs by everything that changes its values", () => {
    const { build } = identity
    const options: ReadonlyArray<Partial<LlamaSpec>> = [
      { slots: 3 },
      { gpu: "cuda" },
      { gpu: "cuda", gpuLayers: 3 },
      { flashAttention: true },
      { flashAttention: false },
      { kvCacheType: "q8_0" },
      { sharePrefixes: true }
    ]
    const others: ReadonlyArray<ContextIdentity> = [
      { ...identity, files: [["b"], []] },
      { ...identity, files: [["a"], [["b", 1]]] },
      { ...identity, files: [["a"], [["b", 0.5]]] },
      { ...identity, contextSize: 2_048 },
      { ...identity, granularity: 1 },
      { ...identity, build: { ...build, buildType: "localBuild" } },
      { ...identity, build: { ...build, gpu: "cuda" } },
      { ...identity, build: { ...build, llamaCppRelease: { ...build.llamaCppRelease, release: "b2" } } },
      { ...identity, build: { ...build, systemInfo: "AVX2" } },
      ...options.map((changed) => ({ ...identity, spec: { ...spec, ...changed } }))
    ]
    const same: Partial<LlamaSpec> = { useMlock: true, threads: 3, replicas: 2, contextSize: 1_024 }
    assert.strictEqual(fingerprintOf(identity), fingerprintOf({ ...identity, spec: { ...spec, ...same } }))
    assert.strictEqual(new Set([identity, ...others].map(fingerprintOf)).size, others.length + 1)
  })
})

describe("the identity of a file", () => {
  it("changes with its size, its time and its content, over all parts of a model and its adapters", () => {
    using folder = temporaryFolder()
    const [first, second, adapter] = ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf", "lora.gguf"].map((name) =>
      join(folder.path, name)
    )
    const write = (path: string, bytes: Buffer) => {
      writeFileSync(path, bytes)
      utimesSync(path, 1e9, 1e9)
    }
    for (const path of [first!, second!, adapter!]) write(path, Buffer.alloc(2e5))
    const seen = new Set<string>()
    const isNew = () => {
      const { size } = seen
      seen.add(JSON.stringify(filesOf({ file: first!, lora: [{ path: adapter!, scale: 1 }] })))
      return seen.size > size
    }
    assert.isTrue(isNew())
    assert.isFalse(isNew())
    for (const path of [first!, second!, adapter!]) {
      write(path, Buffer.alloc(2e5, 1))
      assert.isTrue(isNew())
      write(path, Buffer.concat([Buffer.alloc(2e5 - 1, 1), Buffer.from([2])]))
      assert.isTrue(isNew())
      truncateSync(path, 1e5)
      assert.isTrue(isNew())
      utimesSync(path, 1e9, 2e9)
      assert.isTrue(isNew())
    }
    assert.throws(() => identityOf(join(folder.path, "none")), "ENOENT")
  })
})
