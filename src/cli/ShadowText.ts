/** Copies of requests as text: a table of all models, and the figures of one. */
import type { ShadowView } from "../layers/http/RolloutSchema.ts"
import { percent, table } from "./Output.ts"

type Estimate = NonNullable<ShadowView["exact"]>

const rounded = (value: number): string => String(Number(value.toPrecision(3)))

const shareText = (estimate: Estimate | null): string => estimate === null ? "" : percent(estimate.value)

const meanText = (estimate: Estimate | null): string => estimate === null ? "" : rounded(estimate.value)

/** The copies of all models. */
export const shadowTable = (shadows: ReadonlyArray<ShadowView>): string =>
  table([
    ["SHADOW", "TO", "SHARE", "SENT", "FAILED", "EQUAL", "AGREEMENT"],
    ...shadows.map(({ agreement, exact, failed, model, sent, share, timedOut, to }) => [
      model,
      to,
      percent(share),
      String(sent),
      String(failed + timedOut),
      shareText(exact),
      meanText(agreement)
    ])
  ])

/** As `0.93 (95 %: 0.91 to 0.95)`. */
const withInterval = ({ high, low, value }: Estimate, text: (value: number) => string): string =>
  `${text(value)} (95 %: ${text(low)} to ${text(high)})`

const byReason = (counts: Readonly<Record<string, number>>): string => {
  const some = Object.entries(counts).filter(([, count]) => count > 0)
  return some.length === 0 ? "" : ` (${some.map(([reason, count]) => `${reason} ${count}`).join(", ")})`
}

const sum = (counts: Readonly<Record<string, number>>): number =>
  Object.values(counts).reduce((total, count) => total + count, 0)

const problemText = (problem: string | undefined): string => problem === undefined ? "" : `; the last: ${problem}`

const agreementLines = (
  { agreed, agreement, answered, compare, compared, comparisonProblem, exact, incomparable }: ShadowView
) => [
  ...(exact === null ? [] : [`Equal answers: ${withInterval(exact, percent)} of ${answered}`]),
  ...(compare === "exact" || agreement === null ? [] : [
    `${compare === "similarity" ? "Similarity" : "Score"}: ${
      withInterval(agreement, rounded)
    }; ${agreed} of ${compared} agree`
  ]),
  ...(incomparable === 0 ? [] : [`Failed comparisons: ${incomparable}${problemText(comparisonProblem)}`])
]

const ms = (value: number | null): string => value === null ? "" : `${rounded(value)} ms`

const sideRow = (name: string, side: ShadowView["primary"]): ReadonlyArray<string> => [
  name,
  ms(side.medianFirstTokenMs),
  ms(side.medianMs),
  String(side.promptTokens),
  String(side.completionTokens)
]

const costText = ({ costUsd, unpriced }: ShadowView): string =>
  `Cost of copies: ${rounded(costUsd)} USD${unpriced === 0 ? "" : `, and ${unpriced} calls without a known price`}`

const differingLines = ({ differing }: ShadowView): ReadonlyArray<string> =>
  differing.flatMap(({ agreement, at, candidate, primary, prompt }) => [
    "",
    `${new Date(at).toISOString()}${agreement === null ? "" : `, agreement ${rounded(agreement)}`}`,
    `  prompt:    ${JSON.stringify(prompt)}`,
    `  answer:    ${JSON.stringify(primary)}`,
    `  candidate: ${JSON.stringify(candidate)}`
  ])

/** What `troupe rollout shadow` prints. */
export const shadowText = (shadow: ShadowView): string => {
  const { cancelled, candidate, compare, failed, failures, model, primary, running, sampled } = shadow
  const { answered, sent, share, skipped, timedOut, to, unanswered } = shadow
  return [
    `${model}: ${percent(share)} of the requests are copied to ${to}, compared by ${compare}`,
    `Sampled: ${sampled}; unanswered ${unanswered}, skipped ${sum(skipped)}${byReason(skipped)}, running ${running}`,
    `Sent: ${sent}; answered ${answered}, failed ${failed}${byReason(failures)}, timed out ${timedOut}, ` +
    `cancelled ${cancelled}`,
    ...agreementLines(shadow),
    costText(shadow),
    "",
    table([
      ["ANSWERS", "FIRST TOKEN", "TOTAL", "PROMPT TOKENS", "ANSWER TOKENS"],
      sideRow("of callers", primary),
      sideRow(`of ${to}`, candidate)
    ]),
    ...differingLines(shadow)
  ].join("\n")
}
