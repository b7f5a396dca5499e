/**
 * The live view of the service: `GET /admin/overview`, and `GET /admin/live`, its changes as server-sent events.
 *
 * **Details**
 *
 * An `overview` is sent when something has changed, at most once a second; a `request` when one has ended; an `event` when one is
 * published for operators. Without readers this file makes nothing: it listens to the decision log only while there are some. The
 * figures of `AdminOverview` are counted from every request, with readers or without.
 *
 * A stream ends when the process is about to end, and within a second after the reader's key was revoked or has expired.
 *
 * Of several processes, the reader gets the requests of all, and the limits are those of all together.
 *
 * Up to 1,000 events wait for a slow reader. Further ones are left out, and a `lost` event says how many: no request waits for a
 * reader.
 */
import { Array as Arr, Clock, Duration, Effect, Queue, Schedule, Stream } from "effect"
import { HttpServerResponse } from "effect/http"
import { HttpApiBuilder } from "effect/http-api"
import { toldRefusals } from "../../domain/Defaults.ts"
import { InvalidRequest, make as failure } from "../../domain/InferenceError.ts"
import * as Text from "../../domain/Text.ts"
import * as Time from "../../domain/Time.ts"
import { Readiness, untilLeaving } from "../../services/health/Readiness.ts"
import { OperatorEvents } from "../../services/observability/OperatorEvents.ts"
import { DecisionLog } from "../../services/routing/DecisionLog.ts"
import * as DecisionSummary from "../../services/routing/DecisionSummary.ts"
import * as AdminGuard from "./AdminGuard.ts"
import * as AdminOverview from "./AdminOverview.ts"
import * as AdminQuery from "./AdminQuery.ts"
import { TypedApi } from "./Api.ts"
import type { EventName, Overview } from "./OverviewSchema.ts"
import { eventNames, LiveSelection } from "./OverviewSchema.ts"
import { PeerProcesses } from "./Peers.ts"

/** Events that wait for a reader. */
export const mostWaiting = 1_000

/** How often a change of the service is looked for, and how long one that has been read is used. */
const lookEvery = Duration.seconds(1)

/** Another overview is sent then, changed or not: a reader sees that the connection is alive. */
const sendAfter = 15

/** One event: its data, or a frame of another process as it was sent. */
export type LiveEvent = { readonly event: EventName; readonly data: unknown } | { readonly frame: string }

const frameOf = (event: string, data: unknown): string => `event: ${event}\ndata: ${JSON.stringify(data)}\n\n`

/** Whether a frame has a request that was refused: a quote inside a text is escaped. */
const isRefusedFrame = (frame: string): boolean =>
  frame.startsWith("event: request") && frame.includes("\"refused\":true")

const isRefused = (event: LiveEvent): boolean =>
  "frame" in event
    ? isRefusedFrame(event.frame)
    : event.event === "request" && (event.data as DecisionSummary.DecisionSummary).refused === true

/** The events that wait for one reader, of all processes together. */
export class Waiting {
  readonly queue: Queue.Queue<LiveEvent>
  readonly #now: () => number
  #lost = 0
  #second = 0
  /** Refused requests in this second. */
  #refused = 0

  /** @param now ms since 1970 */
  constructor(queue: Queue.Queue<LiveEvent>, now: () => number) {
    this.queue = queue
    this.#now = now
  }

