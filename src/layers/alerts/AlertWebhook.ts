/**
 * Sends changes of alerts to the webhook of the settings, in their order and in the background.
 *
 * **Details**
 *
 * A notice is a POST of JSON. With a secret it is signed: `x-troupe-signature: t=<seconds since 1970>,v1=<hex>`, where `v1` is the
 * HMAC-SHA256 of `<t>.<body>`. An attempt that fails is repeated after 1, 2, 4 seconds and so on, with the same
 * `x-troupe-delivery`, by which a receiver recognizes what it has had. A status from 400 to 499 other than 408, 425 and 429 is not
 * tried again. Redirects are not followed.
 *
 * The queue is bounded: of more notices, the oldest are given up. The end of the scope tries each of those that are left once, for at
 * most 3 s together.
 *
 * **Gotchas**
 *
 * The operator chooses the URL, so it may be a host of a private network, as with the webhook of the policy for prompts.
 */
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import { Clock, Duration, Effect, Latch, Layer, Redacted, Schedule, Schema } from "effect"
import { HttpClient, HttpClientRequest } from "effect/http"
import { createHmac } from "node:crypto"
import type { AlertNotice } from "../../services/alerts/AlertNotice.ts"
import { AlertWebhook } from "../../services/alerts/Alerts.ts"
import type { AlertWebhookSettings } from "../../services/settings/AlertSettings.ts"
import { Settings } from "../../services/settings/Settings.ts"
import { SettingsChanges } from "../../services/settings/SettingsChanges.ts"

/** An attempt has failed. */
class AttemptFailed extends Schema.TaggedError<AttemptFailed>()("AttemptFailed", {
  /** Without the URL and what it answered. */
  problem: Schema.String,
  isFinal: Schema.Boolean
}) {}

const failed = (problem: string, isFinal = false) => new AttemptFailed({ problem, isFinal })

/** The value of `x-troupe-signature`. */
export const signatureOf = (secret: string, seconds: number, body: string): string =>
  `t=${seconds},v1=${createHmac("sha256", secret).update(`${seconds}.${body}`).digest("hex")}`

const mayRepeat = new Set([408, 425, 429])

/** Sends one notice once. The scope's end closes the connections. */
const makeAttempt = Effect.gen(function*() {
  const dispatcher = yield* NodeHttpClient.makeDispatcherOptions({ allowH2: false })
  const client = yield* Effect.provideService(NodeHttpClient.makeUndici, NodeHttpClient.Dispatcher, dispatcher)
  // A span of the client would have the URL, which may contain a secret.
  const untraced = HttpClient.transform(client, Effect.provideService(HttpClient.TracerDisabledWhen, () => true))
  return Effect.fnUntraced(function*(notice: AlertNotice, { secret, timeout, url }: AlertWebhookSettings) {
    const body = JSON.stringify(notice)
    const seconds = Math.floor((yield* Clock.currentTimeMillis) / 1000)
    const headers = {
      "user-agent": "troupe",
      "x-troupe-delivery": notice.id,
      ...(secret === undefined ? {} : { "x-troupe-signature": signatureOf(Redacted.value(secret), seconds, body) })
    }
    const { status } = yield* untraced.execute(
      HttpClientRequest.bodyText(HttpClientRequest.post(Redacted.value(url), { headers }), body, "application/json")
    ).pipe(
      Effect.scoped,
      Effect.mapError(() => failed("it cannot be reached")),
      Effect.timeoutOrElse({
        duration: timeout,
        orElse: () => Effect.fail(failed(`it did not answer within ${Duration.format(timeout)}`))
      })
    )
    if (status >= 200 && status < 300) return
    return yield* failed(`it answered with status ${status}`, status >= 400 && status < 500 && !mayRepeat.has(status))
  })
})

/** How long the end of the scope may take. */
const lastAttempts = Duration.seconds(3)

/** What is sent, and what became of it. */
class Deliveries {
  readonly queue: Array<AlertNotice> = []
  delivered = 0
  lost = 0
  problem: string | undefined

  /** Adds a notice, unless it is there; gives up the oldest ones beyond the limit. */
  offer(notice: AlertNotice, limit: number): void {
    if (this.queue.some(({ id }) => id === notice.id)) return
    this.queue.push(notice)
    while (this.queue.length > limit) {
      this.queue.shift()
      this.lost++
    }
  }

