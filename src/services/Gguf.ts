/**
 * Reads the header of a GGUF file from its first bytes: metadata and tensors, without the weights.
 *
 * **Details**
 *
 * Versions 2 and 3, little endian, after the format's description in the ggml repository (`docs/gguf.md`). The bytes
 * may end anywhere: a header that goes on past them fails with `Truncated`, which says how many more are wanted at
 * least. Every count in the file is believed only as far as there are bytes for it, so that no header makes this
 * allocate more than a few times its own size.
 *
 * **Gotchas**
 *
 * Long arrays (a vocabulary's tokens) are stepped over and only counted. A 64-bit number is rounded to a double.
 *
 * **Example**
 *
 * ```ts
 * const header = Gguf.parse(bytes, { fileBytes: 3_070_720 })
 * if (Result.isSuccess(header)) console.log(Gguf.quantisationOf(header.success), header.success.tensors.length)
 * ```
 */
import { Result, Schema } from "effect"

/** An array that was stepped over: its length. */
export interface Skipped {
  readonly skipped: number
}

/** A value of the metadata. Arrays of up to 1,024 numbers or flags are kept. */
export type Value = string | number | boolean | ReadonlyArray<number | boolean> | Skipped

/** One tensor, of whose weights only the place is told. */
export interface Tensor {
  readonly name: string
  readonly dimensions: ReadonlyArray<number>
  /** As in ggml's `ggml_type`; see `tensorTypes`. */
  readonly type: number
  /** From the beginning of the weights, bytes. */
  readonly offset: number
  /** Of its weights, bytes; undefined for a type that is not known here. */
  readonly bytes: number | undefined
}

/** What a file says of itself before its weights. */
export interface Header {
  readonly version: number
  readonly metadata: ReadonlyMap<string, Value>
  readonly tensors: ReadonlyArray<Tensor>
  /** Where the weights begin, bytes from the file's beginning. */
  readonly weightsOffset: number
}

/** The header goes on past the bytes there are; `moreBytes` is a lower bound of what is wanted. */
export class Truncated extends Schema.TaggedError<Truncated>()("Truncated", {
  moreBytes: Schema.Finite,
  /** What was being read, as `metadata[3].value`. */
  where: Schema.String
}) {
  override get message(): string {
    return `The file ends within its header, at ${this.where}: at least ${this.moreBytes} bytes are missing.`
  }
}

/** The bytes are not those of a GGUF header. */
export class Malformed extends Schema.TaggedError<Malformed>()("Malformed", {
  where: Schema.String,
  /** Bytes from the file's beginning. */
  offset: Schema.Finite,
  expected: Schema.String
}) {
  override get message(): string {
    return `${this.where} (byte ${this.offset}): ${this.expected}`
  }
}

export type Problem = Truncated | Malformed

/** A tensor type: its weights come in blocks of so many elements and bytes. */
export interface TensorType {
  readonly name: string
  readonly blockElements: number
  readonly blockBytes: number
}

const type = (name: string, blockElements: number, blockBytes: number): TensorType => ({
  name,
  blockElements,
  blockBytes
})

/** By number; sizes as in ggml's `ggml-common.h`. */
export const tensorTypes: ReadonlyMap<number, TensorType> = new Map([
  [0, type("F32", 1, 4)],
  [1, type("F16", 1, 2)],
  [2, type("Q4_0", 32, 18)],
  [3, type("Q4_1", 32, 20)],
  [6, type("Q5_0", 32, 22)],
  [7, type("Q5_1", 32, 24)],
  [8, type("Q8_0", 32, 34)],
  [9, type("Q8_1", 32, 36)],
  [10, type("Q2_K", 256, 84)],
  [11, type("Q3_K", 256, 110)],
  [12, type("Q4_K", 256, 144)],
  [13, type("Q5_K", 256, 176)],
  [14, type("Q6_K", 256, 210)],
  [15, type("Q8_K", 256, 292)],
  [16, type("IQ2_XXS", 256, 66)],
  [17, type("IQ2_XS", 256, 74)],
  [18, type("IQ3_XXS", 256, 98)],
  [19, type("IQ1_S", 256, 50)],
  [20, type("IQ4_NL", 32, 18)],
  [21, type("IQ3_S", 256, 110)],
  [22, type("IQ2_S", 256, 82)],
  [23, type("IQ4_XS", 256, 136)],
  [24, type("I8", 1, 1)],
  [25, type("I16", 1, 2)],
  [26, type("I32", 1, 4)],
  [27, type("I64", 1, 8)],
  [28, type("F64", 1, 8)],
  [29, type("IQ1_M", 256, 56)],
  [30, type("BF16", 1, 2)],
  [34, type("TQ1_0", 256, 54)],
  [35, type("TQ2_0", 256, 66)],
  [39, type("MXFP4", 32, 17)]
])

/** By number, as in llama.cpp's `llama_ftype`. */
const fileTypes: ReadonlyMap<number, string> = new Map([
  [0, "F32"],
  [1, "F16"],
  [2, "Q4_0"],
  [3, "Q4_1"],
  [7, "Q8_0"],
  [8, "Q5_0"],
  [9, "Q5_1"],
  [10, "Q2_K"],
  [11, "Q3_K_S"],
  [12, "Q3_K_M"],
  [13, "Q3_K_L"],
  [14, "Q4_K_S"],
  [15, "Q4_K_M"],
  [16, "Q5_K_S"],
  [17, "Q5_K_M"],
  [18, "Q6_K"],
  [19, "IQ2_XXS"],
  [20, "IQ2_XS"],
  [21, "Q2_K_S"],
  [22, "IQ3_XS"],
  [23, "IQ3_XXS"],
  [24, "IQ1_S"],
  [25, "IQ4_NL"],
  [26, "IQ3_S"],
  [27, "IQ3_M"],
  [28, "IQ2_S"],
  [29, "IQ2_M"],
  [30, "IQ4_XS"],
  [31, "IQ1_M"],
  [32, "BF16"],
  [36, "TQ1_0"],
  [37, "TQ2_0"],
  [38, "MXFP4"]
])