  add(event: LiveEvent): void {
    if (isRefused(event) && !this.#isTold()) return
    if (!Queue.offerUnsafe(this.queue, event)) this.#lost++
  }

  /** Each process limits its own refused requests; this limits those of all. */
  #isTold(): boolean {
    const second = Math.floor(this.#now() / 1_000)
    if (second !== this.#second) this.#refused = 0
    this.#second = second
    return this.#refused++ < toldRefusals
  }

  /** The text of these events, with the number of those that were left out before. */
  textOf(events: ReadonlyArray<LiveEvent>): string {
    const lost = this.#lost === 0 ? "" : frameOf("lost", { lost: this.#lost })
    this.#lost = 0
    return events.map((one) => "frame" in one ? one.frame : frameOf(one.event, one.data)).join("") + lost
  }
}

/** What of an overview changes by itself is left out. */
const changing = ({ at: _, memory, service, ...others }: Overview): string => {
  const { budgetBytes: ____, processBytes: __, ...held } = memory
  const { processUptimeSeconds: ______, uptimeSeconds: ___, windows: _____, figures, ...state } = service
  return JSON.stringify({ others, held, state, figures: figures.map(({ seconds: _, ...figures }) => figures) }, (
    name,
    value: unknown
  ) => name === "seconds" || name === "memoryBytes" || name === "retryAfterMs" ? undefined : value)
}

/** Which events a query asks for. */
const namesOf = ({ events }: typeof LiveSelection.Type) => {
  const names = events === undefined ? [...eventNames] : events.split(",").map((name) => name.trim())
  const wrong = names.find((name) => !(eventNames as ReadonlyArray<string>).includes(name))
  return wrong === undefined
    ? Effect.succeed(new Set(names as ReadonlyArray<EventName>))
    : Effect.fail(failure(
      new InvalidRequest({
        path: "events",
        detail: `Unknown event ${JSON.stringify(Text.cutName(wrong))}. Expected some of ${eventNames.join(", ")}`
      })
    ))
}

/** Sends the overview to a reader whenever it has changed. */
const sendOverviews = Effect.fnUntraced(function*(overview: Effect.Effect<Overview>, waiting: Waiting) {
  let last = ""
  let unsent = 0
  const look = Effect.map(overview, (data) => {
    const state = changing(data)
    unsent++
    if (state === last && unsent < sendAfter) return
    last = state
    unsent = 0
    waiting.add({ event: "overview", data })
  })
  yield* Effect.repeat(look, Schedule.spaced(lookEvery))
})

const make = Effect.gen(function*() {
  const decisions = yield* DecisionLog
  const operatorEvents = yield* OperatorEvents
  const peers = yield* PeerProcesses
  const readiness = yield* Readiness
  const overview = yield* AdminOverview.make
  const untilRefused = yield* AdminGuard.makeUntilRefused
  // Several readers share what is read.
  const shared = yield* Effect.cachedWithTTL(overview, Duration.millis(900))

  /** The events for one reader, until it disconnects. */
  const events = (names: ReadonlySet<EventName>) =>
    Stream.unwrap(Effect.gen(function*() {
      const clock = yield* Clock.Clock
      const queue = yield* Queue.dropping<LiveEvent>(mostWaiting)
      const waiting = new Waiting(queue, () => Time.preciseOf(clock))
      const ends: Array<() => void> = []
      if (names.has("request")) {
        const end = decisions.subscribe?.((record) =>
          waiting.add({ event: "request", data: DecisionSummary.of(record) })
        )
        if (end !== undefined) ends.push(end)
        if (peers?.isFirst === true) {
          yield* Effect.forkScoped(peers.watch("/admin/live?events=request", (frame) => waiting.add({ frame })))
        }
      }
      // Each process has the events of all.
      if (names.has("event")) {
        ends.push(operatorEvents.subscribe((event) => waiting.add({ event: "event", data: event })))
      }
      yield* Effect.addFinalizer(() => Effect.sync(() => ends.forEach((end) => end())))
      if (names.has("overview")) yield* Effect.forkScoped(sendOverviews(shared, waiting))
      return Stream.mapArray(Stream.fromQueue(waiting.queue), (some) => Arr.of(waiting.textOf(some)))
    }))

  const encoder = new TextEncoder()
  const live = Effect.fnUntraced(function*(query: typeof LiveSelection.Type) {
    yield* AdminQuery.check(Object.keys(LiveSelection.fields))
    const names = yield* namesOf(query)
    const texts = Stream.interruptWhen(events(names), Effect.raceFirst(untilLeaving(readiness), yield* untilRefused))
    // The response begins at once, not with the first event.
    const all = Stream.concat(Stream.succeed(": watching\n\n"), texts)
    return HttpServerResponse.stream(Stream.map(all, (text) => encoder.encode(text)), {
      contentType: "text/event-stream; charset=utf-8",
      headers: { "cache-control": "no-cache", "x-accel-buffering": "no" }
    })
  })
  return { overview: Effect.map(overview, (overview) => HttpServerResponse.jsonUnsafe(overview)), live }
})

export const layer = HttpApiBuilder.group(
  TypedApi,
  "live",
  Effect.fn(function*(handlers) {
    const { live, overview } = yield* make
    const guarded = yield* AdminGuard.make
    return handlers.handleRaw("overview", () => guarded(overview))
      .handleRaw("live", ({ query }) => guarded(live(query)))
  })
)
