/** Encodes a generation as a request of the Gemini API. Pure. */
import { Result } from "effect"
import { numberOf } from "../../domain/ExactNumber.ts"
import type { Generation } from "../../domain/Generation.ts"
import { withContinuePrompt } from "../../domain/Generation.ts"
import type { Reason } from "../../domain/InferenceError.ts"
import type { OutputFormat, ToolChoice, ToolDefinition } from "../../domain/Job.ts"
import type { Content, Message } from "../../domain/Message.ts"
import { imageOfTool, partsOf, textOf } from "../../domain/Message.ts"
import { kinds } from "../../domain/ProviderKind.ts"
import * as Conversation from "../shared/Conversation.ts"
import { notSupported } from "../shared/ErrorMapping.ts"
import { type Fields, fieldsOf, parse } from "../shared/Json.ts"
import * as JsonSchemaSubset from "../shared/JsonSchemaSubset.ts"
import type { Call, Target } from "../shared/ProviderDialect.ts"
import { fieldsFor } from "./Reasoning.ts"

const maxStops = 5

const isTextOrNumber = (value: unknown): boolean => typeof value === "string" || numberOf(value) !== undefined

/** By the reference of `responseJsonSchema`: the API ignores other keywords without an error. */
const subset: JsonSchemaSubset.Subset = {
  known: {
    $id: JsonSchemaSubset.any,
    $defs: JsonSchemaSubset.any,
    $ref: JsonSchemaSubset.isLocal,
    $anchor: JsonSchemaSubset.any,
    type: JsonSchemaSubset.any,
    format: JsonSchemaSubset.any,
    title: JsonSchemaSubset.any,
    description: JsonSchemaSubset.any,
    enum: (value) => Array.isArray(value) && value.every(isTextOrNumber),
    items: JsonSchemaSubset.any,
    prefixItems: JsonSchemaSubset.any,
    minItems: JsonSchemaSubset.any,
    maxItems: JsonSchemaSubset.any,
    minimum: JsonSchemaSubset.any,
    maximum: JsonSchemaSubset.any,
    anyOf: JsonSchemaSubset.any,
    properties: JsonSchemaSubset.any,
    additionalProperties: JsonSchemaSubset.any,
    required: JsonSchemaSubset.any,
    propertyOrdering: JsonSchemaSubset.any
  },
  rewrite: ({ const: only, ...schema }) => {
    if (only === undefined) return schema
    return isTextOrNumber(only) ? { ...schema, enum: [only] } : { ...schema, const: only }
  }
}

const formatOf = (format: OutputFormat | undefined, target: Target): Result.Result<Fields, Reason> => {
  if (format === undefined) return Result.succeed({})
  const responseMimeType = "application/json"
  return format.type === "json_schema"
    ? Result.map(
      JsonSchemaSubset.convert(format.schema, subset, target),
      (responseJsonSchema) => ({ responseMimeType, responseJsonSchema })
    )
    : Result.succeed({ responseMimeType })
}

/** Images are bytes here: the API does not accept URLs. */
const contentParts = (content: Content): ReadonlyArray<Fields> =>
  partsOf(content).flatMap((part): ReadonlyArray<Fields> => {
    if (part.type === "text") return [{ text: part.text }]
    return part.source.type === "base64"
      ? [{ inlineData: { mimeType: part.source.mediaType, data: part.source.data } }]
      : []
  })

/** Replaces the signature of a call, which a conversation does not keep. */
const unsigned = "skip_thought_signature_validator"

const assistantTurn = (
  { content, toolCalls = [] }: Message,
  path: string
): Result.Result<Conversation.Turn<Fields>, Reason> => {
  const calls = toolCalls.map(({ arguments: text, id, name }, index) =>
    Result.map(
      Conversation.argumentsOf(`${path}.toolCalls[${index}].arguments`, text),
      // Of parallel calls, only the first has a signature.
      (args): Fields => ({
        functionCall: { id, name, args },
        ...(index === 0 ? { thoughtSignature: unsigned } : {})
      })
    )
  )
  return Result.map(Result.all(calls), (parts) => ({ role: "model", parts: [...contentParts(content), ...parts] }))
}

/** A result needs the name of its function, and must be an object. */
const resultTurn = (
  { content, toolCallId: id = "" }: Message,
  path: string,
  names: ReadonlyMap<string, string>
): Result.Result<Conversation.Turn<Fields>, Reason> => {
  const name = names.get(id)
  if (name === undefined) {
    return Result.fail(
      Conversation.invalid(`${path}.toolCallId`, `Expected the id of a call in an earlier message, not "${id}"`)
    )
  }
  const text = textOf(content)
  const response = fieldsOf(parse(text)) ?? { output: text }
  return Result.succeed({ role: "tool", parts: [{ functionResponse: { id, name, response } }] })
}

