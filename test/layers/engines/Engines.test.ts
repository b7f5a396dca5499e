/** Real engines that crash, hang or fail to load, behind their actors. */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Fiber, Layer, Stream } from "effect"
import { TestClock } from "effect/testing"
import { execFileSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { vi } from "vitest"
import * as Defaults from "../../../src/domain/Defaults.ts"
import type { Deployment, DeploymentOptions } from "../../../src/domain/Deployment.ts"
import type { Generation } from "../../../src/domain/Generation.ts"
import type { Event } from "../../../src/domain/Inference.ts"
import * as EnginesLayer from "../../../src/layers/engines/Engines.ts"
import { Engines } from "../../../src/services/engines/Engine.ts"
import type { Options } from "../../../src/services/engines/EngineKinds.ts"
import { layerUnbounded, Models } from "../../../src/services/models/Models.ts"
import * as Deployments from "../../support/Deployments.ts"

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

/** The engine processes of this process. */
const children = (): ReadonlyArray<number> => {
  try {
    return execFileSync("pgrep", ["-P", String(process.pid), "-f", "host.ts"], { encoding: "utf8" })
      .trim().split("\n").map(Number)
  } catch {
    return []
  }
}

const until = (condition: () => boolean): Effect.Effect<void> =>
  Effect.suspend(() => condition() ? Effect.void : Effect.andThen(Effect.sleep(2), until(condition)))

const idle = (chosen: Deployment): Effect.Effect<void, never, Models> =>
  Effect.flatMap(
    Models.use(({ status }) => status(chosen)),
    ({ running }) => running === 0 ? Effect.void : Effect.andThen(Effect.sleep(2), idle(chosen))
  )

const kill = Effect.andThen(
  until(() => children().length === 1),
  Effect.sync(() => {
    const [child] = children()
    process.kill(child!, "SIGKILL")
    return child!
  })
)

const alive = (pid: number) => children().includes(pid)

interface Case {
  readonly name: string
  readonly options: DeploymentOptions
  /** Loads long enough to be killed during the load. */
  readonly prompt: string
  readonly answer: string | undefined
}

const cases: ReadonlyArray<Case> = [
  {
    name: "fake",
    options: fake({ loadDelayMs: 300, promptDelayMs: 300, tokenDelayMs: 5, reply: "one two three ".repeat(50) }),
    prompt: "Hello",
    answer: "one two three ".repeat(50)
  },
  { name: "llama", options: llama, prompt: "Write a story about a fox.", answer: undefined }
]

describe.each(cases)("an engine process that is killed ($name)", ({ answer: expected, options, prompt }) => {
  const chosen = deployment(options)
  const check = Effect.gen(function*() {
    const text = yield* answer(chosen, prompt)
    if (expected === undefined) assert.isAbove(text.length, 20)
    else assert.strictEqual(text, expected)
    yield* idle(chosen)
  })

  it.live("while it loads is restarted, and waiting requests are served", () =>
    Effect.gen(function*() {
      const waiting = yield* Effect.forkChild(check)
      const killed = yield* kill
      yield* Fiber.join(waiting)
      assert.isFalse(alive(killed))
      assert.include((yield* Models.use(({ status }) => status(chosen))).lastFailure, "SIGKILL")
    }).pipe(Effect.provide(modelsIn("process"))))

  it.live("during a prompt fails its job with a typed error, and the next is served", () =>
    Effect.gen(function*() {
      yield* Models.use(({ load }) => load(chosen))
      const failing = yield* Effect.forkChild(Effect.flip(answer(chosen, prompt)))
      yield* Effect.yieldNow
      yield* kill
      assert.strictEqual((yield* Fiber.join(failing)).reason._tag, "EngineCrashed")
      yield* check
    }).pipe(Effect.provide(modelsIn("process"))))

  it.live("in mid-stream fails its jobs with typed errors, and waiting requests are served", () =>
    Effect.gen(function*() {
      yield* Models.use(({ load }) => load(chosen))
      let first = false
      const failing = yield* Effect.forEach(
        [1, 2, 3, 4],
        () =>
          Effect.forkChild(Effect.flip(answer(chosen, prompt, () => {
            if (first) {
              return
            }
            first = true
            process.kill(children()[0]!, "SIGKILL")
          })))
      )
      yield* until(() => first || failing.some((fiber) => fiber.pollUnsafe() !== undefined))
      const waiting = yield* Effect.forEach([1, 2], () => Effect.forkChild(check))
      for (const error of yield* Fiber.joinAll(failing)) assert.strictEqual(error.reason._tag, "EngineCrashed")
      yield* Fiber.joinAll(waiting)
    }).pipe(Effect.provide(modelsIn("process"))))
})

describe.each(["process", "thread"] as const)("an engine that hangs (%s)", (where) => {
  const hanging = deployment(
    fake({ reply: "one two three", fault: { kind: "hang", afterTokens: 2, trigger: "hang" } }),
    // Long enough for a busy machine to answer in.
    { stallAfter: Duration.seconds(2) }
  )

  it.live("is ended as hung, and another engine answers", () =>
    Effect.gen(function*() {
      yield* Models.use(({ load }) => load(hanging))
      const before = children()
      const error = yield* Effect.flip(answer(hanging, "hang"))
      assert.deepInclude(error.reason, { _tag: "EngineHung", afterMs: 2_000 })
      assert.strictEqual(yield* answer(hanging, "Hello"), "one two three")
      if (where === "process") {
        assert.strictEqual(before.length, 1)
        yield* until(() => !alive(before[0]!))
      }
      assert.include((yield* Models.use(({ status }) => status(hanging))).lastFailure, "no progress")
    }).pipe(Effect.provide(modelsIn(where))))

  it.live("also fails the other jobs of the engine", () =>
    Effect.gen(function*() {
      const two = deployment(
        fake({ reply: "one two three ".repeat(500), tokenDelayMs: 5, fault: { kind: "hang", trigger: "hang" } }),
        { stallAfter: Duration.seconds(1) }
      )
      yield* Models.use(({ load }) => load(two))
      const errors = yield* Effect.all([Effect.flip(answer(two, "Hello")), Effect.flip(answer(two, "hang"))], {
        concurrency: "unbounded"
      })
      assert.deepStrictEqual(errors.map(({ reason }) => reason._tag), ["EngineHung", "EngineHung"])
    }).pipe(Effect.provide(modelsIn(where))))

  it.live("does not count as hung while its consumer does not read", () =>
    Effect.gen(function*() {
      const long = deployment(fake({ reply: "one two three ".repeat(200) }), { stallAfter: Duration.seconds(1) })
      let heard = 0
      const reading = Models.use(({ lease }) =>
        Effect.scoped(Effect.flatMap(lease(long, {}), (engine) =>
          Stream.runForEach(engine.generate(ask("Hello")), () =>
            // It pauses reading once, for longer than the hang limit.
            heard++ === 0
              ? Effect.sleep("2 seconds")
              : Effect.void)))
      )
      yield* reading
      assert.isAbove(heard, 1)
      assert.isUndefined(
        (yield* Models.use(({ status }) => status(long))).lastFailure
      )
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
      assert.deepStrictEqual(children(), [])
    }).pipe(Effect.provide(modelsIn(where))))
})
