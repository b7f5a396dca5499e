/** Real engines that crash, hang or fail to load, behind their actors. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Duration, Effect, Fiber, Layer, Stream } from "effect"
import { TestClock } from "effect/testing"
import type { ChildProcess } from "node:child_process"
import { subscribe, unsubscribe } from "node:diagnostics_channel"
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as delay } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { vi } from "vitest"
import * as Defaults from "../../../src/domain/Defaults.ts"
import type { Deployment, DeploymentOptions } from "../../../src/domain/Deployment.ts"
import type { Generation } from "../../../src/domain/Generation.ts"
import type { Event } from "../../../src/domain/Inference.ts"
import * as EnginesLayer from "../../../src/layers/engines/Engines.ts"
import type * as HangDetector from "../../../src/layers/engines/HangDetector.ts"
import { Engines } from "../../../src/services/engines/Engine.ts"
import type { Options } from "../../../src/services/engines/EngineKinds.ts"
import { layerUnbounded, Models } from "../../../src/services/models/Models.ts"
import * as Deployments from "../../support/Deployments.ts"
import * as Service from "../../support/Service.ts"

/** The tokens that have arrived from engines, and those that have been granted to them beyond their windows. */
const received = vi.hoisted(() => ({ tokens: 0, granted: 0 }))

vi.mock("../../../src/layers/engines/HangDetector.ts", async (original) => {
  const { watch } = await original<typeof HangDetector>()
  return {
    watch: ((host, stallAfter) =>
      watch({
        ...host,
        start(job, onEvents) {
          const send = host.start(job, (events) => {
            for (const event of events) if (event.type === "tokens") received.tokens += event.count
            onEvents(events)
          })
          return (command) => {
            if (command.type === "grant") received.granted += command.tokens
            send(command)
          }
        }
      }, stallAfter)) satisfies typeof watch
  }
})

const tinyChat = fileURLToPath(new URL("../../../models/tiny-chat-q8_0.gguf", import.meta.url))

const deployment = (options: DeploymentOptions, more: Partial<Deployment> = {}) =>
  Deployments.deployment("subject#0", { options, ...more })

const fake = (more: Partial<Extract<Options, { engine: "fake" }>> = {}): DeploymentOptions => ({
  engine: "fake",
  ...more
})

const llama: DeploymentOptions = { engine: "llama", file: tinyChat, threads: 1 }

const modelsIn = (where: "process" | "thread") =>
  Layer.provide(layerUnbounded, Layer.succeed(Engines, EnginesLayer.make(where)))

const ask = (content: string): Generation => ({
  messages: [{ role: "user", content }],
  sampling: { temperature: 0, topP: 1, seed: 1 },
  maxTokens: undefined,
  stop: []
})

/** The answer's text; `onEvent` gets each event. */
const answer = (chosen: Deployment, content: string, onEvent: (event: Event) => void = () => {}) =>
  Models.use(({ lease }) =>
    Effect.scoped(Effect.flatMap(lease(chosen, {}), (engine) =>
      Stream.runFold(
        Stream.tap(engine.generate(ask(content)), (event) => Effect.sync(() => onEvent(event))),
        () => "",
        (text: string, event) => event.type === "text" ? text + event.text : text
      )))
  )

/** The engine processes that this process has started. */
const processes: Array<ChildProcess> = []
subscribe("child_process", (message) => processes.push((message as { readonly process: ChildProcess }).process))

const alive = ({ exitCode, signalCode }: ChildProcess) => exitCode === null && signalCode === null

const running = () => processes.filter(alive)

const until = (condition: () => boolean) => Effect.promise(() => Service.until(() => condition() || undefined))

const turn = Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))

const statusOf = (chosen: Deployment) => Models.use(({ status }) => status(chosen))

const untilRunning = (chosen: Deployment, count: number): Effect.Effect<void, never, Models> =>
  Effect.flatMap(
    statusOf(chosen),
    (status) => status.running === count ? Effect.void : Effect.andThen(turn, untilRunning(chosen, count))
  )

