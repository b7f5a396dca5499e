/**
 * Reads files over HTTP. Redirects are followed one by one, so that a token is sent only to its own host; ranges are
 * requested only if the file is certainly the same.
 */
import { Clock, Effect, Stream } from "effect"
import type { HttpClientError, HttpClientResponse } from "effect/http"
import { HttpClient, HttpClientRequest } from "effect/http"
import { retryAfterOf } from "../../domain/RetryAfter.ts"
import { urlProblem } from "../../services/store/ModelSource.ts"
import type { ModelStoreError } from "../../services/store/ModelStore.ts"
import { AccessDenied, DownloadFailed, fail, SourceNotFound } from "../../services/store/ModelStore.ts"
import type { Opened, Origin } from "./Origin.ts"
import { Cut } from "./Origin.ts"

const mostRedirects = 10
const redirects = new Set([301, 302, 303, 307, 308])
/** Statuses of failures that can be temporary: RFC 9110, section 15, and RFC 6585. */
const isTemporary = (status: number): boolean => status === 408 || status === 425 || status === 429 || status >= 500

/** A URL for messages: without its query, which may be a signature. */
export const showUrl = (url: string): string => {
  const { origin, pathname } = new URL(url)
  return `${origin}${pathname}`
}

/** Descriptions of the common network errors. */
const descriptions: Readonly<Record<string, string>> = {
  ENOTFOUND: "the host could not be resolved (ENOTFOUND). Check the name and the network",
  EAI_AGAIN: "the host could not be resolved (EAI_AGAIN). Check the name server and the network",
  ECONNREFUSED: "the connection was refused (ECONNREFUSED)",
  ECONNRESET: "the connection was reset (ECONNRESET)"
}

