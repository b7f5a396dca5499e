/** The context of all store operations: options, HTTP client, and retry policy. */
import type { Duration, Schedule } from "effect"
import { Clock, Effect } from "effect"
import type { HttpClient } from "effect/http"
import type { ModelFiles } from "../../services/engines/ModelFiles.ts"
import type { Manifest, ModelStoreError, Progress } from "../../services/store/ModelStore.ts"
import { fail, InvalidSource } from "../../services/store/ModelStore.ts"
import type { Endpoint } from "./HuggingFace.ts"
import type { Origin } from "./Origin.ts"

export interface Options {
  readonly folder: string
  /** Limit of the store on the disk, bytes. */
  readonly maxBytes?: number | undefined
  readonly endpoint: Endpoint
  readonly retry?: Schedule.Schedule<unknown> | undefined
  readonly stallAfter?: Duration.Duration | undefined
}

/** The files of a source. */
export interface Found {
  readonly kind: Manifest["kind"]
  readonly name: string
  readonly origins: ReadonlyArray<Origin>
}

export interface StoreContext {
  readonly options: Options
  readonly client: HttpClient.HttpClient
  readonly files: ModelFiles["Service"]
  readonly retry: Schedule.Schedule<unknown>
  readonly stallAfter: Duration.Duration
  /** Models inspected by this process, by path: a read-only store cannot record them. */
  readonly inspected: Map<string, NonNullable<Manifest["inspected"]>>
}

export type Report = (progress: Progress) => Effect.Effect<unknown>

/** The time in the format of manifests, ISO 8601. */
export const now = Effect.map(Clock.currentTimeMillis, (ms) => new Date(ms).toISOString())

export const invalid = (source: string, detail: string): ModelStoreError => fail(new InvalidSource({ source, detail }))