/** The engine process, killed as soon as it has started. */
const killed = Effect.callback<ChildProcess>((resume) => {
  const onStart = (message: unknown) => {
    const { process: child } = message as { readonly process: ChildProcess }
    unsubscribe("child_process", onStart)
    child.once("spawn", () => {
      child.kill("SIGKILL")
      resume(Effect.succeed(child))
    })
  }
  subscribe("child_process", onStart)
})

/** Steps the clock until the fiber has ended; engines work in real time between two steps. */
const stepUntilEnd = <A, E>(fiber: Fiber.Fiber<A, E>, step: Duration.Input): Effect.Effect<A, E> =>
  Effect.suspend(() =>
    fiber.pollUnsafe() === undefined
      ? Effect.andThen(
        TestClock.adjust(step),
        Effect.andThen(Effect.promise(() => delay(2)), stepUntilEnd(fiber, step))
      )
      : Fiber.join(fiber)
  )

interface Case {
  readonly name: string
  readonly options: DeploymentOptions
  readonly prompt: string
  readonly answer: string | undefined
}

/** More tokens than an engine computes ahead of its consumer: no answer is complete at its first event. */
const long = "one two three ".repeat(Defaults.streamWindow / 4)

const cases: ReadonlyArray<Case> = [
  {
    name: "fake",
    options: fake({ promptDelayMs: 300, tokenDelayMs: 1, reply: long }),
    prompt: "Hello",
    answer: long
  },
  { name: "llama", options: llama, prompt: "Write a story about a fox.", answer: undefined }
]

describe.each(cases)("an engine process that is killed ($name)", ({ answer: expected, options, prompt }) => {
  const chosen = deployment(options)
  const check = Effect.gen(function*() {
    const text = yield* answer(chosen, prompt)
    if (expected === undefined) assert.isAbove(text.length, 20)
    else assert.strictEqual(text, expected)
    yield* untilRunning(chosen, 0)
  })

  it.live("while it loads is restarted, and waiting requests are served", () =>
    Effect.gen(function*() {
      const dying = yield* Effect.forkChild(killed, { startImmediately: true })
      yield* check
      assert.isFalse(alive(yield* Fiber.join(dying)))
      assert.include((yield* statusOf(chosen)).lastFailure, "SIGKILL")
    }).pipe(Effect.provide(modelsIn("process"))))

  it.live("during a prompt fails its job with a typed error, and the next is served", () =>
    Effect.gen(function*() {
      yield* Models.use(({ load }) => load(chosen))
      const [child] = running()
      const failing = yield* Effect.forkChild(Effect.flip(answer(chosen, prompt)))
      yield* untilRunning(chosen, 1)
      // The job is sent at the end of a turn.
      yield* turn
      yield* turn
      child!.kill("SIGKILL")
      assert.strictEqual((yield* Fiber.join(failing)).reason._tag, "EngineCrashed")
      yield* check
    }).pipe(Effect.provide(modelsIn("process"))))

  it.live("in mid-stream fails its jobs with typed errors, and waiting requests are served", () =>
    Effect.gen(function*() {
      yield* Models.use(({ load }) => load(chosen))
      const [child] = running()
      const begun = yield* Deferred.make<void>()
      const failing = yield* Effect.forEach(
        [1, 2, 3, 4],
        () =>
          Effect.forkChild(Effect.flip(answer(chosen, prompt, () => {
            child!.kill("SIGKILL")
            Deferred.doneUnsafe(begun, Effect.void)
          })))
      )
      yield* Deferred.await(begun)
      const waiting = yield* Effect.forEach([1, 2], () => Effect.forkChild(check))
      for (const error of yield* Fiber.joinAll(failing)) assert.strictEqual(error.reason._tag, "EngineCrashed")
      yield* Fiber.joinAll(waiting)
    }).pipe(Effect.provide(modelsIn("process"))))
})

