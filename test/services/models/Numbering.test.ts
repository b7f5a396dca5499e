import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import * as fc from "fast-check"
import type { Deployment, Model } from "../../../src/domain/Deployment.ts"
import { listedId, numbered, numberingOf, renumberedIds } from "../../../src/services/models/Numbering.ts"
import * as Shares from "../../../src/services/processes/Shares.ts"
import { Reloading, reportOf } from "../../../src/services/settings/Reload.ts"
import type { Resolved } from "../../../src/services/settings/Settings.ts"
import { deployment, settings } from "../../support/Deployments.ts"

const key = Redacted.make("k")

interface Listed {
  readonly model: string
  readonly weight?: number
}

/** The model of a file. */
const modelOf = (list: ReadonlyArray<Listed>, more: Partial<Deployment> = {}): Model => {
  const [first, ...others] = list.map((one, index) =>
    deployment(listedId("chat", index), { options: { engine: "remote", provider: "openai", key, ...one }, ...more })
  )
  return { name: "chat", deployments: [first!, ...others] }
}

const idsOf = ({ models }: Resolved) =>
  models[0]!.deployments.map(({ id, options }) => [id, options.engine === "remote" ? options.model : ""] as const)

const unprepared = { prepare: () => Effect.succeed({ commit: () => {}, cancel: Effect.void }) }

/** The supervisor or a process, by what it reconciles. */
class Numbered {
  readonly #reloading: Reloading
  settings: Resolved

  constructor(start: Resolved) {
    this.#reloading = new Reloading(unprepared, start)
    this.settings = start
  }

  reload(given: Resolved, numbering?: ReturnType<typeof numberingOf>): void {
    const { next } = this.#reloading.plan(given, numbering)
    Effect.runSync(this.#reloading.prepare(given, numbering))?.commit()
    this.settings = next
  }
}

const listed = fc.array(
  fc.record({ model: fc.constantFrom("a", "b", "c"), weight: fc.constantFrom(1, 2) }),
  { minLength: 1, maxLength: 4 }
)

const steps = fc.array(
  fc.oneof(
    fc.record({ list: listed, queueLimit: fc.integer({ min: 2, max: 5 }) }),
    fc.constantFrom(0, 1).map((crash) => ({ crash }))
  ),
  { maxLength: 6 }
)

describe("Numbering", () => {
  it("has the models whose ids are not those of their lists, and applies to those of a file", () => {
    const moved = numbered([modelOf([{ model: "b" }, { model: "a" }])], [["chat", ["chat#1", "chat#0"]]])
    assert.deepStrictEqual(numberingOf(moved), [["chat", ["chat#1", "chat#0"]]])
    assert.deepStrictEqual(numberingOf([modelOf([{ model: "a" }])]), [])
  })

  it("gives every process the same deployment for an id, after any reloads and crashes", () => {
    const count = 2
    fc.assert(
      fc.property(listed, steps, (list, all) => {
        let file = settings({ models: [modelOf(list)] })
        const share = (index: number) => Shares.settingsOf(file, index + 1, count)
        const supervisor = new Numbered(file)
        const processes = [0, 1].map((index) => new Numbered(share(index)))
        for (const step of all) {
          if ("crash" in step) {
            const start = share(step.crash)
            const numbering = numberingOf(supervisor.settings.models)
            processes[step.crash] = new Numbered({ ...start, models: numbered(start.models, numbering) })
          } else {
            file = settings({ models: [modelOf(step.list, { queueLimit: step.queueLimit })] })
            supervisor.reload(file)
            const numbering = numberingOf(supervisor.settings.models)
            for (const [index, process] of processes.entries()) process.reload(share(index), numbering)
          }
          for (const process of processes) {
            assert.deepStrictEqual(idsOf(process.settings), idsOf(supervisor.settings))
          }
        }
      }),
      { numRuns: 50 }
    )
  })

  it("warns of ids in A/B tests and shadows that name another deployment after a restart", () => {
    const variants = [{ deployment: "chat#0", share: 0.5 }, { deployment: "chat#2", share: 0.5 }]
    const named: Partial<Resolved> = {
      experiments: new Map([["chat", { variants, by: "request" } as never]]),
      shadows: new Map([["chat", { candidate: "chat#1" } as never]])
    }
    const list = [{ model: "new" }, { model: "a" }, { model: "b" }]
    const inUse = numbered([modelOf(list)], [["chat", ["chat#2", "chat#0", "chat#3"]]])
    const warnings = renumberedIds(settings({ ...named, models: inUse }))
    assert.deepStrictEqual(warnings.map(({ path }) => path), [
      "models.chat.experiment.variants[0].deployment",
      "models.chat.experiment.variants[1].deployment",
      "models.chat.shadow.candidate"
    ])
    assert.include(
      warnings[0]!.expected,
      "\"chat#0\" is deployment 2 of the list (openai: a) until a restart, and deployment 1 of the list (openai: new) after it"
    )
    assert.include(warnings[2]!.expected, "\"chat#1\" is no deployment until a restart")
    const report = { applied: true, changes: [] }
    assert.lengthOf(reportOf(report, settings({ ...named, models: inUse })).warnings ?? [], 3)
    assert.deepStrictEqual(reportOf(report, settings({ ...named, models: [modelOf(list)] })), report)
  })
})
