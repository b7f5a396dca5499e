/**
 * The seam between `RemoteEngine` and the ways that providers speak: pure functions from what is asked to an HTTP call,
 * and from what comes back to events, results and reasons.
 *
 * **Details**
 *
 * A dialect opens no connection, reads no clock and never throws: what it cannot say is `NotSupported`, and what it
 * cannot read is `UpstreamFailed` with `malformed`. `RemoteEngine` sees to connections, bounds, keys and frames.
 *
 * **Gotchas**
 *
 * Texts of a provider are told in a `detail` only through `ErrorMapping.brief`, and never those of a refused key, which may
 * hold the key.
 */
import type { Result } from "effect"
import type { RemoteDeployment } from "../../domain/Deployment.ts"
import type { Countable, Counted, Generation, NativeEmbeddings, Ranking } from "../../domain/Generation.ts"
import type { Event } from "../../domain/Inference.ts"
import type { InferenceError, Reason } from "../../domain/InferenceError.ts"
import type { Classification, Embedding } from "../../domain/Job.ts"
import type { ImageSource } from "../../domain/Message.ts"
import type { Source } from "../../domain/Source.ts"

/** How a dialect takes images: as URLs that the provider fetches, or as bytes. */
export type ImageTransport = "urls" | "bytes"

/** Whom a call is for. */
export interface Target {
  /** The deployment's id, for reasons. */
  readonly deployment: string
  /** The model's name among callers, for reasons. */
  readonly model: string
  /** `options.model` is its name at the provider. */
  readonly options: RemoteDeployment
}

/** A POST request, without the key and the deployment's own headers. */
export interface Call {
  /** Put after the base URL; begins with a slash, and may have a query. */
  readonly path: string
  /** Beside `content-type` and `accept`; names in lower case. */
  readonly headers?: Readonly<Record<string, string>>
  /** Sent as JSON. */
  readonly body: unknown
}

/** Images by the URLs that the caller gave, for a host that takes bytes only. */
export type FetchedImages = ReadonlyMap<string, Extract<ImageSource, { readonly type: "base64" }>>

/** One event of a stream. */
export interface Frame {
  /** SSE's name of the event, `message` where there is none; of NDJSON always `message`. */
  readonly event: string
  /** SSE's data, of all its lines; a line of NDJSON. */
  readonly data: string
}

/** Why a stream is no answer, or the next of its events. `thoughts` without text stand for encrypted ones. */
export type DecodeResult = Result.Result<ReadonlyArray<Event>, Reason>

/** Reads one streamed answer. It tells exactly one `finish`, as its last event; frames after that are not asked for. */
export interface EventDecoder {
  /** What one frame tells; errors that a provider tells within the stream are failures. */
  readonly push: (frame: Frame) => DecodeResult
  /** The body is over in good order: the `finish` if the answer was whole, else a failure with `cut` or `empty`. */
  readonly end: () => DecodeResult
}

/** An answer with a status that is none of success. */
export interface Refusal {
  readonly status: number
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string | undefined>>
  /** Parsed JSON, or the text where it is none. */
  readonly body: unknown
  /** ms since 1970, for dates in headers. */
  readonly now: number
}

/** What is answered whole. */
export interface Task<Input, Output> {
  readonly request: (input: Input, target: Target) => Result.Result<Call, Reason>
  /** @param body parsed JSON, of a success */
  readonly answer: (body: unknown, input: Input, target: Target) => Result.Result<Output, Reason>
}

/** One result an input, in their order. */
export type Each<A> = ReadonlyArray<Result.Result<A, InferenceError>>

/** How a provider speaks. */
export interface Dialect {
  /** How it takes images that are in the Internet. */
  readonly images: ImageTransport
  /** How a stream is cut into frames. */
  readonly framing: "sse" | "ndjson"
  readonly generate: {
    /** @param stream whether the answer is to be streamed */
    readonly request: (generation: Generation, target: Target, stream: boolean) => Result.Result<Call, Reason>
    /** The caller's own request, of a caller who speaks this dialect too. */
    readonly passThrough?: (
      generation: Generation,
      source: Source,
      target: Target,
      stream: boolean,
      fetched: FetchedImages | undefined
    ) => Result.Result<Call, Reason>
    readonly events: (generation: Generation, target: Target) => EventDecoder
    /** The events of an answer that was not streamed, `finish` the last. */
    readonly whole: (body: unknown, generation: Generation, target: Target) => DecodeResult
  }
  readonly embed?: Task<ReadonlyArray<string>, Each<Embedding>>
  /** For callers of the same dialect. */
  readonly embedNative?: Task<Source, NativeEmbeddings>
  readonly rerank?: Task<{ readonly query: string; readonly documents: ReadonlyArray<string> }, Ranking>
  readonly classify?: Task<ReadonlyArray<string>, Each<Classification>>
  readonly tokenize?: Task<Countable, ReadonlyArray<number>>
  /** Tokens of a prompt. */
  readonly count?: Task<Counted, number>
  /** Why a call was refused; `ErrorMapping` has what providers share. */
  readonly failure: (refusal: Refusal, target: Target) => Reason
}
