/**
 * The processes of a service that were started together, with one program and one configuration. There is one generation, and two
 * while `troupe deploy` replaces it.
 */
import { Deferred, Effect, Schema } from "effect"
import type { Server, Socket } from "node:net"
import type { Bound, Place, ReloadOutcome, ToProcess, ToSupervisor } from "../../services/processes/ProcessGroup.ts"
import { first } from "../../services/processes/Shares.ts"
import type { Options as ReloadOptions, ReloadError, Report, Source } from "../../services/settings/Reload.ts"
import { fixed } from "../../services/settings/Reload.ts"
import type { Resolved } from "../../services/settings/Settings.ts"
import { Crashes } from "./Crashes.ts"
import { GroupReload } from "./GroupReload.ts"
import type { LeaseTable, SharedState, Sharing } from "./SharedState.ts"
import type { Ending, ServiceProcess, Spawn } from "./Spawn.ts"

/** A process has ended. */
export class ProcessEnded extends Schema.TaggedError<ProcessEnded>()("ProcessEnded", {
  process: Schema.Int,
  code: Schema.NullOr(Schema.Int),
  signal: Schema.NullOr(Schema.String),
  uptimeMs: Schema.Finite,
  /** It, or one in its place before, has taken requests. */
  hasServed: Schema.Boolean,
  /** What it has reported, a sentence; left out, nothing. */
  reason: Schema.optionalKey(Schema.String),
  /** The requests that ran there by its last report; left out, it had not served. */
  requests: Schema.optionalKey(Schema.Int)
}) {
  override get message(): string {
    const how = this.signal === null ? `ended with exit code ${this.code}` : `was ended by ${this.signal}`
    const why = this.reason === undefined ? "." : `: ${this.reason}`
    return `Service process ${this.process} ${how}${why}${lostText(this.requests)}`
  }
}

/** A sentence after a space. */
const lostText = (requests: number | undefined): string => {
  if (requests === undefined) return ""
  const what = requests === 1 ? "1 request" : `${requests === 0 ? "No" : requests} requests`
  return ` ${what} ran there by its last report.`
}

/** Where the configuration of all processes is read again. */
export interface Configuration {
  readonly source: Source
  readonly settings: Resolved
}

export interface Options {
  readonly place: Omit<Place, "index">
  readonly spawn: Spawn
  readonly leases: LeaseTable
  /** The seats of its processes begin after it. */
  readonly seatsAfter: number
  /** Left out, the configuration stays as it is. */
  readonly reload?: Configuration | undefined
  /** Runs until the supervisor ends. */
  readonly fork: (effect: Effect.Effect<void>) => void
}

type Asking = Extract<ToProcess, { readonly type: "count" | "drain" | "lead" | "release" }>
type Answer = Extract<ToSupervisor, { readonly type: "drained" | "leads" | "released" | "tally" }>

/** Which answer a question has. */
const answerOf = { count: "tally", drain: "drained", lead: "leads", release: "released" } as const

/** A question to several processes. */
interface Question {
  readonly type: Answer["type"]
  /** The processes that have not answered. */
  readonly waiting: Set<number>
  readonly answers: Array<Answer>
  readonly onEnd: () => void
}

export class Generation {
  readonly #options: Options
  readonly #shared: SharedState
  readonly #running = new Map<number, ServiceProcess>()
  /** The number of the start of each. */
  readonly #starts = new Map<number, number>()
  #started = 0
  readonly reload: GroupReload | undefined
  /** The reasons of processes that have reported why they end, by their index. */
  readonly #reasons = new Map<number, string>()
  /** Those that take requests now. */
  readonly #ready = new Set<number>()
  readonly #served = new Set<number>()
  /** The requests that run in each, by its last report. */
  readonly #requests = new Map<number, number>()
  readonly #questions = new Set<Question>()
  readonly #crashes: Crashes
  readonly listening: ReadonlyMap<number, Deferred.Deferred<Bound, ProcessEnded>>
  #place: Omit<Place, "index">
  #endings = 0
  /** The turn of the process that gets the next connection. */
  #turn = 0
  /** Takes the sockets that the processes release. */
  onSocket: (socket: Server) => void = () => {}
  /** Reads the configuration of the service again for one of its processes. */
  onReload: (options: ReloadOptions) => Effect.Effect<Report, ReloadError> = (options) =>
    (this.reload ?? fixed).run(options)
  /** Called when the last process has ended. */
  #onEmpty: (() => void) | undefined

