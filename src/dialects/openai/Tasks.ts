/** Decodes requests and encodes answers of embeddings, reranking, classification and tokenization. Pure. */
import { Result } from "effect"
import type {
  Classifications,
  ClassifyRequest,
  Embeddings,
  EmbedRequest,
  Reranking,
  RerankRequest,
  TokenizeRequest
} from "../../domain/Inference.ts"
import { maxTokenId } from "../../domain/Inference.ts"
import type { Reason } from "../../domain/InferenceError.ts"
import { InvalidRequest } from "../../domain/InferenceError.ts"
import * as Problem from "../../domain/Problem.ts"
import type { Task } from "../../domain/Source.ts"
import { requiredFields } from "../../domain/Source.ts"
import type { CallerIdentity, Shape } from "../shared/CallerRequest.ts"
import { callerOf, decodeBody } from "../shared/CallerRequest.ts"
import type { BodyFields } from "../shared/FieldNames.ts"
import type { Fields } from "../shared/Json.ts"
import { isObject } from "../shared/Json.ts"
import * as UnknownFields from "../shared/UnknownFields.ts"
import {
  continuationProblems,
  conversationOf,
  messageProblems,
  mostMessages,
  sourceOf,
  toolProblems,
  toolsOf
} from "./DecodeRequest.ts"
import type { OpenAiError } from "./EncodeError.ts"
import * as EncodeError from "./EncodeError.ts"
import * as FieldNames from "./FieldNames.ts"
import { mostTools } from "./Schema.ts"
import * as TaskSchema from "./TaskSchema.ts"

type Decoded<A> = Result.Result<A, InvalidRequest>

/** The limit of OpenAI's API. */
const mostInputs = 2048
const mostDocuments = 10_000

const listOf = (input: string | ReadonlyArray<string>): ReadonlyArray<string> =>
  typeof input === "string" ? [input] : input

const isTokenId = (value: unknown): boolean =>
  typeof value === "number" && Number.isInteger(value) && value >= 0 && value <= maxTokenId

/** The problem of the first element that is no token id, or no list of some; undefined if there is none. */
const tokenProblem = (lists: ReadonlyArray<unknown>, isOne: boolean): Problem.Problem | undefined => {
  if (lists.length > mostInputs) return { path: "input", expected: `Expected at most ${mostInputs} elements` }
  for (const [index, list] of lists.entries()) {
    const path = isOne ? "input" : `input[${index}]`
    if (!Array.isArray(list)) return { path, expected: "Expected an array of token ids, as the others" }
    if (list.length === 0) return { path, expected: "Expected at least one token id" }
    const wrong = list.findIndex((value) => !isTokenId(value))
    if (wrong >= 0) return { path: `${path}[${wrong}]`, expected: `Expected a token id from 0 to ${maxTokenId}` }
  }
  return undefined
}

/** Inputs as tokens: the ids of one, or a list of ids for each. */
const tokenListsOf = (input: ReadonlyArray<unknown>): Decoded<ReadonlyArray<ReadonlyArray<number>>> => {
  const isOne = typeof input[0] === "number"
  const lists = isOne ? [input] : input
  const problem = tokenProblem(lists, isOne)
  return problem === undefined
    ? Result.succeed(lists as ReadonlyArray<ReadonlyArray<number>>)
    : Result.fail(new InvalidRequest({ path: problem.path, detail: problem.expected, inBody: true }))
}

const areTokens = (input: unknown): boolean =>
  Array.isArray(input) && input.length > 0 &&
  input.every((one) => typeof one === "number" || Array.isArray(one))

/** Rejects tokens with an error of their own. */
const decodeTexts = <A>(json: unknown, shape: Shape<A>): Decoded<A> =>
  typeof json === "object" && json !== null && "input" in json && areTokens(json.input)
    ? Result.fail(new InvalidRequest({ path: "input", detail: "Tokens are not supported. Send the text." }))
    : decodeBody(json, shape)

