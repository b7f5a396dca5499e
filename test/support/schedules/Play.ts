/** Engines that play what a world's scripts say, and write down what they were asked and told. */
import { Duration, Effect, Stream } from "effect"
import type { Fiber } from "effect"
import * as Policies from "../../../src/domain/Defaults.ts"
import type { Deployment } from "../../../src/domain/Deployment.ts"
import * as InferenceError from "../../../src/domain/InferenceError.ts"
import type { EngineFailure, JobEvent } from "../../../src/domain/Job.ts"
import type { Direction, JobListener, Played, PlayedJob } from "../Stage.ts"
import { reasonOf } from "./Reasons.ts"
import type { Call, Moment, Record } from "./Record.ts"
import { isRunning } from "./Record.ts"
import type { Fate, World } from "./World.ts"

/** What a world is run with. */
export interface Theatre {
  readonly record: Record
  readonly moment: () => Moment
  /** Runs beside everything, until it is over. */
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

/** How a stream is told to end without an end. */
const cutMark = -1

export const pause = (ms: number) => ms > 0 ? Effect.sleep(ms) : Effect.yieldNow

/** What an engine may be ahead of its consumer, as tokens. */
const makeWindow = (call: Call) => {
  let ahead = 0
  let wake: (() => void) | undefined
  return {
    fits: (tokens: number) => ahead + tokens <= call.window,
    take(tokens: number) {
      ahead += tokens
      call.mostAhead = Math.max(call.mostAhead, ahead)
    },
    grant(tokens: number) {
      ahead -= tokens
      // Granted before it was told.
      if (ahead < 0) call.mostAhead = Number.POSITIVE_INFINITY
      wake?.()
    },
    granted: Effect.callback<void>((resume) => {
      wake = () => resume(Effect.void)
    })
  }
}

type Window = ReturnType<typeof makeWindow>

const tell = (call: Call, { moment }: Theatre, index: number): JobEvent => {
  const text = `${call.number}:${index};`
  const now = moment()
  if (call.firstTold !== undefined) call.longestGap = Math.max(call.longestGap, now.at - call.lastTold)
  call.firstTold ??= now
  call.lastTold = now.at
  call.text += text
  call.tokens += call.fate.tokens
  return { type: "tokens", text, count: call.fate.tokens }
}

/** The answer's pieces, and the events that are still to be told with what ends it. */
const tellPieces = Effect.fnUntraced(function*(theatre: Theatre, call: Call, job: PlayedJob, window: Window) {
  const { pieceMs, pieces, tokens } = call.fate
  let together: Array<JobEvent> = []
  for (let index = 0; index < pieces; index++) {
    while (!window.fits(tokens)) {
      if (together.length > 0) job.emit(...together)
      together = []
      if (!window.fits(tokens)) yield* window.granted
    }
    window.take(tokens)
    together.push(tell(call, theatre, index))
    if (pieceMs === 0) continue
    job.emit(...together)
    together = []
    yield* Effect.sleep(pieceMs)
  }
  return together
})

const usageOf = ({ fate, number, tokens }: Call) => ({
  promptTokens: fate.end === "cut" ? cutMark : number + 1,
  completionTokens: tokens,
  cachedTokens: 0
})

const playJob = Effect.fnUntraced(
  function*(theatre: Theatre, call: Call, engine: Played, job: PlayedJob, window: Window) {
    const { end, firstMs } = call.fate
    yield* pause(firstMs)
    const last = yield* tellPieces(theatre, call, job, window)
    call.fateCame = true
    switch (end) {
      case "finish":
      case "cut":
        call.finished = end === "finish"
        return job.emit(...last, { type: "finished", reason: "stop", usage: usageOf(call) })
      case "hang":
        if (last.length > 0) job.emit(...last)
        yield* Effect.sleep(engine.deployment.stallAfter)
        return void theatre.fork(engine.die({ kind: "hung", afterMs: 0 }))
      case "crash":
        if (last.length > 0) job.emit(...last)
        return void theatre.fork(engine.crash("By chance."))
      default:
        return job.emit(...last, { type: "failed", failure: { kind: "failed", message: end } })
    }
  }
)

/** A hung engine does not hear that a job is cancelled, and is killed for it. */
const letGo = (engine: Played, job: PlayedJob, { end, letGoMs }: Fate) =>
  end === "hang"
    ? Effect.andThen(
      Effect.sleep(Policies.cancelGrace),
      Effect.suspend(() => job.ended ? Effect.void : engine.die({ kind: "hung", afterMs: 0 }))
    )
    : Effect.andThen(pause(letGoMs), Effect.sync(() => job.emit({ type: "cancelled" })))

const makeFates = ({ scripts }: World) => {
  const turns = new Map<unknown, number>()
  const turnOf = (key: unknown) => {
    const turn = turns.get(key) ?? 0
    turns.set(key, turn + 1)
    return turn
  }
  return {
    fate(deployment: string, at: number): Fate {
      const { phases } = scripts[deployment]!
      const phase = phases.find(({ until }) => at < until) ?? phases.at(-1)!
      return phase.fates[turnOf(phase) % phase.fates.length]!
    },
    load(deployment: string) {
      const { loads } = scripts[deployment]!
      return loads[Math.min(turnOf(loads), loads.length - 1)]!
    }
  }
}

const callerOf = ({ job }: PlayedJob): string => job.kind === "generate" ? job.messages[0]!.content : ""

/** What becomes of every load and every job. */
export const direct = (theatre: Theatre): Direction => {
  const { moment, record } = theatre
  const { world } = record
  const fates = makeFates(world)

  const onJob = (engine: Played, job: PlayedJob): JobListener => {
    const { id, options } = engine.deployment
    const began = moment()
    const call: Call = {
      number: record.calls.length,
      caller: callerOf(job),
      deployment: id,
      engine: engine.index,
      slots: options.engine === "fake" ? options.slots! : 0,
      fate: fates.fate(id, began.at),
      maxTokens: job.job.kind === "generate" ? job.job.maxTokens : undefined,
      began,
      window: job.job.kind === "generate" ? job.job.window : 0,
      mostAhead: 0,
      text: "",
      tokens: 0,
      firstTold: undefined,
      lastTold: 0,
      longestGap: 0,
      fateCame: false,
      finished: false,
      ended: undefined,
      cancelled: undefined
    }
    record.calls.push(call)
    const window = makeWindow(call)
    const playing = theatre.fork(playJob(theatre, call, engine, job, window))
    return {
      onCommand(command) {
        if (command.type === "grant") return window.grant(command.tokens)
        call.cancelled ??= moment()
        playing.interruptUnsafe()
        theatre.fork(letGo(engine, job, call.fate))
      },
      onEnd() {
        call.ended = moment()
        playing.interruptUnsafe()
      }
    }
  }

  const load = (_: number, deployment: Deployment) => {
    const { end, ms } = fates.load(deployment.id)
    const fail = (reason: InferenceError.Reason) => Effect.fail(InferenceError.make(reason))
    const { id } = deployment
    const detail = "By chance."
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
    ...(Number.isFinite(world.budgetBytes) ? { budget: world.budgetBytes / 2 ** 20 } : {}),
    hold: Duration.seconds(2),
    close: (index) =>
      Effect.sync(() => {
        if (record.calls.some((call) => call.engine === index && isRunning(call))) {
          record.closedInUse.push({ engine: index, moment: moment() })
        }
      }),
    disguise: (engine) => ({
      ...engine,
      generate: (generation, hold) =>
        Stream.filter(
          engine.generate(generation, hold),
          (event) => event.type !== "finish" || event.usage.promptTokens !== cutMark
        )
    })
  }
}
