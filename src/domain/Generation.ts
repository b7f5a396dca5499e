/** What an engine is asked for: one generation with its defaults filled in, a text to count, documents to rank. */
import type { Caller } from "./Caller.ts"
import type { GenerateJob, SamplingOptions, TokenizeJob } from "./Job.ts"
import type { Message } from "./Message.ts"
import type { Native, Source } from "./Source.ts"

/** What the caller set; an engine applies its own defaults to the rest. */
export type Sampling = { readonly [Option in keyof SamplingOptions]?: SamplingOptions[Option] | undefined }

/** One generation. */
export interface Generation extends Omit<GenerateJob, "kind" | "window" | "messages" | "owner" | "sampling"> {
  readonly messages: ReadonlyArray<Message>
  readonly sampling: Sampling
  /** The caller's own request; left out, there is none. */
  readonly source?: Source | undefined
  /** `assistantPrefix` holds text of an earlier attempt, which `source` does not have; default false. */
  readonly resumed?: boolean | undefined
  /** Whether an answer may have several calls, for engines that can be told; default true. */
  readonly parallelToolCalls?: boolean | undefined
  /** For engines that hand a request on to others who queue it; left out, nothing is said. */
  readonly standing?: Caller | undefined
  /** Nobody sees any of the answer before it is whole, nor waits for its first piece: it may come in one. */
  readonly buffered?: boolean | undefined
}

/** Asks for the rest of the assistant's last message. */
export const goOn =
  "Your last message was cut off. Go on exactly where it stops: repeat nothing of it, begin with the " +
  "very next character, and say nothing else."

/** The text so far as the assistant's last message, which some take for the beginning of their answer. */
export const prefilled = <A extends Pick<Generation, "assistantPrefix" | "messages">>(generation: A): A => {
  const { assistantPrefix, messages } = generation
  return assistantPrefix === undefined
    ? generation
    : { ...generation, messages: [...messages, { role: "assistant", content: assistantPrefix }] }
}

/**
 * The same, and a request to go on: for models that do not take a message for the beginning of their answer. It is as
 * good as the model, which may begin anew, repeat something or leave a space out.
 */
export const asked = (generation: Generation): Generation => {
  const { messages } = prefilled(generation)
  return generation.assistantPrefix === undefined
    ? generation
    : { ...generation, messages: [...messages, { role: "user", content: goOn }] }
}

/** A text, or a conversation without images and with its template around it, to count or to see as tokens. */
export type Countable = string | Omit<Exclude<TokenizeJob["input"], string>, "messages"> & Pick<Generation, "messages">

/** A conversation to count, and the caller's own request for it. */
export interface Counted extends Exclude<Countable, string> {
  readonly source?: Source | undefined
}

/** Embeddings as a provider sent them. */
export interface NativeEmbeddings {
  readonly native: Native
  readonly promptTokens: number
}

/** Scores from 0 to 1, in the order of the documents. */
export interface Ranking {
  readonly scores: ReadonlyArray<number>
  readonly promptTokens: number
}
