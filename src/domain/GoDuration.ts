/**
 * Spans of time as Go writes them, and with it Ollama and llama-swap: `1h30m`, `500ms`, `-1s`, `0`. Pure.
 */

/** A whole text that is one. */
export const pattern = /^[-+]?(?:0|(?:(?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|ms|s|m|h))+)$/

const unitMs: Readonly<Record<string, number>> = {
  ns: 1e-6,
  us: 1e-3,
  "µs": 1e-3,
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000
}

/** Milliseconds of a text that fits the pattern. */
export const toMillis = (text: string): number => {
  const ms = [...text.matchAll(/([\d.]+)(ns|us|µs|ms|s|m|h)/g)].reduce(
    (sum, [, number, unit]) => sum + Number(number) * unitMs[unit!]!,
    0
  )
  return text.startsWith("-") ? -ms : ms
}
