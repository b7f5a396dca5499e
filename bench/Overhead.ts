/**
 * The overhead of a request without the cost of a model: a fake engine's completion by the service, compared with a bare
 * `node:http` server that answers with the same bytes.
 *
 * **Details**
 *
 * CPU time is measured for the service's process alone, and including the process of the fake engine. A separate process
 * generates the load and is not counted. One row is of an embedded Troupe instead, by calls without HTTP.
 */
import type { BareAnswer, BareQuestion } from "./bareServer.ts"
import type { Child } from "./Child.ts"
import { withChild } from "./Child.ts"
import type { InProcessAnswer, InProcessQuestion } from "./inProcess.ts"
import type { LoadAnswer, LoadQuestion } from "./load.ts"
import * as ProcessCpu from "./ProcessCpu.ts"
import type { Effort, Outcome, Row, Scenario } from "./Scenario.ts"
import type { Service } from "./Service.ts"
import { withService } from "./Service.ts"
import { median } from "./Statistics.ts"

const name = "overhead"
const path = "/v1/chat/completions"
const connections = 16
/** CPU time above the bare server's, µs per request. */
const targetMicroseconds = 200
/** CPU time of the main thread for a call without HTTP, µs. */
const targetInProcess = 40

/** Three bytes: one token of the fake engine. */
const shortReply = "Yes"
const longReply = "One two three four five six seven eight nine ten, end of line."
const longReplyTokens = Math.ceil(Buffer.byteLength(longReply) / 3)

const config = `
server:
  shutdownGrace: 1 second
cache:
  when: never
models:
  fake/echo:
    deployments: [{ engine: fake, reply: "${shortReply}", slots: ${connections} }]
  fake/tale:
    deployments: [{ engine: fake, reply: "${longReply}", slots: ${connections} }]
`

const messages = [{ role: "user", content: "Is it so?" }]
const bufferedBody = JSON.stringify({ model: "fake/echo", messages, temperature: 0 })
const streamBody = JSON.stringify({ model: "fake/tale", messages, temperature: 0, stream: true })

type InProcess = Child<InProcessQuestion, InProcessAnswer>
type Load = Child<LoadQuestion, LoadAnswer>

/** The requests of one round and the server's CPU time for them, µs. */
interface Measured extends LoadAnswer {
  readonly cpu: ProcessCpu.Spent
}

interface Round {
  readonly bare: Measured
  readonly buffered: Measured
  readonly streamed: Measured
  readonly inProcess: InProcessAnswer
}

interface Server {
  readonly pid: number
  readonly port: number
}

interface Sides {
  readonly load: Load
  readonly bare: Server
  readonly service: Service
  readonly inProcess: InProcess
}

const post = async (port: number, body: string): Promise<Response> => {
  const headers = { "content-type": "application/json" }
  const response = await fetch(`http://127.0.0.1:${port}${path}`, { method: "POST", body, headers })
  if (response.status !== 200) throw new Error(`The service answered ${response.status}: ${await response.text()}`)
  return response
}

/** An answer of the service, which the bare server repeats. */
const sampleAnswer = async (port: number): Promise<BareQuestion> => {
  const response = await post(port, bufferedBody)
  const body = await response.text()
  const { choices } = JSON.parse(body) as { readonly choices: ReadonlyArray<{ message: { content: string } }> }
  if (choices[0]?.message.content !== shortReply) throw new Error(`Unexpected answer of the service: ${body}`)
  const kept = ["content-type", "content-length", "x-request-id"]
  return { body, headers: Object.fromEntries(kept.map((header) => [header, response.headers.get(header) ?? ""])) }
}

const checkStream = async (port: number): Promise<void> => {
  const frames = (await (await post(port, streamBody)).text()).split("\n\n").filter((frame) => frame !== "")
  if (frames.pop() !== "data: [DONE]") throw new Error("The service's stream did not end with [DONE]")
  const text = frames.map((frame) => {
    const { choices } = JSON.parse(frame.slice("data: ".length)) as {
      readonly choices: ReadonlyArray<{ readonly delta: { readonly content?: string } }>
    }
    return choices[0]?.delta.content ?? ""
  }).join("")
  if (text !== longReply) throw new Error(`Unexpected stream of the service: ${text}`)
}