const magic = 0x46554747
const mostDimensions = 4
const longestKept = 1024
/** ggml's `GGUF_DEFAULT_ALIGNMENT`, bytes. */
const defaultAlignment = 32

/** Leaves the reader for the end of `parse`, where it becomes a value again. */
class Halt {
  readonly problem: Problem
  constructor(problem: Problem) {
    this.problem = problem
  }
}

/** Reads on from where it stands; `where` names what is being read. */
class Cursor {
  offset = 0
  where = "magic"
  readonly #view: DataView
  readonly #bytes: Uint8Array
  readonly #fileBytes: number
  readonly #text = new TextDecoder()

  constructor(bytes: Uint8Array, fileBytes: number) {
    this.#bytes = bytes
    this.#fileBytes = fileBytes
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  }

  refuse(expected: string): never {
    throw new Halt(new Malformed({ where: this.where, offset: this.offset, expected }))
  }

  /** Where the next `size` bytes begin. */
  take(size: number): number {
    this.expect(size)
    this.offset += size
    return this.offset - size
  }

  /** There must be so many bytes to come. */
  expect(size: number): void {
    const end = this.offset + size
    if (end <= this.#bytes.length) return
    if (end > this.#fileBytes) this.refuse(`Expected ${size} more bytes, and the file has ${this.#fileBytes} in all`)
    throw new Halt(new Truncated({ moreBytes: end - this.#bytes.length, where: this.where }))
  }

  u32 = (): number => this.#view.getUint32(this.take(4), true)

  u64 = (): number => Number(this.#view.getBigUint64(this.take(8), true))

  /** A number of things of which each takes at least so many bytes. */
  count(leastBytes: number): number {
    const count = this.u64()
    if (!Number.isSafeInteger(count * leastBytes)) this.refuse("Expected a count that a file can hold")
    this.expect(count * leastBytes)
    return count
  }

  text(): string {
    const length = this.count(1)
    const start = this.take(length)
    return this.#text.decode(this.#bytes.subarray(start, start + length))
  }

  readonly scalars: ReadonlyArray<readonly [bytes: number, read: (at: number) => number | boolean] | undefined> = [
    [1, (at) => this.#view.getUint8(at)],
    [1, (at) => this.#view.getInt8(at)],
    [2, (at) => this.#view.getUint16(at, true)],
    [2, (at) => this.#view.getInt16(at, true)],
    [4, (at) => this.#view.getUint32(at, true)],
    [4, (at) => this.#view.getInt32(at, true)],
    [4, (at) => this.#view.getFloat32(at, true)],
    [1, (at) => this.#view.getUint8(at) !== 0],
    undefined,
    undefined,
    [8, (at) => Number(this.#view.getBigUint64(at, true))],
    [8, (at) => Number(this.#view.getBigInt64(at, true))],
    [8, (at) => this.#view.getFloat64(at, true)]
  ]
}

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
    cursor.refuse("Expected a GGUF file, which begins with GGUF")
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
 * @param options.fileBytes the size of the whole file, which no count in it may exceed
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

/** Of the model's family, as `llama`, which begins the names of its figures. */
export const architectureOf = (header: Header): string => textOf(header, "general.architecture") ?? ""

/** Of all tensors whose type is known, bytes. */
export const weightsBytesOf = (header: Header): number =>
  header.tensors.reduce((sum, tensor) => sum + (tensor.bytes ?? 0), 0)

/** Where the last weights end that are told of, bytes from the file's beginning. */
export const endOf = (header: Header): number =>
  header.tensors.reduce(
    (end, { bytes, offset }) => Math.max(end, header.weightsOffset + offset + (bytes ?? 0)),
    header.weightsOffset
  )

/** The type that most of the weights' bytes have. */
export const dominantTypeOf = (header: Header): TensorType | undefined => {
  const bytes = new Map<number, number>()
  for (const tensor of header.tensors) bytes.set(tensor.type, (bytes.get(tensor.type) ?? 0) + (tensor.bytes ?? 0))
  const [dominant] = [...bytes].sort(([, left], [, right]) => right - left)
  return dominant === undefined ? undefined : tensorTypes.get(dominant[0])
}

/** As people call it: `Q8_0`, `Q4_K_M`; empty where the file does not tell. */
export const quantisationOf = (header: Header): string =>
  fileTypes.get(numberOf(header, "general.file_type") ?? -1) ?? dominantTypeOf(header)?.name ?? ""

/**
 * Bits of most of the weights, without the scales of their blocks: 4 for `Q4_0` and `Q4_K_M`, 8 for `Q8_0`, 16 for
 * `F16` and `BF16`, 32 for `F32`; undefined where the file does not tell.
 */
export const bitsOf = (header: Header): number | undefined => {
  const digits = /\d+/.exec(quantisationOf(header))?.[0]
  return digits === undefined ? undefined : Number(digits)
}
