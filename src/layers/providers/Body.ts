/** Bodies and headers of a provider's answers, held to their bounds. */
import { Cause, Effect, Stream } from "effect"
import type { HttpClientError, HttpClientResponse } from "effect/http"
import * as InferenceError from "../../services/InferenceError.ts"
import * as Policies from "../../services/Policies.ts"
import type { Dialect, Target } from "./Dialect.ts"
import { malformed, parse } from "./Refusals.ts"
import type * as Watch from "./Watch.ts"

/** The body of a success. */
export interface Body {
  /** Fails for what went wrong with the exchange. */
  readonly bytes: Stream.Stream<Uint8Array, InferenceError.InferenceError>
  readonly watch: Watch.Watch
}

/** What is wanted of the answer. */
export type Wanted = "json" | Dialect["framing"]

export const mediaTypes: Readonly<Record<Wanted, ReadonlyArray<string>>> = {
  json: ["application/json"],
  sse: ["text/event-stream"],
  ndjson: ["application/x-ndjson", "application/ndjson", "application/jsonl"]
}

const codeOf = ({ reason }: HttpClientError.HttpClientError): string => {
  const { cause } = reason as { readonly cause?: NodeJS.ErrnoException & { readonly errors?: unknown } }
  const inner = Array.isArray(cause?.errors) ? cause.errors[0] as NodeJS.ErrnoException : cause
  return inner?.code ?? inner?.name ?? reason._tag
}

/** What the network said, before the answer began and in its middle. */
export const broken = (
  { deployment }: Target,
  limits: Watch.Limits,
  error: HttpClientError.HttpClientError,
  begun: boolean
): InferenceError.Reason => {
  const code = codeOf(error)
  if (code === "UND_ERR_CONNECT_TIMEOUT") {
    return new InferenceError.UpstreamTimeout({ deployment, phase: "connect", afterMs: limits.connect })
  }
  if (code === "UND_ERR_HEADERS_OVERFLOW") {
    return new InferenceError.UpstreamFailed({ deployment, kind: "too_large", detail: "its headers are too large." })
  }
  if (code.startsWith("HPE_")) {
    return new InferenceError.UpstreamFailed({ deployment, kind: "malformed", detail: `it speaks no HTTP (${code}).` })
  }
  return begun
    ? new InferenceError.UpstreamFailed({ deployment, kind: "cut", detail: `its answer broke off (${code}).` })
    : new InferenceError.UpstreamFailed({ deployment, kind: "network", detail: `the connection failed (${code}).` })
}

const tooLarge = ({ deployment }: Target, bytes: number): InferenceError.InferenceError =>
  InferenceError.make(
    new InferenceError.UpstreamFailed({ deployment, kind: "too_large", detail: `it sent more than ${bytes} bytes.` })
  )

/** Why a success's headers are none, if so. */
export const wrongHeaders = (target: Target, response: HttpClientResponse.HttpClientResponse, wanted: Wanted) => {
  const type = response.headers["content-type"]?.split(";")[0]?.trim().toLowerCase()
  if (type === undefined) return malformed(target, "of no content type")
  if (!mediaTypes[wanted].includes(type)) {
    return malformed(target, `not of the content type ${mediaTypes[wanted][0]} that was asked for`)
  }
  const encoding = response.headers["content-encoding"]
  return encoding === undefined || encoding === "identity" ? undefined : malformed(target, "compressed unasked")
}

/** The body's bytes, counted, timed, and with errors of ours. */
export const watched = (
  target: Target,
  limits: Watch.Limits,
  response: HttpClientResponse.HttpClientResponse,
  watch: Watch.Watch
): Stream.Stream<Uint8Array, InferenceError.InferenceError> => {
  const most = target.options.maxResponseBytes ?? Policies.maxResponseBytes
  let bytes = 0
  return Stream.transformPull(response.stream, (pull) =>
    Effect.succeed(Effect.suspend(() => {
      watch.wait()
      return Effect.matchEffect(pull, {
        onSuccess: (pieces) => {
          watch.took()
          bytes += pieces.reduce((sum, { length }) => sum + length, 0)
          return bytes > most ? Effect.fail(tooLarge(target, most)) : Effect.succeed(pieces)
        },
        onFailure: (error): Effect.Effect<never, InferenceError.InferenceError | Cause.Done> =>
          Cause.isDone(error)
            ? Cause.done()
            : Effect.fail(InferenceError.make(watch.reason() ?? broken(target, limits, error, true)))
      })
    })))
}

/** The beginning of a refusal's body: parsed JSON, or text. */
export const readRefusal = (response: HttpClientResponse.HttpClientResponse): Effect.Effect<unknown> => {
  const pieces: Array<Uint8Array> = []
  let bytes = 0
  return response.stream.pipe(
    Stream.takeUntil((piece) => {
      pieces.push(piece)
      bytes += piece.length
      return bytes >= Policies.maxRefusalBytes
    }),
    Stream.runDrain,
    Effect.timeout(Policies.refusalWait),
    Effect.ignore,
    Effect.map(() => {
      const text = new TextDecoder().decode(Buffer.concat(pieces).subarray(0, Policies.maxRefusalBytes))
      return parse(text) ?? text
    })
  )
}
