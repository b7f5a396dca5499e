/**
 * The model store: models on the local disk that were pulled, verified and tested.
 *
 * **Details**
 *
 * A model is a folder of the store with its files and a manifest, `model.json`, which names their source. A model is
 * complete or absent: files are written as `*.part`, verified, and renamed, and the manifest is written last. Before a file
 * is loaded for the first time, a separate process loads it and computes one token, since a bad file can abort the process
 * that loads it; a file that fails is quarantined.
 */
import type { Effect, Stream } from "effect"
import { Context, Schema } from "effect"

/** The source is malformed, or has no matching file. */
export class InvalidSource extends Schema.TaggedError<InvalidSource>()("InvalidSource", {
  source: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `${this.source}: ${this.detail}.`
  }
}

/** The server has no such repository or file. */
export class SourceNotFound extends Schema.TaggedError<SourceNotFound>()("SourceNotFound", { url: Schema.String }) {
  override get message(): string {
    return `Not found: ${this.url}. Check the name of the repository and file.`
  }
}

/** The server requires a token, or rejects the one that is sent. */
export class AccessDenied extends Schema.TaggedError<AccessDenied>()("AccessDenied", {
  url: Schema.String,
  status: Schema.Int
}) {
  override get message(): string {
    return `Access to ${this.url} was denied (HTTP status ${this.status}). For a gated or private repository on Hugging ` +
      `Face, accept its terms there and set HF_TOKEN.`
  }
}

/** The network or the server failed repeatedly. The received part is kept, and the next pull resumes it. */
export class DownloadFailed extends Schema.TaggedError<DownloadFailed>()("DownloadFailed", {
  url: Schema.String,
  detail: Schema.String,
  /** Attempts in all; left out for a failure that is not retried. */
  attempts: Schema.optionalKey(Schema.Int)
}) {
  override get message(): string {
    const { attempts = 1 } = this
    const after = attempts === 1 ? "" : ` after ${attempts} attempts`
    return `Cannot download ${this.url}${after}: ${this.detail}.`
  }
}

/** The file does not have the expected checksum; it is deleted. */
export class ChecksumMismatch extends Schema.TaggedError<ChecksumMismatch>()("ChecksumMismatch", {
  file: Schema.String,
  expected: Schema.String,
  actual: Schema.String
}) {
  override get message(): string {
    return `${this.file} has the SHA-256 checksum ${this.actual}, but ${this.expected} was expected. The download was ` +
      `deleted. Pull again; if the checksum differs again, do not trust the source.`
  }
}

/** The disk or the store is full; both in bytes. */
export class DiskFull extends Schema.TaggedError<DiskFull>()("DiskFull", {
  folder: Schema.String,
  neededBytes: Schema.Finite,
  availableBytes: Schema.Finite
}) {
  override get message(): string {
    return `Not enough space in ${this.folder}: ${this.neededBytes} bytes are needed, ${this.availableBytes} are available. ` +
      `Remove a model with \`troupe models rm\`, raise store.maxBytes, or choose another store.folder.`
  }
}

/** Another process is pulling the same model. */
export class PullInProgress extends Schema.TaggedError<PullInProgress>()("PullInProgress", {
  name: Schema.String,
  /** Process id and host of the other process, if its lock has them. */
  pid: Schema.optionalKey(Schema.Int),
  host: Schema.optionalKey(Schema.String),
  /** Time after which the lock of a process that has ended expires. */
  expiresSeconds: Schema.Finite
}) {
  override get message(): string {
    const owner = this.pid === undefined ? "another process" : `process ${this.pid} on ${this.host ?? "this machine"}`
    return `"${this.name}" is already being pulled by ${owner}. Wait for it to finish; if that process has ended, its lock ` +
      `expires within ${this.expiresSeconds} s.`
  }
}

/** A model from another source has the name. */
export class NameTaken extends Schema.TaggedError<NameTaken>()("NameTaken", {
  name: Schema.String,
  source: Schema.String
}) {
  override get message(): string {
    return `The store already has a model "${this.name}", from ${this.source}. Choose another name with --name, or remove ` +
      `it with: troupe models rm ${this.name}`
  }
}

/** The model did not load, or aborted the process that loaded it. */
export class Quarantined extends Schema.TaggedError<Quarantined>()("Quarantined", {
  path: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `${this.path} failed its load test and is quarantined: ${this.detail} Remove the model, then pull it again or ` +
      `pull another one.`
  }
}

/** The store has no such model. */
export class NotInStore extends Schema.TaggedError<NotInStore>()("NotInStore", {
  name: Schema.String,
  available: Schema.Array(Schema.String)
}) {
  override get message(): string {
    const available = this.available.length === 0
      ? "The store is empty."
      : `Available models: ${this.available.join(", ")}.`
    return `The store has no model "${this.name}". ${available}`
  }
}

