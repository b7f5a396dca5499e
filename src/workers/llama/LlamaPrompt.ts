/**
 * Prompts of the llama engine: the model file's chat template, or the library's format for the model if the file has no
 * usable template.
 */
import type { ChatHistoryItem, LlamaModel, Token } from "node-llama-cpp"
import type { ChatMessage, GenerateJob, ToolDefinition } from "../../domain/Job.ts"
import { refuse } from "../../domain/Job.ts"
import type { Pair, Thoughts, ThoughtStyle } from "../job/ThoughtSyntax.ts"
import { channelEnds, channelMarkers, channelMessageEnd, markersOf, styleOf } from "../job/ThoughtSyntax.ts"
import { markers } from "../job/ToolCallSyntax.ts"
import { channelSyntax } from "../model/CallGrammar.ts"
import type { ChatTemplate, Piece, Unusable } from "../model/ChatTemplate.ts"
import { makeNamedTemplates } from "../model/NamedTemplates.ts"
import type { CallSyntax } from "../model/TemplateCalls.ts"
import type { Check } from "../model/TextLimits.ts"
import { charactersOf, render, renderJob } from "../model/TextLimits.ts"
import type { Library } from "./LlamaBinary.ts"
import { begin, completionTokens } from "./LlamaCompletion.ts"

export interface Prompts {
  readonly supportsTools: boolean
  /** How the model writes calls; undefined if its template does not show it. */
  readonly callSyntax: CallSyntax | undefined
  /** For the operator: problems of the chat template. */
  readonly warnings: ReadonlyArray<string>
  /** Whether a token ends an answer. */
  readonly isEnd: (token: Token) => boolean
  /** All of them. */
  readonly endTokens: ReadonlyArray<Token>
  /** Tokens that end a message of several in an answer, and the answer only by the vocabulary. */
  readonly messageEnds: ReadonlyArray<Token>
  /** Control tokens that calls are written with. */
  readonly callTokens: ReadonlySet<Token>
  /** Control tokens that mark thoughts. */
  readonly thoughtTokens: ReadonlySet<Token>
  /** All control tokens but those of calls that do not end an answer. */
  readonly otherTokens: ReadonlyArray<Token>
  /** Throws an `EngineFailure` for a conversation that is too long or that the template rejects. */
  readonly tokensOf: (
    check: Check,
    messages: ReadonlyArray<ChatMessage>,
    tools?: ReadonlyArray<ToolDefinition>
  ) => Array<Token>
  /** The prompt of a job without its assistant prefix, and how its answer begins. Throws as `tokensOf` does. */
  readonly promptOf: (
    check: Check,
    job: GenerateJob
  ) => { readonly tokens: Array<Token>; readonly thoughts?: Thoughts | undefined }
  /** Tokens of a text completion. */
  readonly completionOf: (check: Check, job: Pick<GenerateJob, "completion" | "messages">) => Array<Token>
  /** Tokens of an assistant prefix after the prompt, without control tokens. */
  readonly prefixTokens: (check: Check, text: string) => Array<Token>
}

/** The parts that depend on the template. */
type Templated = Pick<Prompts, "callSyntax" | "supportsTools" | "promptOf" | "tokensOf"> & {
  /** Tokens that end an answer, besides those of the vocabulary. */
  readonly endTokens: ReadonlySet<Token>
}

/** The token type of ordinary text in a GGUF file. */
const ordinary = 1

