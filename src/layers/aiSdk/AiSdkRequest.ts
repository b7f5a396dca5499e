/**
 * A call of the AI SDK as a request of Troupe.
 *
 * **Details**
 *
 * Options that the AI SDK does not have are in `providerOptions.troupe`, with the names and limits of Troupe's requests.
 */
import type {
  LanguageModelV4CallOptions,
  LanguageModelV4FunctionTool,
  LanguageModelV4ToolChoice,
  SharedV4Warning
} from "@ai-sdk/provider"
import type { Request, Tool } from "../../domain/Inference.ts"
import type { ToolChoice } from "../../domain/Job.ts"
import { toMessages } from "./AiSdkPrompt.ts"

/** Options of a model, or of one call in `providerOptions.troupe`. */
export type Options = Partial<
  Pick<
    Request,
    | "cache"
    | "keepAlive"
    | "logitBias"
    | "minP"
    | "parallelToolCalls"
    | "priority"
    | "reasoning"
    | "repeatPenalty"
    | "route"
    | "source"
    | "tenant"
  >
>

/** A request, and what of the call it leaves out. */
export interface Converted {
  readonly request: Request
  readonly warnings: Array<SharedV4Warning>
}

const toolOf = ({ description, inputSchema, name }: LanguageModelV4FunctionTool): Tool => ({
  name,
  ...(description === undefined ? {} : { description }),
  parameters: inputSchema as Readonly<Record<string, unknown>>
})

const choiceOf = (choice: LanguageModelV4ToolChoice): ToolChoice =>
  choice.type === "tool" ? { name: choice.toolName } : choice.type

const toolsOf = ({ toolChoice, tools = [] }: LanguageModelV4CallOptions): Pick<Request, "toolChoice" | "tools"> => {
  const known = tools.filter((tool) => tool.type === "function").map(toolOf)
  if (known.length === 0) return {}
  return { tools: known, ...(toolChoice === undefined ? {} : { toolChoice: choiceOf(toolChoice) }) }
}

const formatOf = ({ responseFormat }: LanguageModelV4CallOptions): Pick<Request, "format"> => {
  if (responseFormat?.type !== "json") return {}
  const { schema } = responseFormat
  return {
    format: schema === undefined
      ? { type: "json_object" }
      : { type: "json_schema", schema: schema as Readonly<Record<string, unknown>> }
  }
}

const reasoningOf = ({ reasoning }: LanguageModelV4CallOptions): Pick<Request, "reasoning"> =>
  reasoning === undefined || reasoning === "provider-default" ? {} : { reasoning: { effort: reasoning } }

const samplingOf = (call: LanguageModelV4CallOptions): Partial<Request> => ({
  maxTokens: call.maxOutputTokens,
  temperature: call.temperature,
  topP: call.topP,
  topK: call.topK,
  presencePenalty: call.presencePenalty,
  frequencyPenalty: call.frequencyPenalty,
  seed: call.seed,
  stop: call.stopSequences
})

const warningsOf = ({ tools = [] }: LanguageModelV4CallOptions): Array<SharedV4Warning> =>
  tools.filter((tool) => tool.type === "provider").map(({ id }) => ({
    type: "unsupported",
    feature: `tool ${id}`,
    details: "Troupe's models call tools of the program only."
  }))

/** Options of one call come before those of the model. Throws an `UnsupportedFunctionalityError`. */
export const toRequest = (model: string, options: Options, call: LanguageModelV4CallOptions): Converted => ({
  request: {
    ...options,
    ...call.providerOptions?.["troupe"] as Options | undefined,
    ...reasoningOf(call),
    ...samplingOf(call),
    ...toolsOf(call),
    ...formatOf(call),
    model,
    messages: toMessages(call.prompt)
  },
  warnings: warningsOf(call)
})
