/**
 * Numbers between bounds, digit by digit.
 *
 * **Details**
 *
 * Integers are those that a double holds exactly. Other numbers between bounds are plain decimals without an exponent;
 * next to an excluded bound they have at most 15 digits, the precision of a double.
 */
import type { GrammarBuilder, GrammarSymbol, Sequence } from "./Grammar.ts"
import { chars, text } from "./Grammar.ts"
import { digits } from "./JsonValues.ts"

/** A bound of numbers. */
export interface Bound {
  readonly value: number
  /** Whether the bound itself is excluded. */
  readonly exclusive: boolean
}

/** Decimal digits that every double distinguishes (DBL_DIG of IEEE 754 binary64). */
const exactDigits = 15

const digitChars = (first: number, last: number) => chars([0x30 + first, 0x30 + last])

/** Numbers between two bounds of the same number of digits. */
const sameLength = (builder: GrammarBuilder, low: string, high: string): Sequence => {
  if (/^0*$/.test(low) && /^9*$/.test(high)) return digits(builder, low.length, low.length)
  const [first, last] = [Number(low[0]), Number(high[0])]
  const [lowRest, highRest] = [low.slice(1), high.slice(1)]
  if (first === last) return [text(low[0]!), ...sameLength(builder, lowRest, highRest)]
  const isLowFree = /^0*$/.test(lowRest)
  const isHighFree = /^9*$/.test(highRest)
  const [freeFirst, freeLast] = [isLowFree ? first : first + 1, isHighFree ? last : last - 1]
  const alternatives: Array<Sequence> = []
  if (!isLowFree) {
    alternatives.push([text(low[0]!), ...sameLength(builder, lowRest, "9".repeat(lowRest.length))])
  }
  if (freeFirst <= freeLast) {
    alternatives.push([digitChars(freeFirst, freeLast), ...digits(builder, lowRest.length, lowRest.length)])
  }
  if (!isHighFree) {
    alternatives.push([text(high[0]!), ...sameLength(builder, "0".repeat(highRest.length), highRest)])
  }
  return [builder.rule("digits", alternatives)]
}

/** Integers from `low`, at least 0, to `high`, each an alternative or part of one. */
const naturals = (builder: GrammarBuilder, low: bigint, high: bigint): ReadonlyArray<Sequence> => {
  if (low > high) return []
  if (low === 0n) return [[text("0")], ...naturals(builder, 1n, high)]
  const [least, most] = [String(low).length, String(high).length]
  if (least === most) return [sameLength(builder, String(low), String(high))]
  const alternatives = [
    sameLength(builder, String(low), "9".repeat(least)),
    sameLength(builder, `1${"0".repeat(most - 1)}`, String(high))
  ]
  if (most - least > 1) alternatives.push([digitChars(1, 9), ...digits(builder, least, most - 2)])
  return alternatives
}

const biggest = BigInt(Number.MAX_SAFE_INTEGER)

/** A bound outside the exact integers of a double stays outside: no integer satisfies it then. */
const leastInteger = ({ exclusive, value }: Bound): bigint => {
  const least = BigInt(exclusive ? Math.floor(value) + 1 : Math.ceil(value))
  return least < -biggest ? -biggest : least
}

const mostInteger = ({ exclusive, value }: Bound): bigint => {
  const most = BigInt(exclusive ? Math.ceil(value) - 1 : Math.floor(value))
  return most > biggest ? biggest : most
}

/** Every integer between the bounds, as alternatives. */
export const integers = (
  builder: GrammarBuilder,
  low: Bound | undefined,
  high: Bound | undefined
): ReadonlyArray<Sequence> => {
  const least = low === undefined ? -biggest : leastInteger(low)
  const most = high === undefined ? biggest : mostInteger(high)
  const positive = naturals(builder, least > 0n ? least : 0n, most)
  const negative = naturals(builder, most < 0n ? -most : 1n, -least)
  return [...positive, ...(negative.length === 0 ? [] : [[text("-"), builder.rule("natural", negative)]])]
}

/** A bound's absolute value. */
interface Decimal {
  readonly whole: bigint
  /** The digits after the decimal point. */
  readonly part: string
  readonly exclusive: boolean
}

