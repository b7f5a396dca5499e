/**
 * Tools of the Responses dialect: functions and custom tools, and which of them an answer may call. Pure.
 *
 * **Details**
 *
 * Tools that run in the service (`web_search`, `file_search`, `code_interpreter`, `mcp`, ...) have no translation: only a
 * deployment with the Responses API takes them.
 */
import { Result, Schema } from "effect"
import type { Request, Tool } from "../../domain/Inference.ts"
import { Tool as InferenceTool } from "../../domain/Inference.ts"
import { JsonObject } from "../../domain/OutputFormat.ts"
import * as Problem from "../../domain/Problem.ts"
import type { Fields } from "../shared/Json.ts"
import { isObject, listOf, textAt } from "../shared/Json.ts"
import * as CustomTools from "./CustomTools.ts"
import type { ItemProblem } from "./Items.ts"

const nullable = <S extends Schema.Top>(schema: S) => Schema.optionalKey(Schema.NullOr(schema))

const FunctionTool = Schema.Struct({
  type: Schema.Literal("function"),
  name: InferenceTool.fields.name,
  description: nullable(Schema.String),
  parameters: nullable(JsonObject),
  strict: nullable(Schema.Boolean)
})

const decoders = new Map<unknown, (tool: unknown) => Result.Result<unknown, Schema.SchemaError>>([
  ["function", Problem.decoderOf(FunctionTool)],
  ["custom", Problem.decoderOf(CustomTools.CustomTool)]
])

/** Tools that run at a provider, by OpenAI's reference; some have a date after their name. */
const documented =
  /^(?:apply_patch|code_interpreter|computer|computer_use_preview|file_search|image_generation|local_shell|mcp|namespace|shell|tool_search|web_search|web_search_preview)(?:_\d{4}_\d{2}_\d{2})?$/

const expectedType = "Expected \"function\" or \"custom\""

const unknownType = (type: unknown): string =>
  typeof type === "string" && !decoders.has(type)
    ? `Troupe does not have the tool ${JSON.stringify(type.slice(0, 100))}. ${expectedType}`
    : expectedType

const typeProblem = (path: string, type: unknown): ItemProblem => ({
  path: `${path}.type`,
  expected: unknownType(type),
  ...(typeof type === "string" && type !== "" ? { isForeign: true as const } : {}),
  ...(typeof type === "string" && documented.test(type) ? { isDocumented: true as const } : {})
})

const oneProblem = (tool: Fields, path: string): ReadonlyArray<ItemProblem> => {
  const decode = decoders.get(tool["type"])
  if (decode === undefined) return [typeProblem(path, tool["type"])]
  const decoded = decode(tool)
  return Result.isSuccess(decoded)
    ? []
    : Problem.fromSchemaError(decoded.failure).map((problem) => ({ ...problem, path: `${path}.${problem.path}` }))
}

/** A call names its tool, so names are unique. */
const repeated = (tools: ReadonlyArray<Fields>): ReadonlyArray<Problem.Problem> =>
  tools.flatMap(({ name }, index) =>
    name !== undefined && tools.findIndex((tool) => tool["name"] === name) < index
      ? [{ path: `tools[${index}].name`, expected: "Another tool has the same name" }]
      : []
  )

type Choice = string | Fields | undefined

/** The names that a choice may have. */
const named = (choice: Fields): ReadonlyArray<readonly [path: string, name: unknown, type: unknown]> =>
  choice["type"] === "allowed_tools"
    ? listOf(choice["tools"]).map((tool, index) => [
      `tool_choice.tools[${index}]`,
      textAt(tool, "name"),
      isObject(tool) ? tool["type"] : undefined
    ])
    : [["tool_choice", choice["name"], choice["type"]]]

/** Left out, as in Open Responses: `auto`. */
const modes: ReadonlySet<unknown> = new Set(["auto", "required", undefined])

const choiceProblems = (choice: Choice, tools: ReadonlyArray<Fields>): ReadonlyArray<ItemProblem> => {
  if (choice === undefined || choice === "auto" || choice === "none") return []
  if (tools.length === 0) return [{ path: "tool_choice", expected: "Allowed only with tools" }]
  if (typeof choice === "string") return []
  if (choice["type"] === "allowed_tools" && !modes.has(choice["mode"])) {
    return [{ path: "tool_choice.mode", expected: "Expected one of \"auto\", \"required\"" }]
  }
  const all = named(choice)
  if (all.length === 0) return [{ path: "tool_choice.tools", expected: "Expected at least one element" }]
  return all.flatMap(([path, name, type]) => {
    if (!decoders.has(type)) return [typeProblem(path, type)]
    return tools.some((tool) => tool["name"] === name && tool["type"] === type)
      ? []
      : [{ path: `${path}.name`, expected: "No tool in tools has this name" }]
  })
}

/** What is wrong with the tools and the choice among them. */
export const problemsOf = (choice: Choice, tools: ReadonlyArray<Fields>): ReadonlyArray<ItemProblem> => {
  const problems = tools.flatMap((tool, index) => oneProblem(tool, `tools[${index}]`))
  return problems.some(({ isForeign }) => isForeign !== true)
    ? problems
    : [...problems, ...repeated(tools), ...choiceProblems(choice, tools)]
}

const toolOf = (tool: Fields): Tool => {
  if (tool["type"] === "custom") return CustomTools.functionOf(tool)
  const { description, name, parameters } = tool
  return {
    name: name as string,
    ...(typeof description === "string" ? { description } : {}),
    ...(isObject(parameters) ? { parameters } : {})
  }
}

type Tooling = Pick<Request, "parallelToolCalls" | "toolChoice" | "tools">

/** The tools of the core. Those that a choice does not allow are left out. */
export const toolingOf = (
  choice: Choice,
  given: ReadonlyArray<Fields>,
  parallelToolCalls: boolean | undefined
): Tooling => {
  const tools = given.filter(({ type }) => decoders.has(type))
  if (tools.length === 0) return {}
  const parallel = parallelToolCalls === undefined ? {} : { parallelToolCalls }
  const all = tools.map(toolOf)
  if (choice === undefined) return { tools: all, ...parallel }
  if (typeof choice === "string") {
    return { tools: all, toolChoice: choice as "auto" | "none" | "required", ...parallel }
  }
  if (choice["type"] !== "allowed_tools") {
    if (!decoders.has(choice["type"])) return { tools: all, ...parallel }
    return { tools: all, toolChoice: { name: choice["name"] as string }, ...parallel }
  }
  const allowed = new Set(named(choice).map(([, name]) => name))
  return {
    tools: all.filter(({ name }) => allowed.has(name)),
    toolChoice: (choice["mode"] ?? "auto") as "auto" | "required",
    ...parallel
  }
}

/** The tools as a response has them. */
export const echoed = (tools: ReadonlyArray<Fields>): ReadonlyArray<Fields> =>
  tools.map((tool) => {
    if (tool["type"] === "custom") return CustomTools.echoed(tool)
    if (!decoders.has(tool["type"])) return tool
    const { description = null, name, parameters = null, strict = null } = tool
    return { type: "function", name, description, parameters, strict }
  })
