/**
 * The other processes of the service, over HTTP: each listens at a socket file that only this user may open, for requests that
 * another process has accepted.
 *
 * **Details**
 *
 * The kernel gives a connection to any process. Requests that can reach a local model are passed to the first process, which
 * has all local models; so are requests to administration, metrics and readiness, which it answers for the whole service. An
 * answer is passed on as it arrives. A caller that disconnects ends the request in both processes.
 *
 * **Gotchas**
 *
 * The file is in the folder of the administration socket. Who may open it may administer, and names the callers' addresses.
 */
import { toServerResponse } from "@effect/platform-node/NodeHttpServerRequest"
import { Context, Duration, Effect, PubSub, Schedule, Stream } from "effect"
import type { HttpServerRequest } from "effect/http"
import { HttpServerResponse } from "effect/http"
import type { RequestOptions, ServerResponse } from "node:http"
import { Agent, request as httpRequest } from "node:http"
import { tmpdir } from "node:os"
import { pipeline } from "node:stream"
import { isObject } from "../../dialects/shared/Json.ts"
import * as InferenceError from "../../domain/InferenceError.ts"
import type { ActorEvent } from "../../services/models/Actor.ts"
import type { Member } from "../../services/processes/ProcessGroup.ts"
import { heldSocketOf, socketOf } from "../../services/processes/ProcessGroup.ts"
import { first, makeIsOfFirst } from "../../services/processes/Shares.ts"
import { defaultSocket } from "../../services/settings/Resolution.ts"
import type { Resolved } from "../../services/settings/Settings.ts"
import { originOf } from "./AdminListener.ts"

/** The header with the address of the caller, from the process that accepted the request. */
export const addressHeader = "x-troupe-caller-address"

/** How long a process may take to answer a question of administration, ms. */
const answerWithin = 5_000

/** A process that has ended is asked for its events again after this time. */
const readAgainAfter = Duration.seconds(1)

/** Headers that belong to one connection, or that this process sets itself. RFC 9110, section 7.6.1. */
const ofConnection = new Set(["connection", "keep-alive", "transfer-encoding", "upgrade", "te", "trailer", "expect"])

const withoutConnection = <Value>(headers: Readonly<Record<string, Value>>): Record<string, Value> =>
  Object.fromEntries(Object.entries(headers).filter(([name]) => !ofConnection.has(name)))

/** Names of the models that a request may use, from its body and headers, which may both be invalid. */
const modelsIn = (json: unknown, headers: Readonly<Record<string, string | undefined>>): ReadonlyArray<unknown> => {
  if (!isObject(json)) return []
  const options = json["troupe"]
  const written = isObject(options) && Array.isArray(options["fallbacks"]) ? options["fallbacks"] as Array<unknown> : []
  const inHeader = headers["x-troupe-fallbacks"]?.split(",").map((name) => name.trim()) ?? []
  return [json["model"], ...written, ...inHeader]
}

/** What is known of a request that is passed on. */
export interface Passed {
  /** By which callers share a model fairly. */
  readonly address: string
  /** The body as it was read; undefined: it is still to be read. */
  readonly text: string | undefined
  /** Called where an answer has begun and has no end. */
  readonly onCut?: (error: InferenceError.InferenceError) => void
}

/** The other processes, as this one calls them. */
export class Peers {
  readonly #member: Member
  #isOfFirst: (model: string) => boolean
  // Connections stay open: a new one would cost as much as the request.
  readonly #agent = new Agent({ keepAlive: true })
  readonly #changes = Effect.runSync(PubSub.sliding<ActorEvent>(1_024))
  /** Of the models. */
  #port: number
  /** The requests that the first process has of this one. */
  #passing = 0
  #reported = 0

