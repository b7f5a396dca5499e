/**
 * Copies of requests for a deployment that takes none: which requests are copied, how two answers are compared, and what the
 * comparison has found. Pure.
 *
 * **Details**
 *
 * A request is sampled when it begins. Its copy is sent when its caller has the complete answer, so that it cannot delay it, and
 * that nothing is spent on a request that fails or whose caller leaves. What is compared is therefore an answer that a caller
 * has had.
 *
 * Everything that is kept is a count, a sum or a histogram, so that the memory is constant.
 */
import { combine, draw } from "../../domain/Hashing.ts"
import type { Answer } from "../../domain/Inference.ts"
import { promptLengthOf } from "../../domain/RoutingRequest.ts"
import * as Assignment from "./Assignment.ts"
import type { ShadowPlan } from "./ShadowSettings.ts"
import * as Tally from "./Tally.ts"

/**
 * Why a sampled request has no copy: memory pressure, too many copies at a time, a queue at the candidate, its budget, the
 * request (`excluded`: its tenant or its routing options; `unsupported`: what it asks for), or a candidate that cannot take it.
 */
export const skipReasons = [
  "pressure",
  "concurrency",
  "queue",
  "budget",
  "excluded",
  "unsupported",
  "unavailable"
] as const
export type SkipReason = (typeof skipReasons)[number]

/** Separates these draws from others over the same seed. */
const purpose = 0x73686477

/**
 * Whether a request is copied.
 *
 * @param index of the request, from a counter
 * @param session the hash of the request's session, if it has one
 */
export const isSampled = (
  { share, sticky }: Pick<ShadowPlan, "share" | "sticky">,
  seed: number,
  index: number,
  session: number | undefined
): boolean => {
  const own = combine(seed, purpose)
  return Assignment.toCandidate(own, share, sticky ? session : undefined, draw(own, index))
}

/** What of an answer is compared. */
export type Compared = Pick<Answer, "text" | "toolCalls">

/** A value whose objects have their fields in order. */
const ordered = (value: unknown): unknown => {
  if (Array.isArray(value)) return value.map(ordered)
  if (typeof value !== "object" || value === null) return value
  return Object.fromEntries(
    Object.entries(value).toSorted(([a], [b]) => a < b ? -1 : 1).map(([name, one]) => [name, ordered(one)])
  )
}

/** The arguments of a call as JSON with ordered fields; as they are where they are no JSON. */
const argumentsOf = (text: string): string => {
  try {
    return JSON.stringify(ordered(JSON.parse(text)))
  } catch {
    return text.trim()
  }
}

/** An answer as one text: without white space at the ends, and with its calls, whose ids do not count. */
export const textOf = ({ text, toolCalls }: Compared): string =>
  [text.trim(), ...toolCalls.map((call) => `${call.name}(${argumentsOf(call.arguments)})`)].join("\n").trim()

/** The cosine of two embeddings, at least 0; 0 where they have different dimensions or no direction. */
export const similarity = (primary: ArrayLike<number>, candidate: ArrayLike<number>): number => {
  if (primary.length !== candidate.length) return 0
  let [product, squares, others] = [0, 0, 0]
  for (let index = 0; index < primary.length; index++) {
    product += primary[index]! * candidate[index]!
    squares += primary[index]! ** 2
    others += candidate[index]! ** 2
  }
  const cosine = product / Math.sqrt(squares * others)
  return cosine > 0 ? Math.min(1, cosine) : 0
}

/** Characters of a piece: the embedded model has a window of 128 tokens. A character of Chinese is about a token. */
const pieceLength = 256
const densePieceLength = 64

/** Pieces of a text that are embedded; the rest is not compared. */
const mostPieces = 64

