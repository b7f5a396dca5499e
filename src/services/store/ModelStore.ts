/**
 * The models on this machine's disk: pulled once, checked, and known to load.
 *
 * **Details**
 *
 * A model is a folder of the store with its files and a `model.json` that says where they came from. It is there whole
 * or not at all: files are written beside their place as `*.part`, checked, and renamed. Before a file is loaded for
 * the first time, a process of its own loads it and computes one token, since a bad file can abort the process that
 * loads it; one that fails is quarantined.
 */
import type { Effect, Stream } from "effect"
import { Context, Schema } from "effect"

/** The source is not one, or means no file. */
export class InvalidSource extends Schema.TaggedError<InvalidSource>()("InvalidSource", {
  source: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `${this.source}: ${this.detail}.`
  }
}

/** The server knows no such repository or file. */
export class SourceNotFound extends Schema.TaggedError<SourceNotFound>()("SourceNotFound", { url: Schema.String }) {
  override get message(): string {
    return `Not found: ${this.url}. Check the name of the repository and file.`
  }
}

/** The server wants to know who asks, or does not like who does. */
export class AccessDenied extends Schema.TaggedError<AccessDenied>()("AccessDenied", {
  url: Schema.String,
  status: Schema.Int
}) {
  override get message(): string {
    return `Access to ${this.url} was denied (HTTP status ${this.status}). For a gated or private repository on Hugging ` +
      `Face, accept its terms there and set HF_TOKEN.`
  }
}

/** The network or the server failed, again and again. What was received is kept, and the next pull goes on from there. */
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

/** The bytes are not those that were promised; they are deleted. */
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

/** There is no room; both in bytes. */
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

/** Another process pulls the same model. */
export class PullInProgress extends Schema.TaggedError<PullInProgress>()("PullInProgress", {
  name: Schema.String,
  /** Of the other process, where its lock says so. */
  pid: Schema.optionalKey(Schema.Int),
  host: Schema.optionalKey(Schema.String),
  /** A lock whose process has ended expires after so long. */
  expiresSeconds: Schema.Finite
}) {
  override get message(): string {
    const owner = this.pid === undefined ? "another process" : `process ${this.pid} on ${this.host ?? "this machine"}`
    return `"${this.name}" is already being pulled by ${owner}. Wait for it to finish; if that process has ended, its lock ` +
      `expires within ${this.expiresSeconds} s.`
  }
}

/** The name is taken by a model from elsewhere. */
export class NameTaken extends Schema.TaggedError<NameTaken>()("NameTaken", {
  name: Schema.String,
  source: Schema.String
}) {
  override get message(): string {
    return `The store already has a model "${this.name}", from ${this.source}. Choose another name with --name, or remove ` +
      `it with: troupe models rm ${this.name}`
  }
}

/** The model did not load, or took the process that tried it with it. */
export class Quarantined extends Schema.TaggedError<Quarantined>()("Quarantined", {
  path: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `${this.path} failed its load test and is quarantined: ${this.detail} Remove the model, then pull it again or ` +
      `pull another one.`
  }
}

/** There is no such model in the store. */
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

/** The disk or the operating system refused. */
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

/** The one error of the store. */
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

/** What `model.json` says. */
export const Manifest = Schema.Struct({
  version: Schema.Literal(1),
  name: Schema.String,
  kind: Schema.Literals(["gguf", "onnx"]),
  /** As it was typed. */
  source: Schema.String,
  /** The repository's commit. */
  revision: Schema.optionalKey(Schema.String),
  /** ISO 8601. */
  pulledAt: Schema.String,
  /** The first is the one to load. */
  files: Schema.NonEmptyArray(StoredFile),
  /** What was loaded successfully, to tell whether it is still the same: size, time (ms since 1970) and checksum. */
  inspected: Schema.optionalKey(
    Schema.Struct({ bytes: Schema.Finite, changedAt: Schema.Finite, sha256: Schema.String, at: Schema.String })
  ),
  quarantined: Schema.optionalKey(Schema.Struct({ at: Schema.String, detail: Schema.String }))
})
export type Manifest = typeof Manifest.Type

/** A model of the store. */
export interface StoredModel {
  readonly manifest: Manifest
  /** What to load, absolute: the first file of a GGUF model, the folder of an ONNX model. */
  readonly path: string
  readonly bytes: number
}

/** What happens during a pull. */
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
    /** It was in the store already. */
    readonly already: boolean
  }

/** Options of a pull. */
export interface PullOptions {
  /** Default after the file or repository. */
  readonly name?: string | undefined
  /** What the (first) file's checksum must be, in hexadecimal. */
  readonly sha256?: string | undefined
}

/** Model files on the disk of this machine. */
export class ModelStore extends Context.Service<ModelStore, {
  /** Pulls a model; the last event is `done`. Ending the stream early stops the pull, and the next goes on from there. */
  readonly pull: (source: string, options?: PullOptions) => Stream.Stream<Progress, ModelStoreError>
  readonly list: Effect.Effect<ReadonlyArray<StoredModel>, ModelStoreError>
  readonly get: (name: string) => Effect.Effect<StoredModel, ModelStoreError>
  /** Removes a model, or what an unfinished pull left of it. */
  readonly remove: (name: string) => Effect.Effect<void, ModelStoreError>
  /**
   * Succeeds when a file is safe to load: it is not of the store, or it has been inspected as it is. Otherwise inspects
   * it, which can fail with `Quarantined`.
   */
  readonly ensureInspected: (path: string) => Effect.Effect<void, ModelStoreError>
}>()("troupe/services/store/ModelStore") {}
