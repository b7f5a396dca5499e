/**
 * One generation inside an engine thread: tokens in, events out, commands obeyed.
 *
 * **Details**
 *
 * Every engine hands its tokens to `runJob`, which joins characters, finds stop sequences and tool calls, counts, keeps
 * within the consumer's window and stops within one token of a cancellation. So engines differ only in where tokens come from.
 */
import type { MessagePort } from "node:worker_threads"
import { abilityInWords } from "../../domain/EngineProtocol.ts"
import type {
  ChosenLogprob,
  FinishReason,
  GenerateJob,
  Job,
  JobCommand,
  JobEvent,
  JobResult
} from "../../domain/Job.ts"
import { failureFrom, refuse } from "../../domain/Job.ts"
import { makeStopMatcher } from "../../domain/StopMatcher.ts"
import type { Sender } from "./JobSender.ts"
import { makeSender } from "./JobSender.ts"
import { makeTextJoiner } from "./TextJoiner.ts"
import type { Part } from "./ToolCalls.ts"
import { makeToolCallReader } from "./ToolCalls.ts"

/** What arrives at a thread through Piscina. */
export interface JobTask<Kind = Job> {
  readonly port: MessagePort
  readonly job: Kind
}

/** Between a job and who asked for it: whether it is still wanted, and that it goes on. */
export interface Watch {
  readonly isCancelled: () => boolean
  /** So that long work is not taken for a hung engine. */
  readonly progress: () => void
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
  /** Of the token yielded last; for jobs that ask for it. */
  readonly logprobOf?: (() => ChosenLogprob) | undefined
  readonly decode: (tokens: Array<Token>, before: ReadonlyArray<Token>) => string
  /** Of the prompt, those of the text that the answer goes on with; left out, none. */
  readonly goesOn?: ReadonlyArray<Token> | undefined
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
    /** Whether the consumer has room for one more than so many, and is there. */
    hasRoom: (unsent: number) => credit > unsent && !cancelled,
    /** Waits until the consumer has room for one more than what is not sent yet; false when it is gone. */
    async room(unsent: () => number): Promise<boolean> {
      while (credit <= unsent() && !cancelled) {
        await new Promise<void>((resolve) => {
          wake = resolve
        })
      }
      return !cancelled
    }
  }
}

type Control = ReturnType<typeof makeControl>

const cancelled: JobEvent = { type: "cancelled" }

/** The log-probabilities of tokens, given out with the text that the tokens made. */
const makeLedger = () => {
  const waiting: Array<{ readonly logprob: ChosenLogprob; readonly begin: number }> = []
  let heard = 0
  let said = 0
  return {
    add(logprob: ChosenLogprob, characters: number) {
      waiting.push({ logprob, begin: heard })
      heard += characters
    },
    take(characters: number): Array<ChosenLogprob> {
      said += characters
      const later = waiting.findIndex(({ begin }) => begin >= said)
      return waiting.splice(0, later < 0 ? waiting.length : later).map(({ logprob }) => logprob)
    }
  }
}

/** Watches for tool calls where the job has tools. */
const readerOf = ({ assistantPrefix = "", messages, sampling, toolChoice, tools = [] }: GenerateJob) =>
  tools.length === 0 || toolChoice === "none" ? undefined : makeToolCallReader(
    tools.map(({ name }) => name),
    // Another one at every turn of a conversation, and the same for the same seed.
    (index) => `call_${sampling.seed.toString(36)}_${messages.length}_${index}`,
    assistantPrefix.trim() === ""
  )

/** Text to the sender, with tool calls found and log-probabilities added. */
const makeSpeaker = (job: GenerateJob, sender: Sender) => {
  const reader = readerOf(job)
  const ledger = job.logprobs === undefined ? undefined : makeLedger()
  const state = { called: false }
  const speak = (part: Part) => {
    if (part.type === "tool_call") state.called = true
    // Where a call was, characters have been left out, and tokens cannot be told by them any more.
    sender.send(part, part.type === "tool_call" || state.called ? undefined : ledger?.take(part.text.length))
  }
  return {
    state,
    ledger,
    say: (text: string): void => {
      if (reader !== undefined) reader.push(text).forEach(speak)
      else if (text !== "") speak({ type: "text", text })
    },
    end: () => reader?.flush().forEach(speak)
  }
}

/** A stop matcher that remembers what it found. */
const makeStops = (job: GenerateJob) => {
  const matcher = makeStopMatcher(job.stop, job.assistantPrefix)
  const found: { stop?: string } = {}
  return {
    found,
    flush: matcher.flush,
    push(text: string) {
      const cut = matcher.push(text)
      if (cut.sequence !== undefined) found.stop = cut.sequence
      return cut
    }
  }
}