/** A text in pieces that fit the windows of embedding models, cut between words where there are any. */
export const piecesOf = (text: string): ReadonlyArray<string> => {
  const most = promptLengthOf(text) > 1.2 * text.length ? densePieceLength : pieceLength
  const pieces: Array<string> = []
  let from = 0
  while (from < text.length && pieces.length < mostPieces) {
    const end = from + most
    const space = end < text.length ? text.lastIndexOf(" ", end) : -1
    const to = space > from ? space : end
    const piece = text.slice(from, to).trim()
    if (piece !== "") pieces.push(piece)
    from = to
  }
  return pieces
}

/** The mean of the embeddings of a text's pieces. */
export const meanVector = (vectors: ReadonlyArray<ArrayLike<number>>): ReadonlyArray<number> => {
  const [first] = vectors
  if (first === undefined) return []
  return Array.from(first, (_, index) => vectors.reduce((sum, vector) => sum + vector[index]!, 0) / vectors.length)
}

/** From 5 ms to 12 minutes. */
const times = Tally.logarithmic(5, 126, Tally.growth)

/** What one answer has taken. */
export interface Taken {
  /** From the request to the end of the answer, without the time that a slow reader has held it back, ms. */
  readonly tookMs: number
  /** ms; of a streamed answer. */
  readonly firstTokenMs: number | undefined
  readonly promptTokens: number
  readonly completionTokens: number
}

/** What the answers of one side have taken. */
interface Side {
  readonly took: Array<number>
  readonly firstToken: Array<number>
  promptTokens: number
  completionTokens: number
}

const emptySide = (): Side => ({
  took: Tally.zeros(times),
  firstToken: Tally.zeros(times),
  promptTokens: 0,
  completionTokens: 0
})

/** What the copies of a model have shown; `record` and the others change it in place. */
export interface Totals {
  /** Requests that were drawn. */
  sampled: number
  /** Of those, requests that failed or whose callers left: they have no answer to compare. */
  unanswered: number
  readonly skipped: Record<SkipReason, number>
  /** Copies that were answered. */
  answered: number
  failed: number
  timedOut: number
  /** Copies that were ended by memory pressure, another configuration or the end of the process. */
  cancelled: number
  /** Pairs whose answers are equal. */
  exact: number
  /** Pairs that agree, and those for which the comparison gave a number. */
  agreed: number
  compared: number
  /** Comparisons that gave no number. */
  incomparable: number
  /** Of the similarities, or of the scores of a custom comparison. */
  sum: number
  squares: number
  readonly primary: Side
  readonly candidate: Side
  /** Nano-dollars of copies, and copies whose price is unknown. */
  cost: number
  unpriced: number
}

/** Without requests. */
export const empty = (): Totals => ({
  sampled: 0,
  unanswered: 0,
  skipped: { pressure: 0, concurrency: 0, queue: 0, budget: 0, excluded: 0, unsupported: 0, unavailable: 0 },
  answered: 0,
  failed: 0,
  timedOut: 0,
  cancelled: 0,
  exact: 0,
  agreed: 0,
  compared: 0,
  incomparable: 0,
  sum: 0,
  squares: 0,
  primary: emptySide(),
  candidate: emptySide(),
  cost: 0,
  unpriced: 0
})

const add = (side: Side, { completionTokens, firstTokenMs, promptTokens, tookMs }: Taken): void => {
  Tally.count(side.took, times, tookMs)
  Tally.count(side.firstToken, times, firstTokenMs)
  side.promptTokens += promptTokens
  side.completionTokens += completionTokens
}

/** A request and its copy, both answered. */
export interface Pair {
  readonly primary: Taken
  readonly candidate: Taken
  readonly isExact: boolean
  /** From 0 to 1; undefined where the comparison gave no number. */
  readonly agreement: number | undefined
}

/** Adds a pair. */
export const record = (
  totals: Totals,
  { agreesFrom }: Pick<ShadowPlan, "agreesFrom">,
  { agreement, candidate, isExact, primary }: Pair
): void => {
  totals.answered++
  add(totals.primary, primary)
  add(totals.candidate, candidate)
  if (isExact) totals.exact++
  if (agreement === undefined) {
    totals.incomparable++
    return
  }
  totals.compared++
  totals.sum += agreement
  totals.squares += agreement ** 2
  if (agreement >= agreesFrom) totals.agreed++
}

