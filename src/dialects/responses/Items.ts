/**
 * Items of the Responses dialect: checks of those that callers send, their stored form, and the messages they stand for. Pure.
 *
 * **Details**
 *
 * A stored item has an id, a `type` and only known fields. Items of an assistant that follow each other are one message of the
 * core: its text and its calls. Reasoning belongs to the message after it; without one, it is left out.
 */
import { Result, Schema } from "effect"
import type { Message } from "../../domain/Inference.ts"
import type { Content, Part, SignedReasoning } from "../../domain/Message.ts"
import { Detail, textOf } from "../../domain/Message.ts"
import * as Problem from "../../domain/Problem.ts"
import { unseal } from "../../domain/SignedReasoning.ts"
import { imageSourceOf } from "../openai/DecodeRequest.ts"
import type { Fields } from "../shared/Json.ts"
import { isObject, listOf, textAt } from "../shared/Json.ts"
import { ofContent } from "../shared/SignedFields.ts"
import { isReadable, summaryOf } from "./Compaction.ts"
import * as CustomTools from "./CustomTools.ts"
import * as Files from "./Files.ts"

/** An item in its stored form. */
export interface Item extends Fields {
  readonly id: string
  readonly type: string
}

const nullable = <S extends Schema.Top>(schema: S) => Schema.optionalKey(Schema.NullOr(schema))
const Typed = Schema.Record(Schema.String, Schema.Unknown)
const PartsOrText = Schema.Union([Schema.String, Schema.Array(Typed)])
const id = nullable(Schema.String)
const status = nullable(Schema.Literals(["in_progress", "completed", "incomplete"]))

/** `original` is the highest resolution. */
const ImageDetail = Schema.Union([Detail, Schema.Literal("original")])

/** The parts of contents, by their type. */
const partSchemas = {
  input_text: Schema.Struct({ text: Schema.String }),
  output_text: Schema.Struct({ text: Schema.String }),
  refusal: Schema.Struct({ refusal: Schema.String }),
  input_image: Schema.Struct({ image_url: Schema.String, detail: nullable(ImageDetail) }),
  input_file: Schema.Struct({ file_data: nullable(Schema.String), filename: nullable(Schema.String) })
} as const

const Texts = nullable(Schema.Array(Schema.Struct({ type: Schema.String, text: Schema.String })))

const itemSchemas = {
  message: Schema.Struct({
    id,
    status,
    role: Schema.Literals(["user", "assistant", "system", "developer"]),
    content: PartsOrText,
    phase: nullable(Schema.String)
  }),
  function_call: Schema.Struct({
    id,
    status,
    call_id: Schema.NonEmptyString,
    name: Schema.NonEmptyString,
    arguments: Schema.String
  }),
  function_call_output: Schema.Struct({ id, status, call_id: Schema.NonEmptyString, output: PartsOrText }),
  custom_tool_call: Schema.Struct({
    id,
    status,
    call_id: Schema.NonEmptyString,
    name: Schema.NonEmptyString,
    input: Schema.String
  }),
  custom_tool_call_output: Schema.Struct({ id, status, call_id: Schema.NonEmptyString, output: PartsOrText }),
  reasoning: Schema.Struct({
    id,
    status,
    summary: Texts,
    content: Texts,
    encrypted_content: nullable(Schema.String)
  }),
  compaction: Schema.Struct({ id, encrypted_content: Schema.String }),
  item_reference: Schema.Struct({ id: Schema.NonEmptyString })
} as const

type Decoder = (value: unknown) => Result.Result<unknown, Schema.SchemaError>

const decodersOf = (schemas: Readonly<Record<string, Parameters<typeof Problem.decoderOf>[0]>>) =>
  new Map<string, Decoder>(Object.entries(schemas).map(([type, schema]) => [type, Problem.decoderOf(schema)]))

const items = decodersOf(itemSchemas)
const parts = decodersOf(partSchemas)

/** Parts of an assistant, and of the others. */
const ofAssistant: ReadonlySet<string> = new Set(["output_text", "refusal"])

const inputParts = [...parts.keys()].filter((type) => !ofAssistant.has(type))

const quoted = (names: Iterable<string>): string => [...names].map((name) => `"${name}"`).join(", ")

/** What is wrong with a part of a request. */
export interface ItemProblem extends Problem.Problem {
  /** Only for deployments without the Responses API: it has no translation. */
  readonly isForeign?: true
  /** OpenAI's reference has it: where nothing is generated, it is accepted without a translation. */
  readonly isDocumented?: true
}

