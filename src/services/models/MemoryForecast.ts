/**
 * Whether each deployment could be loaded, as the models decide it: with their estimates, their budget and their plan, and
 * with the pinned models loaded. Loads nothing.
 */
import { Duration, Effect } from "effect"
import type { Deployment } from "../../domain/Deployment.ts"
import { ModelFiles } from "../engines/ModelFiles.ts"
import type { Resolved } from "../settings/Settings.ts"
import type { Resident } from "./EvictionPlan.ts"
import * as MemoryFit from "./EvictionPlan.ts"
import * as Choices from "./LoadCandidates.ts"
import { Memory } from "./Memory.ts"
import type { Choice } from "./MemoryScheduler.ts"
import { budgetOf } from "./ModelsLayer.ts"

/** What one deployment comes to. */
export interface Verdict {
  readonly deployment: Deployment
  /** Each file that it can be loaded from, with what it needs, bytes. */
  readonly choices: ReadonlyArray<Choice>
  readonly fits: boolean
  /** Of the smallest choice. */
  readonly neededBytes: number
  /** What can be free for it: the budget less what pinned models use. */
  readonly availableBytes: number
}

const sum = (residents: ReadonlyArray<Resident>): number => residents.reduce((all, { bytes }) => all + bytes, 0)

const pinnedOf = (deployment: Deployment, bytes: number): Resident => ({
  key: deployment.id,
  bytes,
  pinned: true,
  inUse: false,
  idleMs: 0,
  heldMs: 0,
  reloadMs: 0,
  demand: 0
})

/** Of deployments whose files can be read; pinned ones are loaded first, in their order. */
export const forecast = Effect.fnUntraced(function*(
  { engineHost, memory }: Pick<Resolved, "engineHost" | "memory">,
  deployments: ReadonlyArray<Deployment>
) {
  const { choices: choicesOf } = Choices.make(yield* ModelFiles, engineHost)
  const budgetBytes = (yield* budgetOf(memory, yield* Memory))([])
  const holdMs = Duration.toMillis(memory.hold)
  const residents: Array<Resident> = []
  const verdicts = new Map<Deployment, Verdict>()
  for (const deployment of deployments.toSorted((one, other) => Number(other.pinned) - Number(one.pinned))) {
    const choices = yield* choicesOf(deployment)
    const plan = MemoryFit.fit(choices, { residents, holdMs, budgetBytes })
    verdicts.set(deployment, {
      deployment,
      choices,
      fits: plan.type === "load",
      neededBytes: Math.min(...choices.map(({ bytes }) => bytes)),
      availableBytes: Math.max(0, budgetBytes - sum(residents))
    })
    if (deployment.pinned && plan.type === "load") residents.push(pinnedOf(deployment, plan.candidate.bytes))
  }
  return deployments.map((deployment) => verdicts.get(deployment)!)
})
