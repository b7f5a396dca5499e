/** Tasks of the fake engine: vectors, scores, labels and tokens, computed from the text's bytes and words. */
import type { GpuMemory } from "../../domain/EngineProtocol.ts"
import type {
  Classification,
  Each,
  Embedding,
  EmbedInput,
  EngineFailure,
  Job,
  JobResult,
  Ranking,
  RankingInput,
  TaskJob
} from "../../domain/Job.ts"
import type { Pair } from "../job/ThoughtSyntax.ts"

/** The fault of a fake engine. */
type FakeFault = {
  /**
   * `error`: the job fails. `abort`: the engine's process aborts as native code would. `hang`: no further token comes.
   * `load`: loading fails. `load-abort`: loading aborts the process.
   */
  readonly kind: "error" | "abort" | "hang" | "load" | "load-abort"
  /** Tokens before the fault. */
  readonly afterTokens: number
  /** Only if the last message contains this text. */
  readonly trigger?: string | undefined
}

/** The specification that a fake engine thread loads. */
export type FakeSpec = {
  readonly engine: "fake"
  readonly contextSize: number
  readonly slots: number
  readonly loadDelayMs: number
  readonly promptDelayMs: number
  readonly tokenDelayMs: number
  /** The answer; left out, the engine echoes the last message. */
  readonly reply?: string | undefined
  readonly fault?: FakeFault | undefined
  /** What it reports of a GPU; left out, none. */
  readonly gpuMemory?: GpuMemory | undefined
  /** The markers of thoughts in `reply`; left out or false, it has none. */
  readonly reasoning?: Pair | false | undefined
}

export type FakeToken = Uint8Array

export const bytesPerToken = 3

export const tokenize = (text: string): Array<FakeToken> => {
  const bytes = Buffer.from(text)
  const tokens: Array<FakeToken> = []
  for (let at = 0; at < bytes.length; at += bytesPerToken) tokens.push(bytes.subarray(at, at + bytesPerToken))
  return tokens
}

/** The text of a conversation, with its thoughts. */
export const promptOf = (messages: Extract<Job, { kind: "generate" }>["messages"]): string =>
  messages.flatMap(({ content, thoughts }) => thoughts === undefined ? [content] : [thoughts, content]).join("\n")

const idOf = (token: FakeToken): number => token.reduce((id, byte) => id * 256 + byte, 0)

/** The text of token ids. */
export const textOfTokens = (ids: ReadonlyArray<number>): string =>
  Buffer.concat(ids.map((id) => {
    const bytes = Buffer.alloc(bytesPerToken)
    bytes.writeUIntBE(id % 2 ** (8 * bytesPerToken), 0, bytesPerToken)
    return bytes.subarray(bytes.findIndex((byte) => byte !== 0))
  })).toString("utf8")

export const textOfInput = (input: EmbedInput): string => typeof input === "string" ? input : textOfTokens(input)

const wordsOf = (text: string): Array<string> => text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? []

/** FNV-1a, 32 bits (Fowler, Noll and Vo, public domain). */
const hashOf = (word: string): number =>
  Buffer.from(word).reduce((hash, byte) => Math.imul(hash ^ byte, 0x01000193) >>> 0, 0x811c9dc5)

const dimensions = 16

/** Texts that share words have similar vectors. */
const vectorOf = (text: string): Float32Array => {
  const vector = new Float32Array(dimensions)
  for (const word of ["", ...wordsOf(text)]) {
    const hash = hashOf(word)
    vector[hash % dimensions]! += hash & 0x80_00_00_00 ? -1 : 1
  }
  // Words can cancel each other out.
  const length = Math.hypot(...vector)
  return length === 0 ? vector.fill(1 / Math.sqrt(dimensions)) : vector.map((value) => value / length)
}

/** The share of the query's words that the document contains. */
const scoreOf = (query: string, document: string): number => {
  const wanted = wordsOf(query)
  const found = new Set(wordsOf(document))
  return wanted.length === 0 ? 0 : wanted.filter((word) => found.has(word)).length / wanted.length
}

const labelsOf = (text: string): Classification["labels"] => {
  const labels = ["fake/question", "fake/statement"]
  const [first, second] = text.trimEnd().endsWith("?") ? labels : labels.toReversed()
  return [{ label: first!, score: 0.75 }, { label: second!, score: 0.25 }]
}

/** The failure of one text, if any. */
export type Check = (text: string, promptTokens: number) => EngineFailure | undefined

const emptyAt = (index: number): EngineFailure => ({
  kind: "invalid_request",
  path: `inputs[${index}]`,
  message: "A text is empty"
})

const eachOf = <A>(
  inputs: ReadonlyArray<string>,
  check: Check,
  answer: (text: string, promptTokens: number) => A
): ReadonlyArray<Each<A>> =>
  inputs.map((input, index) => {
    const promptTokens = tokenize(input).length
    const failure = input === "" ? emptyAt(index) : check(input, promptTokens)
    return failure === undefined ? { ok: true, value: answer(input, promptTokens) } : { ok: false, failure }
  })

const rank = ({ documents, query }: RankingInput, check: Check): Each<Ranking> => {
  const tokens = documents.map((document) => tokenize(query).length + tokenize(document).length)
  for (const [index, document] of documents.entries()) {
    const failure = check(document, tokens[index]!)
    if (failure !== undefined) return { ok: false, failure }
  }
  const scores = documents.map((document) => scoreOf(query, document))
  return { ok: true, value: { scores, promptTokens: tokens.reduce((sum, count) => sum + count, 0) } }
}

/** @param checkCount checks the length of a text that is only tokenized */
export const answerTask = (job: TaskJob, check: Check, checkCount: (characters: number) => void): JobResult => {
  switch (job.kind) {
    case "embed":
      return {
        kind: "embed",
        embeddings: eachOf(job.inputs.map(textOfInput), check, (text, promptTokens): Embedding => ({
          vector: vectorOf(text),
          promptTokens
        }))
      }
    case "rerank":
      return { kind: "rerank", rankings: job.requests.map((request) => rank(request, check)) }
    case "classify":
      return {
        kind: "classify",
        classifications: eachOf(job.inputs, check, (text, promptTokens) => ({ labels: labelsOf(text), promptTokens }))
      }
    case "tokenize": {
      const text = typeof job.input === "string"
        ? job.input
        : promptOf(job.input.messages) + (job.input.assistantPrefix ?? "")
      checkCount(text.length)
      return { kind: "tokenize", tokens: tokenize(text).map(idOf) }
    }
  }
}
