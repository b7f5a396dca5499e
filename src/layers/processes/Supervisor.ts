/**
 * The supervisor of a service of several processes: it starts them, passes their messages on, starts those again that end, and
 * ends all of them.
 *
 * **Details**
 *
 * The first process starts alone. It finds what is wrong with the configuration, the port and the models, so that a problem is
 * reported once; the others follow when it takes requests. A process that ends later is started again after
 * `Defaults.processRestart`.
 *
 * It holds the permits of the limits that the processes share (`Leases`), and counts their rates and budgets (`CounterTable`): it
 * does not handle requests, and so is the last to end.
 */
import { Clock, Deferred, Duration, Effect, Schema } from "effect"
import * as Defaults from "../../domain/Defaults.ts"
import { CounterTable } from "../../services/admission/CounterTable.ts"
import type { Instruction } from "../../services/processes/Leases.ts"
import { Leases } from "../../services/processes/Leases.ts"
import { Probes } from "../../services/processes/Probes.ts"
import type { Bound, Place, ReloadOutcome, ToProcess, ToSupervisor } from "../../services/processes/ProcessGroup.ts"
import { first } from "../../services/processes/Shares.ts"
import type { Source } from "../../services/settings/Reload.ts"
import type { Resolved } from "../../services/settings/Settings.ts"
import { GroupReload } from "./GroupReload.ts"

/** How a process ended: by an exit code or by a signal. */
export interface Ending {
  readonly code: number | null
  readonly signal: string | null
}

/** A running process. */
export interface ServiceProcess {
  readonly pid: number
  readonly send: (message: ToProcess) => void
  readonly kill: (signal: "SIGTERM" | "SIGKILL") => void
}

/** Starts a process. `onEnd` is called once, later. */
export type Spawn = (listeners: {
  readonly onMessage: (message: ToSupervisor) => void
  readonly onEnd: (ending: Ending) => void
}) => ServiceProcess

/** A process has ended. */
export class ProcessEnded extends Schema.TaggedError<ProcessEnded>()("ProcessEnded", {
  process: Schema.Int,
  code: Schema.NullOr(Schema.Int),
  signal: Schema.NullOr(Schema.String),
  uptimeMs: Schema.Finite,
  /** It, or one in its place before, has taken requests. */
  hasServed: Schema.Boolean
}) {
  override get message(): string {
    const how = this.signal === null ? `ended with exit code ${this.code}` : `was ended by ${this.signal}`
    return `Service process ${this.process} ${how}.`
  }
}

export interface Options {
  /** The number of processes. */
  readonly count: number
  readonly spawn: Spawn
  /** 0 for any free port. */
  readonly port: number
  readonly configuration: string | undefined
  /** Of the deployments that several processes call: their concurrency, by their ids. */
  readonly limits: ReadonlyMap<string, number>
  /** Left out, the configuration stays as it is. */
  readonly reload?: Configuration | undefined
  /** How long the processes may take to end after a signal, before they are killed. */
  readonly grace: Duration.Duration
}

/** Where the configuration of all processes is read again. */
export interface Configuration {
  readonly source: Source
  readonly settings: Resolved
}

type Counting = Extract<ToSupervisor, { readonly type: "reserve" | "settle" }>

type Reloading = Extract<ToSupervisor, { readonly type: "ready" | "reload" }>

const fixed: ReloadOutcome = { message: "The settings of this service are fixed.", problems: [] }

interface GroupOptions extends Options {
  /** Runs until the supervisor ends. */
  readonly fork: (effect: Effect.Effect<void>) => void
}

/** The processes that run now. */
class Group {
  readonly #options: GroupOptions
  readonly #leases: Map<string, Leases>
  readonly reload: GroupReload | undefined
  readonly #probes = new Map<string, Probes>()
  readonly #counters: CounterTable
  /** Whose reservations are those of a process: it is another owner when it starts again. */
  readonly #owners = new Map<number, number>()
  #started = 0
  readonly #running = new Map<number, ServiceProcess>()
  readonly #served = new Set<number>()
  readonly listening: ReadonlyMap<number, Deferred.Deferred<Bound, ProcessEnded>>
  #place: Omit<Place, "index">
  /** Called when the last process has ended. */
  #onEmpty: (() => void) | undefined

