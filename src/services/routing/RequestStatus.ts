/**
 * How a request ended, as a text that selects requests: a word, or the HTTP status of its answer. Pure.
 *
 * **Gotchas**
 *
 * The status is that of OpenAI's dialect: an answer in another one may have had another.
 */
import { nearestName } from "../../domain/NearestName.ts"

/** What of a record or of its summary says how it ended. */
export interface Ended {
  readonly status: "failure" | "interruption" | "running" | "success"
  readonly refused?: boolean | undefined
  readonly error?: { readonly status?: number | undefined } | undefined
}

const isRunning = ({ status }: Ended): boolean => status === "running"

const words: Readonly<Record<string, (request: Ended) => boolean>> = {
  running: isRunning,
  ended: (request) => !isRunning(request),
  success: ({ status }) => status === "success",
  failure: ({ status }) => status === "failure",
  refused: ({ refused }) => refused === true,
  interruption: ({ status }) => status === "interruption"
}

/** Other names of the words. */
const aliases: Readonly<Record<string, string>> = {
  served: "success",
  answered: "success",
  ok: "success",
  failed: "failure",
  error: "failure",
  canceled: "interruption",
  cancelled: "interruption"
}

/** The words of the API. */
export const names = Object.keys(words)

/** The words of the command line. */
export const plainNames = ["answered", "failed", "refused", "canceled", "running"]

/** An HTTP status, or a class of them. */
const httpStatus = /^[2-5](?:\d\d|xx)$/

const httpStatusOf = ({ error, status }: Ended): string =>
  status === "success" ? "200" : status === "failure" ? String(error?.status ?? "") : ""

/** Whether a request ended so; undefined where the text is no status. */
export const matcher = (text: string): ((request: Ended) => boolean) | undefined => {
  const name = text.toLowerCase()
  if (httpStatus.test(name)) {
    const wanted = name.replace("xx", "")
    return (request) => httpStatusOf(request).startsWith(wanted)
  }
  const word = Object.hasOwn(aliases, name) ? aliases[name]! : name
  return Object.hasOwn(words, word) ? words[word] : undefined
}

/** What is expected in place of a text that is no status. */
export const expected = (text: string, listed: ReadonlyArray<string>): string => {
  const nearest = nearestName(text, [...listed, ...names, ...Object.keys(aliases)])
  const hint = nearest === undefined ? "" : `. Did you mean ${nearest}?`
  return `Expected one of ${listed.join(", ")}, or an HTTP status such as 429 or 5xx${hint}`
}
