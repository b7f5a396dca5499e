/** Copies of a GGUF file with other metadata or other weights (GGUF v3, little endian). */
import { readFileSync, writeFileSync } from "node:fs"

interface Entry {
  readonly type: number
  readonly raw: Buffer
}

interface TensorInfo {
  readonly name: string
  readonly dimensions: ReadonlyArray<number>
  readonly type: number
  readonly offset: number
}

export interface Gguf {
  readonly version: number
  readonly metadata: ReadonlyMap<string, Entry>
  readonly tensors: ReadonlyArray<TensorInfo>
  readonly weights: Buffer
}

const stringType = 8
const arrayType = 9
const alignment = 32
const sizes: Readonly<Record<number, number>> = {
  0: 1,
  1: 1,
  2: 2,
  3: 2,
  4: 4,
  5: 4,
  6: 4,
  7: 1,
  10: 8,
  11: 8,
  12: 8
}

const reader = (bytes: Buffer) => {
  let at = 4
  const u32 = () => bytes.readUInt32LE((at += 4) - 4)
  const u64 = () => Number(bytes.readBigUInt64LE((at += 8) - 8))
  const text = () => {
    const length = u64()
    return bytes.subarray(at, at += length).toString()
  }
  const skip = (type: number): void => {
    if (type === stringType) text()
    else if (type === arrayType) {
      const element = u32()
      for (let left = u64(); left > 0; left--) skip(element)
    } else at += sizes[type]!
  }
  const entry = (): Entry => {
    const type = u32()
    const from = at
    skip(type)
    return { type, raw: bytes.subarray(from, at) }
  }
  return { u32, u64, text, entry, rest: () => bytes.subarray(Math.ceil(at / alignment) * alignment) }
}

export const readGguf = (file: string): Gguf => {
  const { entry, rest, text, u32, u64 } = reader(readFileSync(file))
  const [version, tensorCount, keyCount] = [u32(), u64(), u64()]
  const metadata = new Map(Array.from({ length: keyCount }, () => [text(), entry()] as const))
  const tensors = Array.from({ length: tensorCount }, () => ({
    name: text(),
    dimensions: Array.from({ length: u32() }, u64),
    type: u32(),
    offset: u64()
  }))
  return { version, metadata, tensors, weights: rest() }
}

const u32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(value)
  return bytes
}

const u64 = (value: number): Buffer => {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(BigInt(value))
  return bytes
}

const text = (value: string): Buffer => Buffer.concat([u64(Buffer.byteLength(value)), Buffer.from(value)])

export const writeGguf = (file: string, { metadata, tensors, version, weights }: Gguf): void => {
  const header = Buffer.concat([
    Buffer.from("GGUF"),
    u32(version),
    u64(tensors.length),
    u64(metadata.size),
    ...[...metadata].flatMap(([key, { raw, type }]) => [text(key), u32(type), raw]),
    ...tensors.flatMap(({ dimensions, name, offset, type }) => [
      text(name),
      u32(dimensions.length),
      ...dimensions.map(u64),
      u32(type),
      u64(offset)
    ])
  ])
  writeFileSync(
    file,
    Buffer.concat([header, Buffer.alloc((alignment - header.length % alignment) % alignment), weights])
  )
}

/** A copy of the model with these texts in its metadata. */
export const withTexts = (gguf: Gguf, texts: Readonly<Record<string, string>>): Gguf => ({
  ...gguf,
  metadata: new Map([
    ...gguf.metadata,
    ...Object.entries(texts).map(([key, value]) => [key, { type: stringType, raw: text(value) }] as const)
  ])
})

/** A copy of the model with these numbers in its metadata, as unsigned 32-bit integers. */
export const withNumbers = (gguf: Gguf, numbers: Readonly<Record<string, number>>): Gguf => ({
  ...gguf,
  metadata: new Map([
    ...gguf.metadata,
    ...Object.entries(numbers).map(([key, value]) => [key, { type: 4, raw: u32(value) }] as const)
  ])
})

/** A copy of the model with changed bytes in one tensor. */
export const withTensor = (gguf: Gguf, name: string, change: (bytes: Buffer) => void): Gguf => {
  const weights = Buffer.from(gguf.weights)
  const { offset } = gguf.tensors.find((tensor) => tensor.name === name)!
  const end = Math.min(...gguf.tensors.map((tensor) => tensor.offset).filter((one) => one > offset), weights.length)
  change(weights.subarray(offset, end))
  return { ...gguf, weights }
}
