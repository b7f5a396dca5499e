/**
 * A child process of the bench that handles requests over its IPC channel: the measured side or the load generator,
 * separate from the measuring process.
 *
 * **Details**
 *
 * A child ends when its channel closes, so no child outlives the bench.
 */
import type { ChildProcess } from "node:child_process"
import { fork } from "node:child_process"
import { once } from "node:events"
import { fileURLToPath } from "node:url"
import { engineEnvironment } from "../src/domain/EngineEnvironment.ts"

type Reply<A> = { readonly value: A } | { readonly error: string }

/** Limit of an orderly end of a child, ms. */
const closeGrace = 5_000

/** A running child: its process id, and one request at a time. */
export interface Child<Question, Answer> {
  readonly pid: number
  readonly ask: (question: Question) => Promise<Answer>
}

const replyOf = <Answer>(child: ChildProcess, name: string): Promise<Answer> =>
  new Promise<Answer>((resolve, reject) => {
    const settle = (settled: () => void) => {
      child.off("message", onMessage).off("exit", onExit)
      settled()
    }
    const onMessage = (reply: unknown) => {
      const message = reply as Reply<Answer>
      settle(() => "value" in message ? resolve(message.value) : reject(new Error(`${name}: ${message.error}`)))
    }
    const onExit = (code: number | null, signal: string | null) =>
      settle(() => reject(new Error(`${name} ended with ${signal ?? `exit code ${code}`}`)))
    child.on("message", onMessage).on("exit", onExit)
  })

/** Waits for a child to end after a request; then kills it. */
export const ended = async (child: ChildProcess, grace: number): Promise<void> => {
  if (child.exitCode !== null || child.signalCode !== null) return
  const exit = once(child, "exit")
  const timer = setTimeout(() => child.kill("SIGKILL"), grace)
  await exit
  clearTimeout(timer)
}

/**
 * Runs a script of this folder during `use`.
 *
 * @param script its file name
 */
export const withChild = async <Question, Answer, A>(
  script: string,
  use: (child: Child<Question, Answer>) => Promise<A>,
  env: Readonly<Record<string, string>> = {}
): Promise<A> => {
  const child = fork(fileURLToPath(new URL(script, import.meta.url)), {
    execArgv: [],
    stdio: ["ignore", "inherit", "inherit", "ipc"],
    env: { ...engineEnvironment(process.env), ...env }
  })
  await once(child, "spawn")
  try {
    return await use({
      pid: child.pid!,
      ask(question) {
        const reply = replyOf<Answer>(child, script)
        child.send(question as object)
        return reply
      }
    })
  } finally {
    if (child.connected) child.disconnect()
    await ended(child, closeGrace)
  }
}

export type Answering<Question, Answer> = (question: Question) => Promise<Answer>

/** The child's side: answers every request; `close` runs before the process ends. */
export const answerParent = <Question, Answer>(
  answer: Answering<Question, Answer>,
  close: () => Promise<void> = async () => {}
): void => {
  process.on("message", (question: Question) => {
    void answer(question).then(
      (value): Reply<Answer> => ({ value }),
      (cause): Reply<Answer> => ({ error: cause instanceof Error ? cause.message : String(cause) })
    ).then((reply) => process.send?.(reply))
  })
  process.on("disconnect", () => void close().finally(() => process.exit(0)))
  // Ctrl-C reaches the whole process group; the child ends when the channel closes.
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => {})
}
