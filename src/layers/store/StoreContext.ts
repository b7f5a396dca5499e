/** What every step of the store's work needs. */
import type { Duration, Effect, Schedule } from "effect"
import { Clock, Effect as Effects } from "effect"
import type { HttpClient } from "effect/http"
import type { ModelFiles } from "../../services/engines/ModelFiles.ts"
import type { Manifest, ModelStoreError, Progress } from "../../services/store/ModelStore.ts"
import { fail, InvalidSource } from "../../services/store/ModelStore.ts"
import type { Endpoint } from "./HuggingFace.ts"
import type { Origin } from "./Origin.ts"

export interface Options {
  readonly folder: string
  /** Most that the store may take on the disk. */
  readonly maxBytes?: number | undefined
  readonly endpoint: Endpoint
  readonly retry?: Schedule.Schedule<unknown> | undefined
  readonly stallAfter?: Duration.Duration | undefined
}

/** What a source turned out to be. */
export interface Found {
  readonly kind: Manifest["kind"]
  readonly name: string
  readonly origins: ReadonlyArray<Origin>
}

export interface Tools {
  readonly options: Options
  readonly client: HttpClient.HttpClient
  readonly files: ModelFiles["Service"]
  readonly retry: Schedule.Schedule<unknown>
  readonly stallAfter: Duration.Duration
  /** What was inspected since this process began, by path: a store that is read-only keeps no mark. */
  readonly inspected: Map<string, NonNullable<Manifest["inspected"]>>
}

export type Report = (progress: Progress) => Effect.Effect<unknown>

/** As manifests have it. */
export const now = Effects.map(Clock.currentTimeMillis, (ms) => new Date(ms).toISOString())

export const invalid = (source: string, detail: string): ModelStoreError => fail(new InvalidSource({ source, detail }))
