/** Deployments, settings and engines for tests, with defaults for everything that a test does not set. */
import { Duration, Effect, Stream } from "effect"
import * as Defaults from "../../src/domain/Defaults.ts"
import type { Deployment } from "../../src/domain/Deployment.ts"
import type { Engine } from "../../src/services/engines/Engine.ts"
import { admissionOf } from "../../src/services/settings/AdmissionSettings.ts"
import { allRules } from "../../src/services/settings/GuardSettings.ts"
import { defaultServer } from "../../src/services/settings/Resolution.ts"
import { responsesOf } from "../../src/services/settings/ResponseSettings.ts"
import type { Resolved } from "../../src/services/settings/Settings.ts"

/** The model is the beginning of the id: `a#0` and `a` belong to `a`. */
export const deployment = (id = "a", more: Partial<Deployment> = {}): Deployment => ({
  id,
  model: id.split("#", 1)[0]!,
  options: { engine: "fake" },
  idleUnload: Duration.minutes(10),
  preload: false,
  pinned: false,
  queueLimit: 512,
  stallAfter: Duration.minutes(2),
  loadTimeout: Duration.minutes(5),
  ...more
})

export const settings = (more: Partial<Resolved> = {}): Resolved => ({
  environment: "test",
  server: { ...defaultServer, port: 0, shutdownGrace: Duration.seconds(5), maxBodyBytes: 1000 },
  engineHost: "thread",
  logLevel: "Error",
  memory: {
    budgetBytes: undefined,
    hold: Duration.seconds(5),
    reserve: Defaults.memoryReserve,
    pressure: Defaults.memoryPressure,
    quantization: Defaults.quantization
  },
  embeddingBatches: { size: Defaults.batchSize, wait: Defaults.batchWait, waitIdle: false },
  circuits: Defaults.breaker,
  keyCooldowns: Defaults.keyCooldowns,
  keys: [],
  admission: admissionOf({}),
  deploy: { steps: [1], every: Duration.seconds(1), errorRate: 0.05 },
  reload: { watch: false, wait: Defaults.reloadWait },
  store: { folder: "/nowhere" },
  storage: { type: "memory" },
  responses: responsesOf(),
  cache: Defaults.cache,
  guard: { modes: allRules("off") },
  answerModel: "served",
  policies: [],
  models: [],
  ...more
})

const notPlayed = Effect.die("not played")

/** An engine with the given operations only. */
export const engine = ({ describe, ...more }: Partial<Omit<Engine, "describe">> & {
  readonly describe?: Partial<Engine["describe"]>
} = {}): Engine => ({
  describe: { engine: "fake", contextWindow: 4096, slots: 4, capabilities: ["generate"], details: {}, ...describe },
  generate: () => Stream.fromEffect(notPlayed),
  embed: () => notPlayed,
  rerank: () => notPlayed,
  classify: () => notPlayed,
  tokenize: () => notPlayed,
  memoryBytes: Effect.succeed(0),
  stop: Effect.void,
  crashed: Effect.never,
  ...more
})
