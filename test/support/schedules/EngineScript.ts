/** The behaviour of engines by a schedule's scripts, and the record of their jobs. */
import type { Fiber } from "effect"
import { Cause, Duration, Effect, Exit, Stream } from "effect"
import * as Defaults from "../../../src/domain/Defaults.ts"
import type { Deployment } from "../../../src/domain/Deployment.ts"
import type { Event } from "../../../src/domain/Inference.ts"
import * as InferenceError from "../../../src/domain/InferenceError.ts"
import type { EngineFailure, JobEvent } from "../../../src/domain/Job.ts"
import type { Engine, EventReceiver, StartedAnswer } from "../../../src/services/engines/Engine.ts"
import type { EngineBehaviour, JobListener, ScriptedEngine, ScriptedJob } from "../ScriptedEngines.ts"
import { reasonOf } from "./Reasons.ts"
import type { Call, Moment, Record } from "./Record.ts"
import { isRunning } from "./Record.ts"
import type { Outcome, Schedule } from "./Schedule.ts"

/** The context of a run. */
export interface RunContext {
  readonly record: Record
  readonly moment: () => Moment
  /** Runs an effect in the background until the end of the run. */
  readonly fork: (effect: Effect.Effect<unknown>) => Fiber.Fiber<unknown>
}

const errorOf = ({ id, stallAfter }: Deployment, failure: EngineFailure): InferenceError.InferenceError => {
  switch (failure.kind) {
    case "stopped":
      return InferenceError.make(new InferenceError.EngineStopped({ deployment: id }))
    case "hung":
      return InferenceError.make(
        new InferenceError.EngineHung({ deployment: id, afterMs: Duration.toMillis(stallAfter) })
      )
    case "failed":
      return InferenceError.make(reasonOf(id, failure.message))
    default:
      return InferenceError.make(new InferenceError.EngineCrashed({ deployment: id, detail: failure.kind }))
  }
}

/** Marks a stream that ends without a finish. */
const cutMark = -1

const isSent = (event: Event): boolean => event.type !== "finish" || event.usage.promptTokens !== cutMark

/** A receiver that gets an answer without a finish as a failure, as the consumer of a stream does. */
const cutting = (receiver: EventReceiver, deployment: string): EventReceiver => {
  let isCut = false
  return {
    failed: (error) => receiver.failed(error),
    died: (defect) => receiver.died(defect),
    rest: (events) => receiver.rest(events),
    events: (events) => {
      const sent = events.filter(isSent)
      isCut = sent.length < events.length
      if (sent.length > 0) receiver.events(sent)
    },
    end: () => {
      if (!isCut) return receiver.end()
      receiver.failed(
        InferenceError.make(new InferenceError.EngineFailed({ deployment, detail: "Its answer broke off." }))
      )
    }
  }
}

export const pause = (ms: number) => ms > 0 ? Effect.sleep(ms) : Effect.yieldNow

/** The number of tokens that an engine may be ahead of its consumer. */
const makeWindow = (call: Call) => {
  let ahead = 0
  let wake: (() => void) | undefined
  return {
    /** For one more token, as an engine's thread asks: the tokens of a piece are computed one by one. */
    hasRoom: () => ahead < call.window,
    take(tokens: number) {
      ahead += tokens
      call.mostAhead = Math.max(call.mostAhead, ahead)
    },
    grant(tokens: number) {
      ahead -= tokens
      // Granted before it was sent.
      if (ahead < 0) call.mostAhead = Number.POSITIVE_INFINITY
      wake?.()
    },
    granted: Effect.callback<void>((resume) => {
      wake = () => resume(Effect.void)
    })
  }
}

type Window = ReturnType<typeof makeWindow>

const send = (call: Call, { moment }: RunContext, index: number): JobEvent => {
  const text = `${call.number}:${index};`
  const now = moment()
  if (call.firstSent !== undefined) call.longestGap = Math.max(call.longestGap, now.at - call.lastSent)
  call.firstSent ??= now
  call.lastSent = now.at
  call.text += text
  call.tokens += call.outcome.tokens
  return { type: "tokens", text, count: call.outcome.tokens }
}