describe.each(["process", "thread"] as const)("an engine that hangs (%s)", (where) => {
  const stallAfter = Duration.hours(1)
  /** The clock may be stepped again before the hung job's end is seen, while the next engine loads or has no request. */
  const patient = { loadTimeout: Duration.days(1), idleUnload: Duration.days(1) }

  it.effect("is ended as hung, and another engine answers", () =>
    Effect.gen(function*() {
      const hanging = deployment(
        fake({ reply: "one two three", fault: { kind: "hang", afterTokens: 2, trigger: "hang" } }),
        { stallAfter, ...patient }
      )
      yield* Models.use(({ load }) => load(hanging))
      const before = running()
      const begun = yield* Deferred.make<void>()
      const failing = yield* Effect.forkChild(Effect.flip(answer(hanging, "hang", () => {
        Deferred.doneUnsafe(begun, Effect.void)
      })))
      yield* Deferred.await(begun)
      const error = yield* stepUntilEnd(failing, Duration.times(stallAfter, 1 / 4))
      assert.deepInclude(error.reason, { _tag: "EngineHung", afterMs: Duration.toMillis(stallAfter) })
      const next = yield* Effect.forkChild(answer(hanging, "Hello"))
      assert.strictEqual(yield* stepUntilEnd(next, "100 millis"), "one two three")
      if (where === "process") {
        assert.strictEqual(before.length, 1)
        yield* until(() => !alive(before[0]!))
      }
      assert.include((yield* statusOf(hanging)).lastFailure, "no progress")
    }).pipe(Effect.provide(modelsIn(where))))

  it.effect("also fails the other jobs of the engine", () =>
    Effect.gen(function*() {
      const two = deployment(
        fake({ reply: "one two three ".repeat(500), tokenDelayMs: 5, fault: { kind: "hang", trigger: "hang" } }),
        { stallAfter }
      )
      yield* Models.use(({ load }) => load(two))
      const failing = yield* Effect.forkChild(
        Effect.all([Effect.flip(answer(two, "Hello")), Effect.flip(answer(two, "hang"))], { concurrency: "unbounded" })
      )
      yield* untilRunning(two, 2)
      const errors = yield* stepUntilEnd(failing, Duration.times(stallAfter, 1 / 4))
      assert.deepStrictEqual(errors.map(({ reason }) => reason._tag), ["EngineHung", "EngineHung"])
    }).pipe(Effect.provide(modelsIn(where))))

  it.effect("does not count as hung while its consumer does not read", () =>
    Effect.gen(function*() {
      const chosen = deployment(fake({ reply: long.repeat(2) }), { stallAfter })
      yield* Models.use(({ load }) => load(chosen))
      received.tokens = 0
      received.granted = 0
      const begun = yield* Deferred.make<void>()
      const paused = yield* Deferred.make<void>()
      const reading = yield* Effect.forkChild(Models.use(({ lease }) =>
        Effect.scoped(Effect.flatMap(lease(chosen, {}), (engine) =>
          Stream.runCount(Stream.tap(
            engine.generate(ask("Hello")),
            () => Effect.andThen(Deferred.succeed(begun, undefined), Deferred.await(paused))
          ))))
      ))
      yield* Deferred.await(begun)
      yield* until(() =>
        received.tokens >= Defaults.streamWindow + received.granted
      )
      yield* TestClock.adjust(Duration.times(stallAfter, 3))
      yield* Deferred.succeed(paused, undefined)
      assert.isAbove(yield* Fiber.join(reading), 1)
      assert.isUndefined((yield* statusOf(chosen)).lastFailure)
    }).pipe(Effect.provide(modelsIn(where))))
})

