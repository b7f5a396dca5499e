/**
 * Reads the names of an ONNX graph's inputs and outputs from a model file, without its weights. Pure.
 *
 * **Details**
 *
 * By `onnx.proto` of the ONNX repository, in the wire format of Protocol Buffers. The scan asks for pieces of the file, and skips
 * nodes and weights by their lengths, so that a file of any size takes a few reads per node at most.
 *
 * **Gotchas**
 *
 * The file is untrusted: lengths are checked against what remains, and the number of fields is bounded.
 *
 * **Example**
 *
 * ```ts
 * const scan = OnnxGraph.scan(bytes.length)
 * let step = scan.next(new Uint8Array())
 * while (!step.done) step = scan.next(bytes.subarray(step.value.offset, step.value.offset + step.value.length))
 * if (step.value !== undefined) console.log(step.value.inputs)
 * ```
 */
import type { OnnxGraph } from "../../domain/ModelCapabilities.ts"

/** A piece of the file that the scan needs. */
export interface Piece {
  readonly offset: number
  /** bytes */
  readonly length: number
}

/** More fields than any real model has. */
const mostFields = 2_000_000
/** The description of one input or output, bytes. */
const largestValue = 65_536
/** The tag of a field and its length, bytes. */
const longestHead = 20

/** Field numbers of `ModelProto`, `GraphProto`, `ValueInfoProto`, `TypeProto`, `TypeProto.Tensor`, `TensorShapeProto`. */
const graphOfModel = 7
const inputOfGraph = 11
const outputOfGraph = 12
const nameOfValue = 1
const dimensionPath = [2, 1, 2, 1]
const valueOfDimension = 1

const varintType = 0
const bytesType = 2
/** Bytes of the wire types of fixed length. */
const fixedTypes: ReadonlyMap<number, number> = new Map([[1, 8], [5, 4]])

/** One field: its number, and where its content begins and ends. */
interface Field {
  readonly number: number
  readonly type: number
  readonly start: number
  readonly end: number
}

/** A number of seven bits per byte, and where it ends; undefined if it is cut or too large. */
const varintAt = (bytes: Uint8Array, at: number): readonly [value: number, end: number] | undefined => {
  let value = 0
  for (let index = at, scale = 1; index < bytes.length && index < at + 10; index++, scale *= 128) {
    const byte = bytes[index]!
    value += (byte & 127) * scale
    if (byte < 128) return Number.isSafeInteger(value) ? [value, index + 1] : undefined
  }
  return undefined
}

/** The field that begins at an offset of some bytes; undefined if it is malformed. */
const fieldAt = (bytes: Uint8Array, at: number): Field | undefined => {
  const tag = varintAt(bytes, at)
  if (tag === undefined) return undefined
  const type = tag[0] % 8
  const found = { number: Math.floor(tag[0] / 8), type, start: tag[1] }
  const fixed = fixedTypes.get(type)
  if (fixed !== undefined) return { ...found, end: found.start + fixed }
  if (type !== varintType && type !== bytesType) return undefined
  const value = varintAt(bytes, tag[1])
  if (value === undefined) return undefined
  return type === varintType ? { ...found, end: value[1] } : { ...found, start: value[1], end: value[1] + value[0] }
}

/** All fields of a message; fewer if it is malformed. */
const fieldsOf = (bytes: Uint8Array): ReadonlyArray<Field> => {
  const fields: Array<Field> = []
  for (let at = 0; at < bytes.length;) {
    const field = fieldAt(bytes, at)
    if (field === undefined || field.end > bytes.length) break
    fields.push(field)
    at = field.end
  }
  return fields
}

/** The contents of all fields of this number that are bytes. */
const contentsOf = (bytes: Uint8Array, number: number): ReadonlyArray<Uint8Array> =>
  fieldsOf(bytes).filter((field) => field.number === number && field.type === bytesType)
    .map(({ end, start }) => bytes.subarray(start, end))

const nameOf = (value: Uint8Array): string => new TextDecoder().decode(contentsOf(value, nameOfValue)[0])

/** The last dimension of an input or output; undefined if it is not fixed. */
const lastDimensionOf = (value: Uint8Array): number | undefined => {
  const dimensions = dimensionPath.reduce<ReadonlyArray<Uint8Array>>(
    (messages, number) => messages.flatMap((message) => contentsOf(message, number)),
    [value]
  )
  const last = dimensions.at(-1)
  const field = last && fieldsOf(last).find(({ number, type }) => number === valueOfDimension && type === varintType)
  return field === undefined ? undefined : varintAt(last!, field.start)?.[0]
}

type Scan<A> = Generator<Piece, A, Uint8Array>

/** Passes each field of a range to `visit` until that returns true. Returns false if the file is malformed. */
function* eachField({ length, offset }: Piece, visit: (field: Field) => Scan<boolean>): Scan<boolean> {
  const end = offset + length
  for (let at = offset, count = 0; at < end; count++) {
    const field = fieldAt(yield { offset: at, length: Math.min(longestHead, end - at) }, 0)
    if (field === undefined || count === mostFields || at + field.end > end) return false
    if (yield* visit({ ...field, start: at + field.start, end: at + field.end })) return true
    at += field.end
  }
  return true
}

const pieceOf = ({ end, start }: Field): Piece => ({ offset: start, length: end - start })

/** Where the graph is. */
function* graphIn(fileBytes: number): Scan<Piece | undefined> {
  let graph: Piece | undefined
  yield* eachField({ offset: 0, length: fileBytes }, function*(field) {
    if (field.number === graphOfModel && field.type === bytesType) graph = pieceOf(field)
    return graph !== undefined
  })
  return graph
}

/**
 * Reads the graph of a file: each step names the piece that it needs next.
 *
 * @param fileBytes the size of the file
 * @returns undefined if the file is not an ONNX model
 */
export function* scan(fileBytes: number): Scan<OnnxGraph | undefined> {
  const graph = yield* graphIn(fileBytes)
  if (graph === undefined) return undefined
  const values: Record<number, Array<Uint8Array>> = { [inputOfGraph]: [], [outputOfGraph]: [] }
  const isWhole = yield* eachField(graph, function*(field) {
    const list = values[field.number]
    // The next piece may replace this one.
    if (list !== undefined && field.end - field.start <= largestValue) list.push((yield pieceOf(field)).slice())
    return false
  })
  if (!isWhole) return undefined
  const [inputs, outputs] = [values[inputOfGraph]!, values[outputOfGraph]!]
  const logits = outputs.find((value) => nameOf(value) === "logits")
  return { inputs: inputs.map(nameOf), outputs: outputs.map(nameOf), logits: logits && lastDimensionOf(logits) }
}
