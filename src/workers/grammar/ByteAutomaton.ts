/**
 * A grammar as a deterministic automaton over bytes, computed as far as texts need it.
 *
 * **Details**
 *
 * A place stands for all parses of a text (`GrammarParses`). Places with equal parses are one entry of a table with the
 * place after each byte. A transition is computed once for all bytes after which the parses are the same. The first bytes
 * of a character whose completions all lead to one place are the same place too, so that a text in any script needs few.
 *
 * Tables are bounded: a full automaton forgets all numbers of places. A `Place` remains valid.
 */
import type { Partial, Reader, State } from "./GrammarParses.ts"
import { beginPartial, isPossible, nothing, rangeOf, readByte } from "./GrammarParses.ts"
import { groupCodes } from "./TokenGroups.ts"

/** What was read, as far as it decides on what may follow. */
export type Place = {
  readonly key: string
  readonly state: State
} | {
  readonly key: string
  /** Any so many bytes within a character lead to `target`. */
  readonly missing: number
  readonly target: Place
}

/** The number of the place that no text reaches. */
export const dead = 0

const unknown = -1

const byteValues = 256

/** The next place depends on the character. */
const varies = -1

/** Places of one table: 1 KB each. The table has room for some more. */
const mostPlaces = 3_584

const keyOf = ({ isEnd, partial, readers }: State): string => {
  const ids = Int32Array.from(readers, ({ id }) => id).sort().join()
  return `${isEnd ? "e" : ""}${ids}${
    partial === undefined ? "" : `:${partial.value},${partial.missing},${partial.least}`
  }`
}

const placeOf = (state: State): Place => ({ key: isPossible(state) ? keyOf(state) : "", state })

const nowhere = placeOf(nothing)

export class ByteAutomaton {
  readonly #reader: Reader
  readonly mostPlaces: number
  #places: Array<Place> = [nowhere]
  #numbers = new Map([[nowhere.key, dead]])
  #table = new Int32Array(byteValues * 64)
  /** By group of characters, the place after any of them, or `varies`; see `charactersAt`. */
  #afterAny: ReadonlyArray<Map<number, number>> = groupCodes.map(() => new Map())
  readonly start: Place

  constructor(reader: Reader, most = mostPlaces) {
    this.#reader = reader
    this.mostPlaces = most
    this.start = placeOf(reader.start)
  }

  /** The memory of the table in bytes. */
  get bytes(): number {
    return this.#table.byteLength
  }

  get isFull(): boolean {
    return this.#places.length >= this.mostPlaces
  }

  /** Forgets all places, except that `numbers` become the new numbers of the same places. */
  clear(numbers: Int32Array = new Int32Array()): void {
    const kept = Array.from(numbers, (number) => this.#places[number]!)
    this.#places = [nowhere]
    this.#numbers = new Map([[nowhere.key, dead]])
    this.#afterAny = groupCodes.map(() => new Map())
    for (const [index, place] of kept.entries()) numbers[index] = this.numberOf(place)
  }

  placeAt(number: number): Place {
    return this.#places[number]!
  }

  numberOf(place: Place): number {
    const known = this.#numbers.get(place.key)
    if (known !== undefined) return known
    const number = this.#places.push(place) - 1
    this.#numbers.set(place.key, number)
    if (number * byteValues >= this.#table.length) {
      const larger = new Int32Array(this.#table.length * 2)
      larger.set(this.#table)
      this.#table = larger
    }
    this.#table.fill(unknown, number * byteValues, (number + 1) * byteValues)
    return number
  }

  /** The number of the place after a byte. */
  step(number: number, byte: number): number {
    const known = this.#table[number * byteValues + byte]!
    return known === unknown ? this.#compute(number, byte) : known
  }

  /**
   * How many characters of a group can follow, whichever they are, up to `most`; none can follow after these if it is less.
   * Undefined if that depends on the characters.
   */
  charactersAt(number: number, group: number, most: number): number | undefined {
    const known = this.#afterAny[group]!
    let at = number
    for (let count = 0; count < most; count++) {
      const next = known.get(at) ?? this.#computeAny(at, group)
      if (next === varies) return undefined
      if (next === dead) return count
      if (next === at) return most
      at = next
    }
    return most
  }

  /** The place after these bytes. */
  after(place: Place, bytes: Uint8Array): Place {
    if (this.isFull) this.clear()
    let number = this.numberOf(place)
    for (const byte of bytes) number = this.step(number, byte)
    return this.#places[number]!
  }

  #compute(number: number, byte: number): number {
    const place = this.#places[number]!
    if ("target" in place) {
      return this.#fill(
        number,
        byte,
        byte,
        (byte & 0xc0) === 0x80 ? this.numberOf(this.#within(place.missing - 1, place.target)) : dead
      )
    }
    const { state } = place
    if (state.partial !== undefined) {
      return this.#fill(number, byte, byte, this.numberOf(this.#continued(state, state.partial, byte)))
    }
    if (byte >= 0x80) {
      const begun = beginPartial(byte)
      return this.#fill(number, byte, byte, begun === undefined ? dead : this.numberOf(this.#held(state, begun)))
    }
    const [first, last] = this.#reader.equals(state, byte)
    return this.#fill(number, first, Math.min(last, 0x7f), this.numberOf(placeOf(this.#reader.read(state, byte))))
  }

  #computeAny(number: number, group: number): number {
    const place = this.#places[number]!
    let all: number | undefined
    if (!("target" in place) && place.state.partial === undefined) {
      for (const [first, last] of groupCodes[group]!) {
        const isOne = this.#reader.equals(place.state, first)[1] >= last
        const next = isOne ? this.numberOf(placeOf(this.#reader.read(place.state, first))) : varies
        all = all === undefined || all === next ? next : varies
        if (all === varies) break
      }
    }
    const next = all ?? varies
    this.#afterAny[group]!.set(number, next)
    return next
  }

  #fill(number: number, first: number, last: number, to: number): number {
    this.#table.fill(to, number * byteValues + first, number * byteValues + last + 1)
    return to
  }

  #within(missing: number, target: Place): Place {
    return missing === 0 ? target : { key: `${missing}>${target.key}`, missing, target }
  }

  /** The place before the last `partial.missing` bytes of a character. */
  #held(state: State, partial: Partial): Place {
    const [first, last] = rangeOf(partial)
    if (partial.value * 64 ** partial.missing === first) {
      const [, same] = this.#reader.equals(state, first)
      const then = this.#reader.read(state, first)
      if (same >= last && isPossible(then)) return this.#within(partial.missing, placeOf(then))
    }
    return placeOf(this.#reader.hold(state, partial))
  }

  #continued(state: State, partial: Partial, byte: number): Place {
    if (partial.missing === 1 || (byte & 0xc0) !== 0x80) return placeOf(readByte(this.#reader, state, byte))
    const value = partial.value * 64 + (byte & 0x3f)
    return this.#held({ ...state, partial: undefined }, { ...partial, value, missing: partial.missing - 1 })
  }
}

/** Whether a text may end at this place. */
export const isEnd = (place: Place): boolean => "state" in place && place.state.isEnd

/** Whether a text may go on from this place. */
export const goesOn = (place: Place): boolean => "target" in place || place.state.readers.size > 0
