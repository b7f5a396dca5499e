/** Who asks for what, as limits and budgets count it. Pure. */

/** What a limit or a budget counts by. */
export const dimensions = ["key", "user", "tenant", "model", "endpoint"] as const
export type Dimension = (typeof dimensions)[number]

/** A request's values of the dimensions; empty where it has none. */
export type Subject = Readonly<Record<Dimension, string>>

/** Separates the values of a counter's name: no value has it. */
const separator = "\u001f"

/** The name of a counter: requests with the same values of these dimensions share it. */
export const counterOf = (by: ReadonlyArray<Dimension>, subject: Subject): string => {
  const [only = "key", second] = by
  if (by.length === 0) return ""
  if (second === undefined) return subject[only]
  return by.map((dimension) => subject[dimension]).join(separator)
}

/** As `key team-a, endpoint chat`. */
export const describe = (by: ReadonlyArray<Dimension>, subject: Subject): string =>
  by.length === 0 ? "all requests" : by.map((dimension) => `${dimension} ${subject[dimension] || "(none)"}`).join(", ")
