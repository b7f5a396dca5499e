/**
 * The tokens of a vocabulary by their bytes, as a trie in typed arrays, for a walk that drops or takes a subtree at once.
 *
 * **Details**
 *
 * Nodes stand in preorder: the first child follows its parent, and `skip` is the node after a subtree. The tokens of a
 * subtree are neighbors too. Each group of tokens has a trie of its own.
 *
 * A large vocabulary takes some hundred milliseconds. `build` yields between slices of a few, so that an engine thread can
 * do other work.
 */
import { charactersIn, groupCodes, groupOf } from "./TokenGroups.ts"

/** The tokens of a group (`TokenGroups`): their nodes are neighbors, and have no node in common with those of others. */
export interface TokenGroup {
  /** The group's nodes, from the first to before the last. */
  readonly nodes: readonly [from: number, to: number]
  /** Its tokens by their number of characters, fewest first; empty for the last group. */
  readonly byLength: Int32Array
  /** How many of these have at most so many characters; its length is the most characters, and one. */
  readonly counts: Int32Array
}

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
  readonly groups: ReadonlyArray<TokenGroup>
  /** Nodes on the longest path. */
  readonly longest: number
}

/** The bytes of all tokens, one after another. */
interface Texts {
  readonly bytes: Uint8Array
  /** Where each token's bytes begin; they end at the next one's. */
  readonly starts: Int32Array
  /** The group of each token. */
  readonly groups: Uint8Array
}

/** Bytes that are sorted, and tokens that are read or inserted, in one slice of work. */
const slice = 65_536
const fewer = 8_192

function* read(size: number, bytesOf: (token: number) => Uint8Array): Generator<void, Texts, undefined> {
  const starts = new Int32Array(size + 1)
  const groups = new Uint8Array(size)
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
    groups[token] = groupOf(text)
  }
  return { bytes, starts, groups }
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

/** Tokens in an order, with memory to sort them. */
interface Sorting {
  readonly order: Int32Array
  readonly moved: Int32Array
  /** The key of each token in the part that is sorted. */
  readonly keys: Uint16Array
}

const sortingOf = (order: Int32Array): Sorting => ({
  order,
  moved: new Int32Array(order.length),
  keys: new Uint16Array(order.length)
})

/** Sorts a part by `keys`, which are below `count`, equal ones in their order; returns where each key ends. */
const countingSort = ({ keys, moved, order }: Sorting, from: number, to: number, count: number): Int32Array => {
  const ends = new Int32Array(count)
  for (let at = from; at < to; at++) ends[keys[at]!]!++
  let end = from
  for (let key = 0; key < count; key++) {
    const these = ends[key]!
    ends[key] = end
    end += these
  }
  for (let at = from; at < to; at++) moved[ends[keys[at]!]!++] = order[at]!
  order.set(moved.subarray(from, to), from)
  return ends
}

/** The tokens that have bytes, by group. */
const byGroup = (texts: Texts) => {
  const all = new Int32Array(texts.groups.length)
  let count = 0
  for (let token = 0; token < all.length; token++) if (lengthOf(texts, token) > 0) all[count++] = token
  const sorting = sortingOf(all.slice(0, count))
  for (let at = 0; at < count; at++) sorting.keys[at] = texts.groups[sorting.order[at]!]!
  return { groupEnds: countingSort(sorting, 0, count, groupCodes.length + 1), sorting }
}

/** The tokens of each group by their bytes, equal ones by id: sorted by one byte after another. */
function* sort(texts: Texts) {
  const { bytes, starts } = texts
  const { groupEnds, sorting } = byGroup(texts)
  const { keys, order } = sorting
  const pending = Array.from(groupEnds, (end, group) => ({ from: groupEnds[group - 1] ?? 0, to: end, depth: 0 }))
  let work = 0
  for (let part = pending.pop(); part !== undefined; part = pending.pop()) {
    const { depth, from, to } = part
    for (let at = from; at < to; at++) {
      const place = starts[order[at]!]! + depth
      // 0 at a token's end.
      keys[at] = place === starts[order[at]! + 1] ? 0 : 1 + bytes[place]!
    }
    const ends = countingSort(sorting, from, to, 257)
    for (let key = 1; key < ends.length; key++) {
      if (ends[key]! - ends[key - 1]! > 1) pending.push({ from: ends[key - 1]!, to: ends[key]!, depth: depth + 1 })
    }
    work += to - from + ends.length
    if (work < slice) continue
    work = 0
    yield
  }
  return { groupEnds, order }
}

/** The bytes that each token shares with the one before it in its group. */
function* sharedOf(texts: Texts, order: Int32Array) {
  const shared = new Int32Array(order.length)
  let nodes = 0
  let longest = 0
  for (let at = 0; at < order.length; at++) {
    if (at % fewer === 0) yield
    const token = order[at]!
    const before = order[at - 1] ?? token
    const length = lengthOf(texts, token)
    if (at > 0 && texts.groups[before] === texts.groups[token]) shared[at] = commonLength(texts, before, token)
    nodes += length - shared[at]!
    longest = Math.max(longest, length)
  }
  return { longest, nodes, shared }
}

const byLengthOf = ({ bytes, starts }: Texts, tokens: Int32Array): Pick<TokenGroup, "byLength" | "counts"> => {
  const sorting = sortingOf(tokens)
  let most = 0
  for (const [at, token] of tokens.entries()) {
    sorting.keys[at] = charactersIn(bytes, starts[token]!, starts[token + 1]!)
    most = Math.max(most, sorting.keys[at] ?? 0)
  }
  return { byLength: tokens, counts: countingSort(sorting, 0, tokens.length, most + 1) }
}

/**
 * Builds the trie in slices.
 *
 * @param size number of tokens
 * @param bytesOf the bytes of a token; tokens without bytes are left out
 */
export function* build(size: number, bytesOf: (token: number) => Uint8Array): Generator<void, TokenTrie, undefined> {
  const texts = yield* read(size, bytesOf)
  const { groupEnds, order } = yield* sort(texts)
  const { longest, nodes, shared } = yield* sharedOf(texts, order)
  const trie = {
    bytes: new Uint8Array(nodes),
    depths: new Int32Array(nodes),
    skip: new Int32Array(nodes),
    starts: new Int32Array(nodes + 1).fill(order.length, nodes),
    tokens: order,
    longest
  }
  /** The nodes of the current token. */
  const path = new Int32Array(longest)
  const firstNodes = new Int32Array(order.length + 1).fill(nodes)
  let node = 0
  /** Ends the subtrees of the current token's nodes from a depth. */
  const close = (from: number, length: number) => {
    for (let depth = from; depth < length; depth++) trie.skip[path[depth]!] = node
  }
  let length = 0
  for (let at = 0; at < order.length; at++) {
    const token = order[at]!
    if (at % fewer === 0) yield
    close(shared[at]!, length)
    length = lengthOf(texts, token)
    firstNodes[at] = node
    for (let depth = shared[at]!; depth < length; depth++) {
      trie.bytes[node] = texts.bytes[texts.starts[token]! + depth]!
      trie.depths[node] = depth
      trie.starts[node] = at
      path[depth] = node++
    }
  }
  close(0, length)
  const groups: Array<TokenGroup> = []
  for (const [group, end] of groupEnds.entries()) {
    yield
    const from = groupEnds[group - 1] ?? 0
    const tokens = group < groupCodes.length ? order.slice(from, end) : new Int32Array()
    groups.push({ nodes: [firstNodes[from]!, firstNodes[end]!], ...byLengthOf(texts, tokens) })
  }
  return { ...trie, groups }
}
