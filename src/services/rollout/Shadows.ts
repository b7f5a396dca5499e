/**
 * The models of this process whose requests are copied, by the settings.
 *
 * **Gotchas**
 *
 * `ShadowTable.of` is undefined while no model has copies, so that requests cost nothing.
 */
import type { Fiber } from "effect"
import { Context, Effect, Equal, Layer, Random } from "effect"
import type { Model } from "../../domain/Deployment.ts"
import { Settings } from "../settings/Settings.ts"
import { SettingsChanges } from "../settings/SettingsChanges.ts"
import { ShadowMetrics } from "./ShadowMetrics.ts"
import type { Report } from "./ShadowRun.ts"
import { ShadowRun } from "./ShadowRun.ts"
import type { ShadowPlan, ShadowSettings } from "./ShadowSettings.ts"
import { resolveShadow } from "./ShadowSettings.ts"

type ByModel = ReadonlyMap<string, ShadowSettings>

export class ShadowTable {
  readonly #make: (model: string, settings: ShadowSettings) => ShadowRun
  #settings: ByModel = new Map()
  #runs: ReadonlyMap<string, ShadowRun> = new Map()
  /** The copies of a model; undefined while no model has any. */
  of: ((model: string) => ShadowRun | undefined) | undefined

  constructor(settings: ByModel, make: (model: string, settings: ShadowSettings) => ShadowRun) {
    this.#make = make
    this.replace(settings)
  }

  /** Other settings: copies whose settings are equal go on, others end and begin again. */
  replace(settings: ByModel): void {
    const [before, runs] = [this.#settings, this.#runs]
    this.#settings = settings
    this.#runs = new Map(Array.from(settings, ([model, own]) => {
      const run = runs.get(model)
      return [model, run !== undefined && Equal.equals(before.get(model), own) ? run : this.#make(model, own)]
    }))
    this.of = settings.size === 0 ? undefined : (model) => this.#runs.get(model)
    for (const [model, run] of runs) if (this.#runs.get(model) !== run) run.interrupt()
  }

  /** The deployment of a model that gets copies, and no requests of callers. */
  copiesOf({ deployments, name }: Model): Pick<ShadowPlan, "candidate" | "share"> | undefined {
    return deployments.length > 1 ? this.#runs.get(name)?.plan : undefined
  }

  /** Ends the copies that run. */
  interrupt(): void {
    for (const run of this.#runs.values()) run.interrupt()
  }

  /** The copies that run. */
  get running(): ReadonlyArray<Fiber.Fiber<void>> {
    return Array.from(this.#runs.values(), ({ running }) => running).flat()
  }

  get reports(): ReadonlyArray<Report> {
    return Array.from(this.#runs.values(), ({ report }) => report)
  }
}

/** The table of this application; undefined where it has none. */
export const Shadows = Context.Reference<ShadowTable | undefined>("troupe/services/rollout/Shadows", {
  defaultValue: () => undefined
})

/** By the settings. */
export const layer = Layer.effect(
  Shadows,
  Effect.gen(function*() {
    const { shadows = new Map() } = yield* Settings
    const context = yield* Effect.context()
    const seed = yield* Random.nextIntBetween(0, 2 ** 31)
    const table = new ShadowTable(
      shadows,
      (model, settings) => new ShadowRun(model, resolveShadow(settings), seed, new ShadowMetrics(context, model))
    )
    const changes = yield* SettingsChanges
    changes.follow((next) => table.replace(next.shadows ?? new Map()))
    return table
  })
)
