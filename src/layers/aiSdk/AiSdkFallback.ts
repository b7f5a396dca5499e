/**
 * A middleware of the AI SDK that answers with another model where the first one fails.
 *
 * **Details**
 *
 * A stream that fails before its first content falls back too; a failure after that is the stream's, since its beginning has
 * been delivered. A call that is aborted does not fall back.
 *
 * **Gotchas**
 *
 * `maxRetries` of the AI SDK repeats calls of the wrapped model, so it takes effect only if both models fail.
 */
import type {
  LanguageModelV4,
  LanguageModelV4Middleware,
  LanguageModelV4StreamPart,
  LanguageModelV4StreamResult
} from "@ai-sdk/provider"
import { APICallError } from "@ai-sdk/provider"
import { streamAfter } from "./AiSdkAnswer.ts"

/** When the other model answers. */
export interface FallbackOptions {
  /** Whether it answers after this failure; default after each that is no mistake of the request (400, 413, 422). */
  readonly when?: (error: unknown) => boolean
}

const ownMistakes: ReadonlySet<number | undefined> = new Set([400, 413, 422])

const isAvailabilityFailure = (error: unknown): boolean =>
  !APICallError.isInstance(error) || error.isRetryable || !ownMistakes.has(error.statusCode)

/** Parts before the content of an answer. */
const heads: ReadonlySet<LanguageModelV4StreamPart["type"]> = new Set<LanguageModelV4StreamPart["type"]>([
  "ping",
  "raw",
  "response-metadata",
  "stream-start"
])

/** The failure of a stream before its first content, or undefined, and the parts that were read. */
const readHead = async (reader: ReadableStreamDefaultReader<LanguageModelV4StreamPart>) => {
  const parts: Array<LanguageModelV4StreamPart> = []
  for (;;) {
    const { done, value } = await reader.read()
    if (done) return { parts, failure: undefined }
    if (value.type === "error") return { parts, failure: { error: value.error, part: value } }
    parts.push(value)
    if (!heads.has(value.type)) return { parts, failure: undefined }
  }
}

/** The parts that were read, and then the others. */
const rejoined = (
  parts: ReadonlyArray<LanguageModelV4StreamPart>,
  reader: ReadableStreamDefaultReader<LanguageModelV4StreamPart>
): ReadableStream<LanguageModelV4StreamPart> =>
  streamAfter(parts, () => reader.read(), (reason) => reader.cancel(reason))

/** The stream, unless it fails before its content and the other model may answer: then undefined. */
const withContent = async (
  result: LanguageModelV4StreamResult,
  mayFallBack: (error: unknown) => boolean
): Promise<LanguageModelV4StreamResult | undefined> => {
  const reader = result.stream.getReader()
  const { failure, parts } = await readHead(reader)
  if (failure === undefined) return { ...result, stream: rejoined(parts, reader) }
  if (!mayFallBack(failure.error)) return { ...result, stream: rejoined([...parts, failure.part], reader) }
  await reader.cancel()
  return undefined
}

/**
 * A middleware for `wrapLanguageModel`: the given model answers where the wrapped one fails.
 *
 * **Example**
 *
 * ```ts
 * const model = wrapLanguageModel({ model: openai("gpt-5"), middleware: fallback(troupe("tiny-chat")) })
 * ```
 */
export const fallback = (
  other: LanguageModelV4,
  { when = isAvailabilityFailure }: FallbackOptions = {}
): LanguageModelV4Middleware => ({
  specificationVersion: "v4",
  async wrapGenerate({ doGenerate, params }) {
    try {
      return await doGenerate()
    } catch (error) {
      if (params.abortSignal?.aborted === true || !when(error)) throw error
      return other.doGenerate(params)
    }
  },
  async wrapStream({ doStream, params }) {
    const mayFallBack = (error: unknown) => params.abortSignal?.aborted !== true && when(error)
    try {
      const found = await withContent(await doStream(), mayFallBack)
      if (found !== undefined) return found
    } catch (error) {
      if (!mayFallBack(error)) throw error
    }
    return other.doStream(params)
  }
})
