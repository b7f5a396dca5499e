/**
 * Whether and under which key a request uses the cache.
 *
 * **Details**
 *
 * A key is a hash of the weights that answer and a hash of what is asked. Where all deployments of a model have the same
 * weights, no route is needed to know them. Otherwise the weights are those of the deployment that the router would choose
 * now; an answer is kept under the weights that gave it.
 */
import { Result } from "effect"
import type { CacheSettings } from "../../domain/CacheControl.ts"
import type { Model } from "../../domain/Deployment.ts"
import type { Request } from "../../domain/Inference.ts"
import type { RoutingRequest } from "../../domain/RoutingRequest.ts"
import * as EngineKinds from "../engines/EngineKinds.ts"
import type { Registry } from "../models/Registry.ts"
import type { Router } from "../routing/Router.ts"
import * as CacheKey from "./CacheKey.ts"
import type { CachePlan } from "./CachePolicy.ts"
import * as CachePolicy from "./CachePolicy.ts"
import type { ResponseCache } from "./ResponseCache.ts"

/** A request that uses the cache. */
export interface Lookup extends CachePlan {
  readonly model: Model
  readonly settings: CacheSettings
  readonly key: string
  /** The weights that the key is of, as a hash. */
  readonly weights: string
  /** Those of a deployment; undefined if it is none of the model's. */
  readonly weightsOf: (deployment: string) => string | undefined
  /** The key of an answer by a deployment; undefined if it is none of the model's. */
  readonly keyOf: (deployment: string) => string | undefined
}

/** The weights of a model's deployments, as hashes. */
interface Weights {
  readonly byDeployment: ReadonlyMap<string, string>
  /** Undefined if the deployments have different ones. */
  readonly ofAll: string | undefined
}

/** Characters of base64: 96 bits, for the few weights of a configuration. */
const weightsLength = 16

interface Parts {
  readonly cache: ResponseCache["Service"]
  readonly registry: Registry["Service"]
  readonly router: Router["Service"]
  readonly routingOf: (request: Request) => RoutingRequest
}

/** Finds the keys of requests. */
export class CacheLookup {
  readonly #parts: Parts
  #weights = new WeakMap<Model, Weights>()

  constructor(parts: Parts) {
    this.#parts = parts
  }

  /** Whether the model of a request has a cache. A program without types may give no request at all. */
  applies(request: Request | null | undefined): boolean {
    return this.#modelOf(request?.model ?? "")?.cache !== undefined
  }

  /** Undefined if the cache of the model does not apply to the request. */
  of(request: Request): Lookup | undefined {
    const model = this.#modelOf(request.model)
    const settings = model?.cache
    if (model === undefined || settings === undefined) return undefined
    const plan = CachePolicy.planOf(request, settings)
    const weights = plan && this.#weightsFor(request, model)
    if (plan === undefined || weights === undefined) return undefined
    // An alias has the answers of its model.
    const named = request.model === model.name ? request : { ...request, model: model.name }
    const asked = this.#parts.cache.hash(CacheKey.identify(named, model))
    const { byDeployment } = this.#weightsOf(model)
    return {
      ...plan,
      model,
      settings,
      key: `${weights}.${asked}`,
      weights,
      weightsOf: (deployment) => byDeployment.get(deployment),
      keyOf: (deployment) => {
        const answering = byDeployment.get(deployment)
        return answering && `${answering}.${asked}`
      }
    }
  }

  /** Reads the files of deployments again. */
  forgetVersions(): void {
    this.#weights = new WeakMap()
  }

  #modelOf(name: string): Model | undefined {
    const found = this.#parts.registry.find(name)
    return Result.isSuccess(found) ? found.success : undefined
  }

  #weightsFor(request: Request, model: Model): string | undefined {
    const { byDeployment, ofAll } = this.#weightsOf(model)
    if (ofAll !== undefined) return ofAll
    const { router, routingOf } = this.#parts
    const route = router.preview(routingOf(request))
    const [first] = Result.isSuccess(route) ? route.success.deployments : []
    return first && byDeployment.get(first.id)
  }

  #weightsOf(model: Model): Weights {
    const known = this.#weights.get(model)
    if (known !== undefined) return known
    const { cache } = this.#parts
    const byDeployment = new Map(model.deployments.map((deployment) => {
      const paths = EngineKinds.filesOf(deployment.options).map(([, path]) => path)
      const text = CacheKey.weightsOf(deployment, paths.length === 0 ? "" : cache.versionOf(paths))
      return [deployment.id, cache.hash(text).slice(0, weightsLength)] as const
    }))
    const [first, ...others] = new Set(byDeployment.values())
    const made = { byDeployment, ofAll: others.length === 0 ? first : undefined }
    this.#weights.set(model, made)
    return made
  }
}
