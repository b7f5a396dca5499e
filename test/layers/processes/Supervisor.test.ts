import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber, Redacted, Scope } from "effect"
import { TestClock } from "effect/testing"
import type { Configuration } from "../../../src/layers/processes/Generation.ts"
import type { Ending, Spawn } from "../../../src/layers/processes/Spawn.ts"
import { supervise } from "../../../src/layers/processes/Supervisor.ts"
import type { Place, ToProcess, ToSupervisor } from "../../../src/services/processes/ProcessGroup.ts"
import type { Source } from "../../../src/services/settings/Reload.ts"
import { SettingsError } from "../../../src/services/settings/Settings.ts"
import { deployment, settings } from "../../support/Deployments.ts"

/** A process of the test's script. */
interface Scripted {
  readonly received: Array<ToProcess>
  readonly signals: Array<string>
  readonly send: (message: ToSupervisor) => void
  readonly end: (ending?: Ending) => void
}

const crash: Ending = { code: null, signal: "SIGKILL" }

const setup = (
  more: { readonly limits?: ReadonlyMap<string, number>; readonly reload?: Configuration } = {}
) => {
  const processes: Array<Scripted> = []
  let isOver = false
  const over = () => {
    isOver = true
    for (const { end } of processes) end()
  }
  const spawn: Spawn = ({ onEnd, onMessage }) => {
    const received: Array<ToProcess> = []
    const signals: Array<string> = []
    let hasEnded = false
    const end = (ending: Ending = { code: 0, signal: null }) => {
      if (!hasEnded) onEnd(ending)
      hasEnded = true
    }
    processes.push({ received, signals, send: onMessage, end })
    return {
      pid: processes.length,
      isConnected: true,
      send: (message) => void received.push(message),
      kill: (signal) => {
        signals.push(signal)
        if (isOver) end()
      }
    }
  }
  const options = {
    count: 2,
    spawn,
    port: 0,
    configuration: "models: {}",
    limits: new Map<string, number>(),
    grace: Duration.seconds(30),
    ...more
  }
  return { over, processes, supervised: supervise(options) }
}

const admin = { socket: "admin.sock", url: "http://127.0.0.1:4000" }

/** Until every fiber waits. */
const settled = Effect.replicateEffect(Effect.yieldNow, 20, { discard: true })

/** A fiber that has started its first process. */
const fork = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.tap(Effect.forkScoped(effect), () => settled)

const bound = { bound: "http://127.0.0.1:3000", port: 3000, admin, hasKeys: false }

const listen = ({ send }: Scripted) => Effect.andThen(Effect.sync(() => send({ type: "listening", bound })), settled)

const placeOf = ({ received: [start] }: Scripted): Place => {
  assert(start?.type === "start")
  return start.place
}

/** Two processes that take requests. */
const started = Effect.fnUntraced(function*(more: Parameters<typeof setup>[0] = {}) {
  const { over, processes, supervised } = setup(more)
  const fiber = yield* fork(supervised)
  yield* listen(processes[0]!)
  yield* listen(processes[1]!)
  const { reload } = yield* Fiber.join(fiber)
  return { over, processes, reload }
})

/** Two processes that take requests, until the test ends. */
const running = (more?: Parameters<typeof setup>[0]) =>
  Effect.flatMap(
    started(more),
    ({ over, processes }) => Effect.as(Effect.addFinalizer(() => Effect.sync(over)), processes)
  )

