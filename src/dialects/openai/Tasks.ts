/** Embeddings, reranking, classification and tokens in the OpenAI dialect: bodies to requests, results to bodies. Pure. */
import { Result } from "effect"
import * as Decoder from "../../domain/Decoder.ts"
import type {
  Classifications,
  ClassifyRequest,
  Embeddings,
  EmbedRequest,
  Reranking,
  RerankRequest,
  TokenizeRequest
} from "../../domain/Inference.ts"
import { InvalidRequest } from "../../domain/InferenceError.ts"
import type { Task } from "../../domain/PassThrough.ts"
import { requiredFields } from "../../domain/PassThrough.ts"
import type { Problem } from "../../domain/Problem.ts"
import type { Shape } from "../shared/BodyChecks.ts"
import * as Body from "../shared/BodyChecks.ts"
import type { CallerIdentity } from "../shared/CallerIdentity.ts"
import { standingOf } from "../shared/CallerIdentity.ts"
import type { Place } from "../shared/ExtraFinder.ts"
import * as ExtraFinder from "../shared/ExtraFinder.ts"
import * as UnknownFields from "../shared/UnknownFields.ts"
import { messageProblems, mostMessages, toolProblems, toolsOf, unsupportedInMessages } from "./DecodeMessages.ts"
import { conversationOf, goOnProblems } from "./DecodeRequest.ts"
import { extraOfTask } from "./Extra.ts"
import { mostTools } from "./Schema.ts"
import * as OpenAiTasks from "./TaskSchema.ts"

type Decoded<A> = Result.Result<A, InvalidRequest>

/** OpenAI's own limit. */
const mostInputs = 2048
const mostDocuments = 10_000

const listOf = (input: string | ReadonlyArray<string>): ReadonlyArray<string> =>
  typeof input === "string" ? [input] : input

const areTokens = (input: unknown): boolean =>
  Array.isArray(input) && input.length > 0 &&
  input.every((one) => typeof one === "number" || Array.isArray(one))

/** A list of numbers is no list of wrong texts. */
const decodeTexts = <A>(json: unknown, shape: Shape<A>): Decoded<A> =>
  typeof json === "object" && json !== null && "input" in json && areTokens(json.input)
    ? Result.fail(new InvalidRequest({ path: "input", detail: "Tokens are not supported; send the text itself" }))
    : Body.decode(json, shape)

const usageOf = (promptTokens: number) => ({ prompt_tokens: promptTokens, total_tokens: promptTokens })

const noProblems = (): ReadonlyArray<Problem> => []

const fieldsOf = (schema: { readonly fields: object }, { unsupported }: Pick<Shape<never>, "unsupported">): Place =>
  ExtraFinder.placeOf(schema, Object.fromEntries(unsupported))

/** Refuses fields that are not known: they reach no provider. */
const closed =
  (place: Place, task: Task) => <A extends { readonly model: string }>(json: unknown) => (body: A): Decoded<A> => {
    const extra = extraOfTask(json as Body.Body, place, task)
    return extra === undefined || requiredFields(extra).length === 0
      ? Result.succeed(body)
      : Result.fail(new InvalidRequest(UnknownFields.refused(extra, body.model)))
  }

/** Embeddings asked for, and how to tell them. */
export interface EmbedCall {
  readonly request: EmbedRequest
  readonly asBase64: boolean
  /** The number of dimensions that the caller counts on. */
  readonly dimensions: number | undefined
}

const embeddingShape: Shape<OpenAiTasks.EmbeddingRequest> = {
  meant: UnknownFields.meantBy("embeddings"),
  decode: Decoder.make(OpenAiTasks.EmbeddingRequest),
  unsupported: [],
  most: [["input", mostInputs]],
  problems: noProblems
}

const embeddingFields = fieldsOf(OpenAiTasks.EmbeddingRequest, embeddingShape)