/** The bound used if the other one is missing. */
const farAway: Decimal = { whole: 10n ** BigInt(exactDigits) - 1n, part: "", exclusive: false }
const zero = (exclusive: boolean): Decimal => ({ whole: 0n, part: "", exclusive })

/** Undefined if the bound has too many digits. */
const decimalOf = ({ exclusive, value }: Bound): Decimal | undefined => {
  const size = Math.abs(value)
  const written = /^(\d+)(?:\.(\d+))?$/.exec(String(size))
  if (written === null) return undefined
  const [, whole, part = ""] = written as unknown as [string, string, string?]
  return whole.length + part.length > exactDigits ? undefined : { whole: BigInt(whole), part, exclusive }
}

const sizeOf = (bound: Bound | undefined): Decimal => (bound === undefined ? undefined : decimalOf(bound)) ?? farAway

/** Whether a bound can be enforced: it has at most 15 digits, including the fraction's. */
export const isExact = (bound: Bound): boolean => decimalOf(bound) !== undefined

/** The remaining digits of a bound; undefined if no further digit can violate it. */
type Limit = { readonly part: string; readonly exclusive: boolean } | undefined

const isZero = (limit: { readonly part: string }): boolean => /^0*$/.test(limit.part)

const next = (limit: Limit): Limit =>
  limit === undefined ? undefined : { part: limit.part.slice(1), exclusive: limit.exclusive }

/** Drops a lower limit that no further digit can violate. */
const lower = (limit: Limit): Limit => limit !== undefined && isZero(limit) && !limit.exclusive ? undefined : limit

/** Whether only zeros may follow. */
const isWholeAllowed = (low: Limit, high: Limit): boolean =>
  (low === undefined || (isZero(low) && !low.exclusive)) && (high === undefined || !(isZero(high) && high.exclusive))

/** The digits that may come next within the limits. */
const nextDigits = (low: Limit, high: Limit): readonly [first: number, last: number] => [
  low === undefined ? 0 : Number(low.part[0] ?? "0"),
  high === undefined ? 9 : Number(high.part[0] ?? "0")
]

/** The next digits after the decimal point; `places` are left. */
const partDigits = (builder: GrammarBuilder, from: Limit, high: Limit, places: number, canEnd: boolean): Sequence => {
  const low = lower(from)
  if (low === undefined && high === undefined) return digits(builder, canEnd ? 0 : 1, places)
  const alternatives: Array<Sequence> = canEnd && isWholeAllowed(low, high) ? [[]] : []
  const [first, last] = nextDigits(low, high)
  for (let digit = first; digit <= last && places > 0; digit++) {
    const nextLow = digit === first ? next(low) : undefined
    const nextHigh = digit === last ? next(high) : undefined
    alternatives.push([text(String(digit)), ...partDigits(builder, nextLow, nextHigh, places - 1, true)])
  }
  return [builder.rule("part", alternatives)]
}

/** The decimal point with its digits, or nothing. */
const part = (builder: GrammarBuilder, low: Limit, high: Limit, places: number): Sequence => [
  builder.rule("part", [
    ...(isWholeAllowed(low, high) ? [[]] : []),
    ...(places > 0 ? [[text("."), ...partDigits(builder, low, high, places, false)]] : [])
  ])
]

const placesAt = (bound: Decimal): number => bound.exclusive ? exactDigits - String(bound.whole).length : exactDigits

/** Numbers from `low`, at least 0, to `high`, without a sign. */
const decimals = (builder: GrammarBuilder, low: Decimal, high: Decimal): ReadonlyArray<Sequence> => {
  if (low.whole > high.whole) return []
  if (low.whole === high.whole) {
    return [[text(String(low.whole)), ...part(builder, low, high, Math.min(placesAt(low), placesAt(high)))]]
  }
  const between = naturals(builder, low.whole + 1n, high.whole - 1n)
  return [
    [text(String(low.whole)), ...part(builder, low, undefined, Math.min(placesAt(low), placesAt(high)))],
    ...(between.length === 0
      ? []
      : [[builder.rule("whole", between), ...part(builder, undefined, undefined, placesAt(high))]]),
    [text(String(high.whole)), ...part(builder, undefined, high, placesAt(high))]
  ]
}