describe("supervise", () => {
  it.effect("starts the first process alone, and the others on its port when it listens", () =>
    Effect.gen(function*() {
      const { processes, supervised } = setup()
      const fiber = yield* fork(supervised)
      assert.lengthOf(processes, 1)
      const place = {
        generation: 1,
        isBeside: false,
        index: 1,
        count: 2,
        since: 0,
        port: 0,
        configuration: "models: {}",
        numbering: []
      }
      assert.deepStrictEqual(placeOf(processes[0]!), place)
      yield* listen(processes[0]!)
      assert.lengthOf(processes, 2)
      assert.strictEqual(placeOf(processes[1]!).port, 3000)
      assert.strictEqual(placeOf(processes[1]!).index, 2)
      assert.isUndefined(fiber.pollUnsafe())
      yield* listen(processes[1]!)
      assert.deepStrictEqual((yield* Fiber.join(fiber)).bound, bound)
      for (const { end } of processes) end()
    }).pipe(Effect.scoped))

  it.effect("fails if a process ends before it has listened, and starts none again", () =>
    Effect.gen(function*() {
      const { processes, supervised } = setup()
      const fiber = yield* fork(Effect.flip(Effect.scoped(supervised)))
      processes[0]!.end({ code: 1, signal: null })
      const error = yield* Fiber.join(fiber)
      assert.strictEqual(error.message, "Service process 1 ended with exit code 1.")
      yield* TestClock.adjust("1 minute")
      assert.lengthOf(processes, 1)
    }))

  it.effect("fails with the reason that the process has sent", () =>
    Effect.gen(function*() {
      const { processes, supervised } = setup()
      const fiber = yield* fork(Effect.flip(Effect.scoped(supervised)))
      processes[0]!.send({ type: "failed", reason: "chat#0 needs 99 MiB of memory." })
      processes[0]!.end({ code: 1, signal: null })
      assert.strictEqual(
        (yield* Fiber.join(fiber)).message,
        "Service process 1 ended with exit code 1: chat#0 needs 99 MiB of memory."
      )
    }))

  it.effect("starts a crashed process again at its place, later each time, and at once after one that ran for long", () =>
    Effect.gen(function*() {
      const processes = yield* running()
      const endThenWait = Effect.fnUntraced(function*(ms: number) {
        const count = processes.length
        processes.at(-1)!.end(crash)
        yield* TestClock.adjust(ms - 1)
        assert.lengthOf(processes, count)
        yield* TestClock.adjust(1)
        assert.lengthOf(processes, count + 1)
        assert.strictEqual(placeOf(processes.at(-1)!).index, 2)
      })
      for (const ms of [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000]) yield* endThenWait(ms)
      yield* listen(processes.at(-1)!)
      yield* TestClock.adjust("10 minutes")
      const count = processes.length
      processes.at(-1)!.end(crash)
      yield* settled
      assert.lengthOf(processes, count + 1)
      yield* endThenWait(100)
    }).pipe(Effect.scoped))

  it.effect("tells a first process that starts again its port of administration", () =>
    Effect.gen(function*() {
      const processes = yield* running()
      processes[0]!.end(crash)
      yield* TestClock.adjust("1 second")
      assert.deepInclude(placeOf(processes[2]!), { index: 1, port: 3000, adminPort: 4000 })
    }).pipe(Effect.scoped))

  it.effect("says how many requests ran in a crashed process", () =>
    Effect.gen(function*() {
      const processes = yield* running()
      const words: Array<string> = []
      for (const counts of [[], [7, 1], [3]]) {
        const last = processes.at(-1)!
        for (const count of counts) last.send({ type: "running", count })
        last.end(crash)
        const news = processes[0]!.received.findLast((message) =>
          message.type === "news" && message.news.type === "event"
        )
        words.push(JSON.stringify(news))
        yield* TestClock.adjust("20 seconds")
        yield* listen(processes.at(-1)!)
      }
      const ran = ["No requests", "1 request", "3 requests"]
      for (const [index, text] of ran.entries()) {
        assert.include(words[index], `was ended by SIGKILL. ${text} ran there by its last report. Another one starts.`)
      }
    }).pipe(Effect.scoped))

  it.effect("gives the permits of a crashed process to the others", () =>
    Effect.gen(function*() {
      const [one, two] = yield* running({ limits: new Map([["a#0", 3]]) })
      const granted = ({ received }: Scripted) =>
        received.reduce((sum, message) => message.type === "grant" ? sum + message.count : sum, 0)
      one!.send({ type: "want", deployment: "a#0", count: 3 })
      assert.strictEqual(granted(one!), 2)
      assert.strictEqual(granted(two!), 1)
      one!.send({ type: "want", deployment: "a#0", count: 2 })
      two!.end(crash)
      assert.strictEqual(granted(one!), 3)
    }).pipe(Effect.scoped))

  it.effect("passes news to the other processes, and returns the probes of a process that ends", () =>
    Effect.gen(function*() {
      const [one, two] = yield* running()
      const event = { deployment: "a#0", state: "ready", at: 0 } as const
      two!.send({ type: "news", news: { type: "deployment", event } })
      assert.deepStrictEqual(one!.received.at(-1), { type: "news", news: { type: "deployment", event } })
      assert.lengthOf(two!.received, 1)
      const ask = () => {
        one!.send({ type: "probe", deployment: "a#0", most: 1 })
        return one!.received.at(-1)
      }
      two!.send({ type: "probe", deployment: "a#0", most: 1 })
      assert.deepStrictEqual(ask(), { type: "probe", isGranted: false })
      two!.end(crash)
      assert.deepStrictEqual(ask(), { type: "probe", isGranted: true })
    }).pipe(Effect.scoped))

  it.effect("ends all processes with its scope, waits for them, and starts none again", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const { processes } = yield* Effect.provideService(started(), Scope.Scope, scope)
      const closing = yield* fork(Scope.close(scope, Exit.void))
      assert.deepStrictEqual(processes.map(({ signals }) => signals), [["SIGTERM"], ["SIGTERM"]])
      processes[0]!.end()
      yield* settled
      assert.isUndefined(closing.pollUnsafe())
      processes[1]!.end()
      yield* Fiber.join(closing)
      yield* TestClock.adjust("1 minute")
      assert.lengthOf(processes, 2)
    }).pipe(Effect.scoped))

  it.effect("kills a process that does not end in time", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const { processes } = yield* Effect.provideService(started(), Scope.Scope, scope)
      const closing = yield* fork(Scope.close(scope, Exit.void))
      processes[0]!.end()
      yield* TestClock.adjust("29 seconds")
      assert.deepStrictEqual(processes[1]!.signals, ["SIGTERM"])
      yield* TestClock.adjust("1 second")
      assert.include(processes[1]!.signals, "SIGKILL")
      processes[1]!.end(crash)
      yield* Fiber.join(closing)
    }).pipe(Effect.scoped))
})

