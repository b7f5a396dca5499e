/** Computed prompts of the llama engine that are kept in files over the end of the engine. */
import { assert } from "@effect/vitest"
import { appendFileSync, existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { crc32 } from "node:zlib"
import { afterAll, describe, it } from "vitest"
import type { EngineHost } from "../../src/domain/EngineProtocol.ts"
import type { GenerateJob, JobEvent } from "../../src/domain/Job.ts"
import { isTerminal } from "../../src/domain/Job.ts"
import type { PrefixFileOptions } from "../../src/domain/PrefixFiles.ts"
import { makeChildHost } from "../../src/layers/engines/ChildHost.ts"
import { makePoolHost } from "../../src/layers/engines/PoolHost.ts"
import type { LlamaSpec } from "../../src/workers/llama/LlamaLoad.ts"
import type { PrefixEnd } from "../../src/workers/model/PrefixFormat.ts"
import { decodeEnd, encodeEnd, tokensToBytes } from "../../src/workers/model/PrefixFormat.ts"
import { writeLora } from "../support/LoraFiles.ts"
import { temporaryFolder, until } from "../support/Service.ts"

const file = fileURLToPath(new URL("../../models/tiny-chat-q8_0.gguf", import.meta.url))

const parent = temporaryFolder()
const folder = join(parent.path, "prefixes")
const prefixFiles: PrefixFileOptions = { folder, maxBytes: 1e9, idleMs: 60_000 }

const hostOptions = (options: Partial<LlamaSpec>) => ({
  spec: { engine: "llama", file, slots: 2, threads: 1, prefixFiles, ...options },
  replicas: 1,
  cancelGraceMs: 10_000,
  closeGraceMs: 10_000
})

/** What an answer was. */
interface Answer {
  readonly text: string
  readonly cachedTokens: number
}

const ask = (host: EngineHost, content: string, job: Partial<GenerateJob> = {}): Promise<Answer> =>
  new Promise((resolve, reject) => {
    const all: Array<JobEvent> = []
    const whole: GenerateJob = {
      kind: "generate",
      messages: [{ role: "user", content }],
      sampling: { temperature: 1, topP: 1, seed: 7 },
      maxTokens: 12,
      stop: [],
      window: 1_000,
      ...job
    }
    host.start(whole, (events) => {
      all.push(...events)
      const last = events.find(isTerminal)
      if (last === undefined) return
      if (last.type !== "finished") return reject(new Error(JSON.stringify(last)))
      const text = all.map((event) => event.type === "tokens" ? event.text : "").join("")
      resolve({ text, cachedTokens: last.usage.cachedTokens })
    })
  })

const long = `${"b ".repeat(300)}What is the capital of Japan?`

/** Pieces of 64 of the question's tokens. */
const pieces = 256

const filesIn = (path: string): ReadonlyArray<string> =>
  readdirSync(path, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map(({ name, parentPath }) => join(parentPath, name))

const complete = () => filesIn(folder).filter((path) => path.endsWith(".prefix"))

const endOf = (path: string): PrefixEnd => {
  const bytes = readFileSync(path)
  return decodeEnd(bytes.length, (position, length) => bytes.subarray(position, position + length))!
}

/** Runs with a newly loaded engine, which then unloads. */
const withEngine = async <A>(host: EngineHost, use: (host: EngineHost) => Promise<A>): Promise<A> => {
  try {
    await host.ready
    return await use(host)
  } finally {
    await host.close()
  }
}

const poolHost = (options: Partial<LlamaSpec> = {}) => makePoolHost(hostOptions(options))

describe("computed prompts of the llama engine", () => {
  afterAll(() => parent[Symbol.dispose]())

  it("are restored after an unload for their owner only, and not from damaged files", async () => {
    const first = await withEngine(poolHost(), async (host) => {
      await ask(host, long, { owner: "a" })
      return ask(host, long)
    })
    assert.strictEqual(first.cachedTokens, 0)
    assert.lengthOf(complete(), 2)
    const own = complete().find((path) => endOf(path).owner === "a")!
    const other = complete().find((path) => path !== own)!
    assert.lengthOf(endOf(own).tokens, pieces)
    const bytes = readFileSync(other)
    bytes[100_000] = bytes[100_000]! ^ 1
    writeFileSync(other, bytes)
    // A state that llama.cpp refuses, with true checksums.
    const unreadable = join(dirname(own), "unreadable.prefix")
    const state = readFileSync(own).subarray(0, 50_000)
    const { fingerprint, tokens } = endOf(own)
    const sum = crc32(tokensToBytes(tokens), crc32(state))
    writeFileSync(unreadable, state)
    appendFileSync(unreadable, encodeEnd({ fingerprint, owner: "c", tokens, stateBytes: state.length, sum }))

    await withEngine(poolHost(), async (host) => {
      for (const [owner, cachedTokens] of [["a", pieces], ["b", 0], ["c", 0], ["", 0]] as const) {
        assert.deepStrictEqual(await ask(host, long, { owner }), { ...first, cachedTokens }, owner)
      }
      // The beginning of another conversation.
      const goneOn = await ask(host, `${"b ".repeat(300)}Hello!`, { owner: "a" })
      assert.strictEqual(goneOn.cachedTokens, pieces)
      assert.isFalse(existsSync(unreadable))
      assert.isFalse(existsSync(other))
      assert.isTrue(existsSync(own))
    })
  })

  it("are restored after the kill of an idle engine, and not with another adapter or context size", async () => {
    const lora = join(parent.path, "lora.gguf")
    writeLora(lora)
    const options = hostOptions({
      contextSize: 512,
      lora: [{ path: lora, scale: 1 }],
      prefixFiles: { ...prefixFiles, idleMs: 0 }
    })
    const before = complete()
    const killed = makeChildHost(options)
    await killed.ready
    const first = await ask(killed, long)
    assert.strictEqual(first.cachedTokens, 0)
    await until(() => complete().length > before.length || undefined)
    killed.abandon({ kind: "stopped" })
    await withEngine(makeChildHost(options), async (host) => {
      assert.deepStrictEqual(await ask(host, long), { ...first, cachedTokens: pieces })
    })
  })
})
