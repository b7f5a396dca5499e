/**
 * Process entry: as many streams at once as it is told, each on a connection of its own, and which of them came whole.
 *
 * **Details**
 *
 * A stream is whole when its text is the right one and `[DONE]` its end. What fails is counted, not thrown: how many are
 * lost is what is measured.
 */
import { connect } from "node:net"
import { answerParent } from "./Child.ts"
import type { Post } from "./RawHttp.ts"
import * as RawHttp from "./RawHttp.ts"

export interface CrowdQuestion extends Post {
  readonly streams: number
  /** The text of a whole answer. */
  readonly expected: string
  /** A stream that takes longer is lost, ms. */
  readonly limit: number
}

export interface CrowdAnswer {
  readonly whole: number
  /** What became of the others, each different thing once. */
  readonly lost: ReadonlyArray<string>
  readonly milliseconds: number
}

const lastFrame = "data: [DONE]\n\n"

/** What is wrong with a stream, if anything. */
const wrongWith = (body: string, expected: string): string | undefined => {
  if (!body.endsWith(lastFrame)) return `A stream did not end with [DONE]: ${body.slice(-200)}`
  let said = ""
  for (const [, content] of body.matchAll(/"content":("(?:[^"\\]|\\.)*")/g)) said += JSON.parse(content!) as string
  return said === expected ? undefined : `A stream said: ${said}`
}

/** Asks once; what went wrong, if anything. */
const ask = (request: string, { expected, limit, port }: CrowdQuestion): Promise<string | undefined> =>
  new Promise((resolve) => {
    const socket = connect({ port, host: "127.0.0.1", noDelay: true })
    const answer = RawHttp.makeReader()
    const settle = (wrong: string | undefined) => {
      resolve(wrong)
      socket.destroy()
    }
    socket.setEncoding("latin1").setTimeout(limit, () => settle(`A stream was silent for ${limit} ms`))
    socket.on("connect", () => socket.write(request)).on("data", (piece: string) => {
      try {
        if (answer.push(piece)) settle(wrongWith(RawHttp.unchunked(answer.text()), expected))
      } catch (cause) {
        settle((cause as Error).message)
      }
    }).on("error", (cause) => settle(cause.message)).on("close", () => settle("A connection was closed too early"))
  })

answerParent<CrowdQuestion, CrowdAnswer>(async (question) => {
  const request = RawHttp.textOf(question)
  const begun = performance.now()
  const outcomes = await Promise.all(Array.from({ length: question.streams }, () => ask(request, question)))
  const lost = outcomes.filter((wrong) => wrong !== undefined)
  return {
    whole: outcomes.length - lost.length,
    lost: [...new Set(lost)].slice(0, 10),
    milliseconds: performance.now() - begun
  }
})
