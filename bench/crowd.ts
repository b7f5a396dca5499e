/**
 * Process entry: a given number of concurrent streams, each on its own connection, and the number of complete ones.
 *
 * **Details**
 *
 * A stream is complete if its text is correct and it ends with `[DONE]`. Failures are counted, not thrown: the number of
 * lost streams is the measurement.
 */
import { connect } from "node:net"
import { setTimeout as sleep } from "node:timers/promises"
import { answerParent } from "./Child.ts"
import type { Post } from "./RawHttp.ts"
import * as RawHttp from "./RawHttp.ts"
import type { Spread } from "./Statistics.ts"
import { spreadOf } from "./Statistics.ts"

export interface CrowdQuestion extends Post {
  readonly streams: number
  /** The text of a complete answer. */
  readonly expected: string
  /** The text that marks the first token. */
  readonly firstToken: string
  /** The streams begin evenly spaced over this time, ms; 0: together. */
  readonly spreadMs: number
  /** A stream that takes longer is lost, ms. */
  readonly limit: number
}

export interface CrowdAnswer {
  readonly whole: number
  /** The distinct outcomes of the others. */
  readonly lost: ReadonlyArray<string>
  readonly milliseconds: number
  /** From a request to its first token, ms. */
  readonly firstToken: Spread
}

const lastFrame = "data: [DONE]\n\n"

/** The problem of a stream, if any. */
const wrongWith = (body: string, expected: string): string | undefined => {
  if (!body.endsWith(lastFrame)) return `A stream did not end with [DONE]: ${body.slice(-200)}`
  let said = ""
  for (const [, content] of body.matchAll(/"content":("(?:[^"\\]|\\.)*")/g)) said += JSON.parse(content!) as string
  return said === expected ? undefined : `A stream had the text: ${said}`
}

/** Sends one request; returns the problem, if any. */
const ask = (
  request: string,
  { expected, firstToken, limit, port }: CrowdQuestion,
  firstTokens: Array<number>
): Promise<string | undefined> =>
  new Promise((resolve) => {
    const socket = connect({ port, host: "127.0.0.1", noDelay: true })
    const answer = RawHttp.makeReader()
    let begun = 0
    let isAwaited = true
    const settle = (wrong: string | undefined) => {
      resolve(wrong)
      socket.destroy()
    }
    const send = () => {
      begun = performance.now()
      socket.write(request)
    }
    socket.setEncoding("latin1").setTimeout(limit, () => settle(`A stream was silent for ${limit} ms`))
    socket.on("connect", send).on("data", (piece: string) => {
      try {
        const isWhole = answer.push(piece)
        if (isAwaited && answer.text().includes(firstToken)) {
          isAwaited = false
          firstTokens.push(performance.now() - begun)
        }
        if (isWhole) settle(wrongWith(RawHttp.unchunked(answer.text()), expected))
      } catch (cause) {
        settle((cause as Error).message)
      }
    }).on("error", (cause) => settle(cause.message)).on("close", () => settle("A connection was closed too early"))
  })

answerParent<CrowdQuestion, CrowdAnswer>(async (question) => {
  const request = RawHttp.textOf(question)
  const { spreadMs, streams } = question
  const firstTokens: Array<number> = []
  const begun = performance.now()
  const outcomes = await Promise.all(
    Array.from({ length: streams }, async (_, index) => {
      if (spreadMs > 0) await sleep(index * spreadMs / streams)
      return ask(request, question, firstTokens)
    })
  )
  const lost = outcomes.filter((wrong) => wrong !== undefined)
  return {
    whole: outcomes.length - lost.length,
    lost: [...new Set(lost)].slice(0, 10),
    milliseconds: performance.now() - begun,
    firstToken: spreadOf(firstTokens)
  }
})
