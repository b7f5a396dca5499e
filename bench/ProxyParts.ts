/** The parts of a round of the scenario `proxy`: what is requested from a gateway, and how. */
import type { Child } from "./Child.ts"
import type { CrowdAnswer, CrowdQuestion } from "./crowd.ts"
import type { LoadAnswer, LoadQuestion } from "./load.ts"
import * as ProcessCpu from "./ProcessCpu.ts"
import type { Round, Side, Turn } from "./ProxyRows.ts"
import * as ProxyRows from "./ProxyRows.ts"

const { connections, fewStreams, rate, streams } = ProxyRows
const wordList: ReadonlyArray<string> = Array.from({ length: ProxyRows.words }, (_, index) => `word${index} `)
const expected = wordList.join("")
const firstToken = `"content":"${wordList[0]}`
/** Silence after which a concurrent stream counts as lost, ms. */
const crowdLimit = 30_000

/** The words of an answer. */
export { wordList as words }

interface Form {
  readonly path: string
  readonly body: string
}

const openAi = (model: string, stream: boolean): Form => ({
  path: "/v1/chat/completions",
  body: JSON.stringify({
    model,
    messages: [{ role: "system", content: "Be brief." }, { role: "user", content: "Is it so?" }],
    temperature: 0,
    ...(stream ? { stream } : {})
  })
})

/** The requests. */
export const forms = {
  buffered: openAi("quick", false),
  streamed: openAi("quick", true),
  paced: openAi("paced", true),
  translated: {
    path: "/v1/messages",
    body: JSON.stringify({
      model: "quick",
      max_tokens: 100,
      system: "Be brief.",
      messages: [{ role: "user", content: "Is it so?" }],
      temperature: 0
    })
  }
} as const

/** A gateway in front of the upstream. */
export interface Gateway {
  readonly side: Side
  readonly pid: number
  readonly port: number
  readonly headers: Readonly<Record<string, string>>
}

/** Who sends the requests. */
export interface Senders {
  readonly load: Child<LoadQuestion, LoadAnswer>
  readonly crowd: Child<CrowdQuestion, CrowdAnswer>
}

type Part<Answer = LoadAnswer> = (gateway: Gateway) => Promise<Turn<Answer>>

type PartName = keyof Round
/** The parts of a round, by name. */
export type Parts = { readonly [Name in PartName]: Name extends ProxyRows.CrowdPart ? Part<CrowdAnswer> : Part }

/** The sides that take part; the others are left out. */
export const sidesOf: { readonly [Name in PartName]: ReadonlyArray<Side> } = {
  alone: ["bare", "troupe", "portkey"],
  busy: ["bare", "troupe", "portkey", "nginx"],
  translated: ["troupe"],
  calm: ["bare", "troupe"],
  firstToken: ["bare", "troupe", "portkey"],
  streamed: ["bare", "troupe", "portkey", "nginx"],
  few: ["bare", "troupe"],
  many: ["bare", "troupe"],
  crowd: ["bare", "troupe", "portkey"]
}

const measured = async <Answer>(pid: number, work: () => Promise<Answer>): Promise<Turn<Answer>> => {
  const before = ProcessCpu.ofThreads(pid)
  const answer = await work()
  return { answer, cpu: ProcessCpu.ofThreads(pid) - before }
}

/** Requests to a gateway for a time, in ms. */
export const send = (
  { load }: Senders,
  { headers, pid, port }: Gateway,
  form: Form,
  options: Pick<LoadQuestion, "connections" | "milliseconds" | "firstToken" | "rate">
): Promise<Turn> => measured(pid, () => load.ask({ ...form, ...options, port, headers }))

/**
 * Concurrent streams of a gateway, word by word.
 *
 * @param spreadMs they begin evenly spaced over this time, ms; 0: together
 */
export const sendCrowd = (
  crowd: Senders["crowd"],
  { headers, pid, port }: Gateway,
  streams: number,
  spreadMs: number
): Promise<Turn<CrowdAnswer>> =>
  measured(
    pid,
    () => crowd.ask({ ...forms.paced, port, headers, streams, expected, firstToken, spreadMs, limit: crowdLimit })
  )

/** @param milliseconds of a part */
export const make = (senders: Senders, milliseconds: number): Parts => {
  const whole = { connections, milliseconds }
  // One connection gives times only, which need fewer requests.
  const single = { connections: 1, milliseconds: milliseconds / 2 }
  const ask = (form: Form, options: Parameters<typeof send>[3]): Part => (gateway) =>
    send(senders, gateway, form, options)
  const crowd = (count: number, spreadMs: number): Part<CrowdAnswer> => (gateway) =>
    sendCrowd(senders.crowd, gateway, count, spreadMs)
  return {
    alone: ask(forms.buffered, single),
    busy: ask(forms.buffered, whole),
    translated: ask(forms.translated, whole),
    calm: ask(forms.buffered, { ...whole, rate }),
    firstToken: ask(forms.streamed, { ...single, firstToken }),
    streamed: ask(forms.streamed, whole),
    few: crowd(fewStreams, milliseconds / 2),
    many: crowd(streams, milliseconds / 2),
    crowd: crowd(streams, 0)
  }
}

const post = async ({ headers, port }: Gateway, { body, path }: Form): Promise<string> => {
  const response = await fetch(`http://127.0.0.1:${port}${path}`, {
    method: "POST",
    body,
    headers: { ...headers, "content-type": "application/json" }
  })
  return response.text()
}

/** The complete answer, which must equal the upstream's; Troupe's also in the other dialect. */
export const check = async (gateway: Gateway): Promise<void> => {
  const text = await post(gateway, forms.buffered)
  const { choices } = JSON.parse(text) as { readonly choices?: ReadonlyArray<{ message: { content: string } }> }
  if (choices?.[0]?.message.content !== expected) throw new Error(`Unexpected answer of ${gateway.side}: ${text}`)
  if (gateway.side !== "troupe") return
  const translated = await post(gateway, forms.translated)
  const { content } = JSON.parse(translated) as { readonly content?: ReadonlyArray<{ text: string }> }
  if (content?.[0]?.text !== expected) throw new Error(`Unexpected translated answer: ${translated}`)
}
