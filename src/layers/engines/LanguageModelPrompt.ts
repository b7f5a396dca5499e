/** A generation as a call of `effect/ai`'s `LanguageModel`. */
import { Effect, JsonSchema, Schema, SchemaRepresentation } from "effect"
import type { LanguageModel } from "effect/ai"
import { Prompt, Tool, Toolkit } from "effect/ai"
import type { Generation, Sampling } from "../../domain/Generation.ts"
import { withContinuePrompt } from "../../domain/Generation.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import { InvalidRequest, make } from "../../domain/InferenceError.ts"
import type { OutputFormat, ToolCall, ToolChoice } from "../../domain/Job.ts"
import type { Content, Message } from "../../domain/Message.ts"
import { partsOf, textOf } from "../../domain/Message.ts"

/** The error of an invalid request. */
const invalid = (path: string, detail: string): InferenceError => make(new InvalidRequest({ path, detail }))

/** The value of each option that has no effect. A seed is ignored. */
const neutral: Readonly<Record<Exclude<keyof Sampling, "seed">, number | undefined>> = {
  temperature: 1,
  topP: 1,
  topK: undefined,
  minP: 0,
  repeatPenalty: 1,
  presencePenalty: 0,
  frequencyPenalty: 0,
  logitBias: undefined
}

/** The first sampling option with an effect. */
export const unspokenOption = (sampling: Sampling): string | undefined =>
  Object.entries(neutral).find(([name, value]) => {
    const given = sampling[name as keyof Sampling]
    return given !== undefined && given !== value
  })?.[0]

const parsed = (path: string, { arguments: text }: ToolCall): Effect.Effect<unknown, InferenceError> =>
  Effect.try({
    try: () => text === "" ? {} : Tool.unsafeSecureJsonParse(text),
    catch: () => invalid(path, "Expected the JSON text of an object")
  })

const assistantMessage = Effect.fnUntraced(function*(
  path: string,
  { content, toolCalls = [] }: Message
): Effect.fn.Return<Prompt.AssistantMessageEncoded, InferenceError> {
  const calls = yield* Effect.forEach(toolCalls, (call, index) =>
    Effect.map(
      parsed(`${path}.toolCalls[${index}].arguments`, call),
      (params) => ({ type: "tool-call", id: call.id, name: call.name, params }) as const
    ))
  const text = textOf(content)
  const texts = text === "" ? [] : [{ type: "text", text } as const]
  return { role: "assistant", content: [...texts, ...calls] }
})

/** The media type of a URL is unknown. */
const userContent = (content: Content): Prompt.UserMessageEncoded["content"] =>
  typeof content === "string" ? content : partsOf(content).map((part) => {
    if (part.type === "text") return part
    const { source } = part
    return source.type === "url"
      ? { type: "file", mediaType: "image/*", data: new URL(source.url) }
      : { type: "file", mediaType: source.mediaType, data: source.data }
  })

const messageOf = (
  path: string,
  message: Message,
  toolNames: ReadonlyMap<string, string>
): Effect.Effect<Prompt.MessageEncoded, InferenceError> => {
  const { content, role, toolCallId: id = "" } = message
  switch (role) {
    case "assistant":
      return assistantMessage(path, message)
    case "tool": {
      const name = toolNames.get(id)
      return name === undefined
        ? Effect.fail(invalid(`${path}.toolCallId`, `Expected the id of a call in an earlier message, not "${id}"`))
        : Effect.succeed({
          role,
          content: [{ type: "tool-result", id, name, isFailure: false, result: textOf(content) }]
        })
    }
    case "user":
      return Effect.succeed({ role, content: userContent(content) })
    case "system":
      return Effect.succeed({ role, content: textOf(content) })
  }
}

const promptOf = (messages: ReadonlyArray<Message>): Effect.Effect<Prompt.Prompt, InferenceError> => {
  const toolNames = new Map(messages.flatMap(({ toolCalls = [] }) => toolCalls.map(({ id, name }) => [id, name])))
  return Effect.map(
    Effect.forEach(messages, (message, index) => messageOf(`messages[${index}]`, message, toolNames)),
    (encoded) => Prompt.make(encoded)
  )
}

const choiceOf = (choice: ToolChoice): LanguageModel.ToolChoice<string> =>
  typeof choice === "string" ? choice : { tool: choice.name }

/** Tools without handlers: the caller runs them. */
const toolkitOf = ({ tools = [] }: Generation): Toolkit.WithHandler<Record<string, Tool.Any>> => ({
  tools: Toolkit.make(
    ...tools.map(({ description, name, parameters = { type: "object" } }) =>
      Tool.dynamic(name, { description, parameters })
    )
  ).tools,
  handle: () => Effect.die("A tool handler was called.")
})

/** The options of a call of `LanguageModel`. */
export type Call = LanguageModel.GenerateTextOptions<Record<string, Tool.Any>>

/** Calls of unknown tools are reported unchanged. */
export const callOf = (generation: Generation): Effect.Effect<Call, InferenceError> =>
  Effect.map(promptOf(withContinuePrompt(generation).messages), (prompt) => ({
    prompt,
    toolkit: toolkitOf(generation),
    toolChoice: choiceOf(generation.toolChoice ?? "auto"),
    disableToolCallResolution: true,
    toolCallValidation: "deferred"
  }))

/**
 * Closes objects that name their properties: an answer still satisfies the original schema, and some providers accept
 * closed objects only.
 */
const close = (node: JsonSchema.JsonSchema): JsonSchema.JsonSchema =>
  "properties" in node && (node["additionalProperties"] ?? true) === true
    ? { ...node, additionalProperties: false }
    : node

/** The schema of an answer in this format, as far as `effect` can read JSON Schema. */
export const schemaOf = (format: OutputFormat): Effect.Effect<Schema.Top, InferenceError> => {
  if (format.type !== "json_schema") return Effect.succeed(Schema.Record(Schema.String, Schema.Json))
  const document = JsonSchema.fromSchemaDraft2020_12(format.schema)
  // Two closed objects with different properties would have no common value.
  const onEnter = JSON.stringify(format.schema).includes("\"allOf\"") ? {} : { onEnter: close }
  return Effect.try({
    try: () => SchemaRepresentation.fromJsonSchemaDocument(document, onEnter),
    catch: (cause) => invalid("format.schema", cause instanceof Error ? cause.message.split("\n")[0]! : String(cause))
  })
}
