import { assert } from "@effect/vitest"
import fc from "fast-check"
import { describe, it } from "vitest"
import type { SamplingOptions } from "../../../src/domain/Job.ts"
import { likelihoods, makeSampler } from "../../../src/workers/model/Sampler.ts"

const options = (given: Partial<SamplingOptions> = {}): SamplingOptions => ({
  temperature: 1,
  topP: 1,
  seed: 1,
  ...given
})

const someLogits = fc.array(fc.double({ min: -20, max: 20, noNaN: true }), { minLength: 1, maxLength: 60 })
  .map((values) => Float32Array.from(values))

const someOptions = fc.record({
  temperature: fc.double({ min: 0.05, max: 2, noNaN: true }),
  topP: fc.double({ min: 0, max: 1, noNaN: true }),
  seed: fc.nat(),
  topK: fc.option(fc.integer({ min: 1, max: 80 }), { nil: undefined }),
  minP: fc.option(fc.double({ min: 0, max: 1, noNaN: true }), { nil: undefined })
})

const softmax = (logits: ReadonlyArray<number>): Array<number> => {
  const most = Math.max(...logits)
  const weights = logits.map((logit) => Math.exp(logit - most))
  const total = weights.reduce((sum, weight) => sum + weight, 0)
  return weights.map((weight) => weight / total)
}

/** Ids by logit, the highest first. */
const ranked = (logits: Float32Array): Array<number> =>
  [...logits.keys()].sort((a, b) => logits[b]! - logits[a]! || a - b)

/** Every choice of the sampler in order, with each one rejected in turn. */
const choices = (logits: Float32Array, given: SamplingOptions): Array<number> => {
  const asked: Array<number> = []
  const chosen = makeSampler(given, logits.length).choose(logits, (token) => {
    asked.push(token)
    return false
  })
  assert.isUndefined(chosen)
  return asked
}

const draws = 20_000

/** The share of each token in the draws. */
const shares = (
  logits: Float32Array,
  given: Partial<SamplingOptions>,
  allows?: (token: number) => boolean
): Array<number> => {
  const sampler = makeSampler(options(given), logits.length)
  const counts = Array.from(logits, () => 0)
  for (let draw = 0; draw < draws; draw++) counts[sampler.choose(logits, allows)!]!++
  return counts.map((count) => count / draws)
}

/** The largest difference between observed and expected shares. */
const distance = (found: ReadonlyArray<number>, expected: ReadonlyArray<number>): number =>
  Math.max(...found.map((share, id) => Math.abs(share - expected[id]!)))

/** Five standard deviations of a share of the draws. */
const near = 5 * 0.5 / Math.sqrt(draws)

