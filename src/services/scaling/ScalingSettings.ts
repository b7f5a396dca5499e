/** The section `scaling` of `troupe.yaml`, and the rules that it resolves to. */
import { Duration, Schema } from "effect"
import * as Defaults from "../../domain/Defaults.ts"
import { Count, durationText, optional, Span } from "../../domain/Fields.ts"
import type { Rules } from "./ScalingPolicy.ts"

const { scaling: defaults } = Defaults

const spanWith = (description: string, usual: Duration.Duration) =>
  optional(`${description} Default ${durationText(Duration.toMillis(usual))}.`, Span)

const target = (description: string, usual: number) =>
  optional(
    `${description} Default ${usual}.`,
    Schema.Finite.check(
      Schema.isBetween({ minimum: 0.01, maximum: 1 }, { message: "Expected a share from 0.01 to 1" })
    )
  )

const factor = (description: string, usual: number, minimum: number, maximum: number) =>
  optional(
    `${description} Default ${usual}.`,
    Schema.Finite.check(
      Schema.isBetween({ minimum, maximum }, { message: `Expected a number from ${minimum} to ${maximum}` })
    )
  )

const Targets = Schema.Struct({
  slots: target("Of the slots of a deployment: requests that run or wait.", defaults.targets.slots),
  cpu: target(
    "Of the processor of the machine or the control group. At its target, no replica is added.",
    defaults.targets.cpu
  ),
  memory: target(
    "Of its memory. At its target, no replica is added; above `up` times its target, one is removed.",
    defaults.targets.memory
  ),
  gpu: target(
    "Of the busiest GPU, for deployments that use one. At its target, no replica is added.",
    defaults.targets.gpu
  )
})

/** When replicas are added and removed. */
export const ScalingSettings = Schema.Struct({
  maxReplicas: optional(
    `Most replicas of a local deployment that has no \`maxReplicas\` of its own. Default ${defaults.most}.`,
    Count
  ),
  targets: optional("Shares in use that are aimed at.", Targets),
  up: factor("Times its target: slots used more than this need another replica.", defaults.up, 1, 10),
  down: factor(
    "Times its target: slots used less than this need one replica less. At most half of `up`.",
    defaults.down,
    0,
    1
  ),
  every: spanWith("How often deployments and the machine are read.", defaults.every),
  smoothing: spanWith("Time constant of the exponential smoothing of what is read.", defaults.smoothing),
  upAfter: spanWith("How long slots are used that much before a replica is added.", defaults.upAfter),
  downAfter: spanWith("How long slots are used that little before one is removed.", defaults.downAfter),
  cooldown: spanWith("Time between an addition and a removal, and between two removals.", defaults.cooldown),
  addition: spanWith("Time between two additions.", defaults.addition)
}).check(
  Schema.makeFilter(({ down = defaults.down, up = defaults.up }: { readonly down?: number; readonly up?: number }) =>
    down <= up / 2 ||
    `Expected down to be at most half of up (${up / 2}): otherwise replicas are added and removed in turns`
  )
)
export type ScalingSettings = typeof ScalingSettings.Type

/** The settings with every default. */
export type Scaling = Required<Omit<ScalingSettings, "targets">> & { readonly targets: Rules["targets"] }

export const scalingOf = ({ maxReplicas = defaults.most, targets, ...given }: ScalingSettings): Scaling => {
  const { most: _, targets: usual, ...others } = defaults
  return { ...others, ...given, maxReplicas, targets: { ...usual, ...targets } }
}

/** The rules of the policy. */
export const rulesOf = ({ addition, cooldown, down, downAfter, smoothing, targets, up, upAfter }: Scaling): Rules => ({
  targets,
  up,
  down,
  smoothingMs: Duration.toMillis(smoothing),
  upAfterMs: Duration.toMillis(upAfter),
  downAfterMs: Duration.toMillis(downAfter),
  cooldownMs: Duration.toMillis(cooldown),
  additionMs: Duration.toMillis(addition)
})
