/** Faults of a provider, as answers of a `FaultServer`, and the expected result for the caller. */
import type { Play } from "./FaultServer.ts"

/** The error that a caller gets. */
export interface Refused {
  readonly status: number
  readonly code: string
  /** Least and most, s; left out, the header is absent. */
  readonly retryAfter?: readonly [number, number]
}

/** The behaviour of a host, by the mode of its request. */
export interface Fault {
  /** The observation if the fault still gives an answer, such as a cut text. */
  readonly answer?: string
  readonly name: string
  /** `harmless`: the answer is exact. The others: before or after the first content of a stream. */
  readonly when: "harmless" | "before" | "after"
  /** The answer to the call with this number, if answers are streamed; left out, not tested. */
  readonly streamed?: (call: number) => Play
  /** The same if the host is asked for a buffered answer. */
  readonly buffered?: (call: number) => Play
  /** Options of the deployment. */
  readonly options?: Readonly<Record<string, unknown>>
  /** Options of the policy. */
  readonly retries?: number
  /** The expected error if no other deployment can answer. */
  readonly promise?: Refused
  /** The deployment after the fault; `none` if the request would fail everywhere. Default the next deployment. */
  readonly next?: "none" | "contextFallbacks" | "contentFallbacks"
  /** Calls to the host for one request; default 1. */
  readonly calls?: number
  /** Calls for six consecutive requests; default 5 if the circuit opens, else 6. `any` if it depends on time. */
  readonly callsOfSix?: number | "any"
  /** Whether the circuit counts it as a failure; default true. */
  readonly counts?: boolean
}

/** A dialect's answer on the wire, in pieces; the counts are the pieces before and with the first content. */
export interface Wire {
  readonly headers: Readonly<Record<string, string>>
  readonly pieces: ReadonlyArray<string>
  readonly before: number
  /** The text of the first content. */
  readonly begun: string
  readonly text: string
  readonly buffered: string
  /** An event of this data. */
  readonly frame: (data: string) => string
  readonly error: string
  /** The error that a caller gets; default that the provider failed. */
  readonly refusal?: Refused
}

export const json = { "content-type": "application/json" }
export const failed: Refused = { status: 502, code: "upstream_failed" }
export const overloaded: Refused = { status: 503, code: "upstream_overloaded" }
export const timedOut: Refused = { status: 504, code: "upstream_timeout" }
export const limited = (least: number, most = least): Refused => ({
  status: 429,
  code: "rate_limit_exceeded",
  retryAfter: [least, most]
})
export const refusedContent: Refused = { status: 400, code: "content_policy_violation" }

/** Short if the fault is silence; long enough for a busy machine to deliver other bytes. */
export const short = "3 seconds"
export const limit = (name: string) => ({ timeouts: { [name]: short } })

/** Not UTF-8. */
export const noise = Uint8Array.from({ length: 300 }, (_, index) => 128 + (index * 37) % 128)

export const always = (play: Play) => () => play

/** The faults of every dialect: an answer that is cut before its first content, and after it. */
const breaks = (wire: Wire, when: "before" | "after"): ReadonlyArray<Fault> => {
  const { before, frame, headers, pieces, buffered } = wire
  const after = when === "before" ? before : before + 1
  const come = pieces.slice(0, after)
  const half = [buffered.slice(0, Math.floor(buffered.length / 2))]
  const body = when === "before" ? [] : half
  const streamed = (kind: NonNullable<Play["fault"]>["kind"], next: ReadonlyArray<string | Uint8Array> = []) =>
    always({ headers, pieces: [...come, ...next], fault: { kind, after } })
  const inOne = (kind: NonNullable<Play["fault"]>["kind"]) =>
    always({ headers: json, pieces: body, fault: { kind, after: body.length } })
  const one = (
    name: string,
    streamed: Fault["streamed"],
    buffered: Fault["buffered"],
    more: Partial<Fault> = {}
  ): Fault => ({
    name,
    when,
    ...(streamed === undefined ? {} : { streamed }),
    ...(buffered === undefined ? {} : { buffered }),
    promise: failed,
    ...more
  })
  return [
    one("stall", streamed("stall"), undefined, {
      options: limit(when === "before" ? "firstToken" : "stall"),
      promise: timedOut
    }),
    one("stall", undefined, inOne("stall"), {
      options: limit(when === "before" ? "total" : "stall"),
      promise: timedOut
    }),
    one("cut", streamed("cut"), inOne("cut")),
    one("connection reset", streamed("reset"), inOne("reset")),
    one("ends without its end", streamed("end"), inOne("end")),
    one("malformed JSON frame", streamed("trickle", [frame("{\"choices\":[")]), undefined),
    one("bytes that are not text", streamed("trickle", [noise]), undefined),
    one("error object in the stream", streamed("trickle", [wire.error]), undefined, { promise: wire.refusal ?? failed })
  ]
}

const emptyOf = ({ headers }: Wire): Fault => ({
  name: "200 and nothing",
  when: "before",
  streamed: always({ headers, pieces: [] }),
  buffered: always({ headers: json, pieces: [] }),
  promise: failed
})

/** The faults that are tested with every dialect. */
export const framingFaults = (wire: Wire): ReadonlyArray<Fault> => [
  { name: "slow bytes", when: "harmless", streamed: always({ ...wire, bytesAtATime: 1 }) },
  { name: "split anywhere", when: "harmless", streamed: always({ ...wire, bytesAtATime: 7 }) },
  emptyOf(wire),
  ...breaks(wire, "before"),
  ...breaks(wire, "after")
]
