/**
 * The JSON schemas of a request with the numbers that its caller wrote. Pure.
 *
 * **Details**
 *
 * The schemas of tools and of the format have rounded numbers, because engines on threads and schema checks calculate with
 * them. A provider of another dialect than the caller's is sent the schemas of the caller's own body, whose numbers are
 * exact.
 */
import type { Generation } from "../../domain/Generation.ts"
import type { JsonSchema } from "../../domain/Job.ts"
import type { Dialect } from "../../domain/ProviderKind.ts"
import type { Source } from "../../domain/Source.ts"
import { at, type Fields, fieldsOf, listAt, textAt } from "./Json.ts"

/** Where the caller's dialect has its schemas. */
interface Places {
  /** A tool with its name. */
  readonly tool: (tool: unknown) => unknown
  readonly parameters: string
  readonly format: ReadonlyArray<string>
}

const openai: Places = {
  tool: (tool) => at(tool, "function"),
  parameters: "parameters",
  format: ["response_format", "json_schema", "schema"]
}

const ollama: Places = { ...openai, format: ["format"] }

const anthropic: Places = {
  tool: (tool) => tool,
  parameters: "input_schema",
  format: ["output_config", "format", "schema"]
}

const places: Readonly<Record<Dialect, Places>> = { openai, anthropic, ollama }

/** By the name of the tool. */
const parametersOf = ({ body }: Source, { parameters, tool }: Places): ReadonlyMap<string, Fields> =>
  new Map(
    listAt(body, "tools").flatMap((given) => {
      const found = tool(given)
      const [name, schema] = [textAt(found, "name"), fieldsOf(at(found, parameters))]
      return name === undefined || schema === undefined ? [] : [[name, schema] as const]
    })
  )

const formatWith = (format: Generation["format"], schema: JsonSchema | undefined): Generation["format"] =>
  format?.type === "json_schema" && schema !== undefined ? { ...format, schema } : format

/** The generation with the exact numbers of its schemas, as `ExactNumber`. */
export const withExactSchemas = (generation: Generation, source: Source): Generation => {
  if (source.hasExactNumbers !== true) return generation
  const own = places[source.dialect]
  const { format, tools } = generation
  const exact = parametersOf(source, own)
  return {
    ...generation,
    ...(tools === undefined ? {} : {
      tools: tools.map((tool) => exact.has(tool.name) ? { ...tool, parameters: exact.get(tool.name)! } : tool)
    }),
    ...(format === undefined ? {} : { format: formatWith(format, fieldsOf(at(source.body, ...own.format)))! })
  }
}
