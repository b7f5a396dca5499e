/** How deep JSON may be that others wrote: reading and writing it recurses. */

/** Objects and lists within each other: more than any schema has, fewer than a stack overflows from. */
export const mostLevels = 500

/** Without recursion, which is what the limit is for. */
export const isNestedDeeper = (value: unknown, levels: number): boolean => {
  let level: Array<object> = [{ value }]
  for (let depth = 0; depth <= levels; depth++) {
    level = level.flatMap((one) => Object.values(one) as Array<unknown>)
      .filter((one): one is object => typeof one === "object" && one !== null)
    if (level.length === 0) return false
  }
  return true
}