/**
 * The tokens, of which the next is asked for before one is used, where it is sure to be wanted: so the engine computes
 * while a token becomes text.
 */
async function* readAhead<Token>(
  tokens: AsyncGenerator<Token, void, undefined>,
  isNextSure: () => boolean
): AsyncGenerator<Token, void, undefined> {
  try {
    for (let next = tokens.next();;) {
      const { done, value } = await next
      if (done === true) return
      const ahead = isNextSure() ? tokens.next() : undefined
      // Nobody hears of it where the consumer leaves now.
      ahead?.catch(() => {})
      yield value
      next = ahead ?? tokens.next()
    }
  } finally {
    await tokens.return()
  }
}

/** Whether the token after the one at hand will be wanted, whatever that one says. */
const makeIsNextSure = ({ logprobs, stop }: GenerateJob, limit: number, control: Control, sender: Sender) => {
  // A stop sequence may end it, and a token's probabilities are told before there is another.
  if (stop.length > 0 || logprobs !== undefined) return () => false
  return () => sender.counted.tokens + 1 < limit && control.hasRoom(sender.unsent() + 1)
}

/** Tokens to their end, through joiner and stop matcher; what it sends is whole once it has ended or thrown. */
const stream = async <Token>(
  job: GenerateJob,
  { cachedTokens, decode, goesOn, logprobOf, promptTokens, room, tokens }: Generation<Token>,
  control: Control,
  sender: Sender
): Promise<JobEvent> => {
  const joiner = makeTextJoiner(decode, goesOn)
  const stops = makeStops(job)
  const { end, ledger, say, state } = makeSpeaker(job, sender)
  const limit = Math.min(job.maxTokens ?? room, room)
  const finished = (reason: FinishReason): JobEvent => ({
    type: "finished",
    reason: reason === "stop" && state.called ? "tool_calls" : reason,
    usage: { promptTokens, completionTokens: sender.counted.tokens, cachedTokens },
    ...stops.found
  })
  /** Takes a token in; true when a stop sequence is complete. */
  const hear = (token: Token): boolean => {
    sender.count()
    const piece = joiner.push(token)
    if (logprobOf !== undefined) ledger?.add(logprobOf(), piece.length)
    const { stopped, text } = stops.push(piece)
    say(text)
    return stopped
  }
  const isNextWanted = () => sender.counted.tokens < limit && control.room(sender.unsent)
  const rest = (): boolean => {
    const { stopped, text } = stops.push(joiner.flush())
    say(stopped ? text : text + stops.flush())
    end()
    return stopped
  }

  try {
    for await (const token of readAhead(tokens, makeIsNextSure(job, limit, control, sender))) {
      if (control.isCancelled()) break
      if (hear(token)) {
        end()
        return finished("stop")
      }
      if (!await isNextWanted()) break
    }
  } catch (cause) {
    rest()
    throw cause
  }
  const stopped = rest()
  if (control.isCancelled()) return cancelled
  return finished(!stopped && sender.counted.tokens >= limit ? "length" : "stop")
}

/**
 * Runs one job to its last event and closes its port. Never rejects.
 *
 * @param prepare may wait, and may throw an `EngineFailure`, which becomes the job's last event
 * @param release called before the last event, so that the slot is free when the host hears of it
 */
export const runJob = async <Token>(
  task: JobTask<GenerateJob>,
  prepare: (watch: Watch) => Promise<Generation<Token>>,
  release: () => void
): Promise<void> => {
  const emit = (event: JobEvent) => task.port.postMessage([event])
  const control = makeControl(task.port, task.job.window)
  const sender = makeSender(control.spend, emit)
  let last: JobEvent
  try {
    const generation = await prepare({ isCancelled: control.isCancelled, progress: () => emit({ type: "progress" }) })
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
  refuse({
    kind: "not_supported",
    path: "model",
    message: `the model does not support ${abilityInWords[kind]}`,
    capability: kind
  })

/** Runs one job that is answered whole to its last event and closes its port. Never rejects. */
export const runWhole = async (
  port: MessagePort,
  answer: (watch: Watch) => Promise<JobResult> | JobResult
): Promise<void> => {
  const control = makeControl(port, 0)
  let last: JobEvent
  try {
    const result = await answer({
      isCancelled: control.isCancelled,
      progress: () => port.postMessage([{ type: "progress" }])
    })
    last = control.isCancelled() ? cancelled : { type: "result", result }
  } catch (cause) {
    last = { type: "failed", failure: failureFrom(cause, "failed") }
  }
  port.postMessage([last])
  port.close()
}
