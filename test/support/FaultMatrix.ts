/** Combines faults with request modes, runs each against the service, and prints the expected and observed outcomes. */
import type { Fault, Refused, Wire } from "./Faults.ts"
import { json } from "./Faults.ts"
import type { Play, Seen } from "./FaultServer.ts"
import type { Dialect } from "./Wires.ts"
import { otherBuffered, otherPieces, otherText } from "./Wires.ts"

/** The modes of the caller's request and the provider's answer: streamed, buffered, or buffered in one piece. */
export const modes = ["stream", "buffered", "buffered upstream"] as const
export type Mode = typeof modes[number]

/** `alone`: no other deployment can answer. `chain`: a healthy deployment is next. */
const setups = ["alone", "chain"] as const
export type Setup = typeof setups[number]

/** One cell: a separate model, so that its circuit and its keys are separate. */
export interface Case {
  readonly id: string
  readonly dialect: Dialect
  readonly wire: Wire
  readonly fault: Fault
  readonly mode: Mode
  readonly setup: Setup
  readonly promise: string
  readonly refused: Refused | undefined
}

/** The provider's model name of the fallback. */
const standIn = (id: string): string => `${id}+`

const refusedAs = ({ code, retryAfter, status }: Refused): string => {
  const after = retryAfter === undefined ? "" : `, Retry-After ${[...new Set(retryAfter)].join(" to ")}`
  return `${status} ${code}${after}`
}

const exact = "200, exact"
const exactBySecond = "200, exact, by the second"

const promiseOf = ({ answer, next, promise, when }: Fault, mode: Mode, setup: Setup): string => {
  if (answer !== undefined && (when === "after" || setup !== "chain")) return answer
  if (when === "harmless" || promise === undefined) return exact
  if (when === "after" && mode === "stream") return `200, then ${promise.code} in the stream`
  return setup === "chain" && next !== "none" ? exactBySecond : refusedAs(promise)
}

const isTried = ({ streamed, buffered }: Fault, mode: Mode): boolean =>
  (mode === "buffered upstream" ? buffered : streamed) !== undefined

/** All cells of a dialect. */
export const casesOf = (dialect: Dialect, wire: Wire, faults: ReadonlyArray<Fault>): ReadonlyArray<Case> =>
  faults.flatMap((fault, index) =>
    modes.filter((mode) => isTried(fault, mode)).flatMap((mode) =>
      setups.map((setup) => ({
        id: `${dialect}-${index}-${modes.indexOf(mode)}-${setup}`,
        dialect,
        wire,
        fault,
        mode,
        setup,
        promise: promiseOf(fault, mode, setup),
        refused: fault.promise
      }))
    )
  )

/** The settings of the case's model, and of its fallback if the next deployment would not be used. */
export const modelsOf = (
  { dialect, fault: { next, options, retries }, id, mode, setup }: Case,
  baseUrl: string
): Readonly<Record<string, unknown>> => {
  const faulty = {
    provider: dialect,
    model: id,
    baseUrl,
    key: "${FAULT_MATRIX_KEY}",
    quality: 0.9,
    stream: mode !== "buffered upstream",
    ...options
  }
  const healthy = { provider: "openai", model: standIn(id), baseUrl, quality: 0.8 }
  const policy = retries === undefined ? "once" : "again"
  const model = { preload: false, policy, deployments: [faulty] }
  if (setup === "alone") return { [id]: model }
  return next === undefined || next === "none"
    ? { [id]: { ...model, deployments: [faulty, healthy] } }
    : { [id]: { ...model, [next]: [standIn(id)] }, [standIn(id)]: { preload: false, deployments: [healthy] } }
}

export const policies = {
  once: { strategy: "quality", retries: 0 },
  again: { strategy: "quality", retries: 2, backoff: { initial: "10 millis" } }
}

/** The model name in a provider's request, wherever its dialect has it. */
export const modelAsked = ({ body, path }: Pick<Seen, "body" | "path">): string =>
  /\/models\/([^:]+):/.exec(path)?.[1] ?? (body as { readonly model: string }).model

/** The answer of the fallback, in the caller's mode. */
const otherOf = ({ body }: Pick<Seen, "body">): Play =>
  (body as { readonly stream?: boolean }).stream === true
    ? { pieces: otherPieces }
    : { headers: json, pieces: [otherBuffered] }

/** The provider's behaviour for the call with this number to this model. */
export const playOf = (cases: ReadonlyMap<string, Case>, seen: Pick<Seen, "body" | "path">, call: number): Play => {
  const found = cases.get(modelAsked(seen))
  if (found === undefined) return otherOf(seen)
  const { fault, mode } = found
  const play = (mode === "buffered upstream" ? fault.buffered! : fault.streamed!)(call)
  // Bytes right after the content may reach a reader before it, or instead of it.
  return fault.when === "after" && mode === "stream" ? { ...play, gated: true } : play
}

/** The observations of a caller. */
export interface Answer {
  readonly status: number
  readonly text: string
  readonly code: string | undefined
  readonly finish: string | undefined
  readonly isDone: boolean
  readonly retryAfter: string | undefined
  /** Everything that arrived, including headers. */
  readonly all: string
}

