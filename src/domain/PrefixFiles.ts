/**
 * Which computed prompt prefixes are kept in files, and which file serves a prompt.
 *
 * **Details**
 *
 * A file holds the KV cache of the first tokens of a prompt, for one owner (tenant) and one configuration of a model. The
 * files of all models share one budget; the least recently used are deleted first.
 *
 * **Gotchas**
 *
 * Whether a file is read depends on its size and on estimates of the machine's speed, never on a measured time: the number of
 * cached tokens of a request is the same on a busy machine.
 */

/** Where prefixes are kept, and how many. */
export interface PrefixFileOptions {
  /** Absolute; each configuration of a model has a folder in it. */
  readonly folder: string
  /** Of all files together. */
  readonly maxBytes: number
  /** Files that were not used for this time are deleted, ms; left out, none. */
  readonly ttlMs?: number | undefined
  /** How long an engine runs no job before its prefixes are saved, ms. */
  readonly idleMs: number
}

/** A file of one configuration. */
export interface PrefixFile {
  readonly name: string
  readonly owner: string
  readonly tokens: ArrayLike<number>
  readonly bytes: number
}

/** What the decision for a file depends on. */
export interface Costs {
  /** Time to compute a token of a prompt, ms. */
  readonly tokenMs: number
  /** A prefix is reused in pieces of this size, tokens. */
  readonly granularity: number
}

/** Weights that one thread multiplies with one token, bytes per ms: measured for Q8_0 on a server's core. */
const computedPerThread = 60e6

/** The same on a GPU, at least. */
const computedOnGpu = 3e9

/** Bytes read and checked per ms: a slow SSD; from the page cache it is four times as much. */
const readPerMs = 0.5e6

/** Time of a restoration of any size, ms. */
const restoreMs = 2

/** The fewest tokens that are saved. */
const leastTokens = 64

/** The most files of all models: a directory is read at requests with new prompts. */
const mostFiles = 1_000

/** Free space of the disk that files leave, bytes. */
const reservedBytes = 2 ** 30

/** The share of the budget that one file may have. */
const largestShare = 0.25

/** A temporary file of this age was left by a process that was killed, ms. */
const abandonedAfterMs = 10 * 60_000

/** The suffix of files that are being written. */
export const temporary = ".tmp"

/** @param modelBytes size of the weights */
export const costsOf = (
  modelBytes: number,
  { gpu, threads }: { readonly threads: number; readonly gpu?: string | undefined },
  granularity: number
): Costs => ({
  tokenMs: modelBytes / (gpu === undefined ? computedPerThread * threads : computedOnGpu),
  granularity
})

/** How many tokens two sequences share at their beginning. */
export const sharedLength = (first: ArrayLike<number>, second: ArrayLike<number>): number => {
  const most = Math.min(first.length, second.length)
  let shared = 0
  while (shared < most && first[shared] === second[shared]) shared++
  return shared
}

/** Tokens of a prompt that can be reused: complete pieces, and never all of it. */
const reusable = (shared: number, promptTokens: number, granularity: number): number => {
  const most = Math.min(shared, promptTokens - 1)
  return most - most % granularity
}

/** Time that a file saves, ms; negative if computing is faster. */
const savedMs = ({ bytes, tokens }: PrefixFile, prompt: ArrayLike<number>, computed: number, costs: Costs): number => {
  const gain = reusable(sharedLength(tokens, prompt), prompt.length, costs.granularity) - computed
  return gain * costs.tokenMs - restoreMs - bytes / readPerMs
}

/**
 * Whether any file could save time for a prompt.
 *
 * @param computed tokens at the beginning of the prompt that its slot has
 */
export const canGain = (promptTokens: number, computed: number, costs: Costs): boolean =>
  (reusable(promptTokens, promptTokens, costs.granularity) - computed) * costs.tokenMs > restoreMs

/** The file of the owner that saves most time; undefined if computing the prompt is faster. */
export const choose = <File extends PrefixFile>(
  files: Iterable<File>,
  owner: string,
  prompt: ArrayLike<number>,
  computed: number,
  costs: Costs
): File | undefined => {
  let best: File | undefined
  let most = 0
  for (const file of files) {
    if (file.owner !== owner) continue
    const saved = savedMs(file, prompt, computed, costs)
    if (saved <= most) continue
    best = file
    most = saved
  }
  return best
}

/** Whether tokens are worth a file that does not exist yet. */
export const isWorthSaving = (
  files: Iterable<PrefixFile>,
  owner: string,
  tokens: ArrayLike<number>,
  costs: Costs
): boolean => {
  if (tokens.length < leastTokens || !canGain(tokens.length + 1, 0, costs)) return false
  for (const file of files) {
    if (file.owner === owner && sharedLength(file.tokens, tokens) === tokens.length) return false
  }
  return true
}

/** The files that a new one replaces: those of its owner with a beginning of its tokens. */
export const replacedBy = <File extends PrefixFile>(files: Iterable<File>, saved: PrefixFile): ReadonlyArray<File> =>
  [...files].filter((file) =>
    file.name !== saved.name && file.owner === saved.owner &&
    sharedLength(file.tokens, saved.tokens) === file.tokens.length
  )

/** A file of any configuration, on the disk. */
export interface StoredFile {
  readonly path: string
  readonly bytes: number
  /** When it was used last, ms since 1970. */
  readonly usedAt: number
}

/** The largest file, bytes. */
export const largestFile = ({ maxBytes }: Pick<PrefixFileOptions, "maxBytes">): number => maxBytes * largestShare

const isTemporary = ({ path }: StoredFile): boolean => path.endsWith(temporary)

/**
 * The files to delete: those that are too old, and the least recently used ones above the budget. Files that another process
 * writes count, and stay.
 *
 * @param freeBytes of the disk
 * @param now ms since 1970
 */
export const toDelete = (
  files: ReadonlyArray<StoredFile>,
  { maxBytes, ttlMs = Number.POSITIVE_INFINITY }: Pick<PrefixFileOptions, "maxBytes" | "ttlMs">,
  freeBytes: number,
  now: number
): ReadonlyArray<StoredFile> => {
  const isExpired = (file: StoredFile) => now - file.usedAt > (isTemporary(file) ? abandonedAfterMs : ttlMs)
  const deleted = files.filter(isExpired)
  const kept = files.filter((file) => !isExpired(file))
  let bytes = kept.reduce((sum, file) => sum + file.bytes, 0)
  let count = kept.length
  const budget = Math.min(maxBytes, Math.max(0, bytes + freeBytes - reservedBytes))
  for (const file of kept.toSorted((a, b) => a.usedAt - b.usedAt)) {
    if (bytes <= budget && count <= mostFiles) break
    if (isTemporary(file)) continue
    deleted.push(file)
    bytes -= file.bytes
    count--
  }
  return deleted
}