/** Items of tools that run at a provider, and parts that only it reads, by OpenAI's reference. */
const documented: ReadonlySet<string> = new Set([
  "apply_patch_call",
  "apply_patch_call_output",
  "code_interpreter_call",
  "computer_call",
  "computer_call_output",
  "computer_screenshot",
  "file_search_call",
  "image_generation_call",
  "input_audio",
  "local_shell_call",
  "local_shell_call_output",
  "mcp_approval_request",
  "mcp_approval_response",
  "mcp_call",
  "mcp_list_tools",
  "shell_call",
  "shell_call_output",
  "tool_search_call",
  "tool_search_output",
  "web_search_call"
])

/** The problems of a body from which nothing is generated: what has no translation there is kept, or left out. */
export const withoutDocumented = (problems: ReadonlyArray<ItemProblem>): ReadonlyArray<ItemProblem> =>
  problems.filter(({ isDocumented }) => isDocumented !== true)

/** A type that Troupe does not have, or not in this place. */
const unsupported = (path: string, type: unknown, known: Iterable<string>): ItemProblem => {
  const expected = `Expected one of ${quoted(known)}`
  if (typeof type !== "string" || type === "") return { path: `${path}.type`, expected }
  const problem = {
    path: `${path}.type`,
    expected: `Troupe does not support the type ${JSON.stringify(type.slice(0, 100))}. ${expected}`
  }
  if (parts.has(type)) return problem
  return documented.has(type)
    ? { ...problem, isForeign: true, isDocumented: true }
    : { ...problem, isForeign: true }
}

const decodedProblems = (decode: Decoder, value: unknown, path: string): ReadonlyArray<Problem.Problem> => {
  const decoded = decode(value)
  return Result.isSuccess(decoded)
    ? []
    : Problem.fromSchemaError(decoded.failure).map((problem) => ({
      path: problem.path === "" ? path : `${path}.${problem.path}`,
      expected: problem.expected
    }))
}

const foreign = (problems: ReadonlyArray<Problem.Problem>): ReadonlyArray<ItemProblem> =>
  problems.map((problem) => ({ ...problem, isForeign: true, isDocumented: true }))

const partProblems = (part: unknown, path: string, known: ReadonlyArray<string>): ReadonlyArray<ItemProblem> => {
  const type = isObject(part) ? part["type"] : undefined
  const decode = typeof type === "string" && known.includes(type) ? parts.get(type) : undefined
  if (decode === undefined) return [unsupported(path, type, known)]
  if (type === "input_image" && isObject(part) && textAt(part, "file_id") !== undefined) {
    return foreign([{ path: `${path}.file_id`, expected: "Troupe stores no files. Send the image as image_url" }])
  }
  const wrong = decodedProblems(decode, part, path)
  return wrong.length === 0 && type === "input_file" ? Files.problemsOf(part as Fields, path) : wrong
}

const contentProblems = (
  content: unknown,
  path: string,
  known: ReadonlyArray<string>
): ReadonlyArray<ItemProblem> =>
  listOf(content).flatMap((part, index) => partProblems(part, `${path}[${index}]`, known))

/** An item without a type is a message. */
export const typeOf = (item: Fields): unknown => item["type"] ?? "message"

/** Items with the result of a tool. */
const outputs: ReadonlySet<unknown> = new Set(["function_call_output", "custom_tool_call_output"])

/** A compaction of this service is read; one of a deployment goes back to its host. */
const compactionProblems = ({ encrypted_content: content }: Fields, path: string): ReadonlyArray<ItemProblem> => {
  if (isReadable(content as string)) return []
  const problem = {
    path: `${path}.encrypted_content`,
    expected: "Expected the content of a compaction item of this service"
  }
  return unseal(content) === undefined ? [problem] : foreign([problem])
}

const itemProblems = (item: Fields, path: string): ReadonlyArray<ItemProblem> => {
  const type = typeOf(item)
  const decode = typeof type === "string" ? items.get(type) : undefined
  if (decode === undefined) return [unsupported(path, type, items.keys())]
  const wrong = decodedProblems(decode, item, path)
  if (wrong.length > 0) return wrong
  if (outputs.has(type)) return contentProblems(item["output"], `${path}.output`, inputParts)
  if (type === "compaction") return compactionProblems(item, path)
  if (type !== "message") return []
  const isAssistant = item["role"] === "assistant"
  return contentProblems(item["content"], `${path}.content`, isAssistant ? [...parts.keys()] : inputParts)
}

