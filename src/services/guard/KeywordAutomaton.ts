/**
 * Tables that find many keywords in one pass over a text: the automaton of Aho and Corasick ("Efficient string matching",
 * 1975). Pure.
 *
 * **Details**
 *
 * Keywords match without case. A space in a keyword is any white space, of any length; a digit is any digit. So that the
 * tables are small, every character beyond Latin-1 counts as white space: a pass may find a keyword that a text does not
 * have, and never misses one. `FlagChecks` has the pass itself.
 */

/** Texts that stand for one bit of what is found: any of them. */
export type Keywords = ReadonlyArray<string>

export interface KeywordAutomaton {
  /** The kind of each UTF-16 code. */
  readonly kinds: Uint8Array
  /** The next state, at the state shifted by `kindBits`, plus a kind. The first state is 0. */
  readonly next: Uint16Array
  /** The bits that are found in each state. */
  readonly found: Int32Array
}

/** A kind has so many bits. */
export const kindBits = 6

const mostKinds = 1 << kindBits
const mostStates = 1 << 16
const mostBits = 31

/** Kinds of characters that no keyword has, and of white space. */
const otherKind = 0
const spaceKind = 1

/** Every text that is made of one part of each list. */
export const combine = (...lists: ReadonlyArray<Keywords>): Keywords =>
  lists.reduce((texts, parts) => texts.flatMap((text) => parts.map((part) => text + part)), [""])

const kindsOf = (keywords: Iterable<string>): Uint8Array => {
  const kinds = new Uint8Array(0x10000).fill(spaceKind)
  for (let code = 0; code <= 0xff; code++) kinds[code] = /\s/.test(String.fromCharCode(code)) ? spaceKind : otherKind
  let count = 2
  for (const character of new Set([...keywords].join(""))) {
    if (character === " ") continue
    const alike = /\d/.test(character) ? "0123456789" : character.toLowerCase() + character.toUpperCase()
    if (kinds[alike.charCodeAt(0)] !== otherKind) continue
    if (count === mostKinds) throw new RangeError(`Keywords have at most ${mostKinds - 2} characters.`)
    for (const one of alike) kinds[one.charCodeAt(0)] = count
    count++
  }
  return kinds
}

/** Keywords as a tree: the state after each kind, by state. */
class Tree {
  readonly children: Array<Map<number, number>> = [new Map()]
  readonly found: Array<number> = [0]

  add(kinds: ReadonlyArray<number>, bit: number): void {
    let state = 0
    for (const kind of kinds) {
      let next = this.children[state]!.get(kind)
      if (next === undefined) {
        next = this.children.push(new Map()) - 1
        this.found.push(0)
        this.children[state]!.set(kind, next)
      }
      state = next
    }
    this.found[state]! |= bit
  }
}

/** The transitions of a tree: where no keyword goes on, those of the longest end that begins a keyword. */
const transitionsOf = ({ children, found }: Tree): Uint16Array => {
  if (children.length > mostStates) throw new RangeError(`Keywords have at most ${mostStates} states.`)
  const next = new Uint16Array(children.length << kindBits)
  const ends = new Uint16Array(children.length)
  const states = [0]
  for (const state of states) {
    found[state]! |= found[ends[state]!]!
    for (let kind = 0; kind < mostKinds; kind++) {
      const otherwise = state === 0 ? 0 : next[ends[state]! << kindBits | kind]!
      const child = children[state]!.get(kind)
      next[state << kindBits | kind] = child ?? otherwise
      if (child === undefined) continue
      ends[child] = otherwise
      states.push(child)
    }
  }
  // More white space after a white space changes nothing.
  for (const below of children) {
    const state = below.get(spaceKind)
    if (state !== undefined) next[state << kindBits | spaceKind] = state
  }
  return next
}

/** @param lists at most 31, one for each bit */
export const build = (lists: ReadonlyArray<Keywords>): KeywordAutomaton => {
  if (lists.length > mostBits) throw new RangeError(`At most ${mostBits} lists of keywords have a bit.`)
  const kinds = kindsOf(lists.flat())
  const tree = new Tree()
  for (const [index, keywords] of lists.entries()) {
    for (const keyword of keywords) {
      tree.add(Array.from(keyword, (character) => kinds[character.charCodeAt(0)]!), 1 << index)
    }
  }
  const next = transitionsOf(tree)
  return { kinds, next, found: Int32Array.from(tree.found) }
}
