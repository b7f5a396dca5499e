/**
 * A call of `effect/ai` as a request of Troupe.
 *
 * **Details**
 *
 * A toolkit's and an answer's schemas become JSON Schema. Objects in it allow only declared properties, which `effect`
 * leaves open: an answer still satisfies the program's schema, and a small model does not add properties.
 */
import { Effect } from "effect"
import { AiError, LanguageModel, Tool } from "effect/ai"
import type { Request, Tool as ToolDefinition } from "../../domain/Inference.ts"
import type { JsonSchema, OutputFormat, ToolChoice } from "../../domain/Job.ts"
import { failWith, invalid, unsupported } from "./AiFailure.ts"
import { toMessages } from "./AiPrompt.ts"

/** Options that a call of `effect/ai` does not have: sampling, limits, tenant and priority. */
export type Options = Omit<Request, "model" | "messages" | "tools" | "toolChoice" | "format" | "logprobs">

const closed = (schema: unknown): unknown => {
  if (Array.isArray(schema)) return schema.map(closed)
  if (typeof schema !== "object" || schema === null) return schema
  const inner = Object.fromEntries(
    Object.entries(schema).map(([key, value]) => [key, literal.has(key) ? value : closed(value)])
  )
  return inner["type"] === "object" && "properties" in inner && inner["additionalProperties"] === true
    ? { ...inner, additionalProperties: false }
    : inner
}

/** Keywords whose values are not schemas. */
const literal = new Set(["const", "enum", "default", "examples"])

/** The schemas for the model; the program's own schemas decode the answer. */
export const codecTransformer: LanguageModel.CodecTransformer = (schema) => {
  const { codec, jsonSchema } = LanguageModel.defaultCodecTransformer(schema)
  return { codec, jsonSchema: closed(jsonSchema) as typeof jsonSchema }
}

const schemaFrom = (
  method: string,
  make: () => JsonSchema
): Effect.Effect<JsonSchema, AiError.AiError> =>
  Effect.try({
    try: make,
    catch: (cause) =>
      failWith(
        method,
        new AiError.UnsupportedSchemaError({ description: cause instanceof Error ? cause.message : String(cause) })
      )
  })

const toTool = (method: string, tool: Tool.Any): Effect.Effect<ToolDefinition, AiError.AiError> =>
  Tool.isProviderDefined(tool)
    ? Effect.fail(unsupported(method, `${tool.name}, a tool that another provider defines,`))
    : Effect.map(
      schemaFrom(method, () => Tool.getJsonSchema(tool, { transformer: codecTransformer })),
      (parameters) => ({ name: tool.name, description: Tool.getDescription(tool), parameters })
    )

/** For a choice among some tools, `effect/ai` passes only those tools. */
const toChoice = (choice: LanguageModel.ToolChoice<string>): ToolChoice => {
  if (typeof choice === "string") return choice
  return "tool" in choice ? { name: choice.tool } : choice.mode ?? "auto"
}

const mustCall = (choice: ToolChoice): boolean => typeof choice === "object" || choice === "required"

const toTools = Effect.fnUntraced(function*(
  method: string,
  { toolChoice, tools }: LanguageModel.ProviderOptions
): Effect.fn.Return<Pick<Request, "tools" | "toolChoice">, AiError.AiError> {
  const choice = toChoice(toolChoice)
  if (tools.length > 0) {
    return { tools: yield* Effect.forEach(tools, (tool) => toTool(method, tool)), toolChoice: choice }
  }
  return mustCall(choice) ? yield* invalid(method, "A tool must be called, and there is none to choose.") : {}
})

const toFormat = (
  method: string,
  { responseFormat }: LanguageModel.ProviderOptions
): Effect.Effect<{ readonly format?: OutputFormat }, AiError.AiError> =>
  responseFormat.type === "text"
    ? Effect.succeed({})
    : Effect.map(
      schemaFrom(method, () => codecTransformer(responseFormat.schema).jsonSchema),
      (schema) => ({ format: { type: "json_schema", schema } })
    )

/** @param method of `LanguageModel`, for errors */
export const toRequest = Effect.fnUntraced(function*(
  method: string,
  model: string,
  options: Options,
  call: LanguageModel.ProviderOptions
): Effect.fn.Return<Request, AiError.AiError> {
  return {
    ...options,
    ...(yield* toTools(method, call)),
    ...(yield* toFormat(method, call)),
    model,
    messages: yield* toMessages(method, call.prompt)
  }
})
