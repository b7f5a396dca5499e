/**
 * Runs one job in an engine thread: reads the engine's tokens, sends events, and handles commands.
 *
 * **Details**
 *
 * Every engine passes its tokens to `runJob`, which joins characters, finds stop sequences, thoughts and tool calls, counts tokens,
 * respects the consumer's window, and stops within one token of a cancellation. Engines differ only in how they compute
 * tokens.
 */
import { capabilityNames } from "../../domain/EngineProtocol.ts"
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
import { AnswerWriter } from "./AnswerWriter.ts"
import type { Sender } from "./JobSender.ts"
import { makeSender } from "./JobSender.ts"
import { makeTextJoiner } from "./TextJoiner.ts"
import type { Thoughts } from "./ThoughtSyntax.ts"

/** The connection of one job with its host. */
export interface JobChannel {
  /** Sends an event, with others of this turn of the event loop. */
  readonly emit: (event: JobEvent) => void
  /** Calls `send` at most `ms` from now, together with those of other jobs. */
  readonly later: (send: () => void, ms: number) => void
  /** Calls the listener with the host's commands, earlier ones included. */
  readonly onCommand: (listener: (command: JobCommand) => void) => void
}

/** A job to run. */
export interface JobTask<Kind = Job> {
  readonly channel: JobChannel
  readonly job: Kind
}

/** The state that a running job reads, whether it is cancelled, and its reports of progress. */
export interface JobSignals {
  readonly isCancelled: () => boolean
  /** Reports progress, so that the engine does not count as hung. */
  readonly progress: () => void
}

/** A prompt that an answer begins with. */
export interface Echo {
  readonly text: string
  /** Of its tokens, if the job requests log-probabilities. */
  readonly logprobs?: ReadonlyArray<ChosenLogprob> | undefined
}

/** A generation that an engine has prepared. */
export interface Generation<Token> {
  readonly promptTokens: number
  /** How many of them the slot has computed before. */
  readonly cachedTokens: number
  /** Tokens of the context window after the prompt, at least 1: the answer ends there with `length`. */
  readonly room: number
  /** Ends before the end-of-generation token, and soon after a cancellation. */
  readonly tokens: AsyncGenerator<Token, void, undefined>
  /** Of the token yielded last, if the job requests log-probabilities. */
  readonly logprobOf?: (() => ChosenLogprob) | undefined
  /**
   * Of the end-of-generation token, which has no text; undefined if the model has not ended the answer. Left out, it has no
   * entry: harnesses that evaluate an echo expect one for each token that was generated.
   */
  readonly endLogprobOf?: (() => ChosenLogprob | undefined) | undefined
  readonly decode: (tokens: Array<Token>, before: ReadonlyArray<Token>) => string
  /** How the model marks thoughts, and where its answer begins; left out, its answers have none. */
  readonly thoughts?: Thoughts | undefined
  /** Tokens of the assistant prefix, which the answer continues; left out, none. */
  readonly prefixTokens?: ReadonlyArray<Token> | undefined
  /** Reads the prompt, before any token is generated; undefined if the job is cancelled. Left out, the answer has no echo. */
  readonly echo?: (() => Promise<Echo | undefined>) | undefined
}

