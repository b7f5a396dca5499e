/**
 * Reads the header of a GGUF file from its first bytes: metadata and tensors, without the weights.
 *
 * **Details**
 *
 * Versions 2 and 3, little endian, by the specification in the ggml repository (`docs/gguf.md`). The bytes may end
 * anywhere: a header that continues past them fails with `Truncated`, which has a lower bound of the missing bytes. A count
 * in the file is checked against the bytes that remain, so that parsing allocates at most a few times the header's size.
 *
 * **Gotchas**
 *
 * Long arrays (the tokens of a vocabulary) are skipped; only their length is kept. 64-bit numbers are rounded to doubles.
 *
 * **Example**
 *
 * ```ts
 * const header = Gguf.parse(bytes, { fileBytes: 3_070_720 })
 * if (Result.isSuccess(header)) console.log(Gguf.quantizationOf(header.success), header.success.tensors.length)
 * ```
 */
import { Result } from "effect"
import type { Problem } from "./GgufCursor.ts"
import { Cursor, Halt } from "./GgufCursor.ts"
import type { TensorType } from "./GgufTypes.ts"
import { fileTypes, tensorTypes } from "./GgufTypes.ts"

export type { Problem } from "./GgufCursor.ts"
export { Malformed, Truncated } from "./GgufCursor.ts"
export type { TensorType } from "./GgufTypes.ts"
export { tensorTypes } from "./GgufTypes.ts"

/** A skipped array: its length. */
export interface Skipped {
  readonly skipped: number
}

/** A value of the metadata. Arrays of up to 1,024 numbers or flags are kept. */
export type Value = string | number | boolean | ReadonlyArray<number | boolean> | Skipped

/** One tensor, with the position of its weights. */
export interface Tensor {
  readonly name: string
  readonly dimensions: ReadonlyArray<number>
  /** As in ggml's `ggml_type`; see `tensorTypes`. */
  readonly type: number
  /** Offset from the beginning of the weights, bytes. */
  readonly offset: number
  /** Size of its weights, bytes; undefined for an unknown type. */
  readonly bytes: number | undefined
}

/** The header of a GGUF file. */
export interface Header {
  readonly version: number
  readonly metadata: ReadonlyMap<string, Value>
  readonly tensors: ReadonlyArray<Tensor>
  /** Offset of the weights in the file, bytes. */
  readonly weightsOffset: number
}

const magic = 0x46554747
const mostDimensions = 4
const longestKept = 1024
/** ggml's `GGUF_DEFAULT_ALIGNMENT`, bytes. */
const defaultAlignment = 32

/** As in ggml's `gguf_type`; the others are `scalars`. */
const stringType = 8
const arrayType = 9

const readArray = (cursor: Cursor): Value => {
  const type = cursor.u32()
  if (type === stringType) {
    const count = cursor.count(8)
    for (let index = 0; index < count; index++) cursor.take(cursor.count(1))
    return { skipped: count }
  }
  const scalar = cursor.scalars[type]
  if (scalar === undefined) return cursor.refuse(`Expected an array of numbers, flags or strings, not of type ${type}`)
  const [bytes, read] = scalar
  const count = cursor.count(bytes)
  const start = cursor.take(count * bytes)
  return count > longestKept
    ? { skipped: count }
    : Array.from({ length: count }, (_, index) => read(start + index * bytes))
}

const readValue = (cursor: Cursor): Value => {
  const type = cursor.u32()
  if (type === stringType) return cursor.text()
  if (type === arrayType) return readArray(cursor)
  const scalar = cursor.scalars[type]
  return scalar === undefined
    ? cursor.refuse(`Expected a type from 0 to ${cursor.scalars.length - 1}, not ${type}`)
    : scalar[1](cursor.take(scalar[0]))
}

const readMetadata = (cursor: Cursor, count: number): ReadonlyMap<string, Value> => {
  const metadata = new Map<string, Value>()
  for (let index = 0; index < count; index++) {
    cursor.where = `metadata[${index}].key`
    const key = cursor.text()
    cursor.where = `metadata[${index}].value`
    metadata.set(key, readValue(cursor))
  }
  return metadata
}

const bytesOf = (type: number, elements: number): number | undefined => {
  const known = tensorTypes.get(type)
  return known === undefined ? undefined : Math.ceil(elements / known.blockElements) * known.blockBytes
}

