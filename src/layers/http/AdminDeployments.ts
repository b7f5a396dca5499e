/** Deployments as administration shows them: state, slots, queue, memory, keys, circuit, and their share of a rollout. */
import { Effect } from "effect"
import type { Deployment } from "../../domain/Deployment.ts"
import { isRemote } from "../../domain/Deployment.ts"
import * as Time from "../../domain/Time.ts"
import { adaptersOf } from "../../services/engines/EngineKinds.ts"
import { Providers } from "../../services/engines/Providers.ts"
import { Breaker } from "../../services/health/Breaker.ts"
import type { State } from "../../services/health/Circuit.ts"
import { Models } from "../../services/models/Models.ts"
import type { SplitTable } from "../../services/rollout/Split.ts"
import { Splits } from "../../services/rollout/Split.ts"
import { ScalingReports } from "../../services/scaling/ScalingReport.ts"

/** Nothing, where it is closed. */
const circuitOf = (deployment: string, states: ReadonlyArray<State>) => {
  const found = states.find((state) => state.deployment === deployment)
  if (found === undefined || found.phase === "closed") return {}
  return { circuit: { phase: found.phase, retryAfterMs: found.retryAfterMs } }
}

/** Its share of the requests, in a rollout or an A/B test. */
const versionOf = ({ id, model }: Deployment, splits: SplitTable | undefined) => {
  const found = splits?.of?.(model)?.shares?.find(({ deployment }) => deployment === id)
  if (found === undefined) return {}
  const { deployment: _, ...version } = found
  return { version }
}

/** Nothing, where all of them may be used. */
const keysOf = (deployment: Deployment, providers: Providers["Service"], now: number) => {
  const keys = providers.waitingKeys(deployment, now)
  return keys === undefined || keys.waiting + keys.rejected === 0 ? {} : { keys }
}

/** A deployment as `GET /admin/deployments` shows it. */
const makeDescribe = (
  models: Models["Service"],
  providers: Providers["Service"],
  splits: SplitTable | undefined,
  reports: typeof ScalingReports.Service
) =>
  Effect.fnUntraced(function*(deployment: Deployment, states: ReadonlyArray<State>) {
    const report = reports.of(deployment.id)
    const scaling = report === undefined ? {} : { scaling: report }
    const status = yield* models.status(deployment)
    const { id, model, options, pinned } = deployment
    const provider = isRemote(options) ? { provider: options.provider } : {}
    const keys = keysOf(deployment, providers, yield* Time.now)
    const lora = adaptersOf(options)
    const adapters = lora.length === 0 ? {} : { lora }
    const version = versionOf(deployment, splits)
    const more = { ...provider, ...adapters, ...scaling, ...version, ...circuitOf(id, states), ...keys }
    return { pinned, ...status, model, engine: options.engine, ...more }
  })

/** Describes deployments of this process. */
export const make = Effect.gen(function*() {
  const breaker = yield* Breaker
  const describe = makeDescribe(yield* Models, yield* Providers, yield* Splits, yield* ScalingReports)
  return (deployments: ReadonlyArray<Deployment>) =>
    Effect.flatMap(
      breaker.states,
      (states) => Effect.forEach(deployments, (deployment) => describe(deployment, states))
    )
})