const contentsOf = (generation: Generation): Result.Result<ReadonlyArray<Fields>, Reason> => {
  const names = new Map<string, string>()
  const turns = Conversation.turnsOf<Fields>(generation, (message, path) => {
    for (const { id, name } of message.toolCalls ?? []) names.set(id, name)
    if (message.role === "assistant") return assistantTurn(message, path)
    return message.role === "tool"
      ? resultTurn(message, path, names)
      : Result.succeed({ role: "user", parts: contentParts(message.content) })
  })
  // Results are parts of one user turn, as many as there are calls.
  return Result.map(turns, (all) => all.map(({ parts, role }) => ({ role: role === "tool" ? "user" : role, parts })))
}

const modes = { auto: "AUTO", none: "NONE", required: "ANY" } as const

const choiceOf = (choice: ToolChoice): Fields =>
  typeof choice === "string" ? { mode: modes[choice] } : { mode: "ANY", allowedFunctionNames: [choice.name] }

const toolsOf = (tools: ReadonlyArray<ToolDefinition>, choice: ToolChoice = "auto"): Fields => {
  if (tools.length === 0) return {}
  const functionDeclarations = tools.map(({ description, name, parameters }) => ({
    name,
    description,
    parametersJsonSchema: parameters
  }))
  return { tools: [{ functionDeclarations }], toolConfig: { functionCallingConfig: choiceOf(choice) } }
}

/** The first image that the API does not support: its page on images lists no GIF. */
const unsupportedImage = (messages: ReadonlyArray<Message>): string | undefined => {
  for (const [index, { content }] of messages.entries()) {
    const part = partsOf(content).find((part) =>
      part.type === "image" && (part.source.type === "url" || part.source.mediaType === "image/gif")
    )
    if (part !== undefined && typeof content !== "string") return `messages[${index}].content[${content.indexOf(part)}]`
  }
  return undefined
}

/** By the reference of `FunctionDeclaration`; callers' APIs accept names that begin with a digit or a hyphen, too. */
const toolName = /^[A-Za-z_]/

const checked = (generation: Generation, target: Target): Result.Result<void, Reason> => {
  const { messages, stop, tools = [] } = generation
  const misnamed = tools.findIndex(({ name }) => !toolName.test(name))
  if (misnamed >= 0) {
    const detail = "its API accepts names of functions that begin with a letter or an underscore."
    return Result.fail(notSupported(target, `tools[${misnamed}].name`, detail))
  }
  if (stop.length > maxStops) {
    return Result.fail(notSupported(target, "stop", `its API accepts at most ${maxStops} stop sequences.`))
  }
  const image = imageOfTool(messages)
  if (image !== undefined) {
    return Result.fail(notSupported(target, image, "its API has no images in tool results."))
  }
  const wrong = unsupportedImage(messages)
  return wrong === undefined
    ? Conversation.rejectOptions(["minP", "repeatPenalty", "logitBias"], generation, target)
    : Result.fail(
      notSupported(target, wrong, "its API accepts PNG, JPEG and WebP images only.")
    )
}

const samplingOf = ({ maxTokens, sampling, stop }: Generation, { options }: Target): Fields => ({
  temperature: sampling.temperature,
  topP: sampling.topP,
  topK: sampling.topK,
  presencePenalty: sampling.presencePenalty,
  frequencyPenalty: sampling.frequencyPenalty,
  // The API accepts signed integers of 32 bits.
  seed: sampling.seed === undefined ? undefined : sampling.seed % 2 ** 31,
  maxOutputTokens: maxTokens ?? options.maxTokens,
  stopSequences: stop.length === 0 ? undefined : stop
})

/** Such as `models/gemini-2.5-flash`; the names of tuned models include their folder. */
export const modelOf = ({ options: { model } }: Target): string => model.includes("/") ? model : `models/${model}`

/** The path of a method of the model. */
export const pathOf = (target: Target, method: string): string =>
  `/${target.options.apiVersion ?? kinds.gemini.apiVersion}/${
    modelOf(target).split("/").map(encodeURIComponent).join("/")
  }:${method}`

export const request = (
  generation: Generation,
  target: Target,
  stream: boolean
): Result.Result<Call, Reason> =>
  Result.gen(function*() {
    yield* checked(generation, target)
    const system = Conversation.systemOf(generation)
    return {
      path: pathOf(target, stream ? "streamGenerateContent?alt=sse" : "generateContent"),
      body: {
        systemInstruction: system === undefined ? undefined : { parts: [{ text: system }] },
        // Only some models continue an assistant's last message.
        contents: yield* contentsOf(withContinuePrompt(generation)),
        ...toolsOf(generation.tools ?? [], generation.toolChoice),
        generationConfig: {
          ...samplingOf(generation, target),
          ...yield* formatOf(generation.format, target),
          ...fieldsFor(generation.reasoning, target)
        }
      }
    }
  })
