/** Which processes get another configuration, while one generation of scripted processes replaces another. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Duration, Effect, Exit, Fiber, Redacted, Scope } from "effect"
import { TestClock } from "effect/testing"
import { mkdirSync, rmSync } from "node:fs"
import { createServer } from "node:http"
import { tmpdir } from "node:os"
import { dirname } from "node:path"
import type { Progress } from "../../../src/layers/processes/Deploy.ts"
import { Deployment } from "../../../src/layers/processes/Deploy.ts"
import type { Spawn } from "../../../src/layers/processes/Spawn.ts"
import { supervise } from "../../../src/layers/processes/Supervisor.ts"
import type {
  Bound,
  Place,
  ReloadOutcome,
  ToProcess,
  ToSupervisor
} from "../../../src/services/processes/ProcessGroup.ts"
import { socketOf } from "../../../src/services/processes/ProcessGroup.ts"
import type { Source } from "../../../src/services/settings/Reload.ts"
import { defaultSocket } from "../../../src/services/settings/Resolution.ts"
import { SettingsError } from "../../../src/services/settings/Settings.ts"
import { deployment, settings } from "../../support/Deployments.ts"

/** No service has this port: its socket files are those of this test. */
const port = 1 + (process.pid % 1023)

const bound: Bound = { bound: `http://127.0.0.1:${port}`, port, admin: {}, hasKeys: false }

/** The settings of a text: the model that it names. */
const resolve: Source["resolve"] = (text) =>
  text === undefined || text === "wrong"
    ? Effect.fail(new SettingsError({ source: "troupe.yaml", problems: [] }))
    : Effect.succeed(settings({
      models: [{
        name: "chat",
        deployments: [
          deployment("chat#0", {
            options: { engine: "remote", provider: "openai", model: text, key: Redacted.make("k") }
          })
        ]
      }]
    }))

const steps = { shares: [1], stepMs: 1000, maxErrorRate: 1, minFailures: 1 }

/** Until every fiber waits. */
const settled = Effect.replicateEffect(Effect.promise(() => new Promise(setImmediate)), 20, { discard: true })

/** The answers to questions about which a process does nothing more. */
const simple = {
  release: { type: "released" },
  drain: { type: "drained" },
  lead: { type: "leads" },
  count: { type: "tally", tally: { answers: 0, failures: 0 } }
} as const

/** A process that does what it is asked for, and has the configuration of a text. */
class Scripted {
  readonly #onMessage: Parameters<Spawn>[0]["onMessage"]
  readonly #onEnd: () => void
  configuration: string | undefined
  #prepared: string | undefined
  readonly #http = createServer((_, response) => response.end())
  #answer: ((outcome: ReloadOutcome) => void) | undefined

  constructor(onMessage: Parameters<Spawn>[0]["onMessage"], onEnd: () => void) {
    this.#onMessage = onMessage
    this.#onEnd = onEnd
  }

  receive(message: ToProcess): void {
    switch (message.type) {
      case "start":
        return this.#start(message.place)
      case "prepare":
        this.#prepared = message.configuration
        return this.#send({ type: "ready", question: message.question })
      case "decide":
        if (message.applies) this.configuration = this.#prepared
        return this.#send({ type: "ready", question: message.question })
      case "reloaded":
        return this.#answer?.(message.outcome)
      default:
        if (message.type in simple) this.#send(simple[message.type as keyof typeof simple])
    }
  }

  /** Asks for a reload, as its administration does. */
  reload(): Promise<ReloadOutcome> {
    return new Promise((answer) => {
      this.#answer = answer
      this.#onMessage({ type: "reload", dryRun: false })
    })
  }

  end(): void {
    this.#http.closeAllConnections()
    this.#http.close(this.#onEnd)
  }

  #start(place: Place): void {
    this.configuration = place.configuration
    const socket = socketOf(defaultSocket(port, tmpdir(), process), place)
    mkdirSync(dirname(socket), { recursive: true, mode: 0o700 })
    rmSync(socket, { force: true })
    this.#http.listen(socket, () => this.#onMessage({ type: "listening", bound }))
  }

  #send(message: ToSupervisor): void {
    queueMicrotask(() => this.#onMessage(message))
  }
}