interface Chunk {
  readonly error?: { readonly message: string; readonly type: string; readonly code: string | null }
  readonly choices?: ReadonlyArray<{
    readonly delta?: { readonly content?: string }
    readonly message?: { readonly content: string }
    readonly finish_reason: string | null
  }>
}

const errorOf = (chunks: ReadonlyArray<Chunk>): string | undefined => {
  const error = chunks.find((chunk) => chunk.error !== undefined)?.error
  return error === undefined ? undefined : error.code ?? error.type
}

const textOf = async (response: Response, onContent: () => void): Promise<string> => {
  const decoder = new TextDecoder()
  let text = ""
  for await (const bytes of response.body ?? []) {
    text += decoder.decode(bytes as Uint8Array, { stream: true })
    if (/"content":"[^"]/.test(text)) onContent()
  }
  return text
}

/**
 * Reads a response to its end.
 *
 * @param onContent called when content has arrived
 */
export const read = async (response: Response, onContent: () => void): Promise<Answer> => {
  const body = await textOf(response, onContent)
  const isStream = response.headers.get("content-type")?.startsWith("text/event-stream") === true
  const data = isStream ? [...body.matchAll(/^data: (.*)$/gm)].map(([, data]) => data!) : [body]
  const chunks = data.filter((one) => one !== "[DONE]").map((one) => JSON.parse(one) as Chunk)
  const choices = chunks.flatMap((chunk) => chunk.choices ?? [])
  return {
    status: response.status,
    text: choices.map(({ delta, message }) => delta?.content ?? message?.content ?? "").join(""),
    code: errorOf(chunks),
    finish: choices.map(({ finish_reason }) => finish_reason ?? undefined).findLast((reason) => reason !== undefined),
    isDone: !isStream || data.at(-1) === "[DONE]",
    retryAfter: response.headers.get("retry-after") ?? undefined,
    all: `${JSON.stringify([...response.headers])}${body}`
  }
}

const isWithin = (retryAfter: string | undefined, promised: Refused["retryAfter"]): boolean =>
  promised === undefined
    ? retryAfter === undefined
    : Number(retryAfter) >= promised[0] && Number(retryAfter) <= promised[1]

/** The outcome of a success status: the complete answer, or its beginning and the error. */
const answeredAs = ({ begun, text: own }: Wire, { code, finish, isDone, text }: Answer): string => {
  const end = `error ${code}, finish ${finish}, done ${isDone}`
  const known: Readonly<Record<string, string>> = {
    [`${own}: error undefined, finish stop, done true`]: exact,
    [`${otherText}: error undefined, finish stop, done true`]: exactBySecond,
    [`${begun}: error ${code ?? "of none"}, finish undefined, done false`]: `200, then ${code} in the stream`
  }
  return known[`${text}: ${end}`] ?? `200, "${text}", ${end}`
}

/** The observation; in the wording of the expectation if it was met. */
export const seenOf = ({ refused, wire }: Case, answer: Answer): string => {
  const { code, retryAfter, status, text } = answer
  if (status === 200) return answeredAs(wire, answer)
  if (code === undefined || text !== "") return `${status} with "${text}"`
  return refused !== undefined && isWithin(retryAfter, refused.retryAfter)
    ? refusedAs({ ...refused, status, code })
    : `${status} ${code}, Retry-After ${retryAfter}`
}

/** A line of the matrix. */
export interface Row {
  readonly dialect: Dialect
  readonly fault: Fault
  readonly mode: Mode
  readonly seen: { [S in Setup]?: { readonly promise: string; readonly seen: string; readonly calls: number } }
  circuit?: string
}

const mark = ({ promise, seen }: { readonly promise: string; readonly seen: string }): string =>
  promise === seen ? seen : `${seen} (PROMISED: ${promise})`

/** Columns as wide as they need to be. */
export const tableOf = (lines: ReadonlyArray<ReadonlyArray<string>>): string => {
  const widths = lines[0]!.map((_, column) => Math.max(...lines.map((line) => line[column]!.length)))
  const written = lines.map((line) => line.map((cell, column) => cell.padEnd(widths[column]!)).join("  ").trimEnd())
  return [written[0], widths.map((width) => "-".repeat(width)).join("  "), ...written.slice(1)].join("\n")
}

/** The matrix as text. The observation equals the expectation, unless a cell shows otherwise. */
export const print = (rows: ReadonlyArray<Row>): string =>
  tableOf([
    ["dialect", "fault", "when", "asked", "alone", "with another behind it", "calls", "circuit after 5"],
    ...rows.map(({ circuit = "", dialect, fault, mode, seen: { alone, chain } }) => [
      dialect,
      fault.name,
      fault.when === "harmless" ? "" : `${fault.when} content`,
      mode,
      alone === undefined ? "" : mark(alone),
      chain === undefined ? "" : mark(chain),
      `${alone?.calls ?? ""}`,
      circuit
    ])
  ])