/** The consumer of a job: its window, and whether it has cancelled. */
const makeConsumer = (channel: JobChannel, window: number) => {
  let credit = window
  let cancelled = false
  let wake = (): void => {}
  channel.onCommand((command) => {
    if (command.type === "cancel") cancelled = true
    else credit += command.tokens
    wake()
  })
  return {
    isCancelled: () => cancelled,
    spend: (tokens: number) => {
      credit -= tokens
    },
    /** Whether the window has room for one more token than this, and the job is not cancelled. */
    hasRoom: (unsent: number) => credit > unsent && !cancelled,
    /** Waits until the window has room for one more token than the unsent ones; false if the job is cancelled. */
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

type Consumer = ReturnType<typeof makeConsumer>

const cancelled: JobEvent = { type: "cancelled" }
const progress: JobEvent = { type: "progress" }

/**
 * Requests the next token before the current one is used, if it is certain to be needed: the engine then computes while
 * the current token is decoded.
 */
async function* readAhead<Token>(
  tokens: AsyncGenerator<Token, void, undefined>,
  isNextNeeded: () => boolean
): AsyncGenerator<Token, void, undefined> {
  try {
    for (let next = tokens.next();;) {
      const { done, value } = await next
      if (done === true) return
      const ahead = isNextNeeded() ? tokens.next() : undefined
      // The consumer may leave before it awaits this.
      ahead?.catch(() => {})
      yield value
      next = ahead ?? tokens.next()
    }
  } finally {
    await tokens.return()
  }
}

/** Whether the next token is needed whatever the current one is. */
const makeIsNextNeeded = ({ logprobs, stop }: GenerateJob, limit: number, consumer: Consumer, sender: Sender) => {
  // A stop sequence may end the answer, and log-probabilities are read before the next token.
  if (stop.length > 0 || logprobs !== undefined) return () => false
  return () => sender.counted.tokens + 1 < limit && consumer.hasRoom(sender.unsent() + 1)
}

/** Of a job that only reads its prompt. */
async function* noTokens(): AsyncGenerator<never, void, undefined> {}

/** Sends the prompt if the answer begins with it; false if the job is cancelled. */
const sendEcho = async <Token>({ echo }: Generation<Token>, sender: Sender): Promise<boolean> => {
  if (echo === undefined) return true
  const found = await echo()
  if (found !== undefined) sender.send({ type: "text", text: found.text }, found.logprobs && [...found.logprobs])
  return found !== undefined
}

/** Reads tokens to their end through joiner and stop matcher. When it returns or throws, all text has been passed on. */
const stream = async <Token>(
  job: GenerateJob,
  { cachedTokens, decode, prefixTokens, logprobOf, promptTokens, room, thoughts, tokens }: Generation<Token>,
  consumer: Consumer,
  sender: Sender
): Promise<JobEvent> => {
  const joiner = makeTextJoiner(decode, prefixTokens)
  const writer = new AnswerWriter(job, thoughts, sender)
  const limit = Math.min(job.maxTokens ?? room, room)
  const finished = (reason: FinishReason): JobEvent => ({
    type: "finished",
    reason: reason === "stop" && writer.hasCalled ? "tool_calls" : reason,
    usage: {
      promptTokens,
      completionTokens: sender.counted.tokens,
      cachedTokens,
      ...(writer.thoughtTokens === undefined ? {} : { reasoningTokens: writer.thoughtTokens })
    },
    ...(writer.stop === undefined ? {} : { stop: writer.stop })
  })
  /** Adds a token; true if a stop sequence is complete. */
  const accept = (token: Token): boolean => {
    sender.count()
    const piece = joiner.push(token)
    return writer.push(piece, job.logprobs === undefined ? undefined : logprobOf?.())
  }
  const canContinue = () => sender.counted.tokens < limit && consumer.room(sender.unsent)
  /** Whether the model has not ended its answer. */
  const isCut = () => sender.counted.tokens >= limit || consumer.isCancelled()
  const flush = (isCut: boolean): boolean => writer.flush(joiner.flush(), isCut)

  try {
    for await (const token of readAhead(tokens, makeIsNextNeeded(job, limit, consumer, sender))) {
      if (consumer.isCancelled()) break
      if (accept(token)) return finished("stop")
      if (!await canContinue()) break
    }
  } catch (cause) {
    flush(true)
    throw cause
  }
  const stopped = flush(isCut())
  if (consumer.isCancelled()) return cancelled
  return finished(!stopped && sender.counted.tokens >= limit ? "length" : "stop")
}

/** Generates, and adds the entry of the token that ends the answer, if it has one. */
const generate = async <Token>(
  job: GenerateJob,
  generation: Generation<Token>,
  consumer: Consumer,
  sender: Sender
): Promise<JobEvent> => {
  const last = await stream(job, generation, consumer, sender)
  const end = last.type === "finished" ? generation.endLogprobOf?.() : undefined
  if (end !== undefined) sender.send({ type: "text", text: "" }, [end])
  return last
}

/**
 * Runs one job to its last event. Never rejects.
 *
 * @param prepare may throw an `EngineFailure`, which becomes the job's last event
 * @param release called before the last event, so that the slot is free when the host gets it
 */
export const runJob = async <Token>(
  { channel, job }: JobTask<GenerateJob>,
  prepare: (signals: JobSignals) => Promise<Generation<Token>>,
  release: () => void
): Promise<void> => {
  const consumer = makeConsumer(channel, job.window)
  const sender = makeSender(consumer.spend, channel, job.parts)
  let last: JobEvent
  try {
    const generation = await prepare({ isCancelled: consumer.isCancelled, progress: () => channel.emit(progress) })
    last = await sendEcho(generation, sender) && !consumer.isCancelled()
      ? await generate(job, job.maxTokens === 0 ? { ...generation, tokens: noTokens() } : generation, consumer, sender)
      : cancelled
  } catch (cause) {
    last = { type: "failed", failure: failureFrom(cause, "failed") }
  }
  sender.flush()
  release()
  channel.emit(last)
}

/** Refuses a job of a kind that the model does not support. */
export const notCapable = (kind: Job["kind"]): never =>
  refuse({
    kind: "not_supported",
    path: "model",
    message: `the model does not support ${capabilityNames[kind]}`,
    capability: kind
  })

/** Runs one task (a job with one result) to its last event. Never rejects. */
export const runTask = async (
  channel: JobChannel,
  answer: (signals: JobSignals) => Promise<JobResult> | JobResult
): Promise<void> => {
  const consumer = makeConsumer(channel, 0)
  let last: JobEvent
  try {
    const result = await answer({
      isCancelled: consumer.isCancelled,
      progress: () => channel.emit(progress)
    })
    last = consumer.isCancelled() ? cancelled : { type: "result", result }
  } catch (cause) {
    last = { type: "failed", failure: failureFrom(cause, "failed") }
  }
  channel.emit(last)
}
