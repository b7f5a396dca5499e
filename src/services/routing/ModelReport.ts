/**
 * The configured models as plain data: their deployments, with the state of each and what is known about it.
 *
 * **Details**
 *
 * Context windows and capabilities are those that the router uses: of the loaded engine, else of the model's files, else
 * configured, published or those of its kind.
 */
import { Effect } from "effect"
import type { Deployment } from "../../domain/Deployment.ts"
import { isRemote } from "../../domain/Deployment.ts"
import type { DeploymentFacts, Price } from "../../domain/DeploymentFacts.ts"
import type { EngineCapability } from "../../domain/EngineProtocol.ts"
import { sourceOf } from "../engines/EngineKinds.ts"
import type { Status } from "../models/Models.ts"
import { Models } from "../models/Models.ts"
import { Registry } from "../models/Registry.ts"
import { Router } from "./Router.ts"

/** A deployment of a model. */
export interface DeploymentReport extends Omit<Status, "deployment"> {
  /** The id, as answers and decisions name it: `tiny-chat#0`. */
  readonly id: string
  /** `llama`, `onnx` or another engine of this machine, or the provider. */
  readonly engine: string
  /** The file or folder, or the provider with the name of its model. */
  readonly source: string
  readonly capabilities: ReadonlyArray<EngineCapability>
  /** Tokens that prompt and answer share; left out: unknown. */
  readonly contextWindow?: number
  /** USD per million tokens; left out: unknown. */
  readonly price?: Price
  /** Whether it stays loaded. */
  readonly pinned: boolean
}

/** A model, by the name that requests use. */
export interface ModelReport {
  readonly name: string
  /** In configured order. */
  readonly deployments: ReadonlyArray<DeploymentReport>
}

const describe = (
  deployment: Deployment,
  { deployment: _, ...status }: Status,
  { capabilities = [], contextWindow, price }: DeploymentFacts
): DeploymentReport => {
  const { id, options, pinned } = deployment
  return {
    id,
    engine: isRemote(options) ? options.provider : options.engine,
    source: sourceOf(options),
    capabilities,
    ...(contextWindow === undefined ? {} : { contextWindow }),
    ...(price === undefined ? {} : { price }),
    pinned,
    ...status
  }
}

/** Every model, in configured order. */
export const all = Effect.gen(function*() {
  const models = yield* Models
  const registry = yield* Registry
  const router = yield* Router
  return yield* Effect.forEach(registry.models(), (model) => {
    const facts = router.facts(model)
    const deployments = Effect.forEach(
      model.deployments,
      (deployment, index) =>
        Effect.map(models.status(deployment), (status) => describe(deployment, status, facts[index]!))
    )
    return Effect.map(deployments, (deployments): ModelReport => ({ name: model.name, deployments }))
  })
})