/** Reading the attributes of every token takes long, so only candidates for control tokens are read. */
const controlTokensOf = (model: LlamaModel): Array<Token> => {
  const { token_type: types, tokens } = model.fileInfo.metadata.tokenizer.ggml
  return [...tokens.keys()].map((id) => id as Token).filter((id) =>
    (Number(types?.[id]) !== ordinary || /[<[]/.test(tokens[id]!)) && model.isSpecialToken(id)
  )
}

const historyOf = (messages: ReadonlyArray<ChatMessage>): Array<ChatHistoryItem> => [
  ...messages.map(({ content, role }): ChatHistoryItem =>
    role === "assistant"
      ? { type: "model", response: [content] }
      : { type: role === "tool" ? "user" : role, text: content }
  ),
  { type: "model", response: [] }
]

const tokenize = (model: LlamaModel, pieces: ReadonlyArray<Piece>): Array<Token> =>
  pieces.flatMap(({ special, text }, index) =>
    model.tokenize(text, special, index === 0 ? undefined : "trimLeadingSpace")
  )

/** The control tokens among these texts. */
const amongControl = (model: LlamaModel, texts: ReadonlyArray<string>): ReadonlySet<Token> =>
  new Set(
    texts.map((text) => model.tokenize(text, true)[0]).filter((token): token is Token =>
      token !== undefined && model.isSpecialToken(token)
    )
  )

const toolsOf = ({ toolChoice, tools = [] }: GenerateJob) => toolChoice === "none" ? [] : tools

const withTemplate = (model: LlamaModel, template: ChatTemplate, style: ThoughtStyle | undefined): Templated => {
  const tokensOf = (pieces: ReadonlyArray<Piece>) => begin(model, tokenize(model, pieces))
  return {
    supportsTools: template.supportsTools,
    callSyntax: style?.type === "channels" ? channelSyntax : template.callSyntax,
    endTokens: amongControl(model, style?.type === "channels" ? channelEnds : [template.turnEnd.trimStart()]),
    tokensOf: (check, messages, tools) => tokensOf(render(template, check, messages, tools)),
    promptOf: (check, job) => {
      const { pieces, thoughts } = renderJob(template, style, check, job, toolsOf(job))
      return { tokens: tokensOf(pieces), thoughts }
    }
  }
}

/**
 * The library's format for a model of this name and architecture, or else its general one.
 *
 * The library's own Jinja is not used: it has no limit on work.
 */
const knownFormat = (library: Library, model: LlamaModel) =>
  library.resolveChatWrapper({
    bosString: model.tokens.bosString,
    ...(model.filename === undefined ? {} : { filename: model.filename }),
    fileInfo: model.fileInfo,
    tokenizer: model.tokenizer,
    noJinja: true,
    warningLogs: false
  }) ?? new library.GeneralChatWrapper()

/** Prompts in the library's format. */
const withoutTemplate = (library: Library, model: LlamaModel): Templated => {
  const wrapper = knownFormat(library, model)
  const { stopGenerationTriggers } = wrapper.generateContextState({
    chatHistory: historyOf([{ role: "user", content: "Hello" }])
  })
  const tokensOf: Prompts["tokensOf"] = (check, messages, tools = []) => {
    if (tools.length > 0) {
      refuse({
        kind: "not_supported",
        path: "tools",
        message: "the model's file has no chat template",
        capability: "tools"
      })
    }
    check(charactersOf(messages))
    const { contextText } = wrapper.generateContextState({ chatHistory: historyOf(messages) })
    return contextText.tokenize(model.tokenizer)
  }
  return {
    supportsTools: false,
    callSyntax: undefined,
    endTokens: new Set(
      stopGenerationTriggers.map((trigger) => trigger.tokenize(model.tokenizer)[0])
        .filter((token): token is Token => token !== undefined && model.isSpecialToken(token))
    ),
    tokensOf,
    promptOf: (check, job) => ({ tokens: tokensOf(check, job.messages, toolsOf(job)) })
  }
}

/** The file's template, or why it is not usable. */
const templateOf = (model: LlamaModel, control: ReadonlyArray<string>): ChatTemplate | Unusable => {
  const { chat_template: source, ...named } = model.fileInfo.metadata.tokenizer
  const toolUse = (named as Readonly<Record<string, unknown>>)["chat_template.tool_use"]
  if (source === undefined && toolUse === undefined) return { problem: "the file has none" }
  return makeNamedTemplates(
    {
      name: model.filename ?? "the model",
      source: source ?? "",
      bos: model.tokens.bosString ?? undefined,
      eos: model.tokens.eosString ?? undefined,
      control
    },
    typeof toolUse === "string" ? toolUse : undefined
  )
}

const formatOf = (
  library: Library,
  model: LlamaModel,
  template: ChatTemplate | Unusable,
  style: ThoughtStyle | undefined
) =>
  "problem" in template
    ? {
      ...withoutTemplate(library, model),
      warnings: [
        `The chat template is not used: ${template.problem}. Prompts use node-llama-cpp's format for this model, ` +
        "without tools."
      ]
    }
    : { ...withTemplate(model, template, style), warnings: [] }

/** @param reasoning the markers of thoughts, or false for none; default those of the chat template */
export const makePrompts = (library: Library, model: LlamaModel, reasoning?: Pair | false): Prompts => {
  const { ggml: { tokens } } = model.fileInfo.metadata.tokenizer
  const controlTokens = controlTokensOf(model)
  const template = templateOf(model, controlTokens.map((id) => tokens[id]!))
  const style = "problem" in template ? undefined : styleOf(template.source, reasoning)
  const callTokens = amongControl(model, style?.type === "channels" ? [...markers, ...channelMarkers] : markers)
  const { endTokens, ...format } = formatOf(library, model, template, style)
  // The vocabulary may say that the end of a message ends the answer.
  const goingOn = style?.type === "channels" ? amongControl(model, [channelMessageEnd]) : undefined
  const isEnd = (token: Token) => endTokens.has(token) || (model.isEogToken(token) && goingOn?.has(token) !== true)
  return {
    isEnd,
    endTokens: [...new Set([...endTokens, ...controlTokens])].filter(isEnd),
    messageEnds: [...goingOn ?? []],
    callTokens,
    thoughtTokens: amongControl(model, markersOf(style)),
    completionOf: (check, job) => completionTokens(model, tokens.length, check, job),
    prefixTokens(check, text) {
      check(text.length)
      return text === "" ? [] : model.tokenize(text, false, "trimLeadingSpace")
    },
    otherTokens: controlTokens.filter((token) => !model.isEogToken(token) && !callTokens.has(token)),
    ...format
  }
}
