/**
 * Models of a running Troupe as models of the AI SDK: language, embeddings, reranking. In the program's own process, without
 * HTTP.
 *
 * **Gotchas**
 *
 * `maxRetries` of the AI SDK, 2 by default, comes on top of the retries and fallbacks of the model's policy.
 */
import type {
  EmbeddingModelV4,
  LanguageModelV4,
  LanguageModelV4CallOptions,
  LanguageModelV4GenerateResult,
  LanguageModelV4StreamPart,
  LanguageModelV4StreamResult,
  RerankingModelV4
} from "@ai-sdk/provider"
import type {
  Answer,
  AnsweredBy,
  Embeddings,
  EmbedRequest,
  Event,
  Request,
  Reranking,
  RerankRequest
} from "../../domain/Inference.ts"
import type { ModelReport } from "../../services/routing/ModelReport.ts"
import type { Prices } from "./AiSdkAnswer.ts"
import { contentOf, finishOf, metadataOf, modelOf, PartEncoder, streamAfter, usageOf } from "./AiSdkAnswer.ts"
import { toFailure } from "./AiSdkFailure.ts"
import type { Options } from "./AiSdkRequest.ts"
import { toRequest } from "./AiSdkRequest.ts"

/** An answer whose first event has arrived. */
export interface Opened extends AnsweredBy {
  readonly events: AsyncIterable<Event>
}

interface CallOptions {
  readonly signal?: AbortSignal | undefined
}

/** The methods of a running Troupe that the models call. */
export interface Calls {
  readonly generate: (request: Request, options?: CallOptions) => Promise<Answer>
  readonly open: (request: Request, options?: CallOptions) => Promise<Opened>
  readonly embed: (request: EmbedRequest, options?: CallOptions) => Promise<Embeddings>
  readonly rerank: (request: RerankRequest, options?: CallOptions) => Promise<Reranking>
  readonly models: () => Promise<ReadonlyArray<ModelReport>>
}

export const provider = "troupe"

/** Texts of one embedding request. */
const mostTexts = 2048

/** A Troupe, with the prices of its deployments, which do not change. */
export class PricedCalls {
  readonly calls: Calls
  #prices: Promise<Prices> | undefined

  constructor(calls: Calls) {
    this.calls = calls
  }

  get prices(): Promise<Prices> {
    return this.#prices ??= this.calls.models().then((models) =>
      new Map(
        models.flatMap(({ deployments }) =>
          deployments.flatMap(({ id, price }) => price === undefined ? [] : [[id, price] as const])
        )
      )
    )
  }
}

const callOptions = (signal: AbortSignal | undefined): CallOptions => signal === undefined ? {} : { signal }

const failing = async <A>(model: string, request: unknown, work: () => Promise<A>): Promise<A> => {
  try {
    return await work()
  } catch (error) {
    throw toFailure(error, model, request)
  }
}

const noTokens = { promptTokens: 0, completionTokens: 0, cachedTokens: 0 }

/** The usage of an answer that failed after its beginning is not known. */
const unknownUsage = {
  inputTokens: { total: undefined, noCache: undefined, cacheRead: undefined, cacheWrite: undefined },
  outputTokens: { total: undefined, text: undefined, reasoning: undefined }
}

/** The parts of a streamed answer; a failure after its beginning is a part. */
async function* partsOf(
  { events, ...by }: Opened,
  prices: Prices,
  model: string,
  request: Request
): AsyncGenerator<LanguageModelV4StreamPart> {
  const encoder = new PartEncoder()
  try {
    for await (const event of events) {
      yield* encoder.add(event)
      if (event.type !== "finish") continue
      yield* encoder.end()
      const { reason, usage } = event
      const providerMetadata = metadataOf(by, usage, prices, encoder.handoffs)
      yield { type: "finish", finishReason: finishOf(reason), usage: usageOf(usage), providerMetadata }
    }
  } catch (cause) {
    const error = toFailure(cause, model, request)
    // The reason of an aborted signal ends the stream as it is.
    if (error === cause) throw cause
    yield { type: "error", error }
    yield { type: "finish", finishReason: { unified: "error", raw: undefined }, usage: unknownUsage }
  }
}

const streamOf = (
  first: ReadonlyArray<LanguageModelV4StreamPart>,
  opened: Opened,
  parts: AsyncGenerator<LanguageModelV4StreamPart>
): ReadableStream<LanguageModelV4StreamPart> =>
  streamAfter(first, () => parts.next(), async () => {
    await parts.return(undefined)
    // A generator that has not begun does not end what it iterates over.
    await opened.events[Symbol.asyncIterator]().return?.()
  })

