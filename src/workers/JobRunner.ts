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
  /** Tokens of the context window that the prompt leaves free, at least 1: the answer ends there with `length`. */
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

type Control = ReturnType<typeof makeControl>

const cancelled: JobEvent = { type: "cancelled" }

/** Sends text on with the tokens that made it, and counts them. */
const makeSender = (control: Control, emit: (event: JobEvent) => void) => {
  let unsent = 0
  const counted = { tokens: 0 }
  return {
    counted,
    count() {
      counted.tokens++
      unsent++
    },
    send(text: string) {
      if (text === "") return
      control.spend(unsent)
      emit({ type: "tokens", text, count: unsent })
      unsent = 0
    }
  }
}

const stream = async <Token>(
  job: GenerateJob,
  { decode, promptTokens, room, tokens }: Generation<Token>,
  control: Control,
  emit: (event: JobEvent) => void
): Promise<JobEvent> => {
  const joiner = makeTextJoiner(decode)
  const stops = makeStopMatcher(job.stop)
  const sender = makeSender(control, emit)
  const limit = Math.min(job.maxTokens ?? room, room)
  const finished = (reason: FinishReason): JobEvent => ({
    type: "finished",
    reason,
    usage: { promptTokens, completionTokens: sender.counted.tokens }
  })

  let reason: FinishReason = "stop"
  for await (const token of tokens) {
    if (control.isCancelled()) return cancelled
    sender.count()
    const { stopped, text } = stops.push(joiner.push(token))
    sender.send(text)
    if (stopped) return finished("stop")
    if (sender.counted.tokens >= limit) {
      reason = "length"
      break
    }
    await control.room()
  }
  if (control.isCancelled()) return cancelled
  const { stopped, text } = stops.push(joiner.flush())
  sender.send(stopped ? text : text + stops.flush())
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
    last = control.isCancelled() ? cancelled : await stream(task.job, generation, control, emit)
  } catch (cause) {
    last = { type: "failed", failure: failureFrom(cause, "failed") }
  }
  release()
  emit(last)
  task.port.close()
}
