/** What a pull reads from, be it a server or this machine's disk, and how its failures are told apart. */
import { Data } from "effect"
import type { Effect, Scope, Stream } from "effect"
import type { ModelStoreError } from "../../services/store/ModelStore.ts"

/** A failure that may pass: a cut connection, a busy server. */
export class Cut extends Data.TaggedError("Cut")<{
  readonly detail: string
  /** What the server asked for. */
  readonly retryAfterMs?: number | undefined
  /** No connection was made: the host is unknown, refuses, or has no route. */
  readonly isUnreachable?: boolean | undefined
}> {}

/** A file that has begun to arrive. */
export interface Opened {
  /** Where `body` begins, which is 0 when the file has changed or its server cannot go on from the middle. */
  readonly fromBytes: number
  readonly totalBytes: number | undefined
  /** A strong one: the same etag means the same bytes. */
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
  /** @param etag what the bytes before `fromBytes` had, if known */
  readonly open: (
    fromBytes: number,
    etag: string | undefined
  ) => Effect.Effect<Opened, Cut | ModelStoreError, Scope.Scope>
}