  /** The notice has been sent, or is given up. */
  remove(notice: AlertNotice, isDelivered: boolean): void {
    const index = this.queue.indexOf(notice)
    if (isDelivered) this.delivered++
    // One beyond the limit has been counted already.
    else if (index !== -1) this.lost++
    if (index !== -1) this.queue.splice(index, 1)
  }

  get status() {
    const { delivered, lost, problem, queue } = this
    return { waiting: queue.length, delivered, lost, ...(problem === undefined ? {} : { problem }) }
  }
}

/** Logs when the webhook begins to fail, and when it works again. */
const note = (deliveries: Deliveries, url: Redacted.Redacted, problem: string | undefined): Effect.Effect<void> =>
  Effect.suspend(() => {
    const before = deliveries.problem
    deliveries.problem = problem
    if ((before === undefined) === (problem === undefined)) return Effect.void
    const { origin } = new URL(Redacted.value(url))
    return problem === undefined
      ? Effect.logInfo(`The webhook of alerts at ${origin} takes notices again.`)
      : Effect.logWarning(`Notices of alerts cannot be sent to the webhook at ${origin}: ${problem}.`)
  })

/** How one notice is sent: once, or again until it is taken or given up. */
interface Sending {
  readonly once: (notice: AlertNotice) => Effect.Effect<void, AttemptFailed>
  readonly repeated: (notice: AlertNotice) => Effect.Effect<void, AttemptFailed>
}

/** @param current the webhook now: another configuration may have another one, or none */
const makeSending = Effect.fnUntraced(function*(
  deliveries: Deliveries,
  current: () => AlertWebhookSettings | undefined,
  firstDelay: Duration.Duration
) {
  const attempt = yield* makeAttempt
  const once: Sending["once"] = (notice) =>
    Effect.suspend(() => {
      const webhook = current()
      if (webhook === undefined) return Effect.fail(failed("it is no longer configured", true))
      return attempt(notice, webhook).pipe(
        Effect.tap(() => note(deliveries, webhook.url, undefined)),
        Effect.tapError(({ problem }) => note(deliveries, webhook.url, problem))
      )
    })
  const repeated: Sending["repeated"] = (notice) =>
    Effect.suspend(() =>
      Effect.retry(once(notice), {
        schedule: Schedule.jittered(Schedule.exponential(firstDelay)),
        times: (current()?.attempts ?? 1) - 1,
        while: ({ isFinal }) => !isFinal
      })
    )
  return { once, repeated }
})

/** Sends what waits, in its order. */
const sendAll = (deliveries: Deliveries, how: Sending["once"]): Effect.Effect<void> =>
  Effect.suspend(() => {
    const [notice] = deliveries.queue
    if (notice === undefined) return Effect.void
    const sent = Effect.match(how(notice), {
      onSuccess: () => deliveries.remove(notice, true),
      onFailure: () => deliveries.remove(notice, false)
    })
    return Effect.andThen(sent, sendAll(deliveries, how))
  })

const make = Effect.fnUntraced(function*(firstDelay: Duration.Duration) {
  const changes = yield* SettingsChanges
  let webhook = (yield* Settings).alerts?.webhook
  changes.follow(({ alerts }) => {
    webhook = alerts?.webhook
  })
  const deliveries = new Deliveries()
  const waiting = Latch.makeUnsafe(false)
  const { once, repeated } = yield* makeSending(deliveries, () => webhook, firstDelay)
  // Added first, so that it runs after the end of the fiber.
  yield* Effect.addFinalizer(() =>
    Effect.timeoutOrElse(sendAll(deliveries, once), { duration: lastAttempts, orElse: () => Effect.void })
  )
  const turn = waiting.await.pipe(
    Effect.andThen(Effect.sync(() => waiting.closeUnsafe())),
    Effect.andThen(sendAll(deliveries, repeated))
  )
  yield* Effect.forkScoped(Effect.forever(turn))
  return {
    send: (notice: AlertNotice): void => {
      if (webhook === undefined) return
      deliveries.offer(notice, webhook.queue)
      waiting.openUnsafe()
    },
    status: () => webhook === undefined ? undefined : deliveries.status
  }
})

/** @param firstDelay between the first attempt and the second; each further one is twice as long */
export const layerWith = (firstDelay: Duration.Duration): Layer.Layer<never, never, Settings> =>
  Layer.effect(AlertWebhook, make(firstDelay))

/** Sends until the scope ends. */
export const layer = layerWith(Duration.seconds(1))