  /** @param now ms since 1970 */
  constructor(options: GroupOptions, now: () => number) {
    const { configuration, count, limits, port, reload } = options
    this.#options = options
    this.#counters = new CounterTable(now)
    this.#place = { count, port, configuration }
    this.#leases = new Map(Array.from(limits, ([id, limit]) => [id, new Leases(limit, count)]))
    this.reload = reload && new GroupReload(reload.source, reload.settings, {
      running: () => this.#senders,
      adopt: (text, limits) => this.#adopt(text, limits)
    })
    this.listening = new Map(Array.from({ length: count }, (_, index) => [index + 1, Deferred.makeUnsafe()]))
  }

  get isStopping(): boolean {
    return this.#onEmpty !== undefined
  }

  get #senders(): ReadonlyMap<number, (message: ToProcess) => void> {
    return new Map(Array.from(this.#running, ([index, { send }]) => [this.#owners.get(index)!, send]))
  }

  /** The text for processes that start later, and the limits that the processes share from now on. */
  #adopt(configuration: string | undefined, limits: ReadonlyMap<string, number>): void {
    this.#place = { ...this.#place, configuration }
    for (const [id, limit] of limits) {
      const known = this.#leases.get(id)
      if (known !== undefined) this.#instruct(id, known.resize(limit))
      else this.#share(id, new Leases(limit, this.#options.count))
    }
  }

  #share(id: string, leases: Leases): void {
    this.#leases.set(id, leases)
    for (const index of this.#running.keys()) this.#instruct(id, leases.join(index))
  }

