/** Reads the server-sent events of a running service, such as those of `GET /admin/live`. */
import { Effect, Option, Schedule, Schema, Stream } from "effect"
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

/** The connection is lost: another one may be possible. */
export class ConnectionLost
  extends Schema.TaggedError<ConnectionLost>()("ConnectionLost", { message: Schema.String })
{}

/** A service that stops, or a proxy before it, answers with a status from 500 on. */
const refusalOf = (at: string, status: number, body: unknown): CommandFailed | ConnectionLost => {
  if (status >= 500) return new ConnectionLost({ message: `The server at ${at} answers with status ${status}.` })
  const message = (body as { readonly error?: { readonly message?: string } } | null)?.error?.message
  return new CommandFailed({
    message: message === undefined
      ? `The server at ${at} answered with status ${status}: it is not a Troupe service, or runs another version.`
      : withCommands(message)
  })
}

const ended = (at: string) => new ConnectionLost({ message: `The service at ${at} has ended the connection.` })

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

/** How often a service that has been lost is called. */
const calledEvery = "1 second"

/** How long a service may be gone, until it counts as gone for good. */
const goneAfter = "2 minutes"

/** What is said while a service is gone. */
export interface Told {
  readonly lost: (message: string) => Effect.Effect<void>
  readonly again: Effect.Effect<void>
}

const isLost = ({ _tag }: Tagged): boolean => _tag === "ConnectionLost" || _tag === "NoService"

interface Tagged {
  readonly _tag: string
  readonly message: string
}

const goneForGood = ({ message }: Tagged) =>
  new CommandFailed({ message: `The service did not come back within ${goneAfter}. ${message}` })

/**
 * Stays connected: connects again after a connection is lost, until the service has been gone for 2 minutes. A first connection that
 * fails is not tried again.
 *
 * @param session one connection, which runs `connected` when the service has begun to answer
 */
export const stay = <E extends Tagged, R>(
  session: (connected: Effect.Effect<void>) => Effect.Effect<void, E, R>,
  { again, lost }: Told
): Effect.Effect<never, E | CommandFailed, R> => {
  /** Succeeds with the message of a connection that was lost. */
  const once = (onConnected: Effect.Effect<void>) =>
    Effect.suspend(() => {
      let isConnected = false
      const connected = Effect.suspend(() => {
        isConnected = true
        return onConnected
      })
      return Effect.matchEffect(session(connected), {
        onSuccess: () => Effect.succeed("The service has ended the connection."),
        onFailure: (error) => isConnected && isLost(error) ? Effect.succeed(error.message) : Effect.fail(error)
      })
    })
  const schedule = Schedule.spaced(calledEvery).pipe(Schedule.upTo({ duration: goneAfter }))
  const reconnect = Effect.delay(once(again), calledEvery).pipe(
    Effect.retry({ schedule, while: isLost }),
    Effect.mapError((error) => isLost(error) ? goneForGood(error) : error)
  )
  return Effect.flatMap(
    once(Effect.void),
    (message) => Effect.andThen(lost(message), Effect.forever(Effect.flatMap(reconnect, lost)))
  )
}
