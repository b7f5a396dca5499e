/**
 * Prompts of the llama engine: the model file's own chat template, and what the library knows of the model where the
 * file has none that can be used.
 */
import type { ChatHistoryItem, LlamaModel, Token } from "node-llama-cpp"
import type { ChatMessage, ToolDefinition } from "../../domain/Job.ts"
import { refuse } from "../../domain/Job.ts"
import { markers } from "../job/ToolCallSyntax.ts"
import type { ChatTemplate, Piece, Unusable } from "../model/ChatTemplate.ts"
import { makeChatTemplate } from "../model/ChatTemplate.ts"
import type { Check } from "../model/TextLimits.ts"
import { charactersOf, lengthOf } from "../model/TextLimits.ts"

type Library = typeof import("node-llama-cpp")

export interface Prompts {
  readonly knowsTools: boolean
  /** What the operator should know of how prompts are made. */
  readonly warnings: ReadonlyArray<string>
  /** Tokens that end an answer besides the vocabulary's own. */
  readonly endTokens: ReadonlySet<Token>
  /** Control tokens that announce a tool call. */
  readonly callTokens: ReadonlySet<Token>
  /** All others that do not end an answer. */
  readonly otherTokens: ReadonlyArray<Token>
  /** Throws an `EngineFailure` for what is too long or does not fit the template. */
  readonly tokensOf: (
    check: Check,
    messages: ReadonlyArray<ChatMessage>,
    tools?: ReadonlyArray<ToolDefinition>
  ) => Array<Token>
  /** Of a text that stands after those, in which nothing is a control token. */
  readonly goesOn: (check: Check, text: string) => Array<Token>
}

/** What a template decides. */
type Templated = Pick<Prompts, "knowsTools" | "endTokens" | "tokensOf">

/** Of the types of tokens in a GGUF file. */
const ordinary = 1

/** Asking for each token's attributes takes long, so only those that may be control tokens are asked about. */
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

/** The vocabulary says whether a text begins with its token for that, which many templates write themselves. */
const begin = (model: LlamaModel, tokens: Array<Token>): Array<Token> => {
  const { bos, shouldPrependBosToken } = model.tokens
  return shouldPrependBosToken && bos !== null && tokens[0] !== bos ? [bos, ...tokens] : tokens
}

const tokenize = (model: LlamaModel, pieces: ReadonlyArray<Piece>): Array<Token> =>
  pieces.flatMap(({ special, text }, index) =>
    model.tokenize(text, special, index === 0 ? undefined : "trimLeadingSpace")
  )

/** Of these texts, the ones that are one control token. */
const amongControl = (model: LlamaModel, texts: ReadonlyArray<string>): ReadonlySet<Token> =>
  new Set(
    texts.map((text) => model.tokenize(text, true)[0]).filter((token): token is Token =>
      token !== undefined && model.isSpecialToken(token)
    )
  )

const withTemplate = (model: LlamaModel, template: ChatTemplate): Templated => ({
  knowsTools: template.knowsTools,
  endTokens: amongControl(model, [template.turnEnd.trimStart()]),
  tokensOf(check, messages, tools = []) {
    if (tools.length > 0 && !template.knowsTools) {
      refuse({
        kind: "not_supported",
        path: "tools",
        message: "the model's chat template has no tools",
        capability: "tools"
      })
    }
    check(charactersOf(messages))
    const pieces = template.render(messages, tools)
    check(lengthOf(pieces))
    return begin(model, tokenize(model, pieces))
  }
})

/**
 * The format that the library knows for a model of this name and kind, or else its general one.
 *
 * The library's own Jinja is left out, as it has no work budget.
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

/** What the library makes of a model whose file does not say how to talk to it. */
const withoutTemplate = (library: Library, model: LlamaModel): Templated => {
  const wrapper = knownFormat(library, model)
  const { stopGenerationTriggers } = wrapper.generateContextState({
    chatHistory: historyOf([{ role: "user", content: "Hello" }])
  })
  return {
    knowsTools: false,
    endTokens: new Set(
      stopGenerationTriggers.map((trigger) => trigger.tokenize(model.tokenizer)[0])
        .filter((token): token is Token => token !== undefined && model.isSpecialToken(token))
    ),
    tokensOf(check, messages, tools = []) {
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
  }
}

/** The file's template, or why there is none that can be used. */
const templateOf = (model: LlamaModel, control: ReadonlyArray<string>): ChatTemplate | Unusable => {
  const source = model.fileInfo.metadata.tokenizer.chat_template
  if (source === undefined) return { problem: "the file has none" }
  return makeChatTemplate({
    name: model.filename ?? "the model",
    source,
    bos: model.tokens.bosString ?? undefined,
    eos: model.tokens.eosString ?? undefined,
    control
  })
}

const formatOf = (library: Library, model: LlamaModel, template: ChatTemplate | Unusable) =>
  "problem" in template
    ? {
      ...withoutTemplate(library, model),
      warnings: [
        `The chat template is not used: ${template.problem}. Prompts have the format that node-llama-cpp knows for ` +
        "this model, without tools."
      ]
    }
    : { ...withTemplate(model, template), warnings: [] }

/** How this model is talked to. */
export const makePrompts = (library: Library, model: LlamaModel): Prompts => {
  const { ggml: { tokens } } = model.fileInfo.metadata.tokenizer
  const controlTokens = controlTokensOf(model)
  const template = templateOf(model, controlTokens.map((id) => tokens[id]!))
  const callTokens = amongControl(model, markers)
  return {
    callTokens,
    goesOn(check, text) {
      check(text.length)
      return text === "" ? [] : model.tokenize(text, false, "trimLeadingSpace")
    },
    otherTokens: controlTokens.filter((token) => !model.isEogToken(token) && !callTokens.has(token)),
    ...formatOf(library, model, template)
  }
}
