/**
 * The reference of `docs/api.md`: a table for each endpoint that has fields, from the description of the interface.
 *
 * **Details**
 *
 * Names and types of fields come from the description. Defaults and meanings are written in the document, and kept.
 */
import { OpenApi } from "effect/http-api"
import { chatFields } from "../../src/dialects/openai/ServerFields.ts"
import * as Api from "../../src/layers/http/Api.ts"
import { dialects } from "../../src/layers/http/Server.ts"

interface Node {
  readonly $ref?: string
  readonly type?: string
  readonly enum?: ReadonlyArray<unknown>
  readonly minimum?: number
  readonly maximum?: number
  readonly anyOf?: ReadonlyArray<Node>
  readonly items?: Node
  readonly properties?: Readonly<Record<string, Node>>
  readonly required?: ReadonlyArray<string>
}

interface Operation {
  readonly requestBody?: { readonly content?: { readonly "application/json"?: { readonly schema?: Node } } }
  readonly parameters?: ReadonlyArray<{
    readonly in: string
    readonly name: string
    readonly required?: boolean
    readonly schema?: Node
  }>
}

interface Description {
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>
  readonly components: { readonly schemas: Readonly<Record<string, Node>> }
}

const description = OpenApi.fromApi(Api.make(dialects)) as unknown as Description

const resolved = (node: Node): Node =>
  node.$ref === undefined ? node : description.components.schemas[node.$ref.split("/").at(-1)!]!

/** The alternatives of a node. */
const alternatives = (node: Node): ReadonlyArray<Node> => {
  const found = resolved(node)
  return found.anyOf === undefined ? [found] : found.anyOf.flatMap(alternatives)
}

const rangeOf = ({ maximum = Number.MAX_SAFE_INTEGER, minimum = Number.MIN_SAFE_INTEGER }: Node): string => {
  if (minimum === Number.MIN_SAFE_INTEGER) return ""
  return maximum === Number.MAX_SAFE_INTEGER ? ` from ${minimum}` : ` ${minimum} to ${maximum}`
}

/** A number may be written as one of these texts in the schema, which JSON does not have. */
const isNoNumber = ({ enum: values }: Node): boolean => values?.includes("NaN") === true

const kindOf = (node: Node): string => {
  if (node.enum !== undefined) return node.enum.map((value) => `\`${String(value)}\``).join(", ")
  switch (node.type) {
    case "array":
      return `list of ${kindsOf(node.items ?? {})}`
    case "boolean":
      return "boolean"
    case "integer":
      return `whole number${rangeOf(node)}`
    case "number":
      return `number${rangeOf(node)}`
    case "object":
      return "object"
    case "string":
      return "text"
    default:
      return "any"
  }
}

const kindsOf = (node: Node): string =>
  [...new Set(alternatives(node).filter((one) => one.type !== "null" && !isNoNumber(one)).map(kindOf))].join(" or ")

interface Field {
  readonly name: string
  readonly kind: string
  readonly isRequired: boolean
}

const bodyOf = ({ requestBody }: Operation): Node => requestBody?.content?.["application/json"]?.schema ?? {}

/** The fields of the table that all requests share. */
export const sharedTable = "every request"

/** The fields of an object, with those of objects in it. */
const fieldsIn = (
  node: Node,
  path: string,
  isOmitted: (name: string, field: Node) => boolean
): ReadonlyArray<Field> => {
  const { properties = {}, required = [] } = resolved(node)
  return Object.entries(properties).filter(([name, field]) => !isOmitted(name, field)).flatMap(([name, field]) => {
    const own = path + name
    const [only, ...others] = alternatives(field)
    const isSection = others.length === 0 && only?.properties !== undefined
    return isSection
      ? fieldsIn(only, `${own}.`, () => false)
      : [{ name: own, kind: kindsOf(field), isRequired: required.includes(name) && path === "" }]
  })
}

const chat = resolved(bodyOf(description.paths["/v1/chat/completions"]!["post"]!)).properties!

const sharedNames: ReadonlySet<string> = new Set(["keep_alive", "priority", "safety_identifier", "troupe", "user"])

const isShared = (name: string, field: Node): boolean =>
  sharedNames.has(name) && JSON.stringify(field) === JSON.stringify(chat[name])

const fieldsOf = (operation: Operation): ReadonlyArray<Field> => [
  ...(operation.parameters ?? []).filter((one) => one.in === "query").map((
    { name, required = false, schema = {} }
  ) => ({
    name: `?${name}`,
    kind: kindsOf(schema),
    isRequired: required
  })),
  ...fieldsIn(bodyOf(operation), "", isShared)
]

const operations = Object.entries(description.paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, operation]) => [`${method.toUpperCase()} ${path}`, operation] as const)
)

/** Every endpoint, as `POST /v1/chat/completions`; some are not in the description. */
export const endpoints: ReadonlyArray<string> = [
  ...operations.map(([name]) => name),
  "GET /metrics",
  "GET /openapi.json"
]

/** The fields of each endpoint that has any. */
export const fieldsByEndpoint: ReadonlyMap<string, ReadonlyArray<Field>> = new Map([
  [sharedTable, fieldsIn({ properties: chat }, "", (name) => !sharedNames.has(name))],
  ...operations.map(([name, operation]) => [name, fieldsOf(operation)] as const).filter(([, fields]) =>
    fields.length > 0
  ),
  [
    "llama.cpp's server and vLLM",
    Object.entries(chatFields).map(([name, { expected = "any" }]) => ({ name, kind: expected, isRequired: false }))
  ]
])

const head = ["| Field | Type | Default | Meaning |", "|---|---|---|---|"]

/** The default and the meaning of each field, as a table of the document has them. */
const textsIn = (table: string): ReadonlyMap<string, readonly [byDefault: string, meaning: string]> =>
  new Map(
    table.split("\n").flatMap((line) => {
      const [, name, , byDefault = "", meaning = ""] = line.split(/(?<!\\)\|/).map((cell) => cell.trim())
      const [, field] = /^`(.+)`$/.exec(name ?? "") ?? []
      return field === undefined ? [] : [[field, [byDefault, meaning] as const]]
    })
  )

const rowsOf = (fields: ReadonlyArray<Field>, written: string): ReadonlyArray<string> => {
  const texts = textsIn(written)
  return fields.map(({ isRequired, kind, name }) => {
    const [byDefault = "", meaning = ""] = texts.get(name) ?? []
    return `| \`${name}\` | ${kind.replaceAll("|", "\\|")} | ${isRequired ? "required" : byDefault} | ${meaning} |`
  })
}

const marked = /(<!-- fields: (.+?) -->\n)([^]*?)(<!-- end -->)/g

/** The names of the tables in a document. */
export const tablesIn = (text: string): ReadonlyArray<string> => [...text.matchAll(marked)].map(([, , name]) => name!)

/** A document with the names and types of its tables generated again. */
export const withFields = (text: string): string =>
  text.replaceAll(marked, (_, begin: string, name: string, written: string, end: string) => {
    const fields = fieldsByEndpoint.get(name)
    const rows = fields === undefined ? [`No endpoint "${name}" with fields.`] : [...head, ...rowsOf(fields, written)]
    return `${begin}${rows.join("\n")}\n${end}`
  })

/** The rows of a document that have an empty cell. */
export const incompleteRows = (text: string): ReadonlyArray<string> =>
  [...text.matchAll(marked)].flatMap(([, , name, table]) =>
    table!.split("\n").filter((row) => /\|\s*\|/.test(row)).map((row) => `${name}: ${row}`)
  )
