/**
 * The seam between `RemoteEngine` and the providers' APIs: pure functions that encode a request as an HTTP call and decode
 * the response into events, results and reasons.
 *
 * **Details**
 *
 * A dialect opens no connection, reads no clock and never throws: what it cannot encode is `NotSupported`, and what it
 * cannot decode is `UpstreamFailed` with `malformed`. `RemoteEngine` handles connections, limits, keys and frames.
 *
 * **Gotchas**
 *
 * A provider's text goes into a `detail` only through `ErrorMapping.brief`, and never for a rejected key: it may contain the
 * key.
 */
import type { Result } from "effect"
import type { RemoteDeployment } from "../../domain/Deployment.ts"
import type { Countable, Counted, Generation, NativeEmbeddings } from "../../domain/Generation.ts"
import type { Event } from "../../domain/Inference.ts"
import type { InferenceError, Reason } from "../../domain/InferenceError.ts"
import type { Classification, Embedding, Ranking, RankingInput, ReportedUsage } from "../../domain/Job.ts"
import type { ImageSource } from "../../domain/Message.ts"
import type { Source } from "../../domain/Source.ts"

/** How a dialect takes images: as URLs that the provider fetches, or as bytes. */
export type ImageTransport = "urls" | "bytes"

/** The deployment that a call is for. */
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
  /** Sent as JSON; a string is JSON already. */
  readonly body: unknown
}

/** Fetched images by the caller's URLs, for a provider that takes bytes only. */
export type FetchedImages = ReadonlyMap<string, Extract<ImageSource, { readonly type: "base64" }>>

/** One event of a stream. */
export interface Frame {
  /** The SSE event's name, default `message`; for NDJSON always `message`. */
  readonly event: string
  /** The SSE event's data; a line of NDJSON. */
  readonly data: string
}

/** The next events of an answer, or why it failed. `thoughts` without text represent encrypted reasoning. */
export type DecodeResult = Result.Result<ReadonlyArray<Event>, Reason>

/** Events of text in a row. */
export interface DecodedRun {
  /** Where the last one ends. */
  readonly to: number
  readonly events: ReadonlyArray<Event>
}

/** Decodes one streamed answer. The last event is the only `finish`; frames after it are not decoded. */
export interface EventDecoder {
  /** Decodes one frame; an error of the provider within the stream is a failure. */
  readonly push: (frame: Frame) => DecodeResult
  /** Decodes events of text in a row without parsing them: see `FrameReceiver.run`. Left out: none. */
  readonly run?: (text: string, from: number) => DecodedRun | undefined
  /**
   * Whether the answer has its finish reason, after which only usage may follow: the answer is complete even if nothing more
   * arrives. Left out: never, since the finish reason and the usage arrive in one frame.
   */
  readonly isFinished?: () => boolean
  /** The usage that the provider has reported until now. Left out: none before the finish. */
  readonly usage?: () => ReportedUsage | undefined
  /** At the end of the body: the `finish` if the answer is complete, else a failure with `cut` or `empty`. */
  readonly end: () => DecodeResult
}

/** A response with an error status. */
export interface Refusal {
  readonly status: number
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string | undefined>>
  /** Parsed JSON, or the text if it is not JSON. */
  readonly body: unknown
  /** ms since 1970, for dates in headers. */
  readonly now: number
}

/** An operation that is not streamed. */
export interface Task<Input, Output> {
  readonly request: (input: Input, target: Target) => Result.Result<Call, Reason>
  /** @param body parsed JSON, of a success */
  readonly answer: (body: unknown, input: Input, target: Target) => Result.Result<Output, Reason>
}

/** One result an input, in their order. */
export type Each<A> = ReadonlyArray<Result.Result<A, InferenceError>>

/** The codec of answers that are generated. */
export interface Generating {
  /** @param stream whether the answer is to be streamed */
  readonly request: (generation: Generation, target: Target, stream: boolean) => Result.Result<Call, Reason>
  /** Encodes every request alone, whatever fields its caller has added; left out: by `request` and `passThrough`. */
  readonly whole?: (
    generation: Generation,
    target: Target,
    stream: boolean,
    fetched: FetchedImages | undefined
  ) => Result.Result<Call, Reason>
  /** Passes the request of a caller of the same dialect through. */
  readonly passThrough?: (
    generation: Generation,
    source: Source,
    target: Target,
    stream: boolean,
    fetched: FetchedImages | undefined
  ) => Result.Result<Call, Reason>
  readonly events: (generation: Generation, target: Target) => EventDecoder
  /**
   * The events of an answer that was not streamed, `finish` the last.
   *
   * @param text the JSON that the body was parsed from, for callers of the same dialect
   */
  readonly buffered: (body: unknown, generation: Generation, target: Target, text?: string) => DecodeResult
  /** The usage that the body of an answer reports that was not streamed, also if it is a failure. */
  readonly usageIn: (body: unknown) => ReportedUsage | undefined
}

/** The codec of a provider's API. */
export interface Dialect {
  /** How it takes images by URL. */
  readonly images: ImageTransport
  /** How a stream is cut into frames. */
  readonly framing: "sse" | "ndjson"
  readonly generate: Generating
  /** For text completions; left out: its API has none. */
  readonly complete?: Generating
  /** For requests of the Responses API, where a deployment has its endpoint; left out: its API has none. */
  readonly respond?: Generating
  readonly embed?: Task<ReadonlyArray<string>, Each<Embedding>>
  /** For callers of the same dialect. */
  readonly embedNative?: Task<Source, NativeEmbeddings>
  readonly rerank?: Task<RankingInput, Ranking>
  readonly classify?: Task<ReadonlyArray<string>, Each<Classification>>
  readonly tokenize?: Task<Countable, ReadonlyArray<number>>
  /** Tokens of a prompt. */
  readonly count?: Task<Counted, number>
  /** The reason of an error response; `ErrorMapping` has what providers share. */
  readonly failure: (refusal: Refusal, target: Target) => Reason
  /** The reason of an error that is the body of a success; undefined if it is none. */
  readonly errorIn: (body: unknown, target: Target) => Reason | undefined
}