/** Sends the answer's pieces; returns the events to send together with the last one. */
const sendPieces = Effect.fnUntraced(function*(context: RunContext, call: Call, job: ScriptedJob, window: Window) {
  const { pieceMs, pieces, tokens } = call.outcome
  let together: Array<JobEvent> = []
  for (let index = 0; index < pieces; index++) {
    while (!window.hasRoom()) {
      if (together.length > 0) job.emit(...together)
      together = []
      if (!window.hasRoom()) yield* window.granted
    }
    window.take(tokens)
    together.push(send(call, context, index))
    if (pieceMs === 0) continue
    job.emit(...together)
    together = []
    yield* Effect.sleep(pieceMs)
  }
  return together
})

const usageOf = ({ outcome, number, tokens }: Call) => ({
  promptTokens: outcome.end === "cut" ? cutMark : number + 1,
  completionTokens: tokens,
  cachedTokens: 0
})

const runJob = Effect.fnUntraced(
  function*(context: RunContext, call: Call, engine: ScriptedEngine, job: ScriptedJob, window: Window) {
    const { end, firstMs } = call.outcome
    yield* pause(firstMs)
    const last = yield* sendPieces(context, call, job, window)
    call.outcomeReached = true
    switch (end) {
      case "finish":
      case "cut":
        call.finished = end === "finish"
        return job.emit(...last, { type: "finished", reason: "stop", usage: usageOf(call) })
      case "hang":
        if (last.length > 0) job.emit(...last)
        yield* Effect.sleep(engine.deployment.stallAfter)
        return void context.fork(engine.die({ kind: "hung", afterMs: 0 }))
      case "crash":
        if (last.length > 0) job.emit(...last)
        return void context.fork(engine.crash("Scripted failure."))
      default:
        return job.emit(...last, { type: "failed", failure: { kind: "failed", message: end } })
    }
  }
)

/** A hung engine does not react to a cancellation, and is killed. */
const releaseSlot = (engine: ScriptedEngine, job: ScriptedJob, { end, releaseMs }: Outcome) =>
  end === "hang"
    ? Effect.andThen(
      Effect.sleep(Defaults.cancelGrace),
      Effect.suspend(() => job.ended ? Effect.void : engine.die({ kind: "hung", afterMs: 0 }))
    )
    : Effect.andThen(pause(releaseMs), Effect.sync(() => job.emit({ type: "cancelled" })))

const makeOutcomes = ({ scripts }: Schedule) => {
  const turns = new Map<unknown, number>()
  const turnOf = (key: unknown) => {
    const turn = turns.get(key) ?? 0
    turns.set(key, turn + 1)
    return turn
  }
  return {
    outcome(deployment: string, at: number): Outcome {
      const { phases } = scripts[deployment]!
      const phase = phases.find(({ until }) => at < until) ?? phases.at(-1)!
      return phase.outcomes[turnOf(phase) % phase.outcomes.length]!
    },
    load(deployment: string) {
      const { loads } = scripts[deployment]!
      return loads[Math.min(turnOf(loads), loads.length - 1)]!
    }
  }
}

const callerOf = ({ job }: ScriptedJob): string => job.kind === "generate" ? job.messages[0]!.content : ""

/** Passes the events of a stream on to a receiver, which may pause it. */
const follow = (
  { fork }: RunContext,
  events: ReturnType<Engine["generate"]>,
  receiver: EventReceiver
): StartedAnswer => {
  let isClosed = false
  let isPaused = false
  let wake: (() => void) | undefined
  const resumed = Effect.callback<void>((resume) => {
    if (!isPaused) return resume(Effect.void)
    wake = () => resume(Effect.void)
  })
  const passed = Stream.runForEachArray(events, (some) =>
    Effect.suspend(() => {
      receiver.events(some)
      return resumed
    }))
  // The receiver is called after `start` has returned.
  const running = fork(Effect.map(Effect.exit(Effect.andThen(Effect.yieldNow, passed)), (exit) => {
    if (isClosed) return
    if (Exit.isSuccess(exit)) return receiver.end()
    const error = Cause.findErrorOption(exit.cause)
    if (error._tag === "Some") receiver.failed(error.value)
    else receiver.died(Cause.squash(exit.cause))
  }))
  return {
    pause: () => {
      isPaused = true
    },
    resume: () => {
      isPaused = false
      wake?.()
    },
    close: () => {
      isClosed = true
      running.interruptUnsafe()
    }
  }
}

