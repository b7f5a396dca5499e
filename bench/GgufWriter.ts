/**
 * Writes the header of a GGUF file, version 3, little endian, and rows of its weights.
 *
 * **Details**
 *
 * After the format's description in the ggml repository (`docs/gguf.md`).
 */

/** Types of metadata, by number. */
const types = { u32: 4, i32: 5, f32: 6, bool: 7, string: 8, array: 9 } as const

/** A metadata value: its type and its bytes. */
interface Encoded {
  readonly type: number
  readonly bytes: Buffer
}

export type GgufValue = string | boolean | Encoded

const bytesOf = (size: number, write: (buffer: Buffer) => void): Buffer => {
  const buffer = Buffer.alloc(size)
  write(buffer)
  return buffer
}

const u32Bytes = (value: number) => bytesOf(4, (buffer) => buffer.writeUInt32LE(value))
const u64Bytes = (value: number) => bytesOf(8, (buffer) => buffer.writeBigUInt64LE(BigInt(value)))
const stringBytes = (text: string) => Buffer.concat([u64Bytes(Buffer.byteLength(text)), Buffer.from(text)])

export const u32 = (value: number): Encoded => ({ type: types.u32, bytes: u32Bytes(value) })
export const f32 = (value: number): Encoded => ({
  type: types.f32,
  bytes: bytesOf(4, (buffer) => buffer.writeFloatLE(value))
})

const arrayOf = (type: number, elements: ReadonlyArray<Buffer>): Encoded => ({
  type: types.array,
  bytes: Buffer.concat([u32Bytes(type), u64Bytes(elements.length), ...elements])
})

export const strings = (texts: ReadonlyArray<string>): Encoded => arrayOf(types.string, texts.map(stringBytes))
/** Signed, as token types are written. */
export const i32s = (values: ReadonlyArray<number>): Encoded =>
  arrayOf(types.i32, values.map((value) => bytesOf(4, (buffer) => buffer.writeInt32LE(value))))

const encode = (value: GgufValue): Encoded => {
  if (typeof value === "string") return { type: types.string, bytes: stringBytes(value) }
  if (typeof value === "boolean") return { type: types.bool, bytes: Buffer.from([value ? 1 : 0]) }
  return value
}

/** Tensor types by ggml's number, with the weights and bytes of a block. */
const tensorTypes = {
  f32: { number: 0, weights: 1, bytes: 4 },
  q8_0: { number: 8, weights: 32, bytes: 34 }
} as const

export interface TensorShape {
  readonly name: string
  /** Columns and, of a matrix, rows. */
  readonly dimensions: readonly [columns: number, rows?: number]
  readonly type: keyof typeof tensorTypes
}

const alignment = 32

const sizeOf = ({ dimensions: [columns, rows = 1], type }: TensorShape): number =>
  columns * rows / tensorTypes[type].weights * tensorTypes[type].bytes

const missing = (size: number): number => (alignment - size % alignment) % alignment

/** The padding after a tensor's weights. */
export const paddingAfter = (tensor: TensorShape): Buffer => Buffer.alloc(missing(sizeOf(tensor)))

const tensorBytes = (tensors: ReadonlyArray<TensorShape>): ReadonlyArray<Buffer> => {
  let offset = 0
  return tensors.flatMap((tensor) => {
    const at = offset
    offset += sizeOf(tensor) + missing(sizeOf(tensor))
    const dimensions = tensor.dimensions.filter((dimension) => dimension !== undefined)
    return [
      stringBytes(tensor.name),
      u32Bytes(dimensions.length),
      ...dimensions.map(u64Bytes),
      u32Bytes(tensorTypes[tensor.type].number),
      u64Bytes(at)
    ]
  })
}

/** Everything before the weights of the first tensor. */
export const headerOf = (
  metadata: ReadonlyArray<readonly [key: string, value: GgufValue]>,
  tensors: ReadonlyArray<TensorShape>
): Buffer => {
  const entries = metadata.flatMap(([key, value]) => {
    const { bytes, type } = encode(value)
    return [stringBytes(key), u32Bytes(type), bytes]
  })
  const header = Buffer.concat([
    Buffer.from("GGUF"),
    u32Bytes(3),
    u64Bytes(tensors.length),
    u64Bytes(metadata.length),
    ...entries,
    ...tensorBytes(tensors)
  ])
  return Buffer.concat([header, Buffer.alloc(missing(header.length))])
}

/** The standard deviation of uniform numbers from -128 to 127. */
const uniformDeviation = 73.9

/** The smallest normal number of half precision is 2^-14; below, the precision is 2^-24. */
const leastNormal = -14
const leastDigit = 2 ** -24

/** A positive number in IEEE 754 half precision, rounded down. */
const half = (value: number): number => {
  if (value < 2 ** leastNormal) return Math.floor(value / leastDigit)
  const exponent = Math.floor(Math.log2(value))
  return ((exponent - leastNormal + 1) << 10) | Math.floor((value / 2 ** exponent - 1) * 1024)
}

/**
 * A row of weights of type Q8_0.
 *
 * @param random 32 bits at a time
 * @param deviation standard deviation of the weights
 */
export const q8_0 = (random: () => number, columns: number, deviation: number): Buffer => {
  const { bytes, weights } = tensorTypes.q8_0
  const row = Buffer.allocUnsafe(columns / weights * bytes)
  const scale = half(deviation / uniformDeviation)
  for (let at = 0; at < row.length; at += bytes) {
    row.writeUInt16LE(scale, at)
    for (let weight = at + 2; weight < at + bytes; weight += 4) row.writeInt32LE(random() | 0, weight)
  }
  return row
}