const usageOf = (promptTokens: number) => ({ prompt_tokens: promptTokens, total_tokens: promptTokens })

const noProblems = (): ReadonlyArray<Problem.Problem> => []

/** Rejects unknown fields: they reach no provider of the task. */
export const closed =
  (table: BodyFields, task: Task) => <A extends { readonly model: string }>(json: unknown) => (body: A): Decoded<A> => {
    const source = sourceOf(json as Fields, json as Fields, table, task)
    return requiredFields(source).length === 0
      ? Result.succeed(body)
      : Result.fail(new InvalidRequest({ ...UnknownFields.refusedBy(source, body.model), inBody: true }))
  }

/** A decoded request for embeddings, and the options of its answer. */
export interface EmbedCall {
  readonly request: EmbedRequest
  readonly asBase64: boolean
  /** The number of dimensions that the caller requires. */
  readonly dimensions: number | undefined
}

const embeddingShape: Shape<TaskSchema.EmbeddingRequest> = {
  suggest: UnknownFields.makeSuggest(FieldNames.embeddings, true),
  decode: Problem.decoderOf(TaskSchema.EmbeddingRequest),
  most: [["input", mostInputs]],
  problems: noProblems
}

/**
 * Decodes a request for embeddings. With tokens as input, the rest of the body is checked as for a text.
 *
 * @param exact the same body with its inexact numbers as `ExactNumber`; default the body
 */