export class LanguageModel implements LanguageModelV4 {
  readonly specificationVersion = "v4"
  readonly provider = provider
  readonly modelId: string
  /** Images that the AI SDK does not download itself. */
  readonly supportedUrls: Record<string, Array<RegExp>> = { "image/*": [/^https:\/\//] }
  readonly #troupe: PricedCalls
  readonly #options: Options

  constructor(troupe: PricedCalls, modelId: string, options: Options) {
    this.#troupe = troupe
    this.modelId = modelId
    this.#options = options
  }

  async doGenerate(call: LanguageModelV4CallOptions): Promise<LanguageModelV4GenerateResult> {
    const { modelId } = this
    const { request, warnings } = toRequest(modelId, this.#options, call)
    const { calls } = this.#troupe
    const answer = await failing(modelId, request, () => calls.generate(request, callOptions(call.abortSignal)))
    const { decision, finishReason, usage } = answer
    return {
      content: contentOf(answer),
      finishReason: finishOf(finishReason),
      usage: usageOf(usage),
      providerMetadata: metadataOf(answer, usage, await this.#troupe.prices),
      request: { body: request },
      response: { id: decision, timestamp: new Date(), modelId: modelOf(answer, modelId) },
      warnings
    }
  }

  /** Rejects if the call fails before its first event, so that the AI SDK can retry it. */
  async doStream(call: LanguageModelV4CallOptions): Promise<LanguageModelV4StreamResult> {
    const { modelId } = this
    const { request, warnings } = toRequest(modelId, this.#options, call)
    const { calls } = this.#troupe
    const opened = await failing(modelId, request, () => calls.open(request, callOptions(call.abortSignal)))
    const first: ReadonlyArray<LanguageModelV4StreamPart> = [
      { type: "stream-start", warnings },
      {
        type: "response-metadata",
        id: opened.decision,
        timestamp: new Date(),
        modelId: modelOf(opened, modelId)
      }
    ]
    const parts = partsOf(opened, await this.#troupe.prices, modelId, request)
    return { stream: streamOf(first, opened, parts), request: { body: request } }
  }
}

type EmbedOptions = Partial<Pick<EmbedRequest, "keepAlive" | "priority" | "route" | "tenant">>

const optionsOf = (options: Parameters<EmbeddingModelV4["doEmbed"]>[0]["providerOptions"]): EmbedOptions =>
  options?.["troupe"] ?? {}

export class EmbeddingModel implements EmbeddingModelV4 {
  readonly specificationVersion = "v4"
  readonly provider = provider
  readonly modelId: string
  readonly maxEmbeddingsPerCall = mostTexts
  readonly supportsParallelCalls = true
  readonly #troupe: PricedCalls

  constructor(troupe: PricedCalls, modelId: string) {
    this.#troupe = troupe
    this.modelId = modelId
  }

  async doEmbed(
    { abortSignal, dimensions, providerOptions, values }: Parameters<EmbeddingModelV4["doEmbed"]>[0]
  ): Promise<Awaited<ReturnType<EmbeddingModelV4["doEmbed"]>>> {
    const { modelId: model } = this
    const request = { ...optionsOf(providerOptions), model, inputs: values }
    const { calls } = this.#troupe
    const answer = await failing(model, request, () => calls.embed(request, callOptions(abortSignal)))
    const { promptTokens, vectors } = answer
    return {
      embeddings: vectors.map((vector) => Array.from(vector)),
      usage: { tokens: promptTokens },
      providerMetadata: metadataOf(answer, { ...noTokens, promptTokens }, await this.#troupe.prices),
      warnings: dimensions === undefined
        ? []
        : [{ type: "unsupported", feature: "dimensions", details: "The vectors have the dimensions of the model." }]
    }
  }
}

export class RerankingModel implements RerankingModelV4 {
  readonly specificationVersion = "v4"
  readonly provider = provider
  readonly modelId: string
  readonly #troupe: PricedCalls

  constructor(troupe: PricedCalls, modelId: string) {
    this.#troupe = troupe
    this.modelId = modelId
  }

  async doRerank(
    { abortSignal, documents, providerOptions, query, topN }: Parameters<RerankingModelV4["doRerank"]>[0]
  ): Promise<Awaited<ReturnType<RerankingModelV4["doRerank"]>>> {
    const { modelId: model } = this
    const texts = documents.type === "text" ? documents.values : documents.values.map((value) => JSON.stringify(value))
    const request = { ...optionsOf(providerOptions), model, query, documents: texts }
    const { calls } = this.#troupe
    const answer = await failing(model, request, () => calls.rerank(request, callOptions(abortSignal)))
    const { decision, promptTokens, scores } = answer
    const ranking = scores.map((relevanceScore, index) => ({ index, relevanceScore }))
    return {
      ranking: ranking.toSorted((one, other) => other.relevanceScore - one.relevanceScore).slice(0, topN),
      providerMetadata: metadataOf(answer, { ...noTokens, promptTokens }, await this.#troupe.prices),
      response: { id: decision, timestamp: new Date(), modelId: modelOf(answer, model) }
    }
  }
}
