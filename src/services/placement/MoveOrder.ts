/**
 * The order in which replicas move: a replica is loaded at its new place before it is unloaded at the old one, and both must fit
 * beside what is there at that moment.
 *
 * **Details**
 *
 * Loads of replicas that are nowhere come first, in the given order, then moves. One that has no room yet waits for those that
 * free it. Where replicas wait for each other, as when two change places, one of them is unloaded before it is loaded.
 */
import type { Places, Replica } from "./Places.ts"

/** One replica that is loaded at its place. */
export interface Step {
  readonly replica: Replica
  readonly unloadsFirst: boolean
}

/** The memory that is free before the first step, bytes. */
const freeBefore = (places: Places, replicas: ReadonlyArray<Replica>): Float64Array => {
  const free = places.free.slice()
  for (const { model, origin, place } of replicas) {
    if (origin === place) continue
    const { memory } = places.models[model]!
    free[place]! += memory
    if (origin !== -1) free[origin]! -= memory
  }
  return free
}

/**
 * @param replicas all of them, at their new places
 * @param changed those that are not there yet
 */
export const ordered = (
  places: Places,
  replicas: ReadonlyArray<Replica>,
  changed: ReadonlyArray<Replica>
): ReadonlyArray<Step> => {
  const free = freeBefore(places, replicas)
  const memoryOf = ({ model }: Replica): number => places.models[model]!.memory
  const steps: Array<Step> = []
  const unloaded = new Set<Replica>()
  const unload = (replica: Replica) => {
    if (replica.origin !== -1 && !unloaded.has(replica)) free[replica.origin]! += memoryOf(replica)
    unloaded.add(replica)
  }
  let waiting = changed.toSorted((one, other) => Number(one.origin !== -1) - Number(other.origin !== -1))
  while (waiting.length > 0) {
    const left = waiting.filter((replica) => {
      if (free[replica.place]! < memoryOf(replica)) return true
      free[replica.place]! -= memoryOf(replica)
      steps.push({ replica, unloadsFirst: unloaded.has(replica) })
      unload(replica)
      return false
    })
    if (left.length === waiting.length) {
      const next = left.find((replica) => replica.origin !== -1 && !unloaded.has(replica))
      // Every replica has its place in the end, so one that can free memory is left.
      if (next === undefined) break
      unload(next)
    }
    waiting = left
  }
  return steps
}