describe("Sampler", () => {
  it("chooses the likeliest token at temperature 0, the first of equal ones", () => {
    fc.assert(fc.property(someLogits, (logits) => {
      const sampler = makeSampler(options({ temperature: 0 }), logits.length)
      assert.strictEqual(sampler.choose(logits), ranked(logits)[0])
    }))
  })

  it("offers every token exactly once, at temperature 0 in order", () => {
    fc.assert(fc.property(someLogits, someOptions, (logits, given) => {
      assert.deepStrictEqual(choices(logits, options({ temperature: 0 })), ranked(logits))
      assert.deepStrictEqual(choices(logits, given).sort((a, b) => a - b), [...logits.keys()])
    }))
  })

  it("draws from top-k, top-p and min-p together, and offers the rest after them, likeliest first", () => {
    fc.assert(fc.property(someLogits, someOptions, (logits, given) => {
      const order = ranked(logits)
      const first = order.slice(0, given.topK ?? order.length)
      const probabilities = softmax(first.map((id) => logits[id]!))
      let sum = 0
      const end = probabilities.findIndex((probability) => (sum += probability) >= given.topP)
      const second = end === -1 ? first : first.slice(0, end + 1)
      const kept = second.filter((id) => Math.exp(logits[id]! - logits[order[0]!]!) >= (given.minP ?? 0) * (1 - 1e-9))
      const asked = choices(logits, given)
      // A sum that comes within rounding of top-p may keep one token more or less.
      const count = [kept.length - 1, kept.length, kept.length + 1].find((count) =>
        asked.slice(0, count).every((id) => order.indexOf(id) < count)
      )
      assert.isDefined(count)
      assert.deepStrictEqual(asked.slice(count), order.slice(count))
    }))
  })

  it("gives the same choices for the same seed", () => {
    fc.assert(fc.property(someLogits, someOptions, (logits, given) => {
      assert.deepStrictEqual(choices(logits, given), choices(logits, given))
    }))
  })

  it("draws each token with its probability", () => {
    const logits = Float32Array.of(1, 0, 2, -1, 0.5)
    assert.isBelow(distance(shares(logits, {}), softmax([...logits])), near)
    assert.isBelow(
      distance(shares(logits, { temperature: 0.5 }), softmax([...logits].map((logit) => logit / 0.5))),
      near
    )
    assert.isBelow(
      distance(shares(logits, { topK: 2 }), softmax([...logits].map((logit) => logit >= 1 ? logit : -Infinity))),
      near
    )
  })

  it("draws allowed tokens with their relative probabilities", () => {
    const logits = Float32Array.of(1, 0, 2, -1, 0.5)
    const allowed = (id: number) => id % 2 === 1
    assert.isBelow(
      distance(shares(logits, {}, allowed), softmax([...logits].map((logit, id) => allowed(id) ? logit : -Infinity))),
      near
    )
  })

  it("checks all remaining tokens at once after some rejections, and draws among the allowed ones as before", () => {
    const logits = Float32Array.from({ length: 200 }, (_, id) => id < 197 ? 3 : id - 197)
    const allowed = (id: number) => id >= 197
    assert.isBelow(
      distance(shares(logits, {}, allowed), softmax([...logits].map((logit, id) => allowed(id) ? logit : -Infinity))),
      near
    )
    const later = choices(logits, options()).slice(32)
    assert.deepStrictEqual(later, later.toSorted((a, b) => a - b))
    assert.strictEqual(later.length, 200 - 32)
  })

  it("makes the same choices with a mask of all tokens as by asking for each", () => {
    fc.assert(fc.property(someLogits, someOptions, fc.nat(), fc.boolean(), (logits, given, bits, isGreedy) => {
      const set = options({ ...given, ...(isGreedy ? { temperature: 0 } : {}) })
      const [one, other] = [makeSampler(set, logits.length), makeSampler(set, logits.length)]
      const mask = Uint32Array.of(bits, ~bits)
      const allows = (token: number) => (mask[token >>> 5]! >>> (token & 31) & 1) === 1
      for (let token = 0; token < 3; token++) {
        assert.strictEqual(one.choose(logits, allows, () => mask), other.choose(logits, allows))
      }
    }))
  })

  it("draws by probability even if the rejected tokens were far likelier", () => {
    const logits = Float32Array.of(100, 1, 0)
    const found = shares(logits, { temperature: 0.5 }, (id) => id !== 0)
    assert.isBelow(distance(found, softmax([-Infinity, 1 / 0.5, 0])), near)
  })

  it("never chooses a banned token, and nothing when all are banned", () => {
    fc.assert(fc.property(someLogits, someOptions, (logits, given) => {
      const ids = [...logits.keys()]
      const ban = (banned: ReadonlyArray<number>) => ({
        ...given,
        logitBias: Object.fromEntries(banned.map((id) => [id, -100]))
      })
      const banned = ids.filter((id) => id % 3 === 0)
      assert.isTrue(choices(logits, ban(banned)).every((id) => id % 3 !== 0))
      assert.isUndefined(makeSampler(ban(ids), logits.length).choose(logits))
      assert.isUndefined(makeSampler({ ...ban(ids), temperature: 0 }, logits.length).choose(logits))
    }))
  })

  it("chooses nothing when no logit is a number", () => {
    const broken = new Float32Array(4).fill(Number.NaN)
    assert.isUndefined(makeSampler(options({ temperature: 0 }), 4).choose(broken))
    assert.isUndefined(makeSampler(options(), 4).choose(broken))
  })

  it("adds a bias", () => {
    const sampler = makeSampler(options({ temperature: 0, logitBias: { 2: 5 } }), 3)
    assert.strictEqual(sampler.choose(Float32Array.of(4, 0, 0)), 2)
  })

  it("rejects a bias of an unknown token, with its path", () => {
    try {
      makeSampler(options({ logitBias: { 7: 1 } }), 7)
      assert.fail("It took the bias.")
    } catch (failure) {
      assert.deepInclude(failure, { kind: "invalid_request", path: "logitBias.7" })
    }
  })

  it("penalizes tokens of the answer, by presence, by frequency and by division", () => {
    const choose = (logits: Float32Array, given: Partial<SamplingOptions>, ...answer: Array<number>) => {
      const sampler = makeSampler(options({ temperature: 0, ...given }), logits.length)
      for (const token of answer) sampler.accept(token)
      return sampler.choose(logits)
    }
    const logits = Float32Array.of(2, 1.5, -1)
    assert.strictEqual(choose(logits, { presencePenalty: 0.4 }, 0, 0), 0)
    assert.strictEqual(choose(logits, { presencePenalty: 0.6 }, 0), 1)
    assert.strictEqual(choose(logits, { frequencyPenalty: 0.4 }, 0), 0)
    assert.strictEqual(choose(logits, { frequencyPenalty: 0.4 }, 0, 0), 1)
    assert.strictEqual(choose(logits, { repeatPenalty: 1.2 }, 0), 0)
    assert.strictEqual(choose(logits, { repeatPenalty: 1.5 }, 0), 1)
    // A negative logit is multiplied: dividing it would reward.
    assert.strictEqual(choose(Float32Array.of(-1, -1.5), { repeatPenalty: 2 }, 0), 1)
  })

  it("ignores tokens before the last 64", () => {
    const sampler = makeSampler(options({ temperature: 0, presencePenalty: 1 }), 2)
    sampler.accept(0)
    for (let at = 0; at < 63; at++) sampler.accept(1)
    assert.strictEqual(sampler.choose(Float32Array.of(0.5, 0)), 0)
    assert.strictEqual(sampler.choose(Float32Array.of(-0.5, 0)), 1)
    sampler.accept(1)
    assert.strictEqual(sampler.choose(Float32Array.of(-0.5, 0)), 0)
  })

  it("reports log-probabilities over all tokens, before sampling", () => {
    fc.assert(fc.property(someLogits, fc.nat({ max: 59 }), fc.nat({ max: 20 }), (logits, any, count) => {
      const token = any % logits.length
      const expected = softmax([...logits]).map(Math.log)
      const found = likelihoods(logits, token, count)
      assert.closeTo(found.logprob, expected[token]!, 1e-6)
      assert.deepStrictEqual(found.top.map((one) => one.token), ranked(logits).slice(0, count))
      for (const one of found.top) assert.closeTo(one.logprob, expected[one.token]!, 1e-6)
    }))
  })
})