describe("supervise, another configuration", () => {
  const remote = (model: string, maxConcurrent: number) => ({
    name: "chat",
    deployments: [
      deployment("chat#0", {
        options: { engine: "remote", provider: "openai", model, key: Redacted.make("k"), maxConcurrent }
      })
    ] as const
  })

  const texts: Readonly<Record<string, ReturnType<typeof settings>>> = {
    first: settings({ models: [remote("one", 4)] }),
    second: settings({ models: [remote("two", 2)] }),
    moved: settings({
      models: [{
        name: "chat",
        deployments: [remote("new", 1).deployments[0], { ...remote("one", 4).deployments[0], id: "chat#1" }]
      }]
    })
  }

  const source: Source = {
    read: Effect.succeed("second"),
    resolve: (text = "") =>
      text in texts ? Effect.succeed(texts[text]!) : Effect.fail(new SettingsError({ source: text, problems: [] }))
  }

  const reloading = (given: Source = source) =>
    Effect.gen(function*() {
      const limits = new Map([["chat#0", 4]])
      const found = yield* started({ limits, reload: { source: given, settings: texts["first"]! } })
      yield* Effect.addFinalizer(() => Effect.sync(found.over))
      for (const { received } of found.processes) received.splice(0)
      return found
    })

  const typesOf = ({ received }: Scripted) => received.map(({ type }) => type)

  const questionOf = ({ received }: Scripted): number => {
    const asked = received.findLast(({ type }) => type === "prepare" || type === "decide")
    assert(asked !== undefined && "question" in asked)
    return asked.question
  }

  const ready = (process: Scripted, problem?: string) =>
    Effect.andThen(
      Effect.sync(() => process.send({ type: "ready", question: questionOf(process), problem })),
      settled
    )

  it.effect("applies in all processes when all are ready, with the shared limits", () =>
    Effect.gen(function*() {
      const { processes, reload } = yield* reloading()
      const [one, two] = [processes[0]!, processes[1]!]
      one.send({ type: "reload", dryRun: false })
      yield* settled
      assert.deepStrictEqual(one.received, [{
        type: "prepare",
        question: 1,
        configuration: "second",
        numbering: []
      }])
      yield* ready(one)
      assert.notInclude(typesOf(one), "decide")
      yield* ready(two)
      for (const process of [one, two]) {
        assert.isTrue(process.received.some((message) => message.type === "decide" && message.applies))
      }
      assert.deepInclude(one.received, { type: "recall", deployment: "chat#0", count: 2, must: true })
      yield* Effect.forEach([one, two], (process) => ready(process))
      const answer = one.received.at(-1)
      assert(answer?.type === "reloaded")
      assert.deepInclude(answer.outcome.report, { applied: true })
      assert.isDefined(reload)
      one.end(crash)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(placeOf(processes[2]!).configuration, "second")
    }).pipe(Effect.scoped))

  it.effect("starts a process again with the ids in use, which differ from those of the file", () =>
    Effect.gen(function*() {
      const { processes, reload } = yield* reloading({ ...source, read: Effect.succeed("moved") })
      const applied = yield* fork(reload!.run({ trigger: "file" }))
      for (let step = 0; step < 2; step++) yield* Effect.forEach(processes.slice(0, 2), (process) => ready(process))
      assert.deepInclude(yield* Fiber.join(applied), { applied: true })
      processes[1]!.end(crash)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(placeOf(processes[2]!).numbering, [["chat", ["chat#1", "chat#0"]]])
    }).pipe(Effect.scoped))

  it.effect("applies in none if one cannot, or ends", () =>
    Effect.gen(function*() {
      const { processes, reload } = yield* reloading()
      const [one, two] = [processes[0]!, processes[1]!]
      const failing = yield* fork(Effect.flip(reload!.run({ trigger: "signal" })))
      yield* ready(one)
      // As the processes send it.
      yield* ready(two, "No such file.\nThe configuration in use stays.")
      for (const process of [one, two]) {
        assert.isTrue(process.received.some((message) => message.type === "decide" && !message.applies))
      }
      yield* Effect.forEach([one, two], (process) => ready(process))
      assert.strictEqual((yield* Fiber.join(failing)).message, "No such file.\nThe configuration in use stays.")

      const ending = yield* fork(Effect.flip(reload!.run({ trigger: "signal" })))
      yield* ready(one)
      two.end(crash)
      yield* settled
      yield* ready(one)
      assert.include((yield* Fiber.join(ending)).message, "ended meanwhile")
      assert.deepStrictEqual(typesOf(one).filter((type) => type === "decide").length, 2)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(placeOf(processes[2]!).configuration, "models: {}")
    }).pipe(Effect.scoped))

  it.effect("waits for a process that starts, which would miss the question", () =>
    Effect.gen(function*() {
      const { processes, reload } = yield* reloading()
      const one = processes[0]!
      processes[1]!.end(crash)
      yield* TestClock.adjust("1 second")
      const again = processes[2]!
      // The other one has got news of the crash.
      assert.deepStrictEqual(typesOf(one).slice(-2), ["news", "news"])
      one.received.splice(0)
      again.received.splice(0)
      const running = yield* fork(reload!.run({ trigger: "file" }))
      assert.deepStrictEqual([typesOf(one), typesOf(again)], [[], []])
      yield* listen(again)
      for (let step = 0; step < 2; step++) yield* Effect.forEach([one, again], (process) => ready(process))
      assert.deepInclude(yield* Fiber.join(running), { applied: true })
    }).pipe(Effect.scoped))

  it.effect("is refused if a process does not start, or does not answer, and works later", () =>
    Effect.gen(function*() {
      const { processes, reload } = yield* reloading()
      const [one, two] = [processes[0]!, processes[1]!]
      const silent = yield* fork(Effect.flip(reload!.run({ trigger: "signal" })))
      yield* ready(one)
      const late = questionOf(two)
      yield* TestClock.adjust("1 minute")
      yield* ready(one)
      yield* TestClock.adjust("1 minute")
      assert.include((yield* Fiber.join(silent)).message, "did not answer within 1m")
      const applied = yield* fork(reload!.run({ trigger: "signal" }))
      // An answer to the first question.
      two.send({ type: "ready", question: late })
      yield* ready(one)
      assert.strictEqual(one.received.at(-1)?.type, "prepare")
      yield* ready(two)
      yield* Effect.forEach([one, two], (process) => ready(process))
      assert.deepInclude(yield* Fiber.join(applied), { applied: true })
    }).pipe(Effect.scoped))

  it.effect("is refused while a process does not take requests", () =>
    Effect.gen(function*() {
      const { processes, reload } = yield* reloading()
      processes[1]!.end(crash)
      yield* TestClock.adjust("1 second")
      const starting = yield* fork(Effect.flip(reload!.run({ trigger: "signal" })))
      yield* TestClock.adjust("1 minute")
      assert.include((yield* Fiber.join(starting)).message, "has been starting for 1m")
    }).pipe(Effect.scoped))

  it.effect("asks no process about an invalid configuration, and for a dry run", () =>
    Effect.gen(function*() {
      const { processes, reload } = yield* reloading({ ...source, read: Effect.succeed("wrong") })
      assert.include((yield* Effect.flip(reload!.run({ trigger: "file" }))).message, "wrong")
      const other = yield* reloading()
      assert.deepInclude(yield* other.reload!.run({ dryRun: true, trigger: "admin" }), { applied: false })
      for (const process of [...processes, ...other.processes]) assert.deepStrictEqual(typesOf(process), [])
    }).pipe(Effect.scoped))
})
