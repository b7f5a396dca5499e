/**
 * Who answers a request.
 *
 * **Details**
 *
 * `route` is a pure function of the model asked for. Its first step answers.
 */
import type { Effect } from "effect"
import { Context } from "effect"
import type { InferenceError } from "./InferenceError.ts"
import type { Deployment, Model } from "./Model.ts"

/** The deployment chosen for one request, with the reason. */
export interface Route {
  readonly model: string
  readonly deployment: Deployment
  readonly reason: string
}

/** The model that was asked for, by its first deployment. */
export const route = (model: Model): Route => ({
  model: model.name,
  deployment: model.deployments[0],
  reason: "the first deployment of the model asked for"
})

export class Selector extends Context.Service<Selector, {
  /** Fails with `ModelNotFound`. */
  readonly route: (request: { readonly model: string }) => Effect.Effect<Route, InferenceError>
}>()("troupe/services/Selector") {}
