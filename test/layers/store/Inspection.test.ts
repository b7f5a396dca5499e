/** Damaged files, inspected in a process of their own: its crash does not affect this one. */
import { assert, it } from "@effect/vitest"
import { Duration, Effect, Result, Scope } from "effect"
import { readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { describe } from "vitest"
import * as ModelFiles from "../../../src/layers/engines/ModelFiles.ts"
import type { Inspector } from "../../../src/layers/store/Inspection.ts"
import { start } from "../../../src/layers/store/Inspection.ts"
import { ModelFiles as ModelFilesService } from "../../../src/services/engines/ModelFiles.ts"
import { repetitions } from "../../support/Repetitions.ts"
import { temporaryFolder } from "../../support/Service.ts"

const good = new Uint8Array(
  readFileSync(fileURLToPath(new URL("../../../models/tiny-chat-q8_0.gguf", import.meta.url)))
)
/** Of the file's metadata and tensor infos, bytes. */
const headerBytes = 31_744
const mutations = repetitions(52, 104)

/** The same numbers from 0 to 1 for the same seed: mulberry32. */
const makeRandom = (seed: number) => {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

const mutate = (seed: number): Uint8Array => {
  const random = makeRandom(seed)
  const below = (end: number) => Math.floor(random() * end)
  const bytes = good.slice()
  switch (seed % 4) {
    case 0:
      return bytes.subarray(0, below(bytes.length))
    case 1:
      for (let count = 0; count < 64; count++) bytes[headerBytes + below(bytes.length - headerBytes)] = below(256)
      return bytes
    case 2:
      // Numbers come before the vocabulary, the offsets of the tensors after it.
      bytes[below(2) === 0 ? below(800) : headerBytes - below(4000)]! ^= 1 << below(8)
      return bytes
    default:
      for (let count = 0; count < 4; count++) bytes[below(headerBytes)]! ^= 1 << below(8)
      return bytes
  }
}

/** As in the store: the header first, then a process that is reused until it ends. */
const makeInspect = Effect.gen(function*() {
  const files = yield* ModelFilesService
  const scope = yield* Effect.scope
  let inspector: Inspector | undefined
  return Effect.fnUntraced(function*(file: string) {
    const header = yield* Effect.result(files.inspectFile(file))
    if (Result.isFailure(header)) return `refused: ${header.failure.message}.`
    inspector ??= yield* Scope.provide(start, scope)
    const outcome = yield* inspector.inspect(
      { engine: "llama", file, contextSize: 256, slots: 1, threads: 1 },
      Duration.seconds(20)
    )
    // A process that reached the time limit may still be working on its file.
    if (outcome.type === "bad" && /process|within/.test(outcome.detail)) inspector = undefined
    return `${outcome.type}: ${"detail" in outcome ? outcome.detail : "."}`
  })
})

const processes = 2

describe("inspect", () => {
  it.live(`survives ${mutations} damaged files, and reports each`, () =>
    Effect.scoped(Effect.gen(function*() {
      const folder = yield* Effect.acquireDisposable(Effect.sync(temporaryFolder))
      const outcomes: Array<string> = []
      yield* Effect.forEach(Array.from({ length: processes }, (_, first) => first), (first) =>
        Effect.gen(function*() {
          const inspect = yield* makeInspect
          for (let seed = first; seed < mutations; seed += processes) {
            const file = join(folder.path, `${seed}.gguf`)
            writeFileSync(file, mutate(seed))
            outcomes.push(`seed ${seed}, ${yield* inspect(file)}`)
            rmSync(file)
          }
        }), { concurrency: processes })
      assert.strictEqual(outcomes.length, mutations)
      for (const one of outcomes) assert.match(one, /^seed \d+, (refused|passed|bad): [\x20-\x7e]*\.$/)
      // Some damage affects only the model's output; most damaged files do not load.
      for (const kind of ["refused", "passed", "bad"]) {
        assert.isTrue(outcomes.some((one) => one.includes(`, ${kind}: `)), kind)
      }
    })).pipe(Effect.provide(ModelFiles.layer)), 180_000)
})