/** Tokens are for deployments that speak the dialect; the rest of the body is checked as that of a text. */
const decodeTokens = (json: Body.Body, tokens: ReadonlyArray<unknown>, caller: CallerIdentity): Decoded<EmbedCall> =>
  Result.map(decodeEmbedding({ ...json, input: " " }, caller), (call) => ({
    ...call,
    request: {
      ...call.request,
      inputs: typeof tokens[0] === "number" ? [""] : tokens.map(() => ""),
      extra: {
        dialect: "openai",
        task: "embeddings",
        fields: [...call.request.extra?.fields ?? [], { path: ["input"], value: tokens }]
      },
      source: { dialect: "openai", body: json }
    }
  }))

export const decodeEmbedding = (json: unknown, caller: CallerIdentity = {}): Decoded<EmbedCall> => {
  if (ExtraFinder.isObject(json) && areTokens(json["input"])) {
    return decodeTokens(json, json["input"] as ReadonlyArray<unknown>, caller)
  }
  return Result.map(Body.decode(json, embeddingShape), (body) => {
    const extra = extraOfTask(json as Body.Body, embeddingFields, "embeddings")
    return {
      request: {
        model: body.model,
        inputs: listOf(body.input),
        ...(extra === undefined ? {} : { extra }),
        source: { dialect: "openai", body: json as Body.Body },
        ...standingOf(body, caller)
      },
      asBase64: body.encoding_format === "base64",
      dimensions: body.dimensions
    }
  })
}

const base64Of = (vector: Float32Array): string =>
  Buffer.from(vector.buffer, vector.byteOffset, vector.byteLength).toString("base64")

export const encodeEmbeddings = (
  { asBase64, dimensions, request }: EmbedCall,
  { native, promptTokens, vectors }: Embeddings
): Decoded<OpenAiTasks.EmbeddingList> => {
  if (native !== undefined) {
    const list = { usage: usageOf(promptTokens), ...native.body, model: request.model }
    return Result.succeed(list as Body.Body as OpenAiTasks.EmbeddingList)
  }
  const actual = vectors[0]?.length
  if (dimensions !== undefined && dimensions !== actual) {
    const detail = `The vectors of "${request.model}" have ${actual} dimensions and are not cut; leave this field out`
    return Result.fail(new InvalidRequest({ path: "dimensions", detail }))
  }
  return Result.succeed({
    object: "list",
    data: vectors.map((vector, index) => ({
      object: "embedding",
      index,
      embedding: asBase64 ? base64Of(vector) : Array.from(vector)
    })),
    model: request.model,
    usage: usageOf(promptTokens)
  })
}

/** A reranking asked for, and how to tell it. */
export interface RerankCall {
  readonly request: RerankRequest
  readonly topN: number | undefined
  readonly returnDocuments: boolean
}

const rerankShape: Shape<OpenAiTasks.RerankRequest> = {
  meant: UnknownFields.meantBy("rerank"),
  decode: Decoder.make(OpenAiTasks.RerankRequest),
  unsupported: [
    // Cohere's, of documents with several fields, and of documents that are cut.
    ["rank_fields", (value) => Array.isArray(value) && value.length === 0],
    ["max_chunks_per_doc", () => false],
    ["max_tokens_per_doc", () => false]
  ],
  most: [["documents", mostDocuments]],
  problems: noProblems
}

const rerankFields = closed(fieldsOf(OpenAiTasks.RerankRequest, rerankShape), "rerank")

export const decodeRerank = (json: unknown, caller: CallerIdentity = {}): Decoded<RerankCall> =>
  Result.map(Result.flatMap(Body.decode(json, rerankShape), rerankFields(json)), (body) => ({
    request: {
      model: body.model,
      query: body.query,
      documents: body.documents.map((document) => typeof document === "string" ? document : document.text),
      ...standingOf(body, caller)
    },
    topN: body.top_n,
    returnDocuments: body.return_documents ?? false
  }))

