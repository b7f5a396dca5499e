/**
 * The parses of a text of a grammar, character by character and byte by byte.
 *
 * **Details**
 *
 * A parse is a stack: the position in the current rule, and the position after each enclosing rule. All parses are
 * followed at once. Equal stacks are one object, and the characters that a stack can read next are computed once, so that
 * neither ambiguous nor empty rules multiply the work.
 *
 * For an incomplete character, a state checks whether any of its possible completions is allowed.
 */
import type { CodeRange, Grammar } from "./Grammar.ts"

/** A step of the compiled grammar: read a character, go through a rule, or be at a sequence's end. */
type Step =
  | { readonly read: ReadonlyArray<CodeRange> }
  | { readonly enter: number }
  | "end"

interface Program {
  /** All sequences one after another, each closed by an `end`. */
  readonly steps: ReadonlyArray<Step>
  /** Where each rule's alternatives begin. */
  readonly starts: ReadonlyArray<ReadonlyArray<number>>
}

interface Stack {
  /** Unique among the stacks of a reader. */
  readonly id: number
  readonly at: number
  /** The position after this rule; undefined after the root. */
  readonly below: Stack | undefined
  readonly above: Map<number, Stack>
  /** The stacks that this one expands to without reading, each before a character; computed at first use. */
  readers: ReadonlyArray<Stack> | undefined
  /** Whether the text may end here; as `readers`. */
  isEnd: boolean
}

/** Every parse of the text so far. */
export interface State {
  readonly readers: ReadonlySet<Stack>
  readonly isEnd: boolean
  /** A character whose last bytes have not been read yet. */
  readonly partial: Partial | undefined
}

export interface Partial {
  readonly value: number
  readonly missing: number
  /** The smallest code point that needs this many bytes. */
  readonly least: number
}

export const nothing: State = { readers: new Set(), isEnd: false, partial: undefined }

const compile = ({ rules }: Grammar): Program => {
  const steps: Array<Step> = []
  const starts = rules.map(({ alternatives }) =>
    alternatives.map((sequence) => {
      const start = steps.length
      for (const symbol of sequence) {
        if ("rule" in symbol) steps.push({ enter: symbol.rule })
        else if ("chars" in symbol) steps.push({ read: symbol.chars })
        else for (const char of symbol.text) steps.push({ read: [[char.codePointAt(0)!, char.codePointAt(0)!]] })
      }
      steps.push("end")
      return start
    })
  )
  return { steps, starts }
}

const makeStack = (id: number, at: number, below: Stack | undefined): Stack => ({
  id,
  at,
  below,
  above: new Map(),
  readers: undefined,
  isEnd: false
})

const includes = (ranges: ReadonlyArray<CodeRange>, first: number, last: number): boolean =>
  ranges.some(([low, high]) => first <= high && last >= low)

/** First bytes of UTF-8 characters with several bytes: how many follow, and the bits of the first one. */
export const beginPartial = (byte: number): Partial | undefined => {
  if (byte >= 0xc2 && byte <= 0xdf) return { value: byte & 0x1f, missing: 1, least: 0x80 }
  if (byte >= 0xe0 && byte <= 0xef) return { value: byte & 0x0f, missing: 2, least: 0x800 }
  if (byte >= 0xf0 && byte <= 0xf4) return { value: byte & 0x07, missing: 3, least: 0x10000 }
  return undefined
}

/** The characters that it can become. */
export const rangeOf = ({ least, missing, value }: Partial): CodeRange => [
  Math.max(least, value * 64 ** missing),
  (value + 1) * 64 ** missing - 1
]

/** The texts that a state allows are not empty: it is not `nothing`. */
export const isPossible = ({ isEnd, readers }: State): boolean => isEnd || readers.size > 0

/** Finds the one stack at a position on top of a stack. */
const makeStackOn = () => {
  let stacks = 1
  return (below: Stack, at: number): Stack => {
    const known = below.above.get(at)
    if (known !== undefined) return known
    const made = makeStack(stacks++, at, below)
    below.above.set(at, made)
    return made
  }
}

/** The characters around `code` that are in the same ranges. */
const around = (sets: ReadonlyArray<ReadonlyArray<CodeRange>>, code: number): CodeRange => {
  let [low, high] = [0, Number.POSITIVE_INFINITY]
  for (const [first, last] of sets.flat()) {
    low = Math.max(low, code > last ? last + 1 : code < first ? 0 : first)
    high = Math.min(high, code < first ? first - 1 : code > last ? high : last)
  }
  return [low, high]
}

/**
 * Reads characters in all parses of the grammar.
 *
 * @param grammar without left-recursive rules
 */
export const makeReader = (grammar: Grammar) => {
  const { starts, steps } = compile(grammar)
  // Below every stack, so that a text's end is a step like others.
  const bottom = makeStack(0, -1, undefined)
  const stackOn = makeStackOn()

  const expand = (from: Stack): ReadonlyArray<Stack> => {
    const readers: Array<Stack> = []
    const seen = new Set([from])
    for (const stack of seen) {
      const step = stack === bottom ? undefined : steps[stack.at]!
      if (step === undefined) from.isEnd = true
      else if (step === "end") seen.add(stack.below!)
      else if ("read" in step) readers.push(stack)
      else {
        // A rule at the end of its sequence needs no return position: stacks grow with nesting only.
        const after = steps[stack.at + 1] === "end" ? stack.below! : stackOn(stack.below!, stack.at + 1)
        for (const start of starts[step.enter]!) seen.add(stackOn(after, start))
      }
    }
    return readers
  }

  const settle = (stacks: ReadonlyArray<Stack>): State => {
    const readers = new Set<Stack>()
    let isEnd = false
    for (const stack of stacks) {
      stack.readers ??= expand(stack)
      for (const reader of stack.readers) readers.add(reader)
      isEnd ||= stack.isEnd
    }
    return { readers, isEnd, partial: undefined }
  }

  const rangesOf = (stack: Stack) => (steps[stack.at] as { readonly read: ReadonlyArray<CodeRange> }).read

  /** The stacks after a character from `first` to `last`. */
  const after = (state: State, first: number, last: number): Array<Stack> => {
    const next: Array<Stack> = []
    for (const stack of state.readers) {
      if (includes(rangesOf(stack), first, last)) next.push(stackOn(stack.below!, stack.at + 1))
    }
    return next
  }

  return {
    start: settle(starts[0]!.map((start) => stackOn(bottom, start))),
    read: (state: State, code: number): State => settle(state.partial === undefined ? after(state, code, code) : []),
    /** The characters around `code` after which all parses are the same as after it. */
    equals: (state: State, code: number): CodeRange => around([...state.readers].map(rangesOf), code),
    /** Appends a part of a character. */
    hold(state: State, partial: Partial): State {
      return after(state, ...rangeOf(partial)).length > 0 ? { readers: state.readers, isEnd: false, partial } : nothing
    }
  }
}

export type Reader = ReturnType<typeof makeReader>

/** The state after a byte of UTF-8. */
export const readByte = (reader: Reader, state: State, byte: number): State => {
  const { partial } = state
  if (partial === undefined) {
    if (byte < 0x80) return reader.read(state, byte)
    const begun = beginPartial(byte)
    return begun === undefined ? nothing : reader.hold(state, begun)
  }
  if ((byte & 0xc0) !== 0x80) return nothing
  const value = partial.value * 64 + (byte & 0x3f)
  if (partial.missing > 1) return reader.hold(state, { ...partial, value, missing: partial.missing - 1 })
  return value < partial.least ? nothing : reader.read({ ...state, partial: undefined }, value)
}