const readTensor = (cursor: Cursor): Tensor => {
  const name = cursor.text()
  const count = cursor.u32()
  if (count > mostDimensions) cursor.refuse(`Expected at most ${mostDimensions} dimensions, not ${count}`)
  const dimensions = Array.from({ length: count }, cursor.u64)
  const elements = dimensions.reduce((product, size) => product * size, 1)
  if (!Number.isSafeInteger(elements * 8)) cursor.refuse("Expected dimensions that a file can hold")
  const type = cursor.u32()
  return { name, dimensions, type, offset: cursor.u64(), bytes: bytesOf(type, elements) }
}

const readHeader = (cursor: Cursor): Header => {
  if (cursor.u32() !== magic) {
    cursor.offset = 0
    cursor.refuse("Expected the bytes \"GGUF\", with which a GGUF file begins")
  }
  cursor.where = "version"
  const version = cursor.u32()
  if (version !== 2 && version !== 3) cursor.refuse(`Expected GGUF version 2 or 3, little endian, not ${version}`)
  cursor.where = "counts"
  // Name, dimensions, type and offset; key, type and value.
  const tensorCount = cursor.count(24)
  const metadata = readMetadata(cursor, cursor.count(13))
  const tensors: Array<Tensor> = []
  for (let index = 0; index < tensorCount; index++) {
    cursor.where = `tensors[${index}]`
    tensors.push(readTensor(cursor))
  }
  const alignment = metadata.get("general.alignment")
  const step = typeof alignment === "number" && alignment > 0 ? alignment : defaultAlignment
  return { version, metadata, tensors, weightsOffset: Math.ceil(cursor.offset / step) * step }
}

/**
 * Reads the header at the beginning of a file.
 *
 * @param options.fileBytes the size of the complete file, which no count in it may exceed
 */
export const parse = (
  bytes: Uint8Array,
  options?: { readonly fileBytes?: number | undefined }
): Result.Result<Header, Problem> => {
  try {
    return Result.succeed(readHeader(new Cursor(bytes, options?.fileBytes ?? Number.POSITIVE_INFINITY)))
  } catch (cause) {
    if (cause instanceof Halt) return Result.fail(cause.problem)
    throw cause
  }
}

/** A number of the metadata, or undefined. */
export const numberOf = (header: Header, key: string): number | undefined => {
  const value = header.metadata.get(key)
  return typeof value === "number" && Number.isFinite(value) ? value : undefined
}

/** A text of the metadata, or undefined. */
export const textOf = (header: Header, key: string): string | undefined => {
  const value = header.metadata.get(key)
  return typeof value === "string" ? value : undefined
}

/** The architecture of the model, such as `llama`: the prefix of its metadata keys. */
export const architectureOf = (header: Header): string => textOf(header, "general.architecture") ?? ""

/** Size of all tensors of known types, bytes. */
export const weightsBytesOf = (header: Header): number =>
  header.tensors.reduce((sum, tensor) => sum + (tensor.bytes ?? 0), 0)

/** Offset in the file at which the last tensor ends, bytes. */
export const endOf = (header: Header): number =>
  header.tensors.reduce(
    (end, { bytes, offset }) => Math.max(end, header.weightsOffset + offset + (bytes ?? 0)),
    header.weightsOffset
  )

/** The type with most bytes of the weights. */
export const dominantTypeOf = (header: Header): TensorType | undefined => {
  const bytes = new Map<number, number>()
  for (const tensor of header.tensors) bytes.set(tensor.type, (bytes.get(tensor.type) ?? 0) + (tensor.bytes ?? 0))
  const [dominant] = [...bytes].sort(([, left], [, right]) => right - left)
  return dominant === undefined ? undefined : tensorTypes.get(dominant[0])
}

/** The name of the quantization, such as `Q8_0` or `Q4_K_M`; empty if unknown. */
export const quantizationOf = (header: Header): string =>
  fileTypes.get(numberOf(header, "general.file_type") ?? -1) ?? dominantTypeOf(header)?.name ?? ""

/**
 * Bits of most of the weights, without the scales of their blocks: 4 for `Q4_0` and `Q4_K_M`, 8 for `Q8_0`, 16 for
 * `F16` and `BF16`, 32 for `F32`; undefined if unknown.
 */
export const bitsOf = (header: Header): number | undefined => {
  const digits = /\d+/.exec(quantizationOf(header))?.[0]
  return digits === undefined ? undefined : Number(digits)
}