/** More problems are not reported. */
const mostProblems = 100

/** What is wrong with the items of a body. */
export const problemsOf = (list: ReadonlyArray<Fields>, path: string): ReadonlyArray<ItemProblem> => {
  const problems: Array<ItemProblem> = []
  for (const [index, item] of list.entries()) {
    problems.push(...itemProblems(item, `${path}[${index}]`))
    if (problems.length >= mostProblems) break
  }
  return problems
}

/** What a deployment without the Responses API could not be sent of stored items. Items of tools that ran there are left out. */
export const foreignIn = (list: ReadonlyArray<Item>): ReadonlyArray<Problem.Problem> =>
  list.flatMap((item) =>
    itemSchemas[item.type as keyof typeof itemSchemas] === undefined || item.type === "compaction"
      ? []
      : itemProblems(item, "input").filter(({ isForeign }) => isForeign === true)
  )

const storedPart = (part: Fields): Fields => {
  switch (part["type"]) {
    case "input_image":
      return typeof part["image_url"] === "string"
        ? { type: "input_image", detail: part["detail"] ?? "auto", file_id: null, image_url: part["image_url"] }
        : part
    case "input_file":
      return typeof part["file_data"] === "string"
        ? { type: "input_file", filename: part["filename"] ?? null, file_data: part["file_data"] }
        : part
    case "output_text":
      return { type: "output_text", text: part["text"], annotations: listOf(part["annotations"]), logprobs: [] }
    case "refusal":
      return { type: "refusal", refusal: part["refusal"] }
    case "input_text":
      return { type: part["type"], text: part["text"] }
    default:
      return part
  }
}

const storedContent = (content: unknown, textType: "input_text" | "output_text"): ReadonlyArray<Fields> =>
  typeof content === "string"
    ? [storedPart({ type: textType, text: content })]
    : listOf(content).map((part) => storedPart(part as Fields))

const statusOf = (item: Fields) => item["status"] ?? "completed"

const storedOutput = (item: Fields): Fields => {
  const { call_id, output } = item
  return {
    status: statusOf(item),
    call_id,
    output: typeof output === "string" ? output : storedContent(output, "input_text")
  }
}

/** What the stored form of an item has beside its id and type, by the type. */
const storedFields: Readonly<Record<string, (item: Fields) => Fields>> = {
  message: (item) => {
    const { content, phase, role } = item
    return {
      status: statusOf(item),
      role,
      content: storedContent(content, role === "assistant" ? "output_text" : "input_text"),
      ...(typeof phase === "string" ? { phase } : {})
    }
  },
  function_call: (item) => {
    const { arguments: text, call_id, name } = item
    return { status: statusOf(item), call_id, name, arguments: text }
  },
  custom_tool_call: (item) => {
    const { call_id, input, name } = item
    return { status: statusOf(item), call_id, name, input }
  },
  function_call_output: storedOutput,
  custom_tool_call_output: storedOutput,
  reasoning: ({ content, encrypted_content, summary }) => ({
    summary: listOf(summary),
    ...(Array.isArray(content) ? { content } : {}),
    ...(typeof encrypted_content === "string" ? { encrypted_content } : {})
  }),
  compaction: ({ encrypted_content }) => ({ encrypted_content })
}

const prefixes: Readonly<Record<string, string>> = {
  message: "msg",
  function_call: "fc",
  function_call_output: "fco",
  custom_tool_call: "ctc",
  custom_tool_call_output: "ctco",
  reasoning: "rs",
  compaction: "cmp"
}

/** The prefix of the ids of items of a type. */
export const prefixOf = (type: string): string => prefixes[type] ?? "item"

/**
 * The stored form of a checked item, which is no reference.
 *
 * @param idOf makes the id from the prefix of the type
 */
export const stored = (item: Fields, idOf: (prefix: string) => string): Item => {
  const type = typeOf(item) as string
  const fields = storedFields[type]
  if (fields !== undefined) return { id: idOf(prefixOf(type)), type, ...fields(item) }
  // Other items may refer to it by its id.
  const { id } = item
  return { ...item, id: typeof id === "string" && id !== "" ? id : idOf("item"), type }
}

