/** The places of the engines' code, `workers/<engine>.worker`. */

// `tsc` rewrites import paths but not URLs; the extension is this file's own.
const extension = import.meta.url.slice(-3)

/** The URL of an engine's worker. */
export const workerOf = (engine: string): string =>
  new URL(`../../workers/${engine}.worker${extension}`, import.meta.url).href
