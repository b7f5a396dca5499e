/**
 * Checks, piece by piece, whether a text can become a text of a grammar.
 *
 * **Details**
 *
 * The matcher follows all parses of the text at once. A parse is a stack: the position in the current rule, and the
 * position after each enclosing rule. Equal stacks are one object, and the characters that a stack can read next are
 * computed once, so that neither ambiguous nor empty rules multiply the work.
 *
 * Text may arrive as bytes, split anywhere: for an incomplete character, the matcher checks whether any of its possible
 * completions is allowed.
 *
 * **Gotchas**
 *
 * A matcher keeps the stacks of its text: make one for each text.
 */
import type { CodeRange, Grammar } from "./Grammar.ts"

/** Follows one text. */
export interface Matcher {
  /** Whether the text so far can continue with this piece. */
  readonly allows: (piece: string | Uint8Array) => boolean
  /** Appends a piece. After a piece that is not allowed, nothing can follow. */
  readonly push: (piece: string | Uint8Array) => void
  /** Whether the text so far is complete, so that it can end here. */
  readonly isComplete: () => boolean
  /** Whether any character can follow. */
  readonly canContinue: () => boolean
}

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
interface State {
  readonly readers: ReadonlySet<Stack>
  readonly isEnd: boolean
  /** A character of which bytes are missing. */
  readonly partial: Partial | undefined
}

interface Partial {
  readonly value: number
  readonly missing: number
  /** The smallest code point that needs this many bytes. */
  readonly least: number
}

const nothing: State = { readers: new Set(), isEnd: false, partial: undefined }

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

const makeStack = (at: number, below: Stack | undefined): Stack => ({
  at,
  below,
  above: new Map(),
  readers: undefined,
  isEnd: false
})

/** The one stack at this position on top of that stack. */
const stackOn = (below: Stack, at: number): Stack => {
  const known = below.above.get(at)
  if (known !== undefined) return known
  const made = makeStack(at, below)
  below.above.set(at, made)
  return made
}

const includes = (ranges: ReadonlyArray<CodeRange>, first: number, last: number): boolean =>
  ranges.some(([low, high]) => first <= high && last >= low)

/** First bytes of UTF-8 characters with several bytes: how many follow, and the bits of the first one. */
const beginPartial = (byte: number): Partial | undefined => {
  if (byte >= 0xc2 && byte <= 0xdf) return { value: byte & 0x1f, missing: 1, least: 0x80 }
  if (byte >= 0xe0 && byte <= 0xef) return { value: byte & 0x0f, missing: 2, least: 0x800 }
  if (byte >= 0xf0 && byte <= 0xf4) return { value: byte & 0x07, missing: 3, least: 0x10000 }
  return undefined
}

/** The characters that it can become. */
const rangeOf = ({ least, missing, value }: Partial): CodeRange => [
  Math.max(least, value * 64 ** missing),
  (value + 1) * 64 ** missing - 1
]

/** Reads characters in all parses of the grammar. */
const makeReader = (grammar: Grammar) => {
  const { starts, steps } = compile(grammar)
  // Below every stack, so that a text's end is a step like others.
  const bottom = makeStack(-1, undefined)

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

  /** The stacks after a character from `first` to `last`. */
  const after = (state: State, first: number, last: number): Array<Stack> => {
    const next: Array<Stack> = []
    for (const stack of state.readers) {
      const { read } = steps[stack.at] as { readonly read: ReadonlyArray<CodeRange> }
      if (includes(read, first, last)) next.push(stackOn(stack.below!, stack.at + 1))
    }
    return next
  }

  return {
    start: settle(starts[0]!.map((start) => stackOn(bottom, start))),
    read: (state: State, code: number): State => settle(state.partial === undefined ? after(state, code, code) : []),
    /** Appends a part of a character. */
    hold(state: State, partial: Partial): State {
      const isPossible = after(state, ...rangeOf(partial)).length > 0
      return isPossible ? { readers: state.readers, isEnd: false, partial } : nothing
    }
  }
}

type Reader = ReturnType<typeof makeReader>

const readByte = (reader: Reader, state: State, byte: number): State => {
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

/** @param grammar without left-recursive rules */
export const makeMatcher = (grammar: Grammar): Matcher => {
  const reader = makeReader(grammar)
  let state = reader.start

  const walk = (piece: string | Uint8Array): State => {
    let walked = state
    if (typeof piece === "string") { for (const char of piece) walked = reader.read(walked, char.codePointAt(0)!) }
    else for (const byte of piece) walked = readByte(reader, walked, byte)
    return walked
  }

  return {
    allows(piece) {
      const { isEnd, readers } = walk(piece)
      return isEnd || readers.size > 0
    },
    push(piece) {
      state = walk(piece)
    },
    isComplete: () => state.isEnd,
    canContinue: () => state.readers.size > 0
  }
}
