/**
 * The tokens of a vocabulary by their bytes, as a trie in typed arrays, for a walk that drops or takes a subtree at once.
 *
 * **Details**
 *
 * Nodes stand in preorder: the first child follows its parent, and `skip` is the node after a subtree. The tokens of a
 * subtree are neighbors too.
 *
 * A large vocabulary takes some hundred milliseconds. `build` yields between slices of a few, so that an engine thread can
 * do other work.
 */
import { mostHeight, startOfText, stepPlain } from "./PlainText.ts"

/** Node `n` is the byte `bytes[n]` after its parent. The root is not a node. */
export interface TokenTrie {
  readonly bytes: Uint8Array
  /** The number of bytes before a node's. */
  readonly depths: Int32Array
  /** The first node after a node's subtree. */
  readonly skip: Int32Array
  /** The first of a node's tokens in `tokens`; they end at the next node's. */
  readonly starts: Int32Array
  readonly tokens: Int32Array
  /** The most characters that follow a node, if all are plain (`PlainText`) and begin after it; otherwise `mostHeight`. */
  readonly heights: Uint8Array
  /** Nodes on the longest path. */
  readonly longest: number
}

/** The bytes of all tokens, one after another. */
interface Texts {
  readonly bytes: Uint8Array
  /** Where each token's bytes begin; they end at the next one's. */
  readonly starts: Int32Array
}

/** Bytes that are sorted, and tokens that are read or inserted, in one slice of work. */
const slice = 65_536
const fewer = 8_192

function* read(size: number, bytesOf: (token: number) => Uint8Array): Generator<void, Texts, undefined> {
  const starts = new Int32Array(size + 1)
  let bytes = new Uint8Array(size * 8)
  let length = 0
  for (let token = 0; token < size; token++) {
    if (token % fewer === 0) yield
    const text = bytesOf(token)
    if (length + text.length > bytes.length) {
      const larger = new Uint8Array(2 * (length + text.length))
      larger.set(bytes)
      bytes = larger
    }
    bytes.set(text, length)
    length += text.length
    starts[token + 1] = length
  }
  return { bytes, starts }
}

const lengthOf = ({ starts }: Texts, token: number): number => starts[token + 1]! - starts[token]!

/** The number of first bytes that two tokens share. */
const commonLength = (texts: Texts, a: number, b: number): number => {
  const { bytes, starts } = texts
  const most = Math.min(lengthOf(texts, a), lengthOf(texts, b))
  let length = 0
  while (length < most && bytes[starts[a]! + length] === bytes[starts[b]! + length]) length++
  return length
}

const tokensOf = (texts: Texts): Int32Array => {
  const tokens = new Int32Array(texts.starts.length - 1)
  let count = 0
  for (let token = 0; token < tokens.length; token++) if (lengthOf(texts, token) > 0) tokens[count++] = token
  return tokens.slice(0, count)
}

/** Orders parts of the tokens by one byte. */
const makeDivide = ({ bytes, starts }: Texts, order: Int32Array) => {
  const moved = new Int32Array(order.length)
  /** Of each token in the part: 0 at its end, otherwise its byte and 1. */
  const keys = new Uint16Array(order.length)
  /** Orders a part of `order` by the byte at `depth`; returns where the tokens with each key end. */
  return (from: number, to: number, depth: number): Int32Array => {
    const ends = new Int32Array(257)
    for (let at = from; at < to; at++) {
      const place = starts[order[at]!]! + depth
      const key = place === starts[order[at]! + 1] ? 0 : 1 + bytes[place]!
      keys[at] = key
      ends[key]!++
    }
    let end = from
    for (let key = 0; key < ends.length; key++) {
      const count = ends[key]!
      ends[key] = end
      end += count
    }
    for (let at = from; at < to; at++) moved[ends[keys[at]!]!++] = order[at]!
    order.set(moved.subarray(from, to), from)
    return ends
  }
}

/** The tokens that have bytes, by their bytes, equal ones by id: sorted by one byte after another. */
function* sort(texts: Texts): Generator<void, Int32Array, undefined> {
  const order = tokensOf(texts)
  const divide = makeDivide(texts, order)
  const pending: Array<readonly [from: number, to: number, depth: number]> = [[0, order.length, 0]]
  let work = 0
  for (let part = pending.pop(); part !== undefined; part = pending.pop()) {
    const [from, to, depth] = part
    const ends = divide(from, to, depth)
    for (let key = 1; key < ends.length; key++) {
      if (ends[key]! - ends[key - 1]! > 1) pending.push([ends[key - 1]!, ends[key]!, depth + 1])
    }
    work += to - from + ends.length
    if (work < slice) continue
    work = 0
    yield
  }
  return order
}

/** The bytes that each token shares with the one before it. */
function* sharedOf(texts: Texts, order: Int32Array) {
  const shared = new Int32Array(order.length)
  let nodes = 0
  let longest = 0
  for (let at = 0; at < order.length; at++) {
    if (at % fewer === 0) yield
    const token = order[at]!
    const length = lengthOf(texts, token)
    if (at > 0) shared[at] = commonLength(texts, order[at - 1]!, token)
    nodes += length - shared[at]!
    longest = Math.max(longest, length)
  }
  return { longest, nodes, shared }
}

/**
 * Builds the trie in slices.
 *
 * @param size number of tokens
 * @param bytesOf the bytes of a token; tokens without bytes are left out
 */
export function* build(size: number, bytesOf: (token: number) => Uint8Array): Generator<void, TokenTrie, undefined> {
  const texts = yield* read(size, bytesOf)
  const order = yield* sort(texts)
  const { longest, nodes, shared } = yield* sharedOf(texts, order)
  const trie = {
    bytes: new Uint8Array(nodes),
    depths: new Int32Array(nodes),
    skip: new Int32Array(nodes),
    starts: new Int32Array(nodes + 1).fill(order.length, nodes),
    tokens: order,
    heights: new Uint8Array(nodes),
    longest
  }
  /** The nodes of the current token, and what was read before each. */
  const path = new Int32Array(longest)
  const before = new Int32Array(longest + 1).fill(startOfText)
  let node = 0
  /** Ends the subtrees of the current token's nodes from a depth. */
  const close = (from: number, length: number) => {
    for (let depth = length - 1; depth >= from; depth--) {
      const closed = path[depth]!
      trie.skip[closed] = node
      if (depth === 0) continue
      const above = path[depth - 1]!
      const begun = before[depth] === startOfText ? 1 : 0
      const height = before[depth + 1]! < 0 ? mostHeight : trie.heights[closed]! + begun
      trie.heights[above] = Math.max(trie.heights[above]!, Math.min(height, mostHeight))
    }
  }
  let length = 0
  for (let at = 0; at < order.length; at++) {
    const token = order[at]!
    if (at % fewer === 0) yield
    close(shared[at]!, length)
    length = lengthOf(texts, token)
    for (let depth = shared[at]!; depth < length; depth++) {
      const byte = texts.bytes[texts.starts[token]! + depth]!
      trie.bytes[node] = byte
      trie.depths[node] = depth
      trie.starts[node] = at
      before[depth + 1] = stepPlain(before[depth]!, byte)
      path[depth] = node++
    }
  }
  close(0, length)
  return trie
}
