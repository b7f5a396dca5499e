/**
 * Whether each deployment can be loaded, by the same estimates, budget and eviction plan that loading uses, and with the
 * pinned models loaded. Loads nothing.
 */
import { Duration, Effect } from "effect"
import type { Deployment } from "../../domain/Deployment.ts"
import { ModelFiles } from "../engines/ModelFiles.ts"
import type { Resolved } from "../settings/Settings.ts"
import type { Resident } from "./EvictionPlan.ts"
import * as EvictionPlan from "./EvictionPlan.ts"
import * as LoadCandidates from "./LoadCandidates.ts"
import { budgetOf, Memory } from "./Memory.ts"
import type { LoadCandidate } from "./MemoryScheduler.ts"

/** The forecast for one deployment. */
export interface Verdict {
  readonly deployment: Deployment
  /** Each file that it can be loaded from, with the bytes that it needs. */
  readonly candidates: ReadonlyArray<LoadCandidate>
  readonly fits: boolean
  /** Of the smallest candidate. */
  readonly neededBytes: number
  /** The memory that can be freed for it, bytes: the budget less that of pinned models. */
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

/** The forecasts of the deployments whose files can be read; pinned ones are loaded first, in their order. */
export const forecast = Effect.fnUntraced(function*(
  { engineHost, memory }: Pick<Resolved, "engineHost" | "memory">,
  deployments: ReadonlyArray<Deployment>
) {
  const { candidates: candidatesOf } = LoadCandidates.make(yield* ModelFiles, engineHost)
  const budgetBytes = (yield* budgetOf(memory, yield* Memory))([])
  const holdMs = Duration.toMillis(memory.hold)
  const residents: Array<Resident> = []
  const verdicts = new Map<Deployment, Verdict>()
  for (const deployment of deployments.toSorted((one, other) => Number(other.pinned) - Number(one.pinned))) {
    const candidates = yield* candidatesOf(deployment)
    const plan = EvictionPlan.make(candidates, { residents, holdMs, budgetBytes, quantization: memory.quantization })
    verdicts.set(deployment, {
      deployment,
      candidates,
      fits: plan.type === "load",
      neededBytes: Math.min(...candidates.map(({ bytes }) => bytes)),
      availableBytes: Math.max(0, budgetBytes - sum(residents))
    })
    if (deployment.pinned && plan.type === "load") residents.push(pinnedOf(deployment, plan.candidate.bytes))
  }
  return deployments.map((deployment) => verdicts.get(deployment)!)
})