export const decodeEmbedding = (
  json: unknown,
  caller: CallerIdentity = {},
  exact: unknown = json
): Decoded<EmbedCall> => {
  const tokens = isObject(json) && areTokens(json["input"]) ? json["input"] as ReadonlyArray<unknown> : undefined
  const checked = tokens === undefined ? json : { ...json as Fields, input: " " }
  const lists = tokens === undefined ? Result.succeed(undefined) : tokenListsOf(tokens)
  if (Result.isFailure(lists)) return Result.fail(lists.failure)
  return Result.map(decodeBody(checked, embeddingShape), (body) => {
    const source = sourceOf(json as Fields, exact as Fields, FieldNames.embeddings, "embeddings")
    const base = { model: body.model, ...callerOf(body, caller) }
    return {
      request: lists.success === undefined
        ? { ...base, inputs: listOf(body.input), source }
        : { ...base, inputs: lists.success.map(() => ""), tokens: lists.success, source },
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
): Decoded<TaskSchema.EmbeddingList> => {
  if (native !== undefined) {
    const list = { usage: usageOf(promptTokens), ...native.body, model: request.model }
    return Result.succeed(list as Fields as TaskSchema.EmbeddingList)
  }
  const actual = vectors[0]?.length
  if (dimensions !== undefined && dimensions !== actual) {
    const detail =
      `The vectors of "${request.model}" have ${actual} dimensions and cannot be shortened. Remove this field.`
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

/** A decoded request for a reranking, and the options of its answer. */
export interface RerankCall {
  readonly request: RerankRequest
  readonly topN: number | undefined
  readonly returnDocuments: boolean
}

const rerankShape: Shape<TaskSchema.RerankRequest> = {
  suggest: UnknownFields.makeSuggest(FieldNames.rerank, true),
  decode: Problem.decoderOf(TaskSchema.RerankRequest),
  most: [["documents", mostDocuments]],
  problems: noProblems
}

const rerankFields = closed(FieldNames.rerank, "rerank")

export const decodeRerank = (json: unknown, caller: CallerIdentity = {}): Decoded<RerankCall> =>
  Result.map(Result.flatMap(decodeBody(json, rerankShape), rerankFields(json)), (body) => ({
    request: {
      model: body.model,
      query: body.query,
      documents: body.documents.map((document) => typeof document === "string" ? document : document.text),
      ...callerOf(body, caller)
    },
    topN: body.top_n,
    returnDocuments: body.return_documents ?? false
  }))

const documentsPerUnit = 100

/** @param version of Cohere's API */
export const rerankMeta = (version: "1" | "2", documents: number, promptTokens: number) => ({
  api_version: { version },
  billed_units: { search_units: Math.ceil(documents / documentsPerUnit) },
  tokens: { input_tokens: promptTokens, output_tokens: 0 }
})

/** The body of an error, in the names of Jina's and Cohere's APIs too. */
export const encodeRerankError = (reason: Reason): OpenAiError => {
  const { body, ...error } = EncodeError.fromReason(reason, FieldNames.rerankErrors)
  const { message } = body.error
  const texts = { detail: message, message }
  return { ...error, body: { ...body, ...texts } }
}

export const encodeRerank = (
  id: string,
  { request: { documents, model }, returnDocuments, topN }: RerankCall,
  { promptTokens, scores }: Reranking
): TaskSchema.RerankList => ({
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
  usage: usageOf(promptTokens),
  meta: rerankMeta("1", documents.length, promptTokens)
})

const classifyShape: Shape<TaskSchema.ClassifyRequest> = {
  suggest: UnknownFields.makeSuggest(FieldNames.classify, true),
  decode: Problem.decoderOf(TaskSchema.ClassifyRequest),
  most: [["input", mostInputs]],
  problems: noProblems
}

const classifyFields = closed(FieldNames.classify, "classify")

export const decodeClassify = (json: unknown, caller: CallerIdentity = {}): Decoded<ClassifyRequest> =>
  Result.map(Result.flatMap(decodeTexts(json, classifyShape), classifyFields(json)), (body) => ({
    model: body.model,
    inputs: listOf(body.input),
    ...callerOf(body, caller)
  }))

export const encodeClassifications = (
  id: string,
  model: string,
  { classifications }: Classifications
): TaskSchema.ClassifyList => ({
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
  { continue_final_message = false, messages, prompt, tools = [] }: TaskSchema.TokenizeRequest
): ReadonlyArray<Problem.Problem> => {
  if (messages === undefined) {
    return [
      ...(prompt === undefined ? [{ path: "prompt", expected: "`prompt` or `messages` is required" }] : []),
      ...(tools.length > 0 ? [{ path: "tools", expected: "Allowed only with messages" }] : []),
      ...(continue_final_message ? [{ path: "continue_final_message", expected: "Allowed only with messages" }] : [])
    ]
  }
  return [
    ...(prompt === undefined ? [] : [{ path: "messages", expected: "Send either `prompt` or `messages`, not both" }]),
    ...messageProblems(messages),
    ...toolProblems(tools),
    ...continuationProblems({ continue_final_message, messages })
  ]
}

const tokenizeShape: Shape<TaskSchema.TokenizeRequest> = {
  suggest: UnknownFields.makeSuggest(FieldNames.tokenize, true),
  decode: Problem.decoderOf(TaskSchema.TokenizeRequest),
  most: [["messages", mostMessages], ["tools", mostTools]],
  problems: tokenizeProblems
}

const inputOf = (
  { continue_final_message = false, messages, prompt, tools = [] }: TaskSchema.TokenizeRequest
): TokenizeRequest["input"] =>
  messages === undefined
    ? prompt!
    : {
      ...conversationOf({ continue_final_message, messages }),
      ...(tools.length === 0 ? {} : { tools: toolsOf(tools) })
    }

const tokenizeFields = closed(FieldNames.tokenize, "tokenize")

export const decodeTokenize = (json: unknown, caller: CallerIdentity = {}): Decoded<TokenizeRequest> =>
  Result.map(Result.flatMap(decodeBody(json, tokenizeShape), tokenizeFields(json)), (body) => ({
    model: body.model,
    input: inputOf(body),
    ...callerOf(body, caller)
  }))

export const encodeTokens = (tokens: ReadonlyArray<number>): TaskSchema.TokenList => ({
  count: tokens.length,
  tokens
})