  constructor(member: Member, settings: Resolved) {
    this.#member = member
    this.#port = member.port
    this.#isOfFirst = makeIsOfFirst(settings.models)
    member.listen((message) => {
      if (message.type !== "news" || message.news.type !== "deployment") return
      PubSub.publishUnsafe(this.#changes, message.news.event)
    })
  }

  /** Another configuration applies. */
  follow({ models }: Resolved): void {
    this.#isOfFirst = makeIsOfFirst(models)
  }

  /** Changes of deployments in the other processes from now on. */
  get events(): Stream.Stream<ActorEvent> {
    return Stream.fromPubSub(this.#changes)
  }

  /** A deployment has changed in this process. */
  emit(event: ActorEvent): void {
    this.#member.send({ type: "news", news: { type: "deployment", event } })
  }

  /** Whether this process answers for the whole service. */
  get isFirst(): boolean {
    return this.#member.index === first
  }

  /**
   * Reports to the supervisor how many requests run here, which it says where this process crashes.
   *
   * @param answering the requests that this process answers itself
   */
  reportRunning(answering: number): void {
    const count = answering + this.#passing
    if (count === this.#reported) return
    this.#reported = count
    this.#member.send({ type: "running", count })
  }

  /** @param port that was bound for the models */
  boundTo(port: number): void {
    this.#port = port
  }

  socketOf(index: number): string {
    return socketOf(defaultSocket(this.#port, tmpdir(), process), { generation: this.#member.generation, index })
  }

  /** See `Handover`. */
  get heldSocket(): string {
    return heldSocketOf(defaultSocket(this.#port, tmpdir(), process), this.#member)
  }

  /** This process in its group. */
  get member(): Member {
    return this.#member
  }

  get ownSocket(): string {
    return this.socketOf(this.#member.index)
  }

  /** Whether the first process has to answer a request. */
  isForFirst(json: unknown, headers: Readonly<Record<string, string | undefined>>): boolean {
    return !this.isFirst && modelsIn(json, headers).some((name) => typeof name === "string" && this.#isOfFirst(name))
  }

  /** Whether a model is served by the first process only. */
  isOfFirst(model: string): boolean {
    return this.#isOfFirst(model)
  }

  /** Whether this process answers a request that concerns the whole service. */
  answersWhole({ source }: HttpServerRequest.HttpServerRequest): boolean {
    return this.isFirst || originOf(source) === "process"
  }

  /** As `pass`, for a request whose body nothing has read. */
  passRequest(request: HttpServerRequest.HttpServerRequest) {
    return this.pass(toServerResponse(request) as ServerResponse)
  }

  /** Passes a request to the first process, whose answer is written to this response. */
  pass(
    response: ServerResponse,
    { address, onCut, text: body }: Passed = { address: "", text: undefined }
  ): Effect.Effect<HttpServerResponse.HttpServerResponse, InferenceError.InferenceError> {
    const request = response.req
    const done = Effect.succeed(HttpServerResponse.empty())
    return Effect.callback((resume) => {
      this.#passing++
      response.once("close", () => void this.#passing--)
      const { "content-length": length, ...headers } = withoutConnection(request.headers)
      const size = body === undefined ? length : Buffer.byteLength(body)
      const passed = this.#request({
        method: request.method!,
        path: request.url!,
        headers: {
          ...headers,
          ...(size === undefined ? {} : { "content-length": String(size) }),
          [addressHeader]: address
        }
      }, first)
      passed.on("response", (answer) => {
        response.writeHead(answer.statusCode!, withoutConnection(answer.headers))
        pipeline(answer, response, () => {
          if (!answer.complete && answer.errored !== null) onCut?.(notAnswered())
          resume(done)
        })
      })
      passed.on("error", () => {
        if (!response.headersSent) return resume(Effect.fail(notAnswered()))
        response.destroy()
        resume(done)
      })
      if (body === undefined) pipeline(request, passed, () => {})
      else passed.end(body)
      return Effect.sync(() => void passed.destroy())
    })
  }

  /** Asks every other process; the answers of those that give one. */
  ask(method: "DELETE" | "GET" | "POST", path: string): Effect.Effect<ReadonlyArray<string>> {
    return Effect.map(
      Effect.forEach(this.#others, (index) => this.#askOne(index, method, path), { concurrency: "unbounded" }),
      (answers) => answers.filter((answer) => answer !== undefined)
    )
  }

  /** As `ask`, for answers of JSON. */
  askJson<A>(method: "DELETE" | "GET" | "POST", path: string): Effect.Effect<ReadonlyArray<A>> {
    return Effect.map(this.ask(method, path), (answers) => answers.map((text) => JSON.parse(text) as A))
  }

  /**
   * Reads the server-sent events of every other process at this path, again where a process has been started again. Ends with
   * the fiber.
   *
   * @param receive is called with each frame, with the empty line at its end; not with comments
   */
  watch(path: string, receive: (frame: string) => void): Effect.Effect<void> {
    return Effect.forEach(
      this.#others,
      (index) => Effect.repeat(this.#read(index, path, receive), Schedule.spaced(readAgainAfter)),
      { concurrency: "unbounded", discard: true }
    )
  }

  close(): void {
    this.#agent.destroy()
  }

  get #others(): ReadonlyArray<number> {
    const all = Array.from({ length: this.#member.count }, (_, index) => index + 1)
    return all.filter((index) => index !== this.#member.index)
  }

  /** Reads the events of one process until its response ends. */
  #read(index: number, path: string, receive: (frame: string) => void): Effect.Effect<void> {
    return Effect.callback<void>((resume) => {
      const question = this.#request({ method: "GET", path, headers: { host: "localhost" } }, index)
      const ended = () => resume(Effect.void)
      question.on("response", (answer) => {
        let rest = ""
        answer.setEncoding("utf8").on("data", (chunk: string) => {
          const frames = `${rest}${chunk}`.split("\n\n")
          rest = frames.pop()!
          if (answer.statusCode !== 200) return
          for (const frame of frames) if (!frame.startsWith(":")) receive(`${frame}\n\n`)
        })
        answer.on("end", ended).on("error", ended)
      })
      question.on("error", ended)
      question.end()
      return Effect.sync(() => void question.destroy())
    })
  }

  #request(options: RequestOptions, index: number) {
    return httpRequest({ ...options, socketPath: this.socketOf(index), agent: this.#agent })
  }

  #askOne(index: number, method: string, path: string): Effect.Effect<string | undefined> {
    return Effect.callback<string | undefined>((resume) => {
      const question = this.#request({ method, path, headers: { host: "localhost", "content-length": 0 } }, index)
      question.on("response", (answer) => {
        let text = ""
        answer.setEncoding("utf8").on("data", (chunk: string) => {
          text += chunk
        })
        answer.on("end", () => resume(Effect.succeed(answer.statusCode === 200 ? text : undefined)))
        answer.on("error", () => resume(Effect.undefined))
      })
      question.on("error", () => resume(Effect.undefined))
      question.end()
      return Effect.sync(() => void question.destroy())
    }).pipe(Effect.timeoutOrElse({ duration: answerWithin, orElse: () => Effect.undefined }))
  }
}

/** The first process has ended and is being started again. */
const notAnswered = () =>
  InferenceError.make(
    new InferenceError.EngineCrashed({
      deployment: "local",
      detail: "The process of this service that serves the local models has ended and starts again.",
      isService: true
    })
  )

/** The other processes of the service; undefined where there are none. */
export const PeerProcesses = Context.Reference<Peers | undefined>("troupe/layers/http/Peers", {
  defaultValue: () => undefined
})
