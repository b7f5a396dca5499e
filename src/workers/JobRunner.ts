/**
 * One generation inside an engine thread: tokens in, events out, commands obeyed.
 *
 * **Details**
 *
 * Every engine hands its tokens to `runJob`, which joins characters, finds stop sequences, counts, keeps within the
 * consumer's window and stops within one token of a cancellation. So engines differ only in where tokens come from.
 */
import type { MessagePort } from "node:worker_threads"
import type { FinishReason, GenerateJob, JobCommand, JobEvent } from "../services/EngineProtocol.ts"
import { failureFrom } from "../services/EngineProtocol.ts"
import { makeStopMatcher } from "./StopMatcher.ts"
import { makeTextJoiner } from "./TextJoiner.ts"

/** What arrives at a thread through Piscina. */
export interface JobTask {
  readonly port: MessagePort
  readonly job: GenerateJob
}

/** A generation that an engine has prepared. */
export interface Generation<Token> {
  readonly promptTokens: number
  /** Tokens of the context window that the prompt leaves free: the answer ends there with `length`. */
  readonly room: number
  /** Ends at the end-of-generation token, which it does not yield. */
  readonly tokens: AsyncGenerator<Token, void, undefined>
  readonly decode: (tokens: Array<Token>, before: ReadonlyArray<Token>) => string
}

/** The consumer's side of a job: how much it has room for and whether it still wants it. */
const makeControl = (port: MessagePort, window: number) => {
  let credit = window
  let cancelled = false
  let wake = (): void => {}
  port.on("message", (command: JobCommand) => {
    if (command.type === "cancel") cancelled = true
    else credit += command.tokens
    wake()
  })
  return {
    isCancelled: () => cancelled,
    spend: (tokens: number) => {
      credit -= tokens
    },
    /** Waits until the consumer has room or is gone. */
    async room() {
      while (credit <= 0 && !cancelled) {
        await new Promise<void>((resolve) => {
          wake = resolve
        })
      }
    }
  }
}

const stream = async <Token>(
  job: GenerateJob,
  generation: Generation<Token>,
  control: ReturnType<typeof makeControl>,
  emit: (event: JobEvent) => void
): Promise<JobEvent> => {
  const joiner = makeTextJoiner(generation.decode)
  const stops = makeStopMatcher(job.stop)
  const limit = Math.min(job.maxTokens ?? Number.POSITIVE_INFINITY, generation.room)
  let completionTokens = 0
  let unsent = 0
  const send = (text: string) => {
    if (text === "") return
    control.spend(unsent)
    emit({ type: "tokens", text, count: unsent })
    unsent = 0
  }
  const finished = (reason: FinishReason): JobEvent => ({
    type: "finished",
    reason,
    usage: { promptTokens: generation.promptTokens, completionTokens }
  })

  let reason: FinishReason = limit > 0 ? "stop" : "length"
  if (limit > 0) {
    for await (const token of generation.tokens) {
      if (control.isCancelled()) return { type: "cancelled" }
      completionTokens++
      unsent++
      const { stopped, text } = stops.push(joiner.push(token))
      send(text)
      if (stopped) return finished("stop")
      if (completionTokens >= limit) {
        reason = "length"
        break
      }
      await control.room()
    }
  }
  if (control.isCancelled()) return { type: "cancelled" }
  const { stopped, text } = stops.push(joiner.flush())
  send(stopped ? text : text + stops.flush())
  return finished(stopped ? "stop" : reason)
}

/**
 * Runs one job to its last event and closes its port. Never rejects.
 *
 * @param prepare may wait, and may throw an `EngineFailure`, which becomes the job's last event
 * @param release called before the last event, so that the slot is free when the host hears of it
 */
export const runJob = async <Token>(
  task: JobTask,
  prepare: () => Promise<Generation<Token>>,
  release: () => void
): Promise<void> => {
  const emit = (event: JobEvent) => task.port.postMessage([event])
  const control = makeControl(task.port, task.job.window)
  let last: JobEvent
  try {
    const generation = await prepare()
    last = control.isCancelled() ? { type: "cancelled" } : await stream(task.job, generation, control, emit)
  } catch (cause) {
    last = { type: "failed", failure: failureFrom(cause, "failed") }
  }
  release()
  emit(last)
  task.port.close()
}
