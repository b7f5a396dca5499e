/**
 * Reads numbers and texts from the first bytes of a GGUF file, which may end anywhere.
 */
import { Schema } from "effect"

/** The header continues past the given bytes; `moreBytes` is a lower bound of the missing bytes. */
export class Truncated extends Schema.TaggedError<Truncated>()("Truncated", {
  moreBytes: Schema.Finite,
  /** The position in the header, such as `metadata[3].value`. */
  where: Schema.String
}) {
  override get message(): string {
    return `The file ends within its header, at ${this.where}: at least ${this.moreBytes} bytes are missing.`
  }
}

/** The bytes are not those of a GGUF header. */
export class Malformed extends Schema.TaggedError<Malformed>()("Malformed", {
  where: Schema.String,
  /** Offset in the file, bytes. */
  offset: Schema.Finite,
  expected: Schema.String
}) {
  override get message(): string {
    return `${this.where} (byte ${this.offset}): ${this.expected}`
  }
}

export type Problem = Truncated | Malformed

/** Leaves the reader for the end of `Gguf.parse`, where it becomes a value again. */
export class Halt {
  readonly problem: Problem
  constructor(problem: Problem) {
    this.problem = problem
  }
}

/** Reads values one after another; `where` names the current position. */
export class Cursor {
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

  /** Fails unless this many bytes remain. */
  expect(size: number): void {
    const end = this.offset + size
    if (end <= this.#bytes.length) return
    if (end > this.#fileBytes) this.refuse(`Expected ${size} more bytes, and the file has ${this.#fileBytes} in all`)
    throw new Halt(new Truncated({ moreBytes: end - this.#bytes.length, where: this.where }))
  }

  u32 = (): number => this.#view.getUint32(this.take(4), true)

  u64 = (): number => Number(this.#view.getBigUint64(this.take(8), true))

  /** Reads a count of items that need at least this many bytes each. */
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