export const encodeRerank = (
  id: string,
  { request: { documents, model }, returnDocuments, topN }: RerankCall,
  { promptTokens, scores }: Reranking
): OpenAiTasks.RerankList => ({
  id,
  object: "list",
  model,
  results: scores
    .map((relevance_score, index) => ({
      index,
      relevance_score,
      ...(returnDocuments ? { document: { text: documents[index]! } } : {})
    }))
    .sort((one, two) => two.relevance_score - one.relevance_score)
    .slice(0, topN),
  usage: usageOf(promptTokens)
})

const classifyShape: Shape<OpenAiTasks.ClassifyRequest> = {
  meant: UnknownFields.meantBy("classify"),
  decode: Decoder.make(OpenAiTasks.ClassifyRequest),
  // Jina's: a model's labels are its own.
  unsupported: [["labels", () => false]],
  most: [["input", mostInputs]],
  problems: noProblems
}

const classifyFields = closed(fieldsOf(OpenAiTasks.ClassifyRequest, classifyShape), "classify")

export const decodeClassify = (json: unknown, caller: CallerIdentity = {}): Decoded<ClassifyRequest> =>
  Result.map(Result.flatMap(decodeTexts(json, classifyShape), classifyFields(json)), (body) => ({
    model: body.model,
    inputs: listOf(body.input),
    ...standingOf(body, caller)
  }))

export const encodeClassifications = (
  id: string,
  model: string,
  { classifications }: Classifications
): OpenAiTasks.ClassifyList => ({
  id,
  object: "list",
  model,
  data: classifications.map(({ labels }, index) => ({
    object: "classification",
    index,
    prediction: labels[0]!.label,
    score: labels[0]!.score,
    predictions: labels
  })),
  usage: usageOf(classifications.reduce((sum, { promptTokens }) => sum + promptTokens, 0))
})

const tokenizeProblems = (
  { continue_final_message = false, messages, prompt, tools = [] }: OpenAiTasks.TokenizeRequest
): ReadonlyArray<Problem> => {
  if (messages === undefined) {
    return [
      ...(prompt === undefined ? [{ path: "prompt", expected: "Expected prompt or messages" }] : []),
      ...(tools.length > 0 ? [{ path: "tools", expected: "Only allowed with messages" }] : []),
      ...(continue_final_message ? [{ path: "continue_final_message", expected: "Only allowed with messages" }] : [])
    ]
  }
  return [
    ...(prompt === undefined ? [] : [{ path: "messages", expected: "Expected prompt or messages, not both" }]),
    ...messageProblems(messages),
    ...toolProblems(tools),
    ...goOnProblems({ continue_final_message, messages })
  ]
}

const tokenizeShape: Shape<OpenAiTasks.TokenizeRequest> = {
  meant: UnknownFields.meantBy("tokenize"),
  decode: Decoder.make(OpenAiTasks.TokenizeRequest),
  // vLLM's.
  unsupported: [
    ["add_special_tokens", () => false],
    ["add_generation_prompt", (value) => value === true],
    ["return_token_strs", (value) => value === false],
    ["chat_template", () => false],
    ["chat_template_kwargs", () => false]
  ],
  unsupportedWithin: ["messages", unsupportedInMessages],
  most: [["messages", mostMessages], ["tools", mostTools]],
  problems: tokenizeProblems
}

const inputOf = (
  { continue_final_message = false, messages, prompt, tools = [] }: OpenAiTasks.TokenizeRequest
): TokenizeRequest["input"] =>
  messages === undefined
    ? prompt!
    : {
      ...conversationOf({ continue_final_message, messages }),
      ...(tools.length === 0 ? {} : { tools: toolsOf(tools) })
    }

const tokenizeFields = closed(fieldsOf(OpenAiTasks.TokenizeRequest, tokenizeShape), "tokenize")

export const decodeTokenize = (json: unknown, caller: CallerIdentity = {}): Decoded<TokenizeRequest> =>
  Result.map(Result.flatMap(Body.decode(json, tokenizeShape), tokenizeFields(json)), (body) => ({
    model: body.model,
    input: inputOf(body),
    ...standingOf(body, caller)
  }))

export const encodeTokens = (tokens: ReadonlyArray<number>): OpenAiTasks.TokenList => ({
  count: tokens.length,
  tokens
})
