/** What a dialect calls the fields that engines and `Inference` find wrong. Pure. */

/** An endpoint's own names. */
export interface Fields {
  /** Of what does not fit the context window. */
  readonly prompt: string
  /** Of the path of an `InvalidRequest`. */
  readonly rename: (path: string) => string
}

export type Names = ReadonlyArray<readonly [path: RegExp, name: string]>

/** What all endpoints have. */
const shared: Names = [[/^route/, "troupe"]]

/** By the first pattern that fits. */
export const renaming = (names: Names) => (path: string): string => {
  const found = [...names, ...shared].find(([pattern]) => pattern.test(path))
  return found === undefined ? path : path.replace(found[0], found[1])
}
