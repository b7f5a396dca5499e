/** Bodies and headers of a provider's responses, within limits. */
import type { Pull } from "effect"
import { Cause, Effect } from "effect"
import { brief, malformed, parse } from "../../dialects/shared/ErrorMapping.ts"
import type { Dialect, Target } from "../../dialects/shared/ProviderDialect.ts"
import * as Policies from "../../domain/Defaults.ts"
import * as InferenceError from "../../domain/InferenceError.ts"
import type { Connection, Head } from "./Connection.ts"
import { isKnown, Undecodable } from "./Decompression.ts"
import type * as ExchangeTimeouts from "./ExchangeTimeouts.ts"

/** The body of a success. */
export interface ResponseBody {
  /** Fails with the reason of a broken exchange. */
  readonly pull: Pull.Pull<Uint8Array, InferenceError.InferenceError>
  /** Whether the response is complete, read or not. */
  readonly isOver: () => boolean
  /** The media type that was received. */
  readonly media: Wanted
  /** Records a failure in the body that concerns the key of the request. */
  readonly note: (reason: InferenceError.Reason) => Effect.Effect<void>
  readonly watch: ExchangeTimeouts.ExchangeTimeout
}

/** The media type that is requested. */
export type Wanted = "json" | Dialect["framing"]

export const mediaTypes: Readonly<Record<Wanted, ReadonlyArray<string>>> = {
  json: ["application/json"],
  sse: ["text/event-stream"],
  ndjson: ["application/x-ndjson", "application/ndjson", "application/jsonl"]
}

const codeOf = (error: NodeJS.ErrnoException & { readonly errors?: unknown }): string => {
  // A host with several addresses has one error each.
  const inner = Array.isArray(error.errors) ? error.errors[0] as NodeJS.ErrnoException : error
  return inner.code ?? inner.name
}

/** Why the connection could not be established. */
const unconnected = (error: NodeJS.ErrnoException & { readonly hostname?: string }, code: string): string => {
  const status = /^Proxy response \((\d+)\)|^Proxy Authentication Required \((407)\)/.exec(error.message)
  if (status !== null) {
    return `the proxy refused the connection (${status[1] ?? status[2]}). Check HTTPS_PROXY, HTTP_PROXY and NO_PROXY.`
  }
  if (code === "ENOTFOUND" || code === "EAI_AGAIN") {
    return `could not resolve host \`${error.hostname ?? ""}\` (${code}). Check the name and the network.`
  }
  return code === "ECONNREFUSED"
    ? `the connection was refused (${code}). Check that the provider runs at \`baseUrl\`.`
    : `the connection failed (${code}).`
}

/** The reason of a network error, before or within the response. */
export const broken = (
  target: Target,
  limits: ExchangeTimeouts.Limits,
  error: Error,
  begun: boolean
): InferenceError.Reason => {
  if (error instanceof Undecodable) return malformed(target, error.message)
  const { deployment } = target
  const code = codeOf(error)
  if (code === "UND_ERR_CONNECT_TIMEOUT") {
    return new InferenceError.UpstreamTimeout({ deployment, phase: "connect", afterMs: limits.connect })
  }
  if (code === "UND_ERR_HEADERS_OVERFLOW") {
    return new InferenceError.UpstreamFailed({
      deployment,
      kind: "too_large",
      detail: "its response headers are too large."
    })
  }
  if (code.startsWith("HPE_")) {
    return new InferenceError.UpstreamFailed({
      deployment,
      kind: "malformed",
      detail: `it did not answer with HTTP (${code}). Check \`baseUrl\`.`
    })
  }
  return begun
    ? new InferenceError.UpstreamFailed({
      deployment,
      kind: "cut",
      detail: `the connection closed during the response (${code}).`
    })
    : new InferenceError.UpstreamFailed({ deployment, kind: "network", detail: unconnected(error, code) })
}

const tooLarge = ({ deployment }: Target, bytes: number): InferenceError.InferenceError =>
  InferenceError.make(
    new InferenceError.UpstreamFailed({
      deployment,
      kind: "too_large",
      detail: `the response exceeds ${bytes} bytes (\`maxResponseBytes\`).`
    })
  )

const mediaTypeOf = ({ headers }: Head): string | undefined =>
  headers["content-type"]?.split(";")[0]?.trim().toLowerCase()

/** The received media type: JSON may come instead of events, as an error or a complete answer. */
export const mediaOf = (head: Head, wanted: Wanted): Wanted => isJson(mediaTypeOf(head)) ? "json" : wanted

const isJson = (type = ""): boolean => /^(?:application|text)\/(?:[\w.-]+\+)?json$/.test(type)

/** What is wrong with the headers of a success; undefined if nothing is. */
export const wrongHeaders = (target: Target, head: Head, wanted: Wanted) => {
  const type = mediaTypeOf(head)
  if (type === undefined) return malformed(target, "no content type")
  if (!mediaTypes[wanted].includes(type) && !isJson(type)) {
    return malformed(target, `content type \`${brief(type)}\` instead of \`${mediaTypes[wanted][0]}\``)
  }
  return isKnown(head.headers["content-encoding"])
    ? undefined
    : malformed(target, `unknown content encoding "${brief(head.headers["content-encoding"]!)}"`)
}

/** A body with its size and time limited, and with typed errors. */
export const watched = (
  target: Target,
  limits: ExchangeTimeouts.Limits,
  connection: Connection,
  watch: ExchangeTimeouts.ExchangeTimeout
): Omit<ResponseBody, "media" | "note"> => {
  const most = target.options.maxResponseBytes ?? Policies.maxResponseBytes
  let bytes = 0
  return {
    watch,
    isOver: connection.isOver,
    pull: Effect.suspend(() => {
      watch.wait()
      return Effect.matchEffect(connection.pull, {
        onSuccess: (piece) => {
          watch.took()
          bytes += piece.length
          return bytes > most ? Effect.fail(tooLarge(target, most)) : Effect.succeed(piece)
        },
        onFailure: (error): Pull.Pull<never, InferenceError.InferenceError> =>
          Cause.isDone(error)
            ? Cause.done()
            : Effect.fail(InferenceError.make(watch.reason() ?? broken(target, limits, error, true)))
      })
    })
  }
}

/** The beginning of an error's body: parsed JSON, or text. */
export const readRefusal = ({ pull }: Connection): Effect.Effect<unknown> => {
  const pieces: Array<Uint8Array> = []
  let bytes = 0
  const read: Effect.Effect<void, Error | Cause.Done> = Effect.flatMap(pull, (piece) => {
    pieces.push(piece)
    bytes += piece.length
    return bytes >= Policies.maxRefusalBytes ? Effect.void : read
  })
  return read.pipe(
    Effect.timeout(Policies.refusalWait),
    Effect.ignore,
    Effect.map(() => {
      const text = new TextDecoder().decode(Buffer.concat(pieces).subarray(0, Policies.maxRefusalBytes))
      return parse(text) ?? text
    })
  )
}