/** The outcome of every load and every job. */
export const behaviourOf = (context: RunContext): EngineBehaviour => {
  const { moment, record } = context
  const { schedule } = record
  const outcomes = makeOutcomes(schedule)
  /** A job that a receiver follows starts now. */
  let startsNow = false

  const onJob = (engine: ScriptedEngine, job: ScriptedJob): JobListener => {
    const { id, options } = engine.deployment
    const began = moment()
    const call: Call = {
      number: record.calls.length,
      caller: callerOf(job),
      isFollowed: startsNow,
      deployment: id,
      engine: engine.index,
      slots: options.engine === "fake" ? options.slots! : 0,
      outcome: outcomes.outcome(id, began.at),
      maxTokens: job.job.kind === "generate" ? job.job.maxTokens : undefined,
      began,
      window: job.job.kind === "generate" ? job.job.window : 0,
      mostAhead: 0,
      text: "",
      tokens: 0,
      firstSent: undefined,
      lastSent: 0,
      longestGap: 0,
      outcomeReached: false,
      finished: false,
      ended: undefined,
      cancelled: undefined
    }
    startsNow = false
    record.calls.push(call)
    const window = makeWindow(call)
    const running = context.fork(runJob(context, call, engine, job, window))
    return {
      onCommand(command) {
        if (command.type === "grant") return window.grant(command.tokens)
        call.cancelled ??= moment()
        running.interruptUnsafe()
        // A provider's exchange ends at once.
        if (call.isFollowed) job.emit({ type: "cancelled" })
        else context.fork(releaseSlot(engine, job, call.outcome))
      },
      onEnd() {
        call.ended = moment()
        running.interruptUnsafe()
      }
    }
  }

  const load = (_: number, deployment: Deployment) => {
    const { end, ms } = outcomes.load(deployment.id)
    const fail = (reason: InferenceError.Reason) => Effect.fail(InferenceError.make(reason))
    const { id } = deployment
    const detail = "Scripted failure."
    switch (end) {
      case "ready":
        return pause(ms)
      case "fails":
        return Effect.andThen(pause(ms), fail(new InferenceError.ModelLoadFailed({ deployment: id, detail })))
      case "crashes":
        return Effect.andThen(pause(ms), fail(new InferenceError.EngineCrashed({ deployment: id, detail })))
      case "hangs":
        return Effect.never
    }
  }

  return {
    onJob,
    load,
    errorOf,
    ...(Number.isFinite(schedule.budgetBytes) ? { budget: schedule.budgetBytes / 2 ** 20 } : {}),
    hold: Duration.seconds(2),
    close: (index) =>
      Effect.sync(() => {
        if (record.calls.some((call) => call.engine === index && isRunning(call))) {
          record.closedInUse.push({ engine: index, moment: moment() })
        }
      }),
    wrap: (engine, { id }) => {
      const generate: Engine["generate"] = (generation, hold) =>
        Stream.filter(engine.generate(generation, hold), isSent)
      const followed: Engine["generate"] = (generation) =>
        Stream.suspend(() => {
          startsNow = engine.isOver?.() !== true
          return generate(generation)
        })
      const startLocal: NonNullable<Engine["start"]> = (generation, hops, receiver, hold) => {
        startsNow = true
        const answer = engine.start!(generation, hops, cutting(receiver, id), hold)
        startsNow = false
        return answer
      }
      return {
        ...engine,
        generate,
        // As a provider does, and as a local engine does.
        start: (generation, hops, receiver, hold) =>
          record.calls.length % 2 === 0
            ? follow(context, followed(generation), receiver)
            : startLocal(generation, hops, receiver, hold)
      }
    }
  }
}
