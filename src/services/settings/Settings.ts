/** The settings of the service, with all defaults, and the error of a configuration that is invalid. */
import type { Duration } from "effect"
import { Context, Schema } from "effect"
import type * as Defaults from "../../domain/Defaults.ts"
import type { Model } from "../../domain/Deployment.ts"
import * as Problem from "../../domain/Problem.ts"
import type { Policy } from "../../domain/RoutingPolicy.ts"
import type { StreamLimits } from "../../domain/StreamLimits.ts"
import type { Options as CircuitOptions } from "../health/Circuit.ts"
import type { Cooldowns } from "../keys/KeyPool.ts"
import type { ExperimentPlan, RolloutSettings } from "../rollout/RolloutSettings.ts"
import type { ShadowSettings } from "../rollout/ShadowSettings.ts"
import type { Bounds } from "../routing/KeptRequests.ts"
import type { Scaling } from "../scaling/ScalingSettings.ts"
import type { AdmissionSettings } from "./AdmissionSettings.ts"
import type { AlertSettings } from "./AlertSettings.ts"
import type { CacheBounds } from "./CacheSettings.ts"
import type { GuardSettings } from "./GuardSettings.ts"
import type { DeclaredKey } from "./KeySettings.ts"
import type { PrefixFileSettings } from "./PrefixFileSettings.ts"
import type { ResponseStorage } from "./ResponseSettings.ts"
import type { Server } from "./Schema.ts"
import type { RedisLocation, StorageLocation } from "./StorageSettings.ts"
import type { TelemetrySettings } from "./TelemetrySettings.ts"

/** `NODE_ENV` chooses the environment; the default is development. */
export const environments = ["development", "test", "production"] as const
/** The name of an environment. */
export type Environment = typeof environments[number]

/** Settings with all defaults. */
export interface Resolved {
  readonly environment: Environment
  readonly server: Omit<Server, "shutdownGrace"> & { readonly shutdownGrace: Duration.Duration }
  readonly engineHost: "process" | "thread"
  /** When a crashed engine is started again; left out, by `Defaults`. */
  readonly engineRestarts?: Defaults.EngineRestarts
  /** How often memory and queues are sampled for the metrics; left out, as `Defaults` says. */
  readonly sampleEvery?: Duration.Duration
  readonly logLevel: "Debug" | "Info" | "Warn" | "Error"
  /** Left out, `text` in a terminal, else `json`. */
  readonly logFormat?: "text" | "json"
  /** Which requests have a log entry when they end; left out, none. */
  readonly logRequests?: "none" | "failed" | "all"
  /** Where computed prompts are kept, and how many; left out, nowhere. */
  readonly prefixFiles?: PrefixFileSettings
  /** How answers of local engines are streamed; left out, by default. */
  readonly streams?: StreamLimits
  readonly memory: {
    /** Memory of all models together, bytes; undefined, the memory of the machine minus a reserve. */
    readonly budgetBytes: number | undefined
    /** Minimum time that a loaded model keeps its memory while another model needs it. */
    readonly hold: Duration.Duration
    /** Share of the available memory that models leave free, without a budget. */
    readonly reserve: number
    readonly pressure: typeof Defaults.memoryPressure
    readonly quantization: typeof Defaults.quantization
  }
  /** How many requests for embeddings share a batch, and how long they are collected. */
  readonly embeddingBatches: { readonly size: number; readonly wait: Duration.Duration; readonly waitIdle: boolean }
  readonly circuits: CircuitOptions
  /** Cooldowns of provider keys after a rate limit or a rejection. */
  readonly keyCooldowns: Cooldowns
  /** Virtual keys of callers that the configuration declares. */
  readonly keys: ReadonlyArray<DeclaredKey>
  /** Limits and budgets of requests, and what the ledger counts. */
  readonly admission: AdmissionSettings
  /** The rules of alerts, and where changes of alerts are sent; left out, the default rules. */
  readonly alerts?: AlertSettings
  /** How many bodies of requests are kept, for administrators; left out, none. */
  readonly decisions?: Bounds
  /** How `troupe deploy` moves connections. */
  readonly deploy: {
    readonly steps: ReadonlyArray<number>
    readonly every: Duration.Duration
    readonly errorRate: number
  }
  /** Whether a change of the file applies by itself, and how long it must stay as it is before. */
  readonly reload: { readonly watch: boolean; readonly wait: Duration.Duration }
  /** Folder of the pulled models and their limit in bytes; left out, the free space of the disk. */
  readonly store: { readonly folder: string; readonly maxBytes?: number | undefined }
  /** Where keys, budgets and usage are stored. */
  readonly storage: StorageLocation
  /** The Redis that instances share; undefined without one. */
  readonly redis?: RedisLocation
  /** Where, how long and how much of responses and conversations is stored. */
  readonly responses: ResponseStorage
  /** Bounds of the response cache. */
  readonly cache: CacheBounds
  /** The policy for prompts. */
  readonly guard: GuardSettings
  /** What is sent to an OpenTelemetry collector; left out, nothing. */
  readonly telemetry?: TelemetrySettings
  /** When replicas of local deployments are added and removed; left out, never. */
  readonly scaling?: Scaling
  /** The model that answers name: the one that answered, or the one in the request. */
  readonly answerModel: "served" | "requested"
  /** `default` first. */
  readonly policies: ReadonlyArray<Policy>
  readonly models: ReadonlyArray<Model>
  /** How the rollouts of models go, by name; left out, by the defaults. */
  readonly rollouts?: ReadonlyMap<string, RolloutSettings>
  /** The A/B tests of models, by name; left out, none. */
  readonly experiments?: ReadonlyMap<string, ExperimentPlan>
  /** The copies of requests of models, by name; left out, none. */
  readonly shadows?: ReadonlyMap<string, ShadowSettings>
}

/** The configuration, every default filled in. */
export class Settings extends Context.Service<Settings, Resolved>()("troupe/services/settings/Settings") {}

/** An invalid configuration, with every problem. */
export class SettingsError extends Schema.TaggedError<SettingsError>()("SettingsError", {
  /** Path of the file, or a name for another source. */
  source: Schema.String,
  problems: Schema.Array(Problem.Problem)
}) {
  override get message(): string {
    return [`Invalid configuration: ${this.source}`, ...this.problems.map((problem) => `  ${Problem.format(problem)}`)]
      .join("\n")
  }
}

/** Where administration listens. */
export class AdminAddress extends Context.Service<AdminAddress, {
  /** A socket file, or a named pipe on Windows. */
  readonly socket?: string
  readonly url?: string
}>()("troupe/services/settings/Settings/AdminAddress") {}
