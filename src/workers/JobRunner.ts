/**
 * One generation inside an engine thread: tokens in, events out, commands obeyed.
 *
 * **Details**
 *
 * Every engine hands its tokens to `runJob`, which joins characters, finds stop sequences, counts, keeps within the
 * consumer's window and stops within one token of a cancellation. So engines differ only in where tokens come from.
 */
import type { MessagePort } from "node:worker_threads"
import type { FinishReason, GenerateJob, Job, JobCommand, JobEvent, JobResult } from "../services/Job.ts"
import { failureFrom, refuse } from "../services/Job.ts"
import { makeStopMatcher } from "../services/StopMatcher.ts"
import { makeTextJoiner } from "./TextJoiner.ts"

/** How long text may wait for more: below what a reader sees, above what a small model needs for a token. */
const holdMs = 5
const mostTokensHeld = 10
const mostCharactersHeld = 100

/** What arrives at a thread through Piscina. */
export interface JobTask<Kind = Job> {
  readonly port: MessagePort
  readonly job: Kind
}

/** A generation that an engine has prepared. */
export interface Generation<Token> {
  readonly promptTokens: number
  /** Of these, how many the slot has computed already. */
  readonly cachedTokens: number
  /** Tokens of the context window that the prompt leaves free, at least 1: the answer ends there with `length`. */
  readonly room: number
  /** Ends at the end-of-generation token, which it does not yield, and soon after a cancellation. */
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
    /** Waits until the consumer has room for one more than what is not sent yet, or is gone. */
    async room(unsent: () => number) {
      while (credit <= unsent() && !cancelled) {
        await new Promise<void>((resolve) => {
          wake = resolve
        })
      }
    }
  }
}

type Control = ReturnType<typeof makeControl>

const cancelled: JobEvent = { type: "cancelled" }

/**
 * Sends text on with the tokens that made it, and counts them.
 *
 * The first text leaves at once, and so does every other unless the last one left a moment ago: an engine that is
 * faster than that would spend more on messages than on tokens.
 */
const makeSender = (control: Control, emit: (event: JobEvent) => void) => {
  const counted = { tokens: 0 }
  let unsent = 0
  let held = ""
  let lastSent = Number.NEGATIVE_INFINITY
  let timer: NodeJS.Timeout | undefined

  const flush = () => {
    clearTimeout(timer)
    timer = undefined
    if (held === "") return
    control.spend(unsent)
    emit({ type: "tokens", text: held, count: unsent })
    held = ""
    unsent = 0
    lastSent = performance.now()
  }
  return {
    counted,
    count() {
      counted.tokens++
      unsent++
    },
    /** Tokens whose text waits to be sent count against the window too; those without text could never be granted. */
    unsent: () => held === "" ? 0 : unsent,
    flush,
    send(text: string) {
      held += text
      if (held === "") return
      if (unsent >= mostTokensHeld || held.length >= mostCharactersHeld) return flush()
      const wait = lastSent + holdMs - performance.now()
      if (wait <= 0) return flush()
      timer ??= setTimeout(flush, wait)
    }
  }
}

type Sender = ReturnType<typeof makeSender>

/** Tokens to their end, through joiner and stop matcher; what it sends is whole once it has ended or thrown. */
const stream = async <Token>(
  job: GenerateJob,
  { cachedTokens, decode, promptTokens, room, tokens }: Generation<Token>,
  control: Control,
  sender: Sender
): Promise<JobEvent> => {
  const joiner = makeTextJoiner(decode)
  const stops = makeStopMatcher(job.stop)
  const limit = Math.min(job.maxTokens ?? room, room)
  const finished = (reason: FinishReason): JobEvent => ({
    type: "finished",
    reason,
    usage: { promptTokens, completionTokens: sender.counted.tokens, cachedTokens }
  })
  const rest = (): boolean => {
    const { stopped, text } = stops.push(joiner.flush())
    sender.send(stopped ? text : text + stops.flush())
    return stopped
  }

  let reason: FinishReason = "stop"
  try {
    for await (const token of tokens) {
      if (control.isCancelled()) break
      sender.count()
      const { stopped, text } = stops.push(joiner.push(token))
      sender.send(text)
      if (stopped) return finished("stop")
      if (sender.counted.tokens >= limit) {
        reason = "length"
        break
      }
      await control.room(sender.unsent)
    }
  } catch (cause) {
    rest()
    throw cause
  }
  const stopped = rest()
  return control.isCancelled() ? cancelled : finished(stopped ? "stop" : reason)
}

/**
 * Runs one job to its last event and closes its port. Never rejects.
 *
 * @param prepare may wait, and may throw an `EngineFailure`, which becomes the job's last event
 * @param release called before the last event, so that the slot is free when the host hears of it
 */
export const runJob = async <Token>(
  task: JobTask<GenerateJob>,
  prepare: (isCancelled: () => boolean) => Promise<Generation<Token>>,
  release: () => void
): Promise<void> => {
  const emit = (event: JobEvent) => task.port.postMessage([event])
  const control = makeControl(task.port, task.job.window)
  const sender = makeSender(control, emit)
  let last: JobEvent
  try {
    const generation = await prepare(control.isCancelled)
    last = control.isCancelled() ? cancelled : await stream(task.job, generation, control, sender)
  } catch (cause) {
    last = { type: "failed", failure: failureFrom(cause, "failed") }
  }
  sender.flush()
  release()
  emit(last)
  task.port.close()
}

/** Refuses a job that the engine cannot do. */
export const notAble = (kind: Job["kind"]): never =>
  refuse({ kind: "invalid_request", path: "model", message: `This model cannot ${kind}` })

/** Runs one job that is answered whole to its last event and closes its port. Never rejects. */
export const runWhole = async (
  port: MessagePort,
  answer: (isCancelled: () => boolean) => Promise<JobResult> | JobResult
): Promise<void> => {
  const control = makeControl(port, 0)
  let last: JobEvent
  try {
    const result = await answer(control.isCancelled)
    last = control.isCancelled() ? cancelled : { type: "result", result }
  } catch (cause) {
    last = { type: "failed", failure: failureFrom(cause, "failed") }
  }
  port.postMessage([last])
  port.close()
}