const measureServer = async (load: Load, server: Server, body: string, milliseconds: number): Promise<Measured> => {
  const question = { port: server.port, path, body, connections, milliseconds }
  const [answer, cpu] = await ProcessCpu.during(server.pid, () => load.ask(question))
  return { ...answer, cpu }
}

const measureRound = async ({ bare, inProcess, load, service }: Sides, milliseconds: number): Promise<Round> => ({
  bare: await measureServer(load, bare, bufferedBody, milliseconds),
  buffered: await measureServer(load, service, bufferedBody, milliseconds),
  streamed: await measureServer(load, service, streamBody, milliseconds),
  inProcess: await inProcess.ask({ callers: connections, milliseconds, reply: shortReply })
})

const rate = ({ milliseconds, requests }: Measured) => requests / (milliseconds / 1000)
const ofProcess = ({ cpu, requests }: Measured) => cpu.process / requests
const ofTree = ({ cpu, requests }: Measured) => cpu.tree / requests

const cpuRows = (rounds: ReadonlyArray<Round>): ReadonlyArray<Row> => {
  const middle = (figure: (round: Round) => number) => median(rounds.map(figure))
  const bare = middle((round) => ofProcess(round.bare))
  const row = { scenario: name, unit: "µs/request", baseline: bare, comparison: "difference" as const }
  const target = { atMost: targetMicroseconds }
  const streamed = `streamed ${longReplyTokens} tokens`
  return [
    { ...row, measure: "CPU, service process", troupe: middle((round) => ofProcess(round.buffered)), target },
    { ...row, measure: "CPU with engine process", troupe: middle((round) => ofTree(round.buffered)), target },
    { ...row, measure: `CPU, ${streamed}, service process`, troupe: middle((round) => ofProcess(round.streamed)) },
    { ...row, measure: `CPU, ${streamed}, with engine process`, troupe: middle((round) => ofTree(round.streamed)) }
  ]
}

const inProcessRow = (rounds: ReadonlyArray<Round>): Row => ({
  scenario: name,
  measure: "in-process call, all policies, main thread",
  unit: "µs/call",
  troupe: median(rounds.map(({ inProcess }) => inProcess.cpu / inProcess.calls)),
  comparison: "none",
  target: { atMost: targetInProcess }
})

const rateRows = (rounds: ReadonlyArray<Round>): ReadonlyArray<Row> => {
  const baseline = median(rounds.map((round) => rate(round.bare)))
  const row = { scenario: name, unit: "requests/s", baseline, comparison: "ratio" as const }
  return [
    { ...row, measure: "throughput", troupe: median(rounds.map((round) => rate(round.buffered))) },
    {
      ...row,
      measure: `throughput, streamed ${longReplyTokens} tokens`,
      troupe: median(rounds.map((round) => rate(round.streamed)))
    }
  ]
}

const measure = async (sides: Sides, effort: Effort): Promise<Outcome> => {
  await checkStream(sides.service.port)
  await measureRound(sides, effort.warmUpMs)
  const rounds: Array<Round> = []
  for (let round = 0; round < effort.rounds; round++) rounds.push(await measureRound(sides, effort.roundMs))
  return {
    rows: [...(ProcessCpu.isAvailable ? cpuRows(rounds) : []), inProcessRow(rounds), ...rateRows(rounds)],
    notes: ProcessCpu.isAvailable ? [] : [ProcessCpu.unavailable],
    raw: { connections, bufferedBody, streamBody, rounds }
  }
}

const run = (effort: Effort, nodeOptions: ReadonlyArray<string>): Promise<Outcome> =>
  withService(
    { config, nodeOptions },
    (service) =>
      withChild<BareQuestion, BareAnswer, Outcome>("bareServer.ts", async (bare) => {
        const { port } = await bare.ask(await sampleAnswer(service.port))
        return withChild("load.ts", (load: Load) =>
          withChild(
            "inProcess.ts",
            (inProcess: InProcess) => measure({ load, bare: { pid: bare.pid, port }, service, inProcess }, effort)
          ))
      })
  )

export const overhead: Scenario = { name, run }