describe("an engine in a process of its own", () => {
  it.live("has time for an orderly end: its process is not killed", () =>
    Effect.gen(function*() {
      const folder = yield* Effect.acquireRelease(
        Effect.sync(() => mkdtempSync(join(tmpdir(), "troupe-engine-"))),
        (path) => Effect.sync(() => rmSync(path, { recursive: true }))
      )
      const ended = join(folder, "ended")
      // Node runs this in the engine's process. A killed process writes nothing.
      const hook = `import { isMainThread } from "node:worker_threads"
        import { writeFileSync } from "node:fs"
        if (isMainThread) process.on("exit", (code) => writeFileSync(${JSON.stringify(ended)}, String(code)))`
      vi.stubEnv("NODE_OPTIONS", `--import=data:text/javascript,${encodeURIComponent(hook)}`)
      yield* Effect.addFinalizer(() => Effect.sync(() => vi.unstubAllEnvs()))
      yield* Effect.scoped(EnginesLayer.make("process").start(deployment(fake())))
      assert.strictEqual(readFileSync(ended, "utf8"), "0")
    }))

  it.live("loads llama.cpp itself, without a process that tests its binary first", () =>
    Effect.gen(function*() {
      const folder = yield* Effect.acquireRelease(
        Effect.sync(() => mkdtempSync(join(tmpdir(), "troupe-engine-"))),
        (path) => Effect.sync(() => rmSync(path, { recursive: true }))
      )
      // Node runs this in each process; its file has the name of the process.
      const hook = `import { writeFileSync } from "node:fs"
        writeFileSync(${JSON.stringify(folder)} + "/" + process.pid, "")`
      vi.stubEnv("NODE_OPTIONS", `--import=data:text/javascript,${encodeURIComponent(hook)}`)
      yield* Effect.addFinalizer(() => Effect.sync(() => vi.unstubAllEnvs()))
      yield* Effect.scoped(EnginesLayer.make("process").start(deployment(llama)))
      // Elsewhere the library decides.
      if (process.platform === "linux") assert.lengthOf(readdirSync(folder), 1)
    }))

  it.live("reports its memory, and continues after a caller cancels in mid-answer", () =>
    Effect.scoped(Effect.gen(function*() {
      const slow = deployment(fake({ tokenDelayMs: 2, reply: "one two three ".repeat(200) }))
      const engine = yield* EnginesLayer.make("process").start(slow)
      // The least and the most memory of a Node process.
      assert.isTrue((yield* engine.memoryBytes) > 20e6 && (yield* engine.memoryBytes) < 2e9)
      for (let time = 0; time < 3; time++) {
        let released = false
        const hold = () => () => {
          released = true
        }
        yield* Stream.runDrain(Stream.take(engine.generate(ask("Hello"), hold), 1))
        yield* until(() => released)
        assert.isFalse(engine.isOver?.())
      }
      assert.strictEqual((yield* Stream.runCollect(engine.generate(ask("Hello")))).at(-1)?.type, "finish")
    })))
})

describe.each(["process", "thread"] as const)("an engine whose load hangs (%s)", (where) => {
  it.effect("ends at the load timeout, and leaves no process", () =>
    Effect.gen(function*() {
      const slow = deployment(fake({ loadDelayMs: 2_000_000_000 }))
      const { loadTimeout } = slow
      const loading = yield* Effect.forkChild(Effect.flip(Models.use(({ load }) => load(slow))))
      yield* TestClock.adjust(Duration.toMillis(loadTimeout) - 1)
      assert.isUndefined(loading.pollUnsafe())
      yield* TestClock.adjust(1)
      // A thread is awaited, and then abandoned.
      if (where === "thread") yield* TestClock.adjust(Duration.times(Defaults.closeGrace, 2))
      const { reason } = yield* Fiber.join(loading)
      assert.deepInclude(reason, { _tag: "UpstreamTimeout", phase: "load", afterMs: Duration.toMillis(loadTimeout) })
      yield* until(() => running().length === 0)
    }).pipe(Effect.provide(modelsIn(where))))
})
