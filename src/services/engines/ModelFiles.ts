/** What model files say of themselves before they are loaded: headers, and the memory that a deployment will take. */
import type { Effect } from "effect"
import { Context, Schema } from "effect"
import type { DeploymentOptions } from "../../domain/Deployment.ts"
import type { MemoryEstimate } from "../models/MemoryEstimate.ts"
import type { Header } from "../store/Gguf.ts"

/** There is no such file or folder, or it may not be read. */
export class Unreadable extends Schema.TaggedError<Unreadable>()("Unreadable", {
  path: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `${this.path} cannot be read: ${this.detail}`
  }
}

/** The file is not the model file it should be. */
export class NotAModel extends Schema.TaggedError<NotAModel>()("NotAModel", {
  path: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `${this.path} is not a model file that can be loaded: ${this.detail}`
  }
}

/** What is wrong with a model's files. */
export class ModelFileError extends Schema.TaggedError<ModelFileError>()("ModelFileError", {
  reason: Schema.Union([Unreadable, NotAModel])
}) {
  override get message(): string {
    return this.reason.message
  }
}

/** A GGUF file, of which the weights were not read. */
export interface GgufFile {
  readonly path: string
  readonly bytes: number
  /** When it was last changed, ms since 1970. */
  readonly changedAt: number
  readonly header: Header
}

export class ModelFiles extends Context.Service<ModelFiles, {
  /** Reads a GGUF file's header; again only when its size or time has changed. */
  readonly inspectFile: (path: string) => Effect.Effect<GgufFile, ModelFileError>
  /**
   * The memory that a deployment's model will take. A split GGUF file counts with all of its parts; of `variants`, none.
   * A fake takes what it pretends to.
   */
  readonly estimate: (options: DeploymentOptions) => Effect.Effect<MemoryEstimate, ModelFileError>
}>()("troupe/services/engines/ModelFiles") {}