/** The file system refused an operation. */
export class StoreUnusable extends Schema.TaggedError<StoreUnusable>()("StoreUnusable", {
  path: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `Cannot use ${this.path}: ${this.detail}.`
  }
}

/** Why a call of the store failed. */
export const Reason = Schema.Union([
  InvalidSource,
  SourceNotFound,
  AccessDenied,
  DownloadFailed,
  ChecksumMismatch,
  DiskFull,
  PullInProgress,
  NameTaken,
  Quarantined,
  NotInStore,
  StoreUnusable
])
export type Reason = typeof Reason.Type

/** The error of the store. */
export class ModelStoreError extends Schema.TaggedError<ModelStoreError>()("ModelStoreError", { reason: Reason }) {
  override get message(): string {
    return this.reason.message
  }
}

/** A `ModelStoreError` of this reason. */
export const fail = (reason: Reason): ModelStoreError => new ModelStoreError({ reason })

const StoredFile = Schema.Struct({
  /** Within the model's folder. */
  path: Schema.String,
  bytes: Schema.Finite,
  sha256: Schema.String,
  etag: Schema.optionalKey(Schema.String)
})
/** One file of a stored model. */
export type StoredFile = typeof StoredFile.Type

/** The content of `model.json`. */
export const Manifest = Schema.Struct({
  version: Schema.Literal(1),
  name: Schema.String,
  kind: Schema.Literals(["gguf", "onnx"]),
  /** The source as the user typed it. */
  source: Schema.String,
  /** The repository's commit. */
  revision: Schema.optionalKey(Schema.String),
  /** ISO 8601. */
  pulledAt: Schema.String,
  /** The first is the one to load. */
  files: Schema.NonEmptyArray(StoredFile),
  /** The version that was loaded successfully: size, time (ms since 1970) and checksum. */
  inspected: Schema.optionalKey(
    Schema.Struct({ bytes: Schema.Finite, changedAt: Schema.Finite, sha256: Schema.String, at: Schema.String })
  ),
  quarantined: Schema.optionalKey(Schema.Struct({ at: Schema.String, detail: Schema.String }))
})
export type Manifest = typeof Manifest.Type

/** A model of the store. */
export interface StoredModel {
  readonly manifest: Manifest
  /** The path to load, absolute: the first file of a GGUF model, the folder of an ONNX model. */
  readonly path: string
  readonly bytes: number
}

/** The progress of a pull. */
export type Progress =
  | { readonly type: "resolved"; readonly name: string; readonly files: number; readonly bytes: number | undefined }
  | {
    readonly type: "received"
    readonly file: string
    readonly receivedBytes: number
    readonly totalBytes: number | undefined
  }
  | { readonly type: "resumed"; readonly file: string; readonly fromBytes: number }
  | {
    readonly type: "retry"
    readonly file: string
    readonly attempt: number
    readonly delayMs: number
    readonly detail: string
  }
  | { readonly type: "inspecting"; readonly name: string }
  | {
    readonly type: "done"
    readonly model: StoredModel
    /** Whether the store already had the model. */
    readonly already: boolean
  }

/** Options of a pull. */
export interface PullOptions {
  /** Name in the store; default from the file or repository. */
  readonly name?: string | undefined
  /** Expected SHA-256 checksum of the (first) file, in hexadecimal. */
  readonly sha256?: string | undefined
}

/** Model files on the disk of this machine. */
export class ModelStore extends Context.Service<ModelStore, {
  /** Pulls a model; the last event is `done`. Ending the stream early stops the pull; the next pull resumes it. */
  readonly pull: (source: string, options?: PullOptions) => Stream.Stream<Progress, ModelStoreError>
  readonly list: Effect.Effect<ReadonlyArray<StoredModel>, ModelStoreError>
  readonly get: (name: string) => Effect.Effect<StoredModel, ModelStoreError>
  /** The model that was pulled from this source; undefined if there is none. */
  readonly pulledFrom: (source: string) => Effect.Effect<StoredModel | undefined, ModelStoreError>
  /** Removes a model, or the parts of an unfinished pull. */
  readonly remove: (name: string) => Effect.Effect<void, ModelStoreError>
  /**
   * Succeeds when a file is safe to load: it is outside the store, or this version of it has been inspected. Otherwise
   * inspects it, which can fail with `Quarantined`.
   */
  readonly ensureInspected: (path: string) => Effect.Effect<void, ModelStoreError>
}>()("troupe/services/store/ModelStore") {}
