/**
 * Whether a model fits the available memory, and which models to evict for it. Pure policy over one snapshot.
 *
 * **Details**
 *
 * The plan takes the largest variant that fits. If none fits, it evicts unused models for the largest variant that then
 * fits, the cheapest to reload first. If that is not enough for any variant, it waits for models in use. A model that
 * cannot fit beside the pinned models is refused. A loaded model stays for at least the hold time, so that two models
 * that do not fit together take turns instead of evicting each other at every request.
 *
 * The plan never exceeds the budget and never evicts a pinned model or one in use.
 */
import * as Defaults from "../../domain/Defaults.ts"

/** A model that has memory. */
export interface Resident {
  readonly key: string
  readonly bytes: number
  readonly pinned: boolean
  /** It loads, or a job holds a slot of it. */
  readonly inUse: boolean
  /** Since its last job, ms. */
  readonly idleMs: number
  /** Since it was loaded, ms. */
  readonly heldMs: number
  /** Duration of its load, ms. */
  readonly reloadMs: number
  /** Requests served plus requests that wait. */
  readonly demand: number
}

/** One way to load a model: the configured file or a variant. */
export interface Candidate {
  readonly name: string
  readonly bytes: number
  /** Bits a weight; unknown counts as more than any. */
  readonly bits?: number
}

/** The memory, and the models that have some. */
export interface Snapshot {
  readonly budgetBytes: number
  readonly residents: ReadonlyArray<Resident>
  readonly holdMs: number
  /** Default `Defaults.quantization`. */
  readonly quantization?: Quantization | undefined
}

/** The budgets, bytes, below which a variant of at most 4 or 8 bits a weight is preferred. */
export type Quantization = typeof Defaults.quantization

/** What to do. */
export type Plan =
  | { readonly type: "load"; readonly candidate: Candidate; readonly evict: ReadonlyArray<string> }
  | {
    readonly type: "wait"
    /** The candidate that it waits to load; undefined while that is unknown. */
    readonly candidate: Candidate | undefined
    /** Models to evict once they are unused and their hold time is over. */
    readonly victims: ReadonlyArray<string>
    /** Victims whose hold time is over: they get no new jobs. */
    readonly drain: ReadonlyArray<string>
    /** Plan again after this at the latest; `Infinity` if time alone changes nothing. */
    readonly atMostMs: number
  }
  | { readonly type: "refuse"; readonly neededBytes: number; readonly availableBytes: number }

/** The finest quantization to prefer with this budget, bits a weight. */
export const finestBits = (budgetBytes: number, { int4Below, int8Below } = Defaults.quantization): number => {
  if (budgetBytes < int4Below) return 4
  return budgetBytes < int8Below ? 8 : 16
}

/** Candidates in order of preference: those coarse enough for the budget, largest first, then the others, smallest first. */
export const order = (
  candidates: ReadonlyArray<Candidate>,
  budgetBytes: number,
  quantization?: Quantization
): ReadonlyArray<Candidate> => {
  const finest = finestBits(budgetBytes, quantization)
  const fits = ({ bits = Number.POSITIVE_INFINITY }: Candidate) => bits <= finest
  return [
    ...candidates.filter(fits).sort((a, b) => b.bytes - a.bytes),
    ...candidates.filter((candidate) => !fits(candidate)).sort((a, b) => a.bytes - b.bytes)
  ]
}

const sum = (residents: ReadonlyArray<Resident>): number => residents.reduce((total, { bytes }) => total + bytes, 0)

/** The cost of evicting a model: it grows with reload time and demand, and falls with idle time. */
export const costOf = ({ demand, idleMs, reloadMs }: Resident): number => (reloadMs + 1) * (demand + 1) / (idleMs + 1)

/** The cheapest models whose eviction frees enough; undefined if all together do not. */
const cheapest = (residents: ReadonlyArray<Resident>, bytes: number): ReadonlyArray<Resident> | undefined => {
  const chosen: Array<Resident> = []
  let freed = 0
  for (const resident of residents.toSorted((a, b) => costOf(a) - costOf(b))) {
    if (freed >= bytes) break
    chosen.push(resident)
    freed += resident.bytes
  }
  if (freed < bytes) return undefined
  // The last victims may make the first ones unnecessary.
  return chosen.filter((resident) => {
    if (freed - resident.bytes < bytes) return true
    freed -= resident.bytes
    return false
  })
}

const keysOf = (residents: ReadonlyArray<Resident>): ReadonlyArray<string> => residents.map(({ key }) => key)

/** Waits for models in use or whose hold time is not over. */
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

/** Bytes to free for a candidate; one that needs none always fits, even over budget. */
const missing = ({ bytes }: Candidate, free: number): number => bytes === 0 ? 0 : bytes - free

/**
 * The plan for one model.
 *
 * @param candidates not empty
 */
export const make = (
  candidates: ReadonlyArray<Candidate>,
  { budgetBytes, holdMs, quantization, residents }: Snapshot
): Plan => {
  const ordered = order(candidates, budgetBytes, quantization)
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