/** Every decimal between the bounds, as alternatives; the bounds are exact. */
export const numbers = (
  builder: GrammarBuilder,
  low: Bound | undefined,
  high: Bound | undefined
): ReadonlyArray<Sequence> => {
  const isLowNegative = low === undefined || low.value < 0
  const isHighNegative = high !== undefined && high.value < 0
  const least = sizeOf(low)
  const most = sizeOf(high)
  const positive = isHighNegative ? [] : decimals(builder, isLowNegative ? zero(false) : least, most)
  const negative = isLowNegative ? decimals(builder, isHighNegative ? most : zero(true), least) : []
  return [...positive, ...(negative.length === 0 ? [] : [[text("-"), builder.rule("size", negative)]])]
}

/** Multiples between two bounds that are listed one by one. */
const mostListed = 1000

/** The largest divisor whose multiples are unlimited: a rule for each remainder and number of digits. */
const mostRemainders = 100

/** More digits of a number with this remainder so far, up to a multiple. */
const digitsOfMultiple = (builder: GrammarBuilder, multiple: number, remainder: number, most: number): GrammarSymbol =>
  builder.shared(`multiple-${multiple}-${remainder}-${most}`, () => [
    ...(most === 0 ? [] : Array.from({ length: 10 }, (_, digit): Sequence => [
      text(String(digit)),
      digitsOfMultiple(builder, multiple, (remainder * 10 + digit) % multiple, most - 1)
    ])),
    ...(remainder === 0 ? [[]] : [])
  ])

/** Multiples above 0 with at most 15 digits. */
const positiveMultiples = (builder: GrammarBuilder, multiple: number): ReadonlyArray<Sequence> => {
  const zeros = /0*$/.exec(String(multiple))![0]
  const factor = multiple / 10 ** zeros.length
  const most = exactDigits - zeros.length - 1
  const rest = (digit: number): ReadonlyArray<GrammarSymbol> =>
    factor === 1 ? digits(builder, 0, most) : [digitsOfMultiple(builder, factor, digit % factor, most)]
  return Array.from({ length: 9 }, (_, index) => [
    text(String(index + 1)),
    ...rest(index + 1),
    ...(zeros === "" ? [] : [text(zeros)])
  ])
}

/** Whether a bound is one of the first multiples, so that all beyond it have no other bound. */
const isSimple = (bound: bigint | undefined, multiple: bigint): boolean =>
  bound === undefined || (bound > -multiple && bound <= multiple)

/** The multiples between two bounds, one by one; undefined if they are too many. */
const listedMultiples = (low: bigint, high: bigint, multiple: bigint): ReadonlyArray<Sequence> | undefined => {
  if ((high - low) / multiple > mostListed) return undefined
  const listed: Array<Sequence> = []
  const first = low + (((-low % multiple) + multiple) % multiple)
  for (let value = first; value <= high; value += multiple) listed.push([text(String(value))])
  return listed
}

const isZeroWithin = (low: bigint | undefined, high: bigint | undefined): boolean =>
  (low === undefined || low <= 0n) && (high === undefined || high >= 0n)

/** The multiples on one side or both of 0, by digits and remainders; undefined if a bound or the number is too large. */
const openMultiples = (
  builder: GrammarBuilder,
  low: bigint | undefined,
  high: bigint | undefined,
  divisor: number
): ReadonlyArray<Sequence> | undefined => {
  const multiple = BigInt(divisor)
  if (Number(String(divisor).replace(/0+$/, "")) > mostRemainders) return undefined
  if (!isSimple(low, multiple) || !isSimple(high === undefined ? high : -high, multiple)) return undefined
  const positive = positiveMultiples(builder, divisor)
  return [
    ...(high === undefined ? positive : []),
    ...(low === undefined ? positive.map((one) => [text("-"), ...one]) : []),
    ...(isZeroWithin(low, high) ? [[text("0")]] : [])
  ]
}

/**
 * The multiples of a whole number between bounds; undefined if they are too many to list, and the bounds or the number are too
 * large for digits and remainders.
 */
export const multiples = (
  builder: GrammarBuilder,
  low: Bound | undefined,
  high: Bound | undefined,
  divisor: number
): ReadonlyArray<Sequence> | undefined => {
  const least = low && leastInteger(low)
  const most = high && mostInteger(high)
  return least === undefined || most === undefined
    ? openMultiples(builder, least, most, divisor)
    : listedMultiples(least, most, BigInt(divisor))
}