  constructor(options: Options, shared: SharedState) {
    this.#options = options
    this.#shared = shared
    this.#place = options.place
    this.#crashes = new Crashes(
      options.place.count,
      (index, news) => shared.inform(options.seatsAfter + index, news)
    )
    this.reload = options.reload && new GroupReload(options.reload.source, options.reload.settings, {
      running: () => new Map(Array.from(this.#running, ([index, { send }]) => [this.#starts.get(index)!, send])),
      isEnding: () => this.isStopping,
      isStarting: () => this.#ready.size < this.#running.size,
      adopt: (start, limits) => {
        this.#place = { ...this.#place, ...start }
        shared.resize(options.leases, limits, options.place.count)
      }
    })
    this.listening = new Map(
      Array.from({ length: options.place.count }, (_, index) => [index + 1, Deferred.makeUnsafe()])
    )
  }

  get place(): Omit<Place, "index"> {
    return this.#place
  }

  get isStopping(): boolean {
    return this.#onEmpty !== undefined
  }

  /** How many of its processes have ended. */
  get endings(): number {
    return this.#endings
  }

  /** Where the processes that start from now on get their connections. */
  setBeside(isBeside: boolean): void {
    this.#place = { ...this.#place, isBeside }
  }

  /** Starts a process; the callback gets its end. */
  start(index: number, startedAt: number, now: () => number, ended: (error: ProcessEnded) => void): void {
    const seat = this.#options.seatsAfter + index
    const started = this.#options.spawn({
      onMessage: (message, handle) => {
        if (this.#running.get(index) !== started) return
        if (message.type === "failed") this.#reasons.set(index, message.reason)
        else if (message.type === "running") this.#requests.set(index, message.count)
        else this.#receive(index, message, handle)
      },
      onEnd: (ending) => ended(this.#leave(index, ending, now() - startedAt, now()))
    })
    this.#running.set(index, started)
    this.#starts.set(index, ++this.#started)
    started.send({ type: "start", place: { ...this.#place, index } })
    this.#shared.join(seat, started, this.#options.leases)
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

  /** Sends a message to every process, or to one, and waits for the answers; a process that ends has none. */
  ask(message: Asking, only?: number): Effect.Effect<ReadonlyArray<Answer>> {
    return Effect.callback((resume) => {
      const asked = [...this.#ready].filter((index) => only === undefined || index === only)
      const answers: Array<Answer> = []
      const question: Question = {
        type: answerOf[message.type],
        waiting: new Set(asked),
        answers,
        onEnd: () => resume(Effect.succeed(answers))
      }
      if (asked.length === 0) return question.onEnd()
      this.#questions.add(question)
      for (const index of asked) this.#running.get(index)?.send(message)
      return Effect.sync(() => void this.#questions.delete(question))
    })
  }

  /** Passes a connection to the next process; false if there is none. */
  give(connection: Socket): boolean {
    const ready = this.#connected()
    if (ready.length === 0) return false
    ready[this.#turn++ % ready.length]!.send({ type: "connection" }, connection)
    return true
  }

  /** Passes listening sockets to its processes in turn; `onSent` is called for each. False if no process runs. */
  giveSockets(sockets: ReadonlyArray<Server>, onSent: (socket: Server) => void): boolean {
    const ready = this.#connected()
    if (ready.length === 0) return false
    for (const [index, socket] of sockets.entries()) {
      ready[index % ready.length]!.send({ type: "socket" }, socket, () => onSent(socket))
    }
    return true
  }

  #connected(): ReadonlyArray<ServiceProcess> {
    return [...this.#ready].map((index) => this.#running.get(index)!).filter(({ isConnected }) => isConnected)
  }

  #leave(index: number, ending: Ending, uptimeMs: number, at: number): ProcessEnded {
    this.#running.delete(index)
    this.#ready.delete(index)
    if (!this.isStopping) this.#endings++
    this.#shared.leave(this.#options.seatsAfter + index)
    this.reload?.leave()
    for (const question of this.#questions) this.#settle(question, index)
    if (this.#running.size === 0) this.#onEmpty?.()
    const reason = this.#reasons.get(index)
    this.#reasons.delete(index)
    const error = new ProcessEnded({
      ...ending,
      process: index,
      uptimeMs,
      hasServed: this.#served.has(index),
      ...(reason === undefined ? {} : { reason }),
      ...this.#endedWith(index)
    })
    Deferred.doneUnsafe(this.listening.get(index)!, Effect.fail(error))
    if (error.hasServed && !this.isStopping) {
      this.#crashes.report({ process: index, message: error.message, at }, this.#ready)
    }
    return error
  }

  /** What it ran when it ended, if it has taken requests. */
  #endedWith(index: number): { readonly requests?: number } {
    const requests = this.#requests.get(index) ?? 0
    this.#requests.delete(index)
    return this.#served.has(index) ? { requests } : {}
  }

  #receive(
    index: number,
    message: Exclude<ToSupervisor, { readonly type: "failed" | "running" }>,
    handle: unknown
  ): void {
    switch (message.type) {
      case "listening":
        return this.#note(index, message.bound)
      case "socket":
        return this.onSocket(handle as Server)
      case "drained":
      case "leads":
      case "released":
      case "tally":
        return this.#answer(index, message)
      case "ready":
        return this.reload?.receive(this.#starts.get(index)!, message)
      case "reload":
        return this.#reloadFor(index, message.dryRun)
      default:
        return this.#share(index, message)
    }
  }

  /** Reads the configuration again for a process, and answers it, unless it has ended: another one may have its place. */
  #reloadFor(index: number, dryRun: boolean): void {
    const process = this.#running.get(index)
    const answer = (outcome: ReloadOutcome) => {
      if (this.#running.get(index) === process) process?.send({ type: "reloaded", outcome })
    }
    this.#options.fork(Effect.match(this.onReload({ dryRun, trigger: "admin" }), {
      onSuccess: (report) => answer({ report }),
      onFailure: ({ message, problems }) => answer({ message, problems })
    }))
  }

  #share(index: number, message: Sharing): void {
    this.#shared.receive(this.#options.seatsAfter + index, message)
  }

  #answer(index: number, answer: Answer): void {
    for (const question of this.#questions) {
      if (question.type !== answer.type || !question.waiting.has(index)) continue
      question.answers.push(answer)
      return this.#settle(question, index)
    }
  }

  /** A process has answered, or has ended. */
  #settle(question: Question, index: number): void {
    question.waiting.delete(index)
    if (question.waiting.size > 0 || !this.#questions.delete(question)) return
    question.onEnd()
  }

  #note(index: number, bound: Bound): void {
    const { admin, port } = bound
    this.#served.add(index)
    this.#ready.add(index)
    this.#crashes.ready(index)
    const adminPort = index === first && admin.url !== undefined ? Number(new URL(admin.url).port) : undefined
    this.#place = { ...this.#place, port, ...(adminPort === undefined ? {} : { adminPort }) }
    Deferred.doneUnsafe(this.listening.get(index)!, Effect.succeed(bound))
    this.reload?.note()
  }
}
