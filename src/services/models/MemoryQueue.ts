/**
 * Which of the models that wait for memory get it now. Pure policy over one snapshot: `EvictionPlan` plans for one model,
 * this file for all that wait.
 *
 * **Details**
 *
 * Models get memory in the order in which they began to wait, but no model waits for memory that no earlier one can
 * use:
 *
 * - A model that fits is granted its memory at once if every earlier one still gets the memory that it waits for.
 * - A model that fits only in memory that an earlier one waits for may overtake it, until an earlier one has been
 *   overtaken `overtakesLimit` times: a large model gets its turn even if small ones keep coming.
 * - Other models wait. Each drains models that no earlier one drains already, so that a long job of one model delays
 *   only those that need the memory of that model.
 * - A model that cannot fit beside the pinned models is refused at once.
 */
import type { Candidate, Plan, Resident, Snapshot } from "./EvictionPlan.ts"
import * as EvictionPlan from "./EvictionPlan.ts"

/** A model that waits for memory. */
export interface Waiting {
  readonly key: string
  /** Not empty. */
  readonly candidates: ReadonlyArray<Candidate>
  /** How often a later model took memory that this one waits for. */
  readonly overtaken: number
}

/** The plan for one waiting model. */
export interface Decision {
  readonly key: string
  readonly plan: Plan
  /** It takes memory for which earlier models wait. */
  readonly overtakes: boolean
}

/** How often a model may be overtaken. */
export const overtakesLimit = 3

/** Memory now, and memory once every earlier model has been granted the memory that it waits for. */
interface Outlook {
  readonly now: ReadonlyArray<Resident>
  readonly later: ReadonlyArray<Resident>
  /** Models that the earlier ones wait to evict. */
  readonly awaited: ReadonlySet<string>
}

const loading = (key: string, bytes: number, pinned: boolean): Resident => ({
  key,
  bytes,
  pinned,
  inUse: true,
  idleMs: 0,
  heldMs: 0,
  reloadMs: 0,
  demand: 0
})

const exchange = (
  residents: ReadonlyArray<Resident>,
  out: ReadonlyArray<string>,
  into: Resident
): ReadonlyArray<Resident> => [...residents.filter(({ key }) => !out.includes(key)), into]

const sum = (residents: ReadonlyArray<Resident>): number => residents.reduce((total, { bytes }) => total + bytes, 0)

/** The residents, with the memory reserved that earlier models need: their victims stay, and their future use counts. */
const withReserved = ({ awaited, later, now }: Outlook): ReadonlyArray<Resident> => [
  ...now.map((resident) => awaited.has(resident.key) ? { ...resident, pinned: true } : resident),
  loading("", Math.max(0, sum(later) - sum(now)), true)
]

/** The decision for one model, given the earlier ones. */
const decide = (
  { candidates, key }: Waiting,
  earlier: ReadonlyArray<Waiting>,
  outlook: Outlook,
  snapshot: Snapshot
): Decision => {
  const fit = (residents: ReadonlyArray<Resident>) => EvictionPlan.make(candidates, { ...snapshot, residents })
  const immediate = fit(outlook.now)
  if (earlier.length === 0 || immediate.type === "refuse") return { key, plan: immediate, overtakes: false }
  const undisturbed = fit(withReserved(outlook))
  if (undisturbed.type === "load") return { key, plan: undisturbed, overtakes: false }
  if (immediate.type === "load" && earlier.every(({ overtaken }) => overtaken < overtakesLimit)) {
    return { key, plan: immediate, overtakes: true }
  }
  const afterwards = fit(outlook.later)
  if (afterwards.type === "wait") return { key, plan: afterwards, overtakes: false }
  // Its memory becomes free with that of the earlier ones, or after them.
  const { candidate } = afterwards.type === "load" ? afterwards : { candidate: undefined }
  return {
    key,
    plan: { type: "wait", candidate, victims: [], drain: [], atMostMs: Number.POSITIVE_INFINITY },
    overtakes: false
  }
}

/** The memory that the models after this one can count on. */
const after = ({ key, plan }: Decision, { awaited, later, now }: Outlook): Outlook => {
  switch (plan.type) {
    case "load": {
      const { candidate: { bytes }, evict } = plan
      const evicted = sum(now.filter((resident) => evict.includes(resident.key)))
      return {
        // Evicted memory beyond the need is free only when the evicted models have ended.
        now: exchange(now, evict, loading(key, Math.max(bytes, evicted), false)),
        later: exchange(later, evict, loading(key, bytes, false)),
        awaited
      }
    }
    case "wait":
      return plan.candidate === undefined ? { awaited, later, now } : {
        now,
        later: exchange(later, plan.victims, loading(key, plan.candidate.bytes, true)),
        awaited: new Set([...awaited, ...plan.victims])
      }
    case "refuse":
      return { awaited, later, now }
  }
}

/** The decision for each waiting model, in their order. */
export const schedule = (waiting: ReadonlyArray<Waiting>, snapshot: Snapshot): ReadonlyArray<Decision> => {
  let outlook: Outlook = { now: snapshot.residents, later: snapshot.residents, awaited: new Set() }
  const earlier: Array<Waiting> = []
  return waiting.map((one) => {
    const decision = decide(one, earlier, outlook, snapshot)
    outlook = after(decision, outlook)
    if (decision.overtakes) earlier.splice(0, earlier.length, ...earlier.map(overtake))
    if (decision.plan.type === "wait") earlier.push(one)
    return decision
  })
}

const overtake = (one: Waiting): Waiting => ({ ...one, overtaken: one.overtaken + 1 })
