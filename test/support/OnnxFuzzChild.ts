/**
 * Loads a damaged copy of tiny-chat for each received seed, and reports the outcome.
 *
 * It runs in a process of its own, since native code may abort.
 */
import { cpSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import type { EngineFailure } from "../../src/domain/Job.ts"
import { failureFrom } from "../../src/domain/Job.ts"
import { makeRandom } from "../../src/workers/model/Sampler.ts"
import { prepare } from "../../src/workers/onnx/OnnxGenerate.ts"
import { load } from "../../src/workers/onnx/OnnxLoad.ts"
import { tinyChat } from "./OnnxModels.ts"
import { temporaryFolder } from "./Service.ts"

/** The outcome of a damaged model. */
export interface Outcome {
  readonly seed: number
  readonly damage: string
  /** The reason of a rejection; left out, the model answered. */
  readonly failure?: EngineFailure
}

const good = readFileSync(join(tinyChat, "onnx/model.onnx"))

/** Bytes at both ends of the file that are not weights: the nodes first, the inputs and outputs last. */
const head = 6_300
const tail = 2_000

type Random = (below: number) => number

const inGraph = (random: Random): number => random(4) === 0 ? good.length - 1 - random(tail) : random(head)

const damages: ReadonlyArray<readonly [string, (bytes: Buffer, random: Random) => Buffer]> = [
  ["bytes of the graph", (bytes, random) => {
    for (let count = 1 + random(4); count > 0; count--) bytes[inGraph(random)] = random(256)
    return bytes
  }],
  ["bits of the graph", (bytes, random) => {
    for (let count = 1 + random(3); count > 0; count--) bytes[inGraph(random)]! ^= 1 << random(8)
    return bytes
  }],
  ["bits anywhere", (bytes, random) => {
    for (let count = 1 + random(64); count > 0; count--) bytes[random(bytes.length)]! ^= 1 << random(8)
    return bytes
  }],
  ["a run of the graph", (bytes, random) => {
    const at = random(head)
    for (let offset = random(40); offset >= 0; offset--) bytes[at + offset] = random(256)
    return bytes
  }],
  ["the end is missing", (bytes, random) => bytes.subarray(0, random(2) === 0 ? random(head) : random(bytes.length))]
]

const folder = temporaryFolder()
process.on("exit", () => folder[Symbol.dispose]())
cpSync(tinyChat, folder.path, { recursive: true })

const attempt = async (seed: number): Promise<Outcome> => {
  const next = makeRandom(seed)
  const random = (below: number) => Math.floor(next() * below)
  const [damage, apply] = damages[seed % damages.length]!
  writeFileSync(join(folder.path, "onnx/model.onnx"), apply(Buffer.from(good), random))
  let loaded
  try {
    loaded = await load({ engine: "onnx", folder: folder.path, model: "model", device: "cpu", slots: 1, threads: 1 })
    const job = {
      kind: "generate",
      messages: [{ role: "user", content: "Hello!" }],
      sampling: { temperature: 0, topP: 1, seed: 1 },
      stop: [],
      window: 10
    } as const
    const free = loaded.work.kind === "generate" ? loaded.work.free : []
    const { tokens } = await prepare(loaded, job, { isCancelled: () => false, progress: () => {} }, () => free[0]!)
    await tokens.next()
    await tokens.next()
    return { seed, damage }
  } catch (cause) {
    return { seed, damage, failure: failureFrom(cause, loaded === undefined ? "load_failed" : "failed") }
  } finally {
    await loaded?.session.release()
  }
}

process.on("message", (seed: number) => {
  void attempt(seed).then((outcome) => process.send!(outcome))
})
