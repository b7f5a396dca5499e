/**
 * Whether a model fits the memory there is, and what must go to make room. Pure policy over one snapshot.
 *
 * **Details**
 *
 * The largest variant that fits is taken. Where none does, models that nobody uses go for the largest that then fits,
 * the cheapest to lose first; where
 * that is not enough for any variant, models in use are waited for; and what cannot fit beside the pinned models is
 * refused. A model stays for at least the hold time once it is loaded, so two models that do not fit together take
 * turns instead of chasing each other out at every request.
 *
 * The plan never exceeds the budget and never names a pinned model or one in use to go.
 */

/** A model that has its memory. */
export interface Resident {
  readonly key: string
  readonly bytes: number
  readonly pinned: boolean
  /** It is loading, or a job holds a slot of it. */
  readonly inUse: boolean
  /** Since its last job, ms. */
  readonly idleMs: number
  /** Since it was loaded, ms. */
  readonly heldMs: number
  /** What loading it took, ms. */
  readonly reloadMs: number
  /** Requests that it has served or that wait for it. */
  readonly demand: number
}

/** One way to load the model that is asked for. */
export interface Candidate {
  readonly name: string
  readonly bytes: number
  /** Of a weight; what is not known counts as more than any. */
  readonly bits?: number
}

/** What there is. */
export interface Snapshot {
  readonly budgetBytes: number
  readonly residents: ReadonlyArray<Resident>
  readonly holdMs: number
}

/** What to do. */
export type Plan =
  | { readonly type: "load"; readonly candidate: Candidate; readonly evict: ReadonlyArray<string> }
  /** No more jobs for these; ask again when something has changed, or after so many ms at the latest. */
  | {
    readonly type: "wait"
    /** What it waits to load; undefined where that is not known yet. */
    readonly candidate: Candidate | undefined
    /** What it waits for: to be evicted once nobody uses it and it has been held long enough. */
    readonly victims: ReadonlyArray<string>
    /** Those of them that have been held long enough. */
    readonly drain: ReadonlyArray<string>
    /** `Infinity`: nothing comes of time alone. */
    readonly atMostMs: number
  }
  | { readonly type: "refuse"; readonly neededBytes: number; readonly availableBytes: number }

const GiB = 2 ** 30

/** The finest quantisation worth its memory on a machine with this budget, bits a weight. */
export const finestBits = (budgetBytes: number): number => budgetBytes < 2 * GiB ? 4 : budgetBytes < 4 * GiB ? 8 : 16

/**
 * Candidates in the order to try them: the largest first of those that are coarse enough for the budget, then the
 * others, the smallest first.
 */
export const order = (candidates: ReadonlyArray<Candidate>, budgetBytes: number): ReadonlyArray<Candidate> => {
  const finest = finestBits(budgetBytes)
  const fits = ({ bits = Number.POSITIVE_INFINITY }: Candidate) => bits <= finest
  return [
    ...candidates.filter(fits).sort((a, b) => b.bytes - a.bytes),
    ...candidates.filter((candidate) => !fits(candidate)).sort((a, b) => a.bytes - b.bytes)
  ]
}

const sum = (residents: ReadonlyArray<Resident>): number => residents.reduce((total, { bytes }) => total + bytes, 0)

/** What it costs to lose a model: long to load, much asked for, used a moment ago. */
export const costOf = ({ demand, idleMs, reloadMs }: Resident): number => (reloadMs + 1) * (demand + 1) / (idleMs + 1)

/** The cheapest of these whose going frees enough; undefined if all together do not. */
const cheapest = (residents: ReadonlyArray<Resident>, bytes: number): ReadonlyArray<Resident> | undefined => {
  const chosen: Array<Resident> = []
  let freed = 0
  for (const resident of residents.toSorted((a, b) => costOf(a) - costOf(b))) {
    if (freed >= bytes) break
    chosen.push(resident)
    freed += resident.bytes
  }
  if (freed < bytes) return undefined
  // The last ones may have made the first ones unnecessary.
  return chosen.filter((resident) => {
    if (freed - resident.bytes < bytes) return true
    freed -= resident.bytes
    return false
  })
}

const keysOf = (residents: ReadonlyArray<Resident>): ReadonlyArray<string> => residents.map(({ key }) => key)

/** Waits for what is in use or has not been held long enough yet. */
const waitFor = (candidate: Candidate, free: number, movable: ReadonlyArray<Resident>, holdMs: number): Plan => {
  const chosen = cheapest(movable, candidate.bytes - free) ?? movable
  return {
    type: "wait",
    candidate,
    victims: keysOf(chosen),
    drain: keysOf(chosen.filter(({ heldMs }) => heldMs >= holdMs)),
    atMostMs: Math.min(...chosen.map(({ heldMs }) => heldMs < holdMs ? holdMs - heldMs : Number.POSITIVE_INFINITY))
  }
}

/** What must become free for it; what takes nothing always fits, also where more is in use than there is. */
const missing = ({ bytes }: Candidate, free: number): number => bytes === 0 ? 0 : bytes - free

/** What to do for one of these candidates, which must not be empty. */
export const fit = (candidates: ReadonlyArray<Candidate>, { budgetBytes, holdMs, residents }: Snapshot): Plan => {
  const ordered = order(candidates, budgetBytes)
  const free = budgetBytes - sum(residents)
  const fitting = ordered.find((candidate) => missing(candidate, free) <= 0)
  if (fitting !== undefined) return { type: "load", candidate: fitting, evict: [] }
  const movable = residents.filter(({ pinned }) => !pinned)
  const idle = movable.filter(({ heldMs, inUse }) => !inUse && heldMs >= holdMs)
  for (const candidate of ordered) {
    const evict = cheapest(idle, missing(candidate, free))
    if (evict !== undefined) return { type: "load", candidate, evict: keysOf(evict) }
  }
  const availableBytes = Math.max(0, free + sum(movable))
  const possible = ordered.find(({ bytes }) => bytes <= availableBytes)
  if (possible !== undefined) return waitFor(possible, free, movable, holdMs)
  return { type: "refuse", neededBytes: Math.min(...candidates.map(({ bytes }) => bytes)), availableBytes }
}
