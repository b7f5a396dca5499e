/**
 * An anytime-valid test of two proportions: whether the candidate has more failures (slow answers, refusals) than the
 * stable version and a tolerance.
 *
 * **Details**
 *
 * The evidence is an e-value: it starts at 1, each batch of observations multiplies it, and its expected factor is at most
 * 1 while the candidate is not worse. The probability that it ever reaches `1 / alpha` is then at most `alpha` (Ville's
 * inequality), however often it is looked at and whenever the rollout stops.
 *
 * The factor of a batch is that of Turner, Ly and Grünwald, *Generic E-variables for exact sequential k-sample tests that
 * allow for optional stopping* (2024), and for a tolerance of Turner and Grünwald, *Exact anytime-valid confidence
 * intervals for contingency tables and beyond* (2023): the likelihood of a bet (two proportions, fixed before the batch is
 * seen) over that of the nearest proportions without a difference beyond the tolerance. With the bet `q`, the nearest pair
 * `p` (`p.candidate = p.stable + tolerance`), sizes `n` and slopes `c = (q - p) / (p (1 - p))`, it is
 * `n.stable c.stable + n.candidate c.candidate = 0`. If the true proportions are `p + d`, the expectation of the factor is
 * at most `exp(Σ n c d)` = `exp(n.candidate c.candidate (d.candidate - d.stable))`, which is at most 1 while the candidate
 * is not worse.
 *
 * That needs the means of the two versions in a batch only: proportions that change for both, as in an outage of what they
 * share, are no evidence, nor is a change of the shares of requests between two batches.
 *
 * **Gotchas**
 *
 * The observations of a batch count as independent. Where one session repeats the same failing request, they are not.
 */
import type { Proportion } from "./Rollout.ts"

/** The two versions of a batch, or of everything before it. */
export interface Pair<A> {
  readonly stable: A
  readonly candidate: A
}

/** Weight of what both versions have in common, in requests: few observations of the candidate are not believed at once. */
const shrinkage = 5

/** What the stable version's share of failures is taken for before there are any observations. */
const usualShare = 0.05

/** The candidate's share of failures that a bet on a severe regression assumes. */
const severeShare = 0.5

/** The log-likelihood of a batch, relative to another proportion. */
const ratio = ({ count, of }: Proportion, q: number, p: number): number =>
  count * Math.log(q / p) + (of - count) * Math.log((1 - q) / (1 - p))

/** Halves the interval that has the proportion; 50 times leave an error below 1e-15. */
const halvings = 50

/** The stable proportion of the nearest pair (Kullback-Leibler) with a difference of `tolerance`, of a bet beyond it. */
const nearest = (batch: Pair<Proportion>, bet: Pair<number>, tolerance: number): number => {
  const [stable, candidate] = [batch.stable.of, batch.candidate.of]
  if (tolerance === 0) return (stable * bet.stable + candidate * bet.candidate) / (stable + candidate)
  let [low, high] = [bet.stable, bet.candidate - tolerance]
  for (let halving = 0; halving < halvings; halving++) {
    const p = (low + high) / 2
    const shifted = p + tolerance
    const slope = stable * (bet.stable - p) / (p * (1 - p)) +
      candidate * (bet.candidate - shifted) / (shifted * (1 - shifted))
    if (slope > 0) low = p
    else high = p
  }
  return (low + high) / 2
}

/**
 * The logarithm of the factor by which a batch multiplies the evidence; 0 for a bet within the tolerance, and for a batch
 * that lacks one version.
 *
 * @param bet proportions, above 0 and below 1, that do not depend on the batch
 */
export const factor = (batch: Pair<Proportion>, bet: Pair<number>, tolerance: number): number => {
  if (batch.stable.of === 0 || batch.candidate.of === 0 || bet.candidate <= bet.stable + tolerance) return 0
  const p = nearest(batch, bet, tolerance)
  return ratio(batch.stable, bet.stable, p) + ratio(batch.candidate, bet.candidate, p + tolerance)
}

/** What the factor of a batch of this size is expected to be if the bet is right, as a logarithm. */
export const growth = (sizes: Pair<number>, bet: Pair<number>, tolerance: number): number =>
  factor(
    {
      stable: { count: sizes.stable * bet.stable, of: sizes.stable },
      candidate: { count: sizes.candidate * bet.candidate, of: sizes.candidate }
    },
    bet,
    tolerance
  )

const share = ({ count, of }: Proportion, towards: number, weight: number): number =>
  (count + weight * towards) / (of + weight)

/** The bet that the versions go on as before. */
export const learned = ({ candidate, stable }: Pair<Proportion>): Pair<number> => {
  const common = share({ count: stable.count + candidate.count, of: stable.of + candidate.of }, usualShare, 1)
  return { stable: share(stable, common, 1), candidate: share(candidate, common, shrinkage) }
}

/** The bet that half of the candidate's requests fail: it needs no earlier observations of the candidate. */
export const severe = ({ stable }: Pair<Proportion>): Pair<number> => ({
  stable: share(stable, usualShare, 1),
  candidate: severeShare
})

/** The logarithm of a weighted mean of values that are given by their logarithms. The weights have a sum above 0. */
export const logMean = (logs: ReadonlyArray<number>, weights: ReadonlyArray<number>): number => {
  const most = Math.max(...logs)
  const total = weights.reduce((sum, weight) => sum + weight, 0)
  const sum = logs.reduce((sum, log, index) => sum + weights[index]! * Math.exp(log - most), 0)
  return most + Math.log(sum / total)
}