  /** Starts a process; the callback gets its end. */
  start(index: number, startedAt: number, now: () => number, ended: (error: ProcessEnded) => void): void {
    const owner = ++this.#started
    this.#owners.set(index, owner)
    this.#counters.join(owner)
    const started = this.#options.spawn({
      onMessage: (message) => this.#receive(index, owner, message),
      onEnd: (ending) => {
        this.#running.delete(index)
        this.#counters.leave(owner)
        this.reload?.leave()
        for (const [id, leases] of this.#leases) this.#instruct(id, leases.leave(index))
        for (const probes of this.#probes.values()) probes.leave(index)
        if (this.#running.size === 0) this.#onEmpty?.()
        const hasServed = this.#served.has(index)
        const error = new ProcessEnded({ ...ending, process: index, uptimeMs: now() - startedAt, hasServed })
        Deferred.doneUnsafe(this.listening.get(index)!, Effect.fail(error))
        ended(error)
      }
    })
    this.#running.set(index, started)
    started.send({ type: "start", place: { ...this.#place, index } })
    for (const [id, leases] of this.#leases) this.#instruct(id, leases.join(index))
  }

  /** Ends all processes; the callback is called when none runs. */
  stop(onEmpty: () => void): void {
    this.#onEmpty = onEmpty
    if (this.#running.size === 0) onEmpty()
    for (const running of this.#running.values()) running.kill("SIGTERM")
  }

  kill(): void {
    for (const running of this.#running.values()) running.kill("SIGKILL")
  }

  #receive(index: number, owner: number, message: ToSupervisor): void {
    if (message.type === "reserve" || message.type === "settle") {
      this.#answer(index, owner, this.#count(owner, message))
    } else if (message.type === "ready") this.reload?.receive(owner, message.problem)
    else if (message.type === "reload") this.#reloadFor(index, owner, message.dryRun)
    else this.#receiveOther(index, message)
  }

  /** Reads the configuration again for a process, and answers it. */
  #reloadFor(index: number, owner: number, dryRun: boolean): void {
    const answer = (outcome: ReloadOutcome) => this.#answer(index, owner, { type: "reloaded", outcome })
    if (this.reload === undefined) return answer(fixed)
    this.#options.fork(Effect.match(this.reload.run({ dryRun, trigger: "admin" }), {
      onSuccess: (report) => answer({ report }),
      onFailure: ({ message, problems }) => answer({ message, problems })
    }))
  }

  #receiveOther(index: number, message: Exclude<ToSupervisor, Counting | Reloading>): void {
    switch (message.type) {
      case "listening":
        return this.#note(index, message.bound)
      case "want":
        return this.#instruct(message.deployment, this.#leases.get(message.deployment)!.want(index, message.count))
      case "give": {
        const { count, deployment, must } = message
        return this.#instruct(deployment, this.#leases.get(deployment)!.give(index, count, must))
      }
      case "probe": {
        const isGranted = this.#probesOf(message.deployment).take(index, message.most)
        return this.#running.get(index)?.send({ type: "probe", isGranted })
      }
      case "probed":
        return this.#probesOf(message.deployment).release(index)
      case "news":
        for (const [other, running] of this.#running) if (other !== index) running.send(message)
    }
  }

  #count(owner: number, message: Counting): ToProcess {
    return message.type === "reserve"
      ? { type: "reserved", outcome: this.#counters.reserve(owner, message.id, message.holds) }
      : { type: "settled", spent: this.#counters.settle(message.id, message.spends) }
  }

  /** Answers a process, unless it has ended: another one may have its place. */
  #answer(index: number, owner: number, message: ToProcess): void {
    if (this.#owners.get(index) === owner) this.#running.get(index)?.send(message)
  }

  #probesOf(deployment: string): Probes {
    const known = this.#probes.get(deployment)
    if (known !== undefined) return known
    const made = new Probes()
    this.#probes.set(deployment, made)
    return made
  }

  #note(index: number, bound: Bound): void {
    const { admin, port } = bound
    this.#served.add(index)
    const adminPort = index === first && admin.url !== undefined ? Number(new URL(admin.url).port) : undefined
    this.#place = { ...this.#place, port, ...(adminPort === undefined ? {} : { adminPort }) }
    Deferred.doneUnsafe(this.listening.get(index)!, Effect.succeed(bound))
  }

  #instruct(deployment: string, instructions: ReadonlyArray<Instruction>): void {
    for (const { process, ...instruction } of instructions) {
      this.#running.get(process)?.send({ ...instruction, deployment })
    }
  }
}

/** Runs one process until it ends. */
const runProcess = (group: Group, index: number): Effect.Effect<never, ProcessEnded> =>
  Effect.flatMap(Clock.Clock, (clock) =>
    Effect.callback((resume) => {
      if (group.isStopping) return
      const now = () => clock.currentTimeMillisUnsafe()
      group.start(index, now(), now, (error) => resume(Effect.fail(error)))
    }))

/** Runs a process, and another in its place when it ends. Returns if the process has never taken requests. */
const keepRunning = (group: Group, index: number): Effect.Effect<void> => {
  const logged = Effect.tapError(
    runProcess(group, index),
    (error) =>
      error.hasServed && !group.isStopping ? Effect.logWarning(`${error.message} Another one starts.`) : Effect.void
  )
  const isStable = ({ uptimeMs }: ProcessEnded) => uptimeMs >= Duration.toMillis(Defaults.stableAfter)
  return Effect.retry(logged, {
    schedule: Defaults.processRestart,
    while: (error) => error.hasServed && !isStable(error)
  }).pipe(
    Effect.catch((error): Effect.Effect<void> => error.hasServed ? keepRunning(group, index) : Effect.void)
  )
}

/** Ends all processes, and waits for them. */
const stopAll = (group: Group, grace: Duration.Duration): Effect.Effect<void> =>
  Effect.callback<void>((resume) => group.stop(() => resume(Effect.void))).pipe(
    Effect.timeoutOrElse({
      duration: grace,
      orElse: () =>
        Effect.andThen(
          Effect.logWarning("A service process did not stop in time and is killed."),
          Effect.callback<void>((resume) => {
            group.stop(() => resume(Effect.void))
            group.kill()
          })
        )
    })
  )

/**
 * Starts the processes and keeps them running until the scope ends. Returns when all take requests; fails if one ends before
 * that.
 */
export const supervise = Effect.fnUntraced(function*(options: Options) {
  const clock = yield* Clock.Clock
  const scope = yield* Effect.scope
  const services = yield* Effect.context()
  const fork = (effect: Effect.Effect<void>) => void Effect.runForkWith(services)(Effect.forkIn(effect, scope))
  const group = new Group({ ...options, fork }, () => clock.currentTimeMillisUnsafe())
  yield* Effect.addFinalizer(() => stopAll(group, options.grace))
  const start = (index: number) =>
    Effect.andThen(Effect.forkScoped(keepRunning(group, index)), Deferred.await(group.listening.get(index)!))
  const bound = yield* start(first)
  const others = Array.from({ length: options.count - 1 }, (_, index) => first + 1 + index)
  yield* Effect.forEach(others, start, { concurrency: "unbounded", discard: true })
  return { bound, reload: group.reload }
})