/** A supervised service of scripted processes, until the scope ends. */
const start = Effect.fnUntraced(function*(count: number) {
  const running = new Set<Scripted>()
  let text = "one"
  const source: Source = { read: Effect.sync(() => text), resolve }
  const options = Effect.map(Effect.orDie(Effect.suspend(() => resolve(text))), (settings) => ({
    count,
    configuration: text,
    limits: new Map<string, number>(),
    reload: { source, settings },
    grace: Duration.seconds(30)
  }))
  const spawn: Spawn = ({ onEnd, onMessage }) => {
    const scripted = new Scripted(onMessage, () => {
      running.delete(scripted)
      onEnd({ code: 0, signal: null })
    })
    running.add(scripted)
    return {
      pid: 1,
      isConnected: true,
      send: (message, _, onSent = () => {}) => {
        scripted.receive(message)
        onSent()
      },
      kill: () => scripted.end()
    }
  }
  const service = new Deployment(yield* supervise({ ...(yield* options), spawn, port }))
  const next = Effect.map(options, (options) => ({ options, steps }))
  // As `troupe serve` makes them, once.
  const by = { file: service.reload("file"), signal: service.reload("signal") }
  const configurations = () => Array.from(running, ({ configuration }) => configuration)
  const edit = (next: string) => {
    text = next
  }
  const moving = (isRolledBack: boolean, during: Effect.Effect<void>) =>
    Effect.gen(function*() {
      const isMoving = yield* Deferred.make<void>()
      const onProgress = ({ phase }: Progress) => {
        if (phase === "moving") Deferred.doneUnsafe(isMoving, Effect.void)
      }
      const deploying = yield* Effect.forkScoped(Effect.exit(service.run(next, onProgress)))
      yield* Deferred.await(isMoving)
      yield* during
      if (isRolledBack) assert.isTrue(service.abort())
      yield* settled
      yield* TestClock.adjust("1 second")
      assert.strictEqual(Exit.isSuccess(yield* Fiber.join(deploying)), !isRolledBack)
      yield* settled
    })
  return {
    by,
    configurations,
    edit,
    /** The answers of all processes that run to an operator's request. */
    outcomes: () => Effect.promise(() => Promise.all(Array.from(running, (process) => process.reload()))),
    /** Calls `during` while the new generation has its share. */
    deploy: (during: Effect.Effect<void>) => moving(false, during),
    rollBack: (during: Effect.Effect<void>) => moving(true, during),
    /** Each way to read an edited configuration again reaches every process. */
    check: Effect.fnUntraced(function*(stage: string) {
      const admin = Effect.promise(() => [...running].at(-1)!.reload())
      for (const [trigger, reload] of Object.entries({ ...by, admin })) {
        edit(`${stage} ${trigger}`)
        yield* reload
        assert.deepStrictEqual(configurations(), Array.from({ length: count }, () => `${stage} ${trigger}`))
      }
    })
  }
})

describe("another configuration", () => {
  for (const count of [1, 2]) {
    it.effect(`reaches the generation that has the port, with ${count} of its processes`, () =>
      Effect.gen(function*() {
        const { check, deploy, rollBack } = yield* start(count)
        yield* check("started")
        yield* rollBack(Effect.void)
        yield* check("rolled back")
        yield* deploy(Effect.void)
        yield* check("deployed")
        yield* rollBack(Effect.void)
        yield* check("rolled back again")
        yield* deploy(Effect.void)
        yield* check("deployed again")
      }).pipe(Effect.scoped))
  }

  it.effect("waits for the end of a deploy; an operator's request is refused", () =>
    Effect.gen(function*() {
      const { by, configurations, deploy, edit, outcomes, rollBack } = yield* start(1)
      const during = (text: string) =>
        Effect.gen(function*() {
          const before = configurations()
          edit(text)
          for (const reload of [by.file, by.signal]) yield* Effect.forkScoped(reload)
          const answers = yield* outcomes()
          assert.lengthOf(answers, 2)
          for (const { message } of answers as ReadonlyArray<ReloadOutcome & { readonly message?: string }>) {
            assert.match(
              message!,
              /^A deploy is running.*Try again when it has ended.*\nThe configuration in use stays\.$/
            )
          }
          assert.deepStrictEqual(configurations(), before)
        })
      const scope = yield* Effect.scope
      const inScope = (text: string) => Effect.provideService(during(text), Scope.Scope, scope)
      yield* deploy(inScope("two"))
      assert.deepStrictEqual(configurations(), ["two"])
      yield* rollBack(inScope("three"))
      assert.deepStrictEqual(configurations(), ["three"])
    }).pipe(Effect.scoped))
})
