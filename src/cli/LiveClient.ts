/** Reads the server-sent events of a running service, such as those of `GET /admin/live`. */
import { Effect, Option, Stream } from "effect"
import { HttpClient, HttpClientRequest } from "effect/http"
import type { HttpClientError } from "effect/http"
import type { Endpoint } from "./Client.ts"
import { connect, noServiceAt, withCommands } from "./Client.ts"
import type { Target } from "./Flags.ts"
import { CommandFailed } from "./Flags.ts"

/** One event; data is JSON. */
export interface ServerEvent {
  readonly event: string
  readonly data: unknown
}

const eventOf = (frame: string): ServerEvent | undefined => {
  const [, event] = /^event: (.*)$/m.exec(frame) ?? []
  const [, data] = /^data: (.*)$/m.exec(frame) ?? []
  return event === undefined || data === undefined ? undefined : { event, data: JSON.parse(data) as unknown }
}

/** Events of a text that arrives in pieces; comments are left out. */
export const makeParser = () => {
  let rest = ""
  return (text: string): ReadonlyArray<ServerEvent> => {
    const frames = `${rest}${text}`.split("\n\n")
    rest = frames.pop()!
    return frames.flatMap((frame) => eventOf(frame) ?? [])
  }
}

const refusalOf = (at: string, status: number, body: unknown): CommandFailed => {
  const message = (body as { readonly error?: { readonly message?: string } } | null)?.error?.message
  return new CommandFailed({
    message: message === undefined
      ? `The server at ${at} answered with status ${status}: it is not a Troupe service, or runs another version.`
      : withCommands(message)
  })
}

const ended = (at: string) => new CommandFailed({ message: `The service at ${at} has ended the connection.` })

const isTransport = (error: HttpClientError.HttpClientError): boolean => error.reason._tag === "TransportError"

const read = <E, R>(
  { url }: Endpoint,
  path: string,
  receive: (events: ReadonlyArray<ServerEvent>) => Effect.Effect<boolean, E, R>
) =>
  Effect.gen(function*() {
    const client = yield* HttpClient.HttpClient
    const response = yield* client.execute(HttpClientRequest.get(`${url}${path}`)).pipe(
      Effect.mapError((error) => isTransport(error) ? noServiceAt(url) : ended(url))
    )
    if (response.status !== 200) {
      return yield* refusalOf(url, response.status, Option.getOrNull(yield* Effect.option(response.json)))
    }
    const parse = makeParser()
    const texts = Stream.decodeText(Stream.mapError(response.stream, () => ended(url)))
    const isDone = yield* texts.pipe(
      Stream.map(parse),
      Stream.mapEffect(receive),
      Stream.takeUntil((isDone) => isDone),
      Stream.runFold(() => false, (_, isDone: boolean) => isDone)
    )
    if (!isDone) return yield* ended(url)
  })

/**
 * Calls a function with the events at a path as they arrive, until it returns true. Fails when the service ends them.
 *
 * @param receive first called without events, when the service has begun to answer
 */
export const watch = <E, R>(
  target: Target,
  path: string,
  receive: (events: ReadonlyArray<ServerEvent>) => Effect.Effect<boolean, E, R>
) => connect(target, (endpoint) => read(endpoint, path, receive))
