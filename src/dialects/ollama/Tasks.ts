/** Decodes requests and encodes answers of embeddings, and decodes requests about a model. Pure. */
import { Result } from "effect"
import type { Embeddings, EmbedRequest } from "../../domain/Inference.ts"
import { InvalidRequest } from "../../domain/InferenceError.ts"
import * as Problem from "../../domain/Problem.ts"
import type { Shape } from "../shared/CallerRequest.ts"
import { callerOf, decodeBody } from "../shared/CallerRequest.ts"
import type { BodyFields } from "../shared/FieldNames.ts"
import type { Fields } from "../shared/Json.ts"
import * as UnknownFields from "../shared/UnknownFields.ts"
import type { Arrived } from "./DecodeRequest.ts"
import { sourceOf } from "./DecodeRequest.ts"
import * as FieldNames from "./FieldNames.ts"
import * as Schema from "./Schema.ts"

/** A decoded request for embeddings, and the options of its answer. */
export interface EmbedCall {
  readonly request: EmbedRequest
  /** As the caller wrote it. */
  readonly model: string
  /** The number of dimensions that the caller requires. */
  readonly dimensions: number | undefined
}

type Decoded<A> = Result.Result<A, InvalidRequest>

/** The limit of OpenAI's API. */
const mostInputs = 2048

const noProblems = (): ReadonlyArray<Problem.Problem> => []

const embedShape: Shape<Schema.EmbedRequest> = {
  suggest: UnknownFields.makeSuggest(FieldNames.embed, true),
  decode: Problem.decoderOf(Schema.EmbedRequest),
  most: [["input", mostInputs]],
  problems: noProblems
}

const embeddingsShape: Shape<Schema.EmbeddingsRequest> = {
  suggest: UnknownFields.makeSuggest(FieldNames.embeddings, true),
  decode: Problem.decoderOf(Schema.EmbeddingsRequest),
  most: [],
  problems: noProblems
}

const embedCallOf = (
  body: Schema.EmbedRequest | Schema.EmbeddingsRequest,
  inputs: ReadonlyArray<string>,
  arrived: Arrived,
  table: BodyFields
): EmbedCall => ({
  model: body.model,
  dimensions: "dimensions" in body ? body.dimensions : undefined,
  request: {
    model: arrived.nameOf(body.model),
    inputs,
    ...callerOf(body, arrived.caller),
    source: { ...sourceOf(arrived, table), task: "embeddings" }
  }
})

/** Decodes a parsed body of `POST /api/embed`. */
export const decodeEmbed = (arrived: Arrived): Decoded<EmbedCall> =>
  Result.map(decodeBody(arrived.json, embedShape), (body) => {
    const inputs = typeof body.input === "string" ? [body.input] : body.input
    return embedCallOf(body, inputs, arrived, FieldNames.embed)
  })

/** Decodes a parsed body of `POST /api/embeddings`. */
export const decodeEmbeddings = (arrived: Arrived): Decoded<EmbedCall> =>
  Result.map(
    decodeBody(arrived.json, embeddingsShape),
    (body) => embedCallOf(body, [body.prompt], arrived, FieldNames.embeddings)
  )

const vectorsOf = (vectors: Embeddings["vectors"]): ReadonlyArray<ReadonlyArray<number>> =>
  vectors.map((vector) => Array.from(vector))

/**
 * The body of an answer of `/api/embed`.
 *
 * @param durationNs since the request
 */
export const encodeEmbed = (
  { dimensions, model, request }: EmbedCall,
  { native, promptTokens, vectors }: Embeddings,
  durationNs: number
): Decoded<Fields> => {
  if (native !== undefined) return Result.succeed({ ...native.body, model })
  const actual = vectors[0]?.length
  if (dimensions !== undefined && dimensions !== actual) {
    const detail =
      `The vectors of "${request.model}" have ${actual} dimensions and cannot be shortened. Remove this field.`
    return Result.fail(new InvalidRequest({ path: "dimensions", detail }))
  }
  return Result.succeed({
    model,
    embeddings: vectorsOf(vectors),
    total_duration: durationNs,
    load_duration: 0,
    prompt_eval_count: promptTokens
  })
}

/** The body of an answer of `/api/embeddings`. */
export const encodeEmbeddings = (_: EmbedCall, { native, vectors }: Embeddings): Decoded<Fields> =>
  Result.succeed(native === undefined ? { embedding: vectorsOf(vectors)[0] ?? [] } : native.body)

/** A decoded request about a model. */
export interface NamedCall {
  /** As the caller wrote it. */
  readonly model: string
  readonly stream: boolean
}

type Named = Schema.DeleteRequest | Schema.PullRequest | Schema.ShowRequest

/** Clients may send both fields, one of them empty. */
const nameOf = ({ model = "", name = "" }: Named): string => model === "" ? name : model

const nameShapeOf = <A extends Named>(decode: Shape<A>["decode"]): Shape<A> => ({
  suggest: () => undefined,
  decode,
  most: [],
  problems: (named) => nameOf(named) !== "" ? [] : [{ path: "model", expected: "`model` is required" }]
})

const shapes = {
  show: nameShapeOf<Named>(Problem.decoderOf(Schema.ShowRequest)),
  pull: nameShapeOf<Named>(Problem.decoderOf(Schema.PullRequest)),
  delete: nameShapeOf<Named>(Problem.decoderOf(Schema.DeleteRequest))
}

/** Decodes a parsed body of `/api/show`, `/api/pull` or `/api/delete`. */
export const decodeNamed = (json: unknown, endpoint: keyof typeof shapes): Decoded<NamedCall> =>
  Result.map(decodeBody(json, shapes[endpoint]), (body) => ({
    model: nameOf(body),
    stream: "stream" in body ? body.stream ?? true : true
  }))
