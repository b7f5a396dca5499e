/** Input and output of engines: generations, prompts to count, embeddings and rankings. */
import type { Caller } from "./Caller.ts"
import type { GenerateJob, SamplingOptions, TokenizeJob } from "./Job.ts"
import type { Message } from "./Message.ts"
import type { Reasoning } from "./Reasoning.ts"
import type { Native, Source } from "./Source.ts"

/** The options that the caller set; the engine applies its defaults to the rest. */
export type Sampling = { readonly [Option in keyof SamplingOptions]?: SamplingOptions[Option] | undefined }

/** One generation. */
export interface Generation
  extends Omit<GenerateJob, "kind" | "window" | "messages" | "owner" | "sampling" | "thinking">
{
  readonly messages: ReadonlyArray<Message>
  readonly sampling: Sampling
  /** How much the model reasons before it answers; default as the model does. */
  readonly reasoning?: Reasoning | undefined
  /** The caller's own request; default none. */
  readonly source?: Source | undefined
  /** `assistantPrefix` includes text of an earlier attempt, which `source` lacks; default false. */
  readonly resumed?: boolean | undefined
  /** Whether an answer may have several tool calls, for engines with such an option; default true. */
  readonly parallelToolCalls?: boolean | undefined
  /** For engines that pass a request on to a service with queues; default none. */
  readonly caller?: Caller | undefined
  /** The caller needs only the complete answer: the engine may return it in one event. */
  readonly buffered?: boolean | undefined
}

/** The fields of formats of text. */
const textFormats = { regex: "format.pattern", choice: "format.choices", grammar: "format.grammar" } as const

/** The path of what only models on this machine have: a format of text, or further options of sampling. */
export const localOnly = ({ decoding, format }: Generation): string | undefined => {
  if (decoding !== undefined) return `decoding.${Object.keys(decoding)[0]}`
  const type = format?.type
  return type === undefined || type === "json_object" || type === "json_schema" ? undefined : textFormats[type]
}

/** UTF-16 code units of the last words of a text. */
const lastWords = 48

/** Words with fewer code units may be repeated by chance. */
const fewestUnits = 16

/**
 * The last words of a text, by whose repetition a continuation is recognized: the whole of a short text.
 *
 * @param text without white space at its end
 */
export const lastWordsOf = (text: string): string => {
  if (text.length <= lastWords) return text
  const tail = text.slice(-lastWords).toWellFormed()
  const words = tail.slice(tail.search(/\s\S/u) + 1)
  return words.replaceAll(/\s+/gu, "").length < fewestUnits ? tail.trimStart() : words
}

/**
 * The user message that asks a model to continue its last message. One that continues the answer of another model repeats the
 * last words of it, so that it is certain where its text follows.
 */
export const continuePromptOf = ({ assistantPrefix = "", resumed = false }: Generation): string =>
  "Your last message was cut off. Go on exactly where it stops" + (resumed
    ? `: begin with its last words, which are between the lines, and continue from there. Do not repeat anything else, and ` +
      `say nothing else.\n---\n${lastWordsOf(assistantPrefix)}\n---`
    : ": repeat nothing of it, begin with the very next character, and say nothing else.")

/** Adds the prefix as the last assistant message, which some models continue. */
export const withAssistantPrefix = <A extends Pick<Generation, "assistantPrefix" | "messages">>(generation: A): A => {
  const { assistantPrefix, messages } = generation
  return assistantPrefix === undefined
    ? generation
    : { ...generation, messages: [...messages, { role: "assistant", content: assistantPrefix }] }
}

/**
 * Adds the prefix and a user message that asks to continue it: for models that do not continue an assistant message. The
 * result depends on the model: it may start over, repeat text or omit a space.
 */
export const withContinuePrompt = (generation: Generation): Generation => {
  const { messages } = withAssistantPrefix(generation)
  return generation.assistantPrefix === undefined
    ? generation
    : { ...generation, messages: [...messages, { role: "user", content: continuePromptOf(generation) }] }
}

/** A text, or a conversation without images that the chat template is applied to, to count or tokenize. */
export type Countable = string | Omit<Exclude<TokenizeJob["input"], string>, "messages"> & Pick<Generation, "messages">

/** A conversation to count, with the caller's own request. */
export interface Counted extends Exclude<Countable, string> {
  readonly source?: Source | undefined
}

/** Embeddings as the provider sent them. */
export interface NativeEmbeddings {
  readonly native: Native
  readonly promptTokens: number
  /** As in `TokenUsage`. */
  readonly isEstimated?: true
}