/** The 0.975 quantile of the normal distribution. */
const normal = 1.959964

/** That of Student's t (Abramowitz and Stegun, 26.7.5). */
const student = (freedom: number): number => {
  if (freedom === 1) return 12.7062
  const z = normal
  return z + (z ** 3 + z) / (4 * freedom) + (5 * z ** 5 + 16 * z ** 3 + 3 * z) / (96 * freedom ** 2) +
    (3 * z ** 7 + 19 * z ** 5 + 17 * z ** 3 - 15 * z) / (384 * freedom ** 3)
}

/** An estimate with the ends of its 95 % confidence interval. */
export interface Estimate {
  readonly value: number
  readonly low: number
  readonly high: number
}

const within = (value: number): number => Math.min(1, Math.max(0, value))

/** A share (Wilson's interval); null without cases. */
export const shareOf = (count: number, of: number): Estimate | null => {
  if (of === 0) return null
  const [share, square] = [count / of, normal ** 2]
  const middle = (share + square / (2 * of)) / (1 + square / of)
  const half = normal / (1 + square / of) * Math.sqrt(share * (1 - share) / of + square / (4 * of ** 2))
  return { value: share, low: within(middle - half), high: within(middle + half) }
}

/** The mean of numbers from 0 to 1 (Student's interval); null with fewer than two. */
export const meanOf = (
  { compared, squares, sum }: Pick<Totals, "compared" | "squares" | "sum">
): Estimate | null => {
  if (compared < 2) return null
  const mean = sum / compared
  const variance = Math.max(0, squares - compared * mean ** 2) / (compared - 1)
  const half = student(compared - 1) * Math.sqrt(variance / compared)
  return { value: within(mean), low: within(mean - half), high: within(mean + half) }
}

/** What the answers of one side have taken: medians to 10 %, ms, and tokens. */
export interface SideReport {
  readonly medianMs: number | null
  readonly medianFirstTokenMs: number | null
  readonly promptTokens: number
  readonly completionTokens: number
}

const sideReport = ({ completionTokens, firstToken, promptTokens, took }: Side): SideReport => ({
  medianMs: Tally.median(took, times) ?? null,
  medianFirstTokenMs: Tally.median(firstToken, times) ?? null,
  promptTokens,
  completionTokens
})

/** What the copies have shown. */
export interface Report extends
  Pick<
    Totals,
    "agreed" | "answered" | "cancelled" | "compared" | "failed" | "incomparable" | "sampled" | "timedOut" | "unanswered"
  >
{
  /** Copies that the candidate was given, and that have ended. */
  readonly sent: number
  readonly skipped: Readonly<Record<SkipReason, number>>
  /** The share of pairs whose answers are equal. */
  readonly exact: Estimate | null
  /** The mean similarity or score. */
  readonly agreement: Estimate | null
  readonly primary: SideReport
  readonly candidate: SideReport
  readonly costUsd: number
  readonly unpriced: number
}

export const report = (totals: Totals): Report => {
  const { answered, cancelled, cost, failed, timedOut } = totals
  return {
    sampled: totals.sampled,
    unanswered: totals.unanswered,
    skipped: { ...totals.skipped },
    sent: answered + failed + timedOut + cancelled,
    answered,
    failed,
    timedOut,
    cancelled,
    compared: totals.compared,
    incomparable: totals.incomparable,
    agreed: totals.agreed,
    exact: shareOf(totals.exact, answered),
    agreement: meanOf(totals),
    primary: sideReport(totals.primary),
    candidate: sideReport(totals.candidate),
    costUsd: cost / 1e9,
    unpriced: totals.unpriced
  }
}