const unreachable = new Set(["ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "EHOSTUNREACH", "ENETUNREACH"])

const causeOf = (error: HttpClientError.HttpClientError): NodeJS.ErrnoException | undefined =>
  (error.reason as { readonly cause?: NodeJS.ErrnoException }).cause

/** A short description of a network error. */
const detailOf = (error: HttpClientError.HttpClientError): string => {
  const cause = causeOf(error)
  const code = cause?.code
  return (code === undefined ? undefined : descriptions[code]) ?? code ?? cause?.message ?? error.reason._tag
}

const failureOf = (url: string, status: number): ModelStoreError => {
  switch (status) {
    case 401:
    case 403:
      return fail(new AccessDenied({ url: showUrl(url), status }))
    case 404:
    case 410:
      return fail(new SourceNotFound({ url: showUrl(url) }))
    default:
      return fail(new DownloadFailed({ url: showUrl(url), detail: `the server responded with HTTP status ${status}` }))
  }
}

/** A response, with headers of the redirects before it. */
interface Answer {
  readonly response: HttpClientResponse.HttpClientResponse
  readonly headers: Readonly<Record<string, string | undefined>>
}

/** Headers that Hugging Face sends with the redirect to the file. */
const linked = ["x-linked-etag", "x-repo-commit"] as const

const nextUrl = (url: string, location: string | undefined): string | undefined => {
  const next = location === undefined ? undefined : URL.parse(location, url)?.href
  return next === undefined || urlProblem(next) !== undefined ? undefined : next
}

const withoutToken = (headers: Readonly<Record<string, string>>, from: string, to: string) => {
  if (new URL(from).origin === new URL(to).origin) return headers
  const { authorization: _, ...others } = headers
  return others
}

/**
 * Sends a GET request and follows redirects.
 *
 * @param url without secrets
 */
const get = Effect.fnUntraced(function*(url: string, headers: Readonly<Record<string, string>>) {
  const client = HttpClient.withScope(yield* HttpClient.HttpClient)
  let at = url
  let sent = headers
  let kept: Record<string, string | undefined> = {}
  for (let hop = 0; hop <= mostRedirects; hop++) {
    const response = yield* client.execute(
      HttpClientRequest.get(at, { headers: { "accept-encoding": "identity", ...sent } })
    ).pipe(
      Effect.mapError((error) =>
        new Cut({ detail: detailOf(error), isUnreachable: unreachable.has(causeOf(error)?.code ?? "") })
      )
    )
    kept = {
      ...kept,
      ...Object.fromEntries(linked.flatMap((name) => name in response.headers ? [[name, response.headers[name]]] : []))
    }
    if (!redirects.has(response.status)) {
      const answer: Answer = { response, headers: { ...response.headers, ...kept } }
      return answer
    }
    const next = nextUrl(at, response.headers["location"])
    if (next === undefined) {
      return yield* fail(
        new DownloadFailed({ url: showUrl(at), detail: "it redirects to an invalid URL or to plain http" })
      )
    }
    sent = withoutToken(sent, at, next)
    at = next
  }
  return yield* fail(new DownloadFailed({ url: showUrl(url), detail: `it redirects more than ${mostRedirects} times` }))
})

/** Fails unless the request succeeded. */
const checkStatus = Effect.fnUntraced(function*(url: string, { headers, response }: Answer) {
  if (response.status >= 200 && response.status < 300) return
  if (!isTemporary(response.status)) return yield* failureOf(url, response.status)
  const now = yield* Clock.currentTimeMillis
  return yield* new Cut({
    detail: `the server responded with HTTP status ${response.status}`,
    retryAfterMs: retryAfterOf({ headers, now })
  })
})

/** Limit of a response that is read as text, bytes. */
const maxTextBytes = 32 * 1024 * 1024

const readText = Effect.fnUntraced(function*(url: string, { response }: Answer) {
  const pieces: Array<Uint8Array> = []
  let bytes = 0
  yield* Stream.runForEach(
    Stream.mapError(response.stream, (error) => new Cut({ detail: detailOf(error) })),
    (piece) => {
      bytes += piece.length
      pieces.push(piece)
      return bytes <= maxTextBytes
        ? Effect.void
        : fail(new DownloadFailed({ url: showUrl(url), detail: `the response is larger than ${maxTextBytes} bytes` }))
    }
  )
  return new TextDecoder().decode(Buffer.concat(pieces))
})

/** The URL of the next page of a list: `Link: <url>; rel="next"` (RFC 8288). */
const nextPageOf = (url: string, link: string | undefined): string | undefined => {
  for (const [, target, parameters] of (link ?? "").matchAll(/<([^>]*)>((?:\s*;[^,<]*)*)/g)) {
    if (/;\s*rel\s*=\s*"?(?:[^"]*\s)?next(?:\s[^"]*)?"?\s*(?:;|$)/i.test(parameters!)) {
      return URL.parse(target!, url)?.href
    }
  }
  return undefined
}

/** One page of a paginated list. */
export interface Page {
  readonly text: string
  readonly next: string | undefined
}

/** Fails for a next page on another server, which the token must not reach. */
export const getPage = (url: string, headers: Readonly<Record<string, string>>) =>
  Effect.scoped(Effect.gen(function*() {
    const answer = yield* get(url, headers)
    yield* checkStatus(url, answer)
    const text = yield* readText(url, answer)
    const next = nextPageOf(url, answer.headers["link"])
    if (next !== undefined && new URL(next).origin !== new URL(url).origin) {
      return yield* fail(new DownloadFailed({ url: showUrl(url), detail: "its next page is on another server" }))
    }
    return { text, next } satisfies Page
  }))

const strongEtag = (etag: string | undefined): string | undefined => etag?.startsWith("\"") === true ? etag : undefined

const sha256In = (etag: string | undefined): string | undefined =>
  /^"?([0-9a-f]{64})"?$/i.exec(etag ?? "")?.[1]?.toLowerCase()

const lengthOf = (header: string | undefined): number | undefined =>
  header !== undefined && /^\d+$/.test(header) ? Number(header) : undefined

/** Where the body begins in the file, and the size of the file: RFC 9110, section 14.4. */
const rangeOf = (
  { headers, response }: Answer
): { readonly fromBytes: number; readonly totalBytes: number | undefined } => {
  if (response.status !== 206) return { fromBytes: 0, totalBytes: lengthOf(headers["content-length"]) }
  const [, first, total] = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(headers["content-range"] ?? "") ?? []
  return { fromBytes: Number(first ?? Number.NaN), totalBytes: lengthOf(total) }
}

const open = Effect.fnUntraced(function*(
  url: string,
  headers: Readonly<Record<string, string>>,
  fromBytes: number,
  etag: string | undefined
) {
  const range: Record<string, string> = fromBytes === 0
    ? {}
    : { range: `bytes=${fromBytes}-`, ...(etag === undefined ? {} : { "if-range": etag }) }
  const answer = yield* get(url, { ...headers, ...range })
  const about = {
    etag: strongEtag(answer.headers["etag"]),
    sha256: sha256In(answer.headers["x-linked-etag"]),
    revision: answer.headers["x-repo-commit"]
  }
  // The part is complete: RFC 9110, section 15.5.17.
  if (answer.response.status === 416 && answer.headers["content-range"] === `bytes */${fromBytes}`) {
    return { ...about, etag, fromBytes, totalBytes: fromBytes, body: Stream.empty } satisfies Opened
  }
  yield* checkStatus(url, answer)
  const body = Stream.mapError(answer.response.stream, (error) => new Cut({ detail: detailOf(error) }))
  return { ...about, ...rangeOf(answer), body } satisfies Opened
})

/** Whether an opened file resumes at the expected offset. False if the file has changed and the server ignored the ETag. */
const isResumed = (opened: Opened, fromBytes: number, etag: string | undefined): boolean =>
  opened.fromBytes === 0 ||
  (opened.fromBytes === fromBytes && (etag === undefined || opened.etag === undefined || opened.etag === etag))

/** A file on a server. */
export const make = (
  client: HttpClient.HttpClient,
  file: Pick<Origin, "path" | "bytes" | "sha256"> & {
    readonly url: string
    readonly headers: Readonly<Record<string, string>>
  }
): Origin => ({
  path: file.path,
  label: showUrl(file.url),
  bytes: file.bytes,
  sha256: file.sha256,
  open: (fromBytes, etag) =>
    open(file.url, file.headers, fromBytes, etag).pipe(
      Effect.catchIf(
        (error) => fromBytes > 0 && error._tag === "ModelStoreError" && error.reason._tag === "DownloadFailed",
        () => open(file.url, file.headers, 0, undefined)
      ),
      Effect.filterOrElse(
        (opened) => isResumed(opened, fromBytes, etag),
        () => open(file.url, file.headers, 0, undefined)
      ),
      Effect.provideService(HttpClient.HttpClient, client)
    )
})
