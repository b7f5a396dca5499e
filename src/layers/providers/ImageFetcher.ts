/**
 * Fetches images by URL for providers that take bytes only.
 *
 * **Details**
 *
 * A caller chooses the URL, so only public hosts are called, and those that the settings allow. A name is resolved once, all
 * its addresses must be public, and the connection uses only these addresses. Redirects are followed on the same host only
 * and checked like the first URL. Type, size and time are limited.
 *
 * **Gotchas**
 *
 * Errors contain neither resolved addresses nor anything of a response but its status: they must not describe the private
 * network to callers.
 */
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import { Duration, Effect, Result, Stream } from "effect"
import type { Scope } from "effect"
import type { HttpClientError, HttpClientResponse } from "effect/http"
import { HttpClient, HttpClientRequest } from "effect/http"
import type { LookupAddress, LookupOptions } from "node:dns"
import { lookup } from "node:dns"
import type { ImageTransport } from "../../dialects/shared/ProviderDialect.ts"
import * as Defaults from "../../domain/Defaults.ts"
import * as InferenceError from "../../domain/InferenceError.ts"
import type { ImageSource, MediaType, Message, Part } from "../../domain/Message.ts"
import { mediaTypes, mostImageBytes } from "../../domain/Message.ts"
import { hostOf, isPrivateHost, isPublic } from "../../domain/PublicAddress.ts"

export interface ImageFetcher {
  /** The messages with images as a dialect accepts them, their URLs checked. The same list if there is no URL. */
  readonly prepare: (
    messages: ReadonlyArray<Message>,
    taken: ImageTransport
  ) => Effect.Effect<ReadonlyArray<Message>, InferenceError.InferenceError>
}

type Failable<A> = Effect.Effect<A, InferenceError.InferenceError>
type Resolved = string | Array<LookupAddress>

const refuse = (path: string, detail: string): InferenceError.InferenceError =>
  InferenceError.make(new InferenceError.InvalidRequest({ path, detail }))

const isElsewhere = "Expected the URL of a public host, or of a host in `server.media.allowHosts`"

class NotPublic extends Error {
  readonly code = "NOT_PUBLIC"
}

/** The resolver of the connections: they connect to exactly the addresses that it returns. */
const makeLookup = (allowed: ReadonlySet<string>, resolve: typeof lookup) =>
(
  host: string,
  options: LookupOptions,
  done: (error: NodeJS.ErrnoException | null, address: Resolved, family?: number) => void
): void =>
  resolve(host, { ...options, all: true }, (error, found) => {
    const [first] = found ?? []
    if (error !== null || first === undefined) return done(error ?? new Error("no address"), [])
    const isFit = allowed.has(host.toLowerCase().replace(/\.$/, "")) || found.every(({ address }) => isPublic(address))
    if (!isFit) return done(new NotPublic(), [])
    return options.all === true ? done(null, found) : done(null, first.address, first.family)
  })

const causes = (error: unknown): ReadonlyArray<unknown> => {
  const found: Array<unknown> = []
  for (let one = error; typeof one === "object" && one !== null && found.length < 10;) {
    found.push(one)
    one = "cause" in one ? one.cause : "reason" in one ? one.reason : undefined
  }
  return found
}

const typeOf = (response: HttpClientResponse.HttpClientResponse): MediaType | undefined => {
  const type = response.headers["content-type"]?.split(";")[0]?.trim().toLowerCase()
  return mediaTypes.find((known) => known === type)
}

const tooLarge = `Expected an image of at most ${mostImageBytes} bytes`
const tooSlow = `Expected images by URL that come within ${Duration.toSeconds(Defaults.media.all)} s together`
const tooMuch = `Expected images by URL of at most ${Defaults.media.mostBytes} bytes together`

/** The bytes that all images of one request have used. */
interface Spent {
  bytes: number
}

/** The whole image, in base64. */
const bytesOf = Effect.fnUntraced(function*(
  response: HttpClientResponse.HttpClientResponse,
  path: string,
  spent: Spent
) {
  let bytes = 0
  const pieces = yield* response.stream.pipe(
    Stream.mapError(() => refuse(path, "The connection closed before the image was complete")),
    Stream.tap((piece) => {
      bytes += piece.length
      spent.bytes += piece.length
      if (bytes > mostImageBytes) return Effect.fail(refuse(path, tooLarge))
      return spent.bytes > Defaults.media.mostBytes ? Effect.fail(refuse(path, tooMuch)) : Effect.void
    }),
    Stream.runCollect
  )
  return Buffer.concat(pieces).toString("base64")
})

/** The target of a redirect, if it is followed. */
const nextOf = (url: URL, response: HttpClientResponse.HttpClientResponse): URL | undefined => {
  const next = URL.parse(response.headers["location"] ?? "", url.href)
  if (next === null || !/^https?:$/.test(next.protocol) || next.username !== "" || next.password !== "") {
    return undefined
  }
  return hostOf(next) === hostOf(url) && (url.protocol === "http:" || next.protocol === "https:") ? next : undefined
}

