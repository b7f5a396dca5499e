import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect } from "effect"
import { existsSync, mkdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import * as PrefixFiles from "../../../src/layers/engines/PrefixFiles.ts"
import { temporaryFolder } from "../../support/Service.ts"

describe("the folder of computed prompts", () => {
  it.effect("is deleted at start where it is turned off, and else given to engines", () =>
    Effect.gen(function*() {
      using data = temporaryFolder()
      const folder = join(data.path, "prefixes")
      mkdirSync(join(folder, "f"), { recursive: true })
      writeFileSync(join(folder, "f", "a.prefix"), "")
      writeFileSync(join(data.path, "troupe.sqlite"), "")
      const settings = { enabled: true, dataFolder: data.path, maxBytes: 1_000, ttl: Duration.days(1) }
      const day = 86_400_000
      assert.deepStrictEqual(yield* PrefixFiles.prepare(settings), {
        folder,
        maxBytes: 1_000,
        idleMs: 1_000,
        ttlMs: day
      })
      const forever = yield* PrefixFiles.prepare({ ...settings, ttl: Duration.infinity })
      assert.deepStrictEqual(forever, { folder, maxBytes: 1_000, idleMs: 1_000 })
      assert.isUndefined(yield* PrefixFiles.prepare(undefined))
      assert.isTrue(existsSync(join(folder, "f", "a.prefix")))
      for (let times = 0; times < 2; times++) {
        assert.isUndefined(yield* PrefixFiles.prepare({ ...settings, enabled: false }))
        assert.isFalse(existsSync(folder))
      }
      assert.isTrue(existsSync(join(data.path, "troupe.sqlite")))
    }))
})
