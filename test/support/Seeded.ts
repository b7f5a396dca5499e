/** Random numbers from a seed (mulberry32, Tommy Ettinger, public domain). */
export const randomOf = (seed: number) => {
  let state = seed >>> 0
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), state | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
  const upTo = (most: number) => Math.floor(next() * most)
  return {
    upTo,
    chance: (share: number) => next() < share,
    pick: <A>(all: ReadonlyArray<A>): A => all[upTo(all.length)]!
  }
}

export type Random = ReturnType<typeof randomOf>
