/**
 * The bodies of the latest requests, by the id of their response, in this process's memory: for an operator who sends one again.
 *
 * **Details**
 *
 * Their number and their bytes are bounded: the oldest go first. A body that exceeds the bytes alone is not kept.
 *
 * **Gotchas**
 *
 * Bodies are kept as they arrived, before the input policy redacts them. Headers with keys are not kept.
 */
import * as Caller from "../../domain/Caller.ts"
import * as RoutingOptions from "../../domain/RoutingOptions.ts"

/** How many bodies are kept, and how many bytes together. */
export interface Bounds {
  readonly keepBodies: number
  readonly maxBytes: number
}

/** A request as it is sent again. */
export interface KeptRequest {
  readonly path: string
  /** Those that change how it is answered; names in lower case. */
  readonly headers: Readonly<Record<string, string>>
  /** Its body, JSON. */
  readonly text: string
}

/** Headers of a dialect, and the options of the routing. */
const keptHeaders: ReadonlyArray<string> = [
  ...RoutingOptions.headerNames,
  Caller.hopHeader,
  "anthropic-version",
  "anthropic-beta"
]

/** Of these headers, those that change how a request is answered. */
export const headersOf = (headers: Readonly<Record<string, string | undefined>>): Record<string, string> => {
  const kept: Record<string, string> = {}
  for (const name of keptHeaders) {
    const value = headers[name]
    if (value !== undefined) kept[name] = value
  }
  return kept
}

export class KeptRequests {
  readonly #bounds: Bounds
  readonly #kept = new Map<string, KeptRequest>()
  #bytes = 0

  constructor(bounds: Bounds) {
    this.#bounds = bounds
  }

  /** @param id of the response */
  add(id: string, request: KeptRequest): void {
    const bytes = Buffer.byteLength(request.text)
    if (bytes > this.#bounds.maxBytes) return
    this.#kept.set(id, request)
    this.#bytes += bytes
    for (const [oldest, { text }] of this.#kept) {
      if (this.#kept.size <= this.#bounds.keepBodies && this.#bytes <= this.#bounds.maxBytes) return
      this.#kept.delete(oldest)
      this.#bytes -= Buffer.byteLength(text)
    }
  }

  /** @param id of the response */
  find(id: string): KeptRequest | undefined {
    return this.#kept.get(id)
  }
}

type Fields = Readonly<Record<string, unknown>>

/** The answer of a request that is sent again comes at once, not as a stream, and not later. Ollama streams by default. */
export const bufferedBody = (path: string, body: Fields): Fields => {
  const { background, stream, stream_options: _, ...rest } = body
  const streams = stream === true || (stream !== false && (path === "/api/chat" || path === "/api/generate"))
  if (!streams && background !== true) return body
  return streams ? { ...rest, stream: false } : { ...rest, ...(stream === undefined ? {} : { stream }) }
}