/** The types of parts that have a translation. */
const isTranslated = (part: unknown): part is Fields => {
  if (!isObject(part)) return false
  if (part["type"] === "input_image") return typeof part["image_url"] === "string"
  return part["type"] === "input_file" ? typeof part["file_data"] === "string" : parts.has(part["type"] as string)
}

const partOf = (part: Fields): Part => {
  if (part["type"] === "refusal") return { type: "text", text: part["refusal"] as string }
  if (part["type"] === "input_file") return { type: "text", text: Files.textOf(part) }
  if (part["type"] !== "input_image") return { type: "text", text: part["text"] as string }
  return {
    type: "image",
    source: imageSourceOf(part["image_url"] as string),
    detail: part["detail"] === "original" ? "high" : part["detail"] as Detail
  }
}

/** Parts of text alone become one text. */
const contentOf = (content: unknown): Content => {
  if (typeof content === "string") return content
  const all = listOf(content).filter(isTranslated).map(partOf)
  return all.some(({ type }) => type === "image") ? all : textOf(all)
}

const textsOf = (parts: unknown): string => listOf(parts).map((part) => textAt(part, "text") ?? "").join("\n")

/** The thoughts of an item as the model wrote them, else their summary. */
const thoughtsOf = ({ content, summary }: Item): string => textsOf(content) || textsOf(summary)

const joined = (before: string, text: string): string =>
  before === "" || text === "" ? before + text : `${before}\n${text}`

type Mutable<A> = { -readonly [K in keyof A]: A[K] }

/** The messages of a conversation. */
class Messages {
  readonly list: Array<Mutable<Message>> = []
  /** The message of the assistant that the next items of it belong to. */
  #open: Mutable<Message> | undefined
  /** Thoughts before the next message or call. */
  #thoughts = ""
  #signed: Array<SignedReasoning> = []

  add(item: Item): void {
    switch (item.type) {
      case "message":
        this.#addMessage(item)
        return
      case "function_call":
        this.#addCall(item)
        return
      case "custom_tool_call":
        this.#addCall({ ...item, arguments: CustomTools.argumentsOf(item["input"] as string) })
        return
      case "custom_tool_call_output":
      case "function_call_output":
        this.#push({ role: "tool", content: contentOf(item["output"]), toolCallId: item["call_id"] as string })
        return
      case "reasoning":
        this.#thoughts = joined(this.#thoughts, thoughtsOf(item))
        this.#signed.push(...ofContent(item["encrypted_content"]))
        return
      case "compaction":
        if (isReadable(item["encrypted_content"] as string)) {
          this.#push({ role: "system", content: summaryOf(item["encrypted_content"] as string) })
        }
    }
  }

  #push(message: Mutable<Message>): void {
    this.list.push(message)
    this.#open = message.role === "assistant" ? message : undefined
    this.#addThoughts(this.#open)
  }

  /** Thoughts without a message of the assistant after them are left out. */
  #addThoughts(message: Mutable<Message> | undefined): void {
    if (message !== undefined) {
      const thoughts = joined(message.thoughts ?? "", this.#thoughts)
      if (thoughts !== "") message.thoughts = thoughts
      if (this.#signed.length > 0) message.reasoning = [...message.reasoning ?? [], ...this.#signed]
    }
    this.#thoughts = ""
    this.#signed = []
  }

  #addMessage({ content, role }: Item): void {
    const decoded = contentOf(content)
    if (role === "assistant") {
      this.#push({ role, content: decoded })
    } else {
      this.#push({ role: role === "user" ? "user" : "system", content: decoded })
    }
  }

  #addCall(item: Item): void {
    if (this.#open === undefined) this.#push({ role: "assistant", content: "" })
    const open = this.#open!
    this.#addThoughts(open)
    const call = { id: item["call_id"] as string, name: item["name"] as string, arguments: item["arguments"] as string }
    open.toolCalls = [...open.toolCalls ?? [], call]
  }
}

/** The messages of the core that items stand for. */
export const messagesOf = (items: ReadonlyArray<Item>): ReadonlyArray<Message> => {
  const messages = new Messages()
  for (const item of items) messages.add(item)
  return messages.list
}

/** The index of the first output whose call no item before it has; undefined if there is none. */
export const orphanOf = (items: ReadonlyArray<Item>): number | undefined => {
  const called = new Set<unknown>()
  for (const [index, { call_id, type }] of items.entries()) {
    if (type === "function_call" || type === "custom_tool_call") called.add(call_id)
    if (outputs.has(type) && !called.has(call_id)) return index
  }
  return undefined
}