const imageOf = (
  response: HttpClientResponse.HttpClientResponse,
  path: string,
  spent: Spent
): Failable<ImageSource> => {
  const mediaType = typeOf(response)
  if (response.status !== 200) {
    return Effect.fail(refuse(path, `The host of this URL answered with HTTP status ${response.status}`))
  }
  if (mediaType === undefined || (response.headers["content-encoding"] ?? "identity") !== "identity") {
    return Effect.fail(refuse(path, `Expected the URL of an image of one of these types: ${mediaTypes.join(", ")}`))
  }
  return Number(response.headers["content-length"] ?? 0) > mostImageBytes
    ? Effect.fail(refuse(path, tooLarge))
    : Effect.map(bytesOf(response, path, spent), (data) => ({ type: "base64", mediaType, data }))
}

/** Fetches images. */
const makeFetch = (
  client: HttpClient.HttpClient.With<HttpClientError.HttpClientError, Scope.Scope>,
  check: Check
) => {
  const ask = (url: URL, path: string) =>
    Effect.mapError(
      client.execute(
        HttpClientRequest.get(url.href, {
          headers: { accept: mediaTypes.join(", "), "accept-encoding": "identity", "user-agent": "troupe" }
        })
      ),
      (error) =>
        causes(error).some((cause) => cause instanceof NotPublic)
          ? refuse(path, isElsewhere)
          : refuse(path, "The host of this URL cannot be reached")
    )

  return (text: string, path: string, spent: Spent): Failable<ImageSource> =>
    Effect.scoped(Effect.gen(function*() {
      let url = yield* Effect.fromResult(check(text, path))
      for (let redirects = 0; redirects <= Defaults.media.redirects; redirects++) {
        const response = yield* ask(url, path)
        if (response.status < 300 || response.status >= 400) return yield* imageOf(response, path, spent)
        const next = nextOf(url, response)
        if (next === undefined) {
          return yield* refuse(path, "The host of this URL redirects to another host. Use the image's own URL")
        }
        url = yield* Effect.fromResult(check(next.href, path))
      }
      return yield* refuse(path, `The host of this URL redirects more than ${Defaults.media.redirects} times`)
    })).pipe(Effect.timeoutOrElse({
      duration: Defaults.media.total,
      orElse: () =>
        Effect.fail(
          refuse(
            path,
            `The host of this URL took longer than ${Duration.toSeconds(Defaults.media.total)} s to send the image`
          )
        )
    }))
}

export interface Options {
  /** See `server.media.allowHosts`. */
  readonly allowHosts: ReadonlyArray<string>
  /** Resolves names; default the machine's resolver. */
  readonly resolve?: typeof lookup | undefined
}

type Check = (text: string, path: string) => Result.Result<URL, InferenceError.InferenceError>

/** A literal address is never resolved, so it is checked here. */
const makeCheck = (allowed: ReadonlySet<string>): Check => (text, path) => {
  const url = URL.parse(text)
  if (url === null || !/^https?:$/.test(url.protocol)) return Result.fail(refuse(path, "Expected an http or https URL"))
  const host = hostOf(url)
  return isPrivateHost(host) && !allowed.has(host) ? Result.fail(refuse(path, isElsewhere)) : Result.succeed(url)
}

/** The scope's end closes its connections. */
export const make = Effect.fnUntraced(function*({ allowHosts, resolve = lookup }: Options) {
  const allowed = new Set(allowHosts)
  const check = makeCheck(allowed)
  const dispatcher = yield* NodeHttpClient.makeDispatcherOptions({
    connect: { timeout: Duration.toMillis(Defaults.media.connect), lookup: makeLookup(allowed, resolve) },
    allowH2: false
  })
  const client = yield* Effect.provideService(NodeHttpClient.makeUndici, NodeHttpClient.Dispatcher, dispatcher)
  const untraced = HttpClient.transform(client, Effect.provideService(HttpClient.TracerDisabledWhen, () => true))
  const fetch = makeFetch(HttpClient.withScope(untraced), check)

  const prepared = (part: Part, path: string, taken: ImageTransport, spent: Spent): Failable<Part> => {
    if (part.type !== "image" || part.source.type !== "url") return Effect.succeed(part)
    const { url } = part.source
    const at = `${path}.source.url`
    return taken === "urls"
      ? Effect.as(Effect.fromResult(check(url, at)), part)
      : Effect.map(fetch(url, at, spent), (source) => ({ ...part, source }))
  }

  /** All parts in one list, so that the limit of concurrent images applies to the conversation. */
  const prepare = Effect.fnUntraced(function*(messages: ReadonlyArray<Message>, taken: ImageTransport) {
    const parts = messages.flatMap(({ content }, message) =>
      typeof content === "string" ? [] : content.map((part, index) => ({ part, message, index }))
    )
    if (!parts.some(({ part }) => part.type === "image" && part.source.type === "url")) return messages
    const spent: Spent = { bytes: 0 }
    const done = yield* Effect.forEach(
      parts,
      ({ index, message, part }) => prepared(part, `messages[${message}].content[${index}]`, taken, spent),
      { concurrency: Defaults.media.concurrency }
    ).pipe(
      // Meanwhile the request occupies a slot of its deployment.
      Effect.timeoutOrElse({
        duration: Defaults.media.all,
        orElse: () => Effect.fail(refuse("messages", tooSlow))
      })
    )
    let next = 0
    return messages.map((message) =>
      typeof message.content === "string"
        ? message
        : { ...message, content: done.slice(next, next += message.content.length) }
    )
  })
  return { prepare } satisfies ImageFetcher
})
