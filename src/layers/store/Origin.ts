/** A file to pull, from a server or the local disk, and the failure that is retried. */
import { Data } from "effect"
import type { Effect, Scope, Stream } from "effect"
import type { ModelStoreError } from "../../services/store/ModelStore.ts"

/** A failure that is retried: a lost connection or a busy server. */
export class Cut extends Data.TaggedError("Cut")<{
  readonly detail: string
  /** Delay that the server requested, ms. */
  readonly retryAfterMs?: number | undefined
  /** No connection was made: the host is unknown, refuses connections, or has no route. */
  readonly isUnreachable?: boolean | undefined
}> {}

/** An opened file. */
export interface Opened {
  /** Offset of `body`; 0 if the file has changed or the server does not support ranges. */
  readonly fromBytes: number
  readonly totalBytes: number | undefined
  /** A strong ETag: equal ETags mean equal bytes. */
  readonly etag: string | undefined
  readonly sha256: string | undefined
  readonly revision: string | undefined
  readonly body: Stream.Stream<Uint8Array, Cut>
}

/** One file to pull. */
export interface Origin {
  /** Within the model's folder. */
  readonly path: string
  /** For messages: without secrets. */
  readonly label: string
  readonly bytes: number | undefined
  readonly sha256: string | undefined
  /** @param etag of the bytes before `fromBytes`, if known */
  readonly open: (
    fromBytes: number,
    etag: string | undefined
  ) => Effect.Effect<Opened, Cut | ModelStoreError, Scope.Scope>
}
