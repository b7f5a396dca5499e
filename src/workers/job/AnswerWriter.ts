/**
 * Passes the text of an answer on: thoughts and tool calls separated, cut at the first stop sequence, with log-probabilities.
 *
 * **Details**
 *
 * Stop sequences count in the answer's text, not in thoughts and in calls, whose arguments would be cut. What could become a
 * call is searched when it has turned out to be text. The log-probabilities are those of the text.
 */
import type { ChosenLogprob, GenerateJob } from "../../domain/Job.ts"
import { makeStopMatcher } from "../../domain/StopMatcher.ts"
import type { Sender } from "./JobSender.ts"
import { makeThoughtReader } from "./ThoughtReader.ts"
import type { ThoughtPart, ThoughtReader, Thoughts } from "./ThoughtSyntax.ts"
import type { Part, ToolCallReader } from "./ToolCalls.ts"
import { makeToolCallReader } from "./ToolCalls.ts"

/**
 * Keeps the log-probabilities of tokens until the first of their characters are sent. The other characters may follow in a
 * later part, or never if a stop sequence begins within the token.
 */
const makeLogprobBuffer = () => {
  const waiting: Array<{ readonly logprob: ChosenLogprob; readonly begin: number }> = []
  let received = 0
  let sent = 0
  return {
    add(logprob: ChosenLogprob, characters: number) {
      waiting.push({ logprob, begin: received })
      received += characters
    },
    take(characters: number): Array<ChosenLogprob> {
      sent += characters
      const later = waiting.findIndex(({ begin }) => begin >= sent)
      return waiting.splice(0, later < 0 ? waiting.length : later).map(({ logprob }) => logprob)
    }
  }
}

const hasTools = ({ toolChoice, tools = [] }: GenerateJob): boolean => tools.length > 0 && toolChoice !== "none"

/** The id of the answer's call with an index: different at every turn of a conversation, and equal for equal seeds. */
const makeIdOf = ({ messages, sampling }: GenerateJob) => (index: number): string =>
  `call_${sampling.seed.toString(36)}_${messages.length}_${index}`

/** Finds tool calls in the text, if the job has tools. */
const readerOf = (job: GenerateJob, thoughts: Thoughts | undefined): ToolCallReader | undefined =>
  hasTools(job) && (thoughts?.style.type !== "channels" || thoughts.begins === "text")
    ? makeToolCallReader(
      job.tools!,
      makeIdOf(job),
      (job.assistantPrefix ?? "").trim() === ""
    )
    : undefined

export class AnswerWriter {
  readonly #sender: Sender
  readonly #buffer: ReturnType<typeof makeLogprobBuffer> | undefined
  readonly #stops: ReturnType<typeof makeStopMatcher>
  readonly #thoughts: ThoughtReader | undefined
  readonly #calls: ToolCallReader | undefined
  readonly #idOf: (index: number) => string
  /** The index of the last call that a channel had. */
  #call = -1
  /** The stop sequence that ended the answer. */
  stop: string | undefined
  hasCalled = false
  /** Tokens of thoughts; undefined if the model marks none. */
  thoughtTokens: number | undefined

  constructor(job: GenerateJob, thoughts: Thoughts | undefined, sender: Sender) {
    this.#sender = sender
    this.#buffer = job.logprobs === undefined ? undefined : makeLogprobBuffer()
    this.#stops = makeStopMatcher(job.stop, job.assistantPrefix)
    this.#calls = readerOf(job, thoughts)
    this.#idOf = makeIdOf(job)
    if (thoughts === undefined) return
    this.#thoughts = makeThoughtReader(thoughts, hasTools(job))
    this.thoughtTokens = 0
  }

  /** Adds the characters that a token completes; true if a stop sequence is complete. */
  push(piece: string, logprob: ChosenLogprob | undefined): boolean {
    if (logprob !== undefined) this.#buffer?.add(logprob, piece.length)
    const reader = this.#thoughts
    if (reader === undefined) return this.#text(piece)
    const wasWithin = reader.isWithin()
    const isStopped = this.#parts(reader.push(piece))
    if (wasWithin || reader.isWithin()) this.thoughtTokens!++
    return isStopped
  }

  /**
   * The rest of the answer; true if a stop sequence is complete.
   *
   * @param isCut whether the model has not ended it
   */
  flush(piece: string, isCut: boolean): boolean {
    const reader = this.#thoughts
    const isStopped = reader === undefined
      ? this.#text(piece)
      : this.#parts(reader.push(piece)) || this.#parts(reader.flush(isCut))
    if (isStopped || this.#found(this.#calls?.flush(isCut) ?? [])) return true
    this.#write(this.#stops.flush())
    return false
  }

  #parts(parts: ReadonlyArray<ThoughtPart>): boolean {
    for (const part of parts) {
      if (part.type === "text") {
        if (this.#text(part.text)) return true
      } else this.#other(part)
    }
    return false
  }

  /** A part that is no text ends the text before it, and what could become a stop sequence there. */
  #other(part: ThoughtPart): void {
    this.#write(this.#stops.flush())
    if (part.type === "call") {
      if (part.isNew) this.#call++
      const named = part.isNew ? { id: this.#idOf(this.#call), name: part.name } : {}
      return this.#send({ type: "tool_call", index: this.#call, ...named, arguments: part.arguments })
    }
    this.#buffer?.take(part.text.length)
    if (part.type === "thoughts") this.#sender.send({ type: "thoughts", text: part.text })
  }

  /** Adds text in which calls may be. */
  #text(piece: string): boolean {
    return this.#calls === undefined ? this.#plain(piece) : this.#found(this.#calls.push(piece))
  }

  #found(parts: ReadonlyArray<Part>): boolean {
    for (const part of parts) {
      if (part.type === "text") {
        if (this.#plain(part.text)) return true
      } else {
        this.#write(this.#stops.flush())
        this.#send(part)
      }
    }
    return false
  }

  #plain(piece: string): boolean {
    const { sequence, stopped, text } = this.#stops.push(piece)
    if (sequence !== undefined) this.stop = sequence
    this.#write(text)
    return stopped
  }

  #write(text: string): void {
    if (text !== "") this.#send({ type: "text", text })
  }

  #send(part: Part): void {
    if (part.type === "tool_call") this.hasCalled = true
    // A tool call's characters are not sent as text, so that tokens cannot be assigned to text after one.
    const isText = part.type === "text" && !this.hasCalled
    this.#sender.send(part, isText ? this.#buffer?.take(part.text.length) : undefined)
  }
}
