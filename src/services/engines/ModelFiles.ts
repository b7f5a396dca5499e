/** Reads model files before they are loaded: their headers, and the memory that a deployment will take. */
import type { Effect } from "effect"
import { Context, Schema } from "effect"
import type { DeploymentOptions } from "../../domain/Deployment.ts"
import type { OnnxGraph } from "../../domain/ModelCapabilities.ts"
import type { Header } from "../store/Gguf.ts"
import type { ModelFacts } from "./EngineKind.ts"

/** The file or folder does not exist, or cannot be read. */
export class Unreadable extends Schema.TaggedError<Unreadable>()("Unreadable", {
  path: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `${this.path} cannot be read: ${this.detail}`
  }
}

/** The file is not a model file of the expected format. */
export class NotAModel extends Schema.TaggedError<NotAModel>()("NotAModel", {
  path: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `${this.path} is not a model file that can be loaded: ${this.detail}`
  }
}

/** The file is not a LoRA adapter that can be applied to the model. */
export class NotAnAdapter extends Schema.TaggedError<NotAnAdapter>()("NotAnAdapter", {
  path: Schema.String,
  detail: Schema.String
}) {
  override get message(): string {
    return `${this.path} is not a LoRA adapter of this model. ${this.detail}`
  }
}

/** A problem with a model's files. */
export class ModelFileError extends Schema.TaggedError<ModelFileError>()("ModelFileError", {
  reason: Schema.Union([Unreadable, NotAModel, NotAnAdapter])
}) {
  override get message(): string {
    return this.reason.message
  }
}

/** The error of a file that cannot be read. */
export const unreadable = (path: string, detail: string): ModelFileError =>
  new ModelFileError({ reason: new Unreadable({ path, detail }) })

/** The error of a file that is not a model file of the expected format. */
export const notAModel = (path: string, detail: string): ModelFileError =>
  new ModelFileError({ reason: new NotAModel({ path, detail }) })

/** The error of a file that is not a LoRA adapter of the model. */
export const notAnAdapter = (path: string, detail: string): ModelFileError =>
  new ModelFileError({ reason: new NotAnAdapter({ path, detail }) })

/** A GGUF file, without its weights. */
export interface GgufFile {
  readonly path: string
  readonly bytes: number
  /** When it was last changed, ms since 1970. */
  readonly changedAt: number
  readonly header: Header
}

/** Reads a model's files. */
export interface FileReader {
  /** Reads a GGUF file's header; again only when its size or time has changed. */
  readonly inspectFile: (path: string) => Effect.Effect<GgufFile, ModelFileError>
  /** Reads the names in an ONNX file's graph; again only when its size or time has changed. */
  readonly inspectGraph: (path: string) => Effect.Effect<OnnxGraph, ModelFileError>
  readonly readText: (path: string) => Effect.Effect<string, ModelFileError>
  readonly namesIn: (folder: string) => Effect.Effect<ReadonlyArray<string>, ModelFileError>
  /** bytes */
  readonly sizeOf: (path: string) => Effect.Effect<number, ModelFileError>
}

/** Reads the headers of model files. */
export class ModelFiles extends Context.Service<ModelFiles, {
  readonly inspectFile: FileReader["inspectFile"]
  /**
   * The facts in a deployment's files, and the memory that its model will take. A split GGUF file counts with all of
   * its parts; `variants` do not count.
   */
  readonly describe: (options: DeploymentOptions) => Effect.Effect<ModelFacts, ModelFileError>
}>()("troupe/services/engines/ModelFiles") {}
