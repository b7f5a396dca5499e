/**
 * Loads a model file in a process of its own, since a bad file can abort the process that loads it.
 *
 * **Gotchas**
 *
 * If another process or the kernel kills the inspection, as when memory is short, the file has not failed.
 */
import { Duration, Effect } from "effect"
import type { ChildProcess } from "node:child_process"
import { fork } from "node:child_process"
import { fileURLToPath } from "node:url"
import { engineEnvironment } from "../../domain/EngineEnvironment.ts"
import type { EngineSpec, FromInspector } from "../../domain/EngineProtocol.ts"

const entry = fileURLToPath(new URL(`../../inspect${import.meta.url.slice(-3)}`, import.meta.url))

export type Outcome =
  | { readonly type: "passed" }
  /** The file does not load, or aborts the process. */
  | { readonly type: "bad"; readonly detail: string }
  /** The test had no result about the file. */
  | { readonly type: "unknown"; readonly detail: string }
  /** The engine of the file is not installed. */
  | { readonly type: "no-engine" }

/** Signals that the process causes itself. */
const faultSignals = new Set<NodeJS.Signals | null>([
  "SIGABRT",
  "SIGBUS",
  "SIGFPE",
  "SIGILL",
  "SIGSEGV",
  "SIGTRAP",
  "SIGSYS"
])

const stderrKept = 8192

const spawn = () =>
  fork(entry, [], {
    execArgv: [],
    serialization: "advanced",
    stdio: ["ignore", "ignore", "pipe", "ipc"],
    // ggml would start a debugger for a stack trace of an abort.
    env: { ...engineEnvironment(process.env), UV_THREADPOOL_SIZE: "1", GGML_NO_BACKTRACE: "1" }
  })

/** The error that a crashed process printed, as one line of printable characters. */
const crashMessage = (stderr: string): string => {
  const line = stderr.split("\n").find((text) => /assert|what\(\)|fatal|abort/i.test(text)) ?? ""
  const plain = line.replaceAll(/[^\x20-\x7e]/g, "?").trim().slice(0, 200)
  return plain === "" ? "" : ` (${plain})`
}

const outcomeOf = (message: FromInspector): Outcome => {
  if (message.type === "passed") return message
  switch (message.failure.kind) {
    case "package_missing":
      return { type: "no-engine" }
    case "load_failed":
    case "failed":
    case "crashed":
    case "invalid_request":
      return { type: "bad", detail: `${message.failure.message}.` }
    default:
      return { type: "unknown", detail: `${message.failure.kind}.` }
  }
}

/** A process that inspects files, one after another. */
export interface Inspector {
  readonly child: ChildProcess
  /** Never fails, even when the process ends. */
  readonly inspect: (spec: EngineSpec, limit: Duration.Duration) => Effect.Effect<Outcome>
}

const ask = (child: ChildProcess, spec: EngineSpec, stderr: () => string) =>
  Effect.callback<Outcome>((resume) => {
    const settle = (outcome: Outcome) => {
      stop()
      resume(Effect.succeed(outcome))
    }
    const onMessage = (message: FromInspector) => settle(outcomeOf(message))
    const onExit = (code: number | null, signal: NodeJS.Signals | null) => {
      const how = signal === null ? `exited with code ${code}` : `was terminated by ${signal}`
      const detail = `The process that loaded the file ${how}${crashMessage(stderr())}.`
      settle({ type: signal === null || faultSignals.has(signal) ? "bad" : "unknown", detail })
    }
    const onError = (cause: Error) => settle({ type: "unknown", detail: `${cause.message}.` })
    const stop = () => child.off("message", onMessage).off("close", onExit).off("error", onError)
    child.once("message", onMessage).once("close", onExit).once("error", onError)
    child.send(spec, () => {})
    return Effect.sync(stop)
  })

/** Starts a process that inspects files until the scope closes. */
export const start = Effect.map(
  Effect.acquireRelease(Effect.sync(spawn), (child) =>
    Effect.sync(() => {
      child.kill("SIGKILL")
    })),
  (child): Inspector => {
    let stderr = ""
    child.on("error", () => {})
    child.stderr!.setEncoding("utf8").on("data", (text: string) => {
      stderr = (stderr + text).slice(-stderrKept)
    })
    return {
      child,
      inspect: (spec, limit) =>
        Effect.timeoutOrElse(ask(child, spec, () => stderr), {
          duration: limit,
          orElse: () =>
            Effect.succeed<Outcome>({
              type: "bad",
              detail: `The file did not load and compute a token within ${Duration.format(limit)}.`
            })
        })
    }
  }
)

/** Inspects one file in a process of its own. */
export const inspect = (spec: EngineSpec, limit: Duration.Duration): Effect.Effect<Outcome> =>
  Effect.scoped(Effect.flatMap(start, (inspector) => inspector.inspect(spec, limit)))
