/**
 * The option `lora` of a deployment: the LoRA adapters that an engine applies to its model.
 *
 * **Details**
 *
 * A deployment is one set of adapters: llama.cpp applies them to a context, and each deployment has its own. Deployments of
 * one model may have different adapters, or none. A variant of the model has the same adapters.
 */
import { Effect, Schema } from "effect"
import { described, optional } from "../../domain/Fields.ts"
import type { Adapter } from "../../domain/LoraAdapter.ts"
import { problemOf } from "../../domain/LoraAdapter.ts"
import { atLeastOne } from "../../domain/Problem.ts"
import type { Header } from "../store/Gguf.ts"
import type { FileReader } from "./ModelFiles.ts"
import { notAnAdapter } from "./ModelFiles.ts"

const path = described(
  "The adapter's GGUF file, relative to the configuration file's folder, or builtin:tiny-chat-recall.",
  Schema.NonEmptyString
)

const Lora = Schema.Union([
  Schema.NonEmptyString,
  Schema.Array(Schema.Struct({
    path,
    scale: optional("Factor of the adapter's change; 1 is as trained, 0 is without it. Default 1.", Schema.Finite)
  })).check(atLeastOne)
])
export type Lora = typeof Lora.Type

export const lora = optional(
  "LoRA adapters of the model: a GGUF file, or builtin:tiny-chat-recall, or a list of { path, scale }. All are applied. Default none.",
  Lora
)

/** The adapters, with their scales. */
export const adaptersOf = (lora: Lora | undefined): ReadonlyArray<Adapter> => {
  if (lora === undefined) return []
  return typeof lora === "string"
    ? [{ path: lora, scale: 1 }]
    : lora.map(({ path, scale = 1 }) => ({ path, scale }))
}

/** The place of each adapter's path in the option. */
export const placesOf = (
  lora: Lora | undefined
): ReadonlyArray<readonly [field: ReadonlyArray<string | number>, path: string]> =>
  typeof lora === "string" ? [[[], lora]] : (lora ?? []).map(({ path }, index) => [[index, "path"], path])

/** The option with every path changed. */
export const mapAdapters = (lora: Lora, change: (path: string) => string): Lora =>
  typeof lora === "string" ? change(lora) : lora.map((one) => ({ ...one, path: change(one.path) }))

const headerOf = ({ metadata, tensors }: Header) => ({ metadata: (key: string) => metadata.get(key), tensors })

/**
 * The size of the adapters' files, bytes; fails if one cannot be applied.
 *
 * @param model the header of the model's file
 */
export const describe = (lora: Lora | undefined, model: Header, files: Pick<FileReader, "inspectFile">) =>
  Effect.map(
    Effect.forEach(adaptersOf(lora), ({ path }) =>
      Effect.flatMap(files.inspectFile(path), ({ bytes, header }) => {
        const problem = problemOf(headerOf(header), headerOf(model))
        return problem === undefined ? Effect.succeed(bytes) : Effect.fail(notAnAdapter(path, problem))
      })),
    (sizes) => sizes.reduce((sum, bytes) => sum + bytes, 0)
  )
