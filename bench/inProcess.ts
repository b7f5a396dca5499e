/**
 * Process entry: calls of an embedded Troupe, whose fake engine runs on a thread of this process, in a closed loop.
 *
 * **Details**
 *
 * The CPU time is that of the main thread, on which a program's own code runs, too.
 */
import { Effect, ManagedRuntime } from "effect"
import * as App from "../src/App.ts"
import { Inference } from "../src/services/inference/Inference.ts"
import { answerParent } from "./Child.ts"

export interface InProcessQuestion {
  readonly callers: number
  /** No call begins later. */
  readonly milliseconds: number
  /** The answer of the model. */
  readonly reply: string
}

export interface InProcessAnswer {
  readonly calls: number
  readonly milliseconds: number
  /** Of the main thread, µs. */
  readonly cpu: number
}

let runtime: ManagedRuntime.ManagedRuntime<Inference, unknown> | undefined

const start = ({ callers, reply }: InProcessQuestion) =>
  ManagedRuntime.make(
    App.layer({
      config: {
        cache: { when: "never" },
        models: { "fake/echo": { deployments: [{ engine: "fake", reply, slots: callers }] } }
      }
    })
  )

const request = {
  model: "fake/echo",
  messages: [{ role: "user" as const, content: "Is it so?" }],
  temperature: 0
}

const mainThread = (): number => {
  const { system, user } = process.threadCpuUsage()
  return user + system
}

answerParent<InProcessQuestion, InProcessAnswer>(
  async (question) => {
    const { callers, milliseconds, reply } = question
    runtime ??= start(question)
    const begun = performance.now()
    const before = mainThread()
    let calls = 0
    const call = Effect.flatMap(Inference, (inference) => inference.generate(request))
    const caller = Effect.gen(function*() {
      do {
        const { text } = yield* call
        if (text !== reply) throw new Error(`Unexpected answer: ${text}`)
        calls++
      } while (performance.now() - begun < milliseconds)
    })
    await runtime.runPromise(Effect.all(Array.from({ length: callers }, () => caller), { concurrency: "unbounded" }))
    return { calls, milliseconds: performance.now() - begun, cpu: mainThread() - before }
  },
  async () => runtime?.dispose()
)
