import { assert, describe, it } from "@effect/vitest"
import { Deferred, Duration, Effect } from "effect"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import * as SettingsWatch from "../../../src/layers/settings/SettingsWatch.ts"
import { temporaryFolder } from "../../support/Service.ts"

/** Ends at the first change that is noticed. */
const changeOf = (file: string, text: string, write: () => void) =>
  Effect.gen(function*() {
    const noticed = yield* Deferred.make<void>()
    yield* SettingsWatch.watch(file, text, Duration.millis(5), Effect.asVoid(Deferred.succeed(noticed, undefined)))
    write()
    yield* Deferred.await(noticed)
  }).pipe(Effect.scoped)

describe("a watched file", () => {
  it.live("is noticed where it has changed since it was read, before it was watched", () =>
    Effect.gen(function*() {
      using folder = temporaryFolder()
      const file = join(folder.path, "troupe.yaml")
      writeFileSync(file, "after")
      yield* changeOf(file, "before", () => {})
    }))

  it.live("is noticed once it differs from the text that was read", () =>
    Effect.gen(function*() {
      using folder = temporaryFolder()
      const file = join(folder.path, "troupe.yaml")
      writeFileSync(file, "same")
      let isWritten = false
      yield* changeOf(file, "same", () => {
        isWritten = true
        writeFileSync(file, "another")
      })
      assert.isTrue(isWritten)
    }))
})
