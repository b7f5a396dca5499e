/**
 * Divides one limit among processes: permits move to the processes that have callers waiting. Pure: messages are arguments
 * and results, and every process has its place in `SlotLeases`.
 *
 * **Details**
 *
 * A permit is held by one process or is free. A process that starts gets its equal share, as far as it is free. One that has
 * waiting callers wants more: it gets free permits, or those that other processes do not use. A process with less than its
 * share gets it in any case: the process that holds most gives permits back as its requests end. With fewer permits than
 * processes, they go round.
 *
 * **Gotchas**
 *
 * A permit counts for a process from the moment it is granted until the process has given it back, or has ended. So the
 * processes never hold more than the limit, however late messages arrive.
 */

/** A message to a process. */
export type Instruction =
  /** It holds this many more. 0: none is free, ask again. */
  | { readonly type: "grant"; readonly process: number; readonly count: number }
  /**
   * It gives this many back. `must`: as soon as its requests end, before it uses them again, in any number of parts. Otherwise
   * those that it does not use now, in one answer, which may be 0.
   */
  | { readonly type: "recall"; readonly process: number; readonly count: number; readonly must: boolean }

interface Holder {
  held: number
  /** That it must give back. */
  owed: number
  /** The most that it gives back of what it does not use, asked but not answered; `held` is at least this and `owed` together. */
  asked: number
}

/** A process with waiting callers. */
interface Want {
  readonly count: number
  /** Processes that were asked for what they do not use. */
  readonly asked: Set<number>
}

/** What a process keeps of its permits. */
const kept = ({ asked, held, owed }: Holder): number => held - owed - asked

/** The permits of one limit. */
export class Leases {
  #limit: number
  readonly #processes: number
  /** What a process gets in any case; one permit goes round if there are fewer than processes. */
  #share: number
  readonly #holders = new Map<number, Holder>()
  /** In the order of their requests. */
  readonly #wants = new Map<number, Want>()

  /** @param processes the number of them */
  constructor(limit: number, processes: number) {
    this.#limit = limit
    this.#processes = processes
    this.#share = Math.max(1, Math.floor(limit / processes))
  }

  /** Another limit: what processes hold above it is recalled from those that keep most, and given back as requests end. */
  resize(limit: number): ReadonlyArray<Instruction> {
    this.#limit = limit
    this.#share = Math.max(1, Math.floor(limit / this.#processes))
    const out: Array<Instruction> = []
    let excess = [...this.#holders.values()].reduce((sum, { held, owed }) => sum + held - owed, -limit)
    for (const [process, holder] of [...this.#holders].toSorted(([, one], [, other]) => kept(other) - kept(one))) {
      const count = Math.min(excess, kept(holder))
      if (count <= 0) continue
      holder.owed += count
      excess -= count
      out.push({ type: "recall", process, count, must: true })
    }
    return [...out, ...this.#settle()]
  }

  /** Permits that no process holds; negative while a smaller limit is not reached. */
  get free(): number {
    let held = 0
    for (const holder of this.#holders.values()) held += holder.held
    return this.#limit - held
  }

  held(process: number): number {
    return this.#holders.get(process)?.held ?? 0
  }

  /** A process has started. It holds none. */
  join(process: number): ReadonlyArray<Instruction> {
    this.#holders.set(process, { held: 0, owed: 0, asked: 0 })
    const count = Math.max(0, Math.min(this.#share, this.free))
    return count === 0 ? [] : [this.#grant(process, count)]
  }

  /** A process has ended, and its connections with it. */
  leave(process: number): ReadonlyArray<Instruction> {
    this.#holders.delete(process)
    this.#wants.delete(process)
    return this.#settle()
  }

  /** A process has callers that wait. It asks again after a `grant` only. */
  want(process: number, count: number): ReadonlyArray<Instruction> {
    if (!this.#holders.has(process)) return []
    this.#wants.set(process, { count, asked: new Set() })
    return this.#settle()
  }

  /** A process has given permits back, after a recall with this `must`. */
  give(process: number, count: number, must: boolean): ReadonlyArray<Instruction> {
    const holder = this.#holders.get(process)
    if (holder === undefined) return []
    holder.held -= count
    if (must) holder.owed -= count
    else holder.asked = 0
    return this.#settle()
  }

  #grant(process: number, count: number): Instruction {
    this.#holders.get(process)!.held += count
    return { type: "grant", process, count }
  }

  /** Grants what is free, then recalls for those that still wait. */
  #settle(): ReadonlyArray<Instruction> {
    const out: Array<Instruction> = []
    for (const [process, { count }] of this.#wants) {
      const { free } = this
      if (free <= 0) break
      // What is left is for those that wait as well.
      const part = Math.min(count, Math.ceil(free / this.#wants.size))
      this.#wants.delete(process)
      out.push(this.#grant(process, part))
    }
    for (const [process, want] of this.#wants) out.push(...this.#recallFor(process, want))
    return out
  }

  #recallFor(process: number, want: Want): ReadonlyArray<Instruction> {
    if (this.held(process) < this.#share) return this.#recallShare(process)
    const others = [...this.#holders].filter(([other, { asked, held, owed }]) =>
      other !== process && asked === 0 && held > owed && !want.asked.has(other) && !this.#wants.has(other)
    )
    if (others.length > 0) {
      return others.map(([other, holder]) => {
        want.asked.add(other)
        holder.asked = Math.ceil((holder.held - holder.owed) / 2)
        return { type: "recall", process: other, count: holder.asked, must: false }
      })
    }
    if ([...this.#holders.values()].some(({ asked }) => asked > 0)) return []
    this.#wants.delete(process)
    return [{ type: "grant", process, count: 0 }]
  }

  /** Recalls permits for a process below its share, from the one that keeps most, unless enough are on their way. */
  #recallShare(process: number): ReadonlyArray<Instruction> {
    let owed = 0
    for (const holder of this.#holders.values()) owed += holder.owed
    const short = [...this.#wants.keys()].filter((one) => this.held(one) < this.#share).length
    const [most] = [...this.#holders].toSorted(([, one], [, other]) => kept(other) - kept(one))
    const excess = most === undefined ? 0 : kept(most[1]) - this.held(process)
    if (owed >= short || excess <= 0) return []
    const count = Math.max(1, Math.min(this.#share - this.held(process), Math.floor(excess / 2)))
    most![1].owed += count
    return [{ type: "recall", process: most![0], count, must: true }]
  }
}
