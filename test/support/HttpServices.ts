/** The services of the HTTP layer over a given `Inference`: no model, key or record, and a router that is not asked. */
import { Effect, Layer, Stream } from "effect"
import { none as noCache, ResponseCache } from "../../src/services/cache/ResponseCache.ts"
import { none, Providers } from "../../src/services/engines/Providers.ts"
import * as Breaker from "../../src/services/health/Breaker.ts"
import type { Status } from "../../src/services/health/Readiness.ts"
import { Readiness } from "../../src/services/health/Readiness.ts"
import { Inference } from "../../src/services/inference/Inference.ts"
import * as VirtualKeys from "../../src/services/keys/VirtualKeys.ts"
import * as Ledger from "../../src/services/ledger/Ledger.ts"
import { Models } from "../../src/services/models/Models.ts"
import * as Registry from "../../src/services/models/Registry.ts"
import { Rollouts } from "../../src/services/rollout/Rollouts.ts"
import * as DecisionLog from "../../src/services/routing/DecisionLog.ts"
import { Router } from "../../src/services/routing/Router.ts"
import { fixed, Reload } from "../../src/services/settings/Reload.ts"
import { defaultServer } from "../../src/services/settings/Resolution.ts"
import { Settings } from "../../src/services/settings/Settings.ts"

const notRouted = () => {
  throw new Error("No request is routed.")
}

export interface HttpServicesOptions {
  readonly inference: Partial<Inference["Service"]>
  /** The settings of the server that are not those of `defaultServer` on any free port. */
  readonly server?: Partial<typeof defaultServer>
  readonly registry?: Layer.Layer<Registry.Registry>
  readonly status?: Status
}

export const httpServices = ({
  inference,
  registry = Layer.succeed(Registry.Registry, Registry.make([])),
  server,
  status = "ready"
}: HttpServicesOptions) =>
  Layer.mergeAll(
    Layer.mock(Inference)(inference),
    registry,
    Layer.succeed(ResponseCache, noCache),
    Layer.succeed(Reload, fixed),
    Layer.mock(Router)({
      route: notRouted,
      preview: notRouted,
      noteFailure: () => {},
      facts: () => [],
      measure: () => ({ granted: () => {}, content: () => {}, end: () => {} })
    }),
    Breaker.layer,
    DecisionLog.layer,
    Layer.mock(Models)({
      drained: new Map(),
      tryLease: () => undefined,
      renew: () => {},
      snapshot: () => ({ queued: 0, state: "ready" }),
      loading: () => Effect.undefined,
      events: Stream.empty,
      stop: Effect.void,
      stopLoads: Effect.void
    }),
    Layer.succeed(Providers, none),
    Layer.sync(Readiness, () => ({ status })),
    Layer.succeed(VirtualKeys.VirtualKeys, VirtualKeys.none),
    Layer.succeed(Ledger.Ledger, Ledger.none),
    Layer.mock(Rollouts)({}),
    Layer.succeed(
      Settings,
      { server: { ...defaultServer, port: 0, ...server }, answerModel: "served" } as Settings["Service"]
    )
  )
