/**
 * Bytes that are written one after the other, in buffers that are used again: the first write to memory that the system has just
 * given takes longer than what is written.
 */
import { Buffer } from "node:buffer"

const smallest = 65_536
/** Buffers that wait for their next use. A larger one is left to the garbage collector. */
const mostFree = 2
const largestFree = 4_194_304

/** UTF-8 has at most as many bytes for a unit of UTF-16. */
const bytesOfUnit = 3

const viewOf = ({ buffer, byteLength, byteOffset }: Buffer): DataView => new DataView(buffer, byteOffset, byteLength)

export class GrowingBytes {
  buffer: Buffer = Buffer.allocUnsafeSlow(smallest)
  /** Of the same bytes. */
  view = viewOf(this.buffer)
  length = 0
  readonly #free: Array<Buffer> = []

  /** Makes room for as many bytes. */
  reserve(count: number): void {
    const needed = this.length + count
    if (needed <= this.buffer.length) return
    const larger = Buffer.allocUnsafeSlow(Math.max(needed, 2 * this.buffer.length))
    this.buffer.copy(larger, 0, 0, this.length)
    this.#use(larger)
  }

  put(bytes: Uint8Array): void {
    this.reserve(bytes.length)
    this.buffer.set(bytes, this.length)
    this.length += bytes.length
  }

  text(text: string): void {
    this.reserve(text.length * bytesOfUnit)
    this.length += this.buffer.write(text, this.length)
  }

  /** All bytes; the next ones are written into another buffer. */
  take(): Uint8Array {
    const bytes = this.buffer.subarray(0, this.length)
    this.#use(this.#free.pop() ?? Buffer.allocUnsafeSlow(Math.max(smallest, this.length)))
    this.length = 0
    return bytes
  }

  #use(buffer: Buffer): void {
    this.buffer = buffer
    this.view = viewOf(buffer)
  }

  /** Nothing reads these bytes, which were taken, any more. */
  release(bytes: Uint8Array): void {
    const { buffer } = bytes
    if (this.#free.length < mostFree && buffer.byteLength <= largestFree) this.#free.push(Buffer.from(buffer))
  }
}
