/**
 * Writes small ONNX models: the part of the format that the tests' graphs and the embedded model need.
 *
 * The field numbers are those of `onnx.proto3`, whose messages a comment names.
 */

/** Bytes of one protobuf field. */
type Field = Uint8Array

const varint = (value: number): Uint8Array => {
  const bytes: Array<number> = []
  let rest = value
  while (rest > 127) {
    bytes.push((rest & 127) | 128)
    rest = Math.floor(rest / 128)
  }
  return Uint8Array.of(...bytes, rest)
}

const integer = (field: number, value: number): Field => Buffer.concat([varint(field << 3), varint(value)])

const bytes = (field: number, value: Uint8Array | string): Field => {
  const content = typeof value === "string" ? Buffer.from(value) : value
  return Buffer.concat([varint((field << 3) | 2), varint(content.length), content])
}

const message = (field: number, ...fields: ReadonlyArray<Field>): Field => bytes(field, Buffer.concat(fields))

const types = { float32: 1, int8: 3, int64: 7, float16: 10 } as const

export type ElementType = keyof typeof types

/** An input or output: a number is a fixed size, a text the name of a dynamic one. */
export interface Value {
  readonly name: string
  readonly type: ElementType
  readonly shape: ReadonlyArray<number | string>
}

/** A constant. */
export interface Constant {
  readonly name: string
  readonly dims: ReadonlyArray<number>
  readonly values: Float32Array | Int8Array | BigInt64Array
  /** The separate file with the values. */
  readonly external?: string
}

/** An integer, integers, or a float. */
export type Attribute = number | ReadonlyArray<number> | { readonly float: number }

export interface Node {
  readonly op: string
  readonly inputs: ReadonlyArray<string>
  readonly output: string
  readonly attributes?: Readonly<Record<string, Attribute>>
}

export interface Graph {
  readonly inputs: ReadonlyArray<Value>
  readonly outputs: ReadonlyArray<Value>
  readonly constants: ReadonlyArray<Constant>
  readonly nodes: ReadonlyArray<Node>
}

// ValueInfoProto, TypeProto, TypeProto.Tensor, TensorShapeProto
const valueInfo = (field: number, { name, shape, type }: Value): Field => {
  const dims = shape.map((size) => message(1, typeof size === "number" ? integer(1, size) : bytes(2, size)))
  return message(field, bytes(1, name), message(2, message(1, integer(1, types[type]), message(2, ...dims))))
}

export const bytesOf = ({ values }: Constant): Uint8Array =>
  new Uint8Array(values.buffer, values.byteOffset, values.byteLength)

const typeOf = ({ values }: Constant): ElementType =>
  values instanceof Float32Array ? "float32" : values instanceof Int8Array ? "int8" : "int64"

// TensorProto, StringStringEntryProto
const constant = (given: Constant): Field => {
  const { dims, external, name } = given
  const data = external === undefined
    ? [bytes(9, bytesOf(given))]
    : [message(13, bytes(1, "location"), bytes(2, external)), integer(14, 1)]
  return message(
    5,
    ...dims.map((size) => integer(1, size)),
    integer(2, types[typeOf(given)]),
    bytes(8, name),
    ...data
  )
}

const float = (field: number, value: number): Field => {
  const content = Buffer.alloc(4)
  content.writeFloatLE(value)
  return Buffer.concat([varint((field << 3) | 5), content])
}

const attribute = (name: string, value: Attribute): Field => {
  if (typeof value === "number") return message(5, bytes(1, name), integer(3, value), integer(20, 2))
  if ("float" in value) return message(5, bytes(1, name), float(2, value.float), integer(20, 1))
  return message(5, bytes(1, name), ...value.map((one) => integer(8, one)), integer(20, 7))
}

// NodeProto, AttributeProto
const node = ({ attributes = {}, inputs, op, output }: Node): Field =>
  message(
    1,
    ...inputs.map((name) => bytes(1, name)),
    bytes(2, output),
    bytes(4, op),
    ...Object.entries(attributes).map(([name, value]) => attribute(name, value))
  )

/** The file's bytes. */
export const writeOnnx = ({ constants, inputs, nodes, outputs }: Graph, name = "test"): Uint8Array =>
  // ModelProto, OperatorSetIdProto, GraphProto
  Buffer.concat([
    integer(1, 8),
    message(8, integer(2, 17)),
    message(
      7,
      ...nodes.map(node),
      bytes(2, name),
      ...constants.map(constant),
      ...inputs.map((value) => valueInfo(11, value)),
      ...outputs.map((value) => valueInfo(12, value))
    )
  ])

export const castTo = (input: string, output: string, type: ElementType): Node => ({
  op: "Cast",
  inputs: [input],
  output,
  attributes: { to: types[type] }
})
