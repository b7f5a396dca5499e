/**
 * The service that starts remote deployments: engines over HTTP. It is apart from `Engine`, since an application may
 * have local engines only.
 */
import type { Scope } from "effect"
import { Context, Effect } from "effect"
import type { Deployment, RemoteDeployment } from "../../domain/Deployment.ts"
import * as InferenceError from "../../domain/InferenceError.ts"
import type { WaitingKeys } from "../keys/KeyPool.ts"
import type { Engine } from "./Engine.ts"

/** Starts remote deployments. */
export class Providers extends Context.Service<Providers, {
  /** Makes the engine of a remote deployment; the scope's end closes its connections. */
  readonly start: (
    deployment: Deployment,
    options: RemoteDeployment
  ) => Effect.Effect<Engine, InferenceError.InferenceError, Scope.Scope>
  /**
   * The keys of the deployment that are in cooldown; undefined if it has not been used, or has no keys.
   *
   * @param now monotonic ms
   */
  readonly waitingKeys: (deployment: Deployment, now: number) => WaitingKeys | undefined
  /** Ends the cooldowns of all keys of the deployment. */
  readonly resetKeys: (deployment: Deployment) => void
}>()("troupe/services/engines/Providers") {}

/** An application without providers: no remote deployment starts. */
export const none = Providers.of({
  start: ({ id }) =>
    Effect.fail(
      InferenceError.make(
        new InferenceError.ModelLoadFailed({
          deployment: id,
          detail: "this application has no providers. Add them with App.providers."
        })
      )
    ),
  waitingKeys: () => undefined,
  resetKeys: () => {}
})
