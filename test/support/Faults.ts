/** What can go wrong with a provider, as plays of a `FaultServer`, and what a caller is promised then. */
import type { Play } from "./FaultServer.ts"

/** An error as a caller sees it. */
export interface Refused {
  readonly status: number
  readonly code: string
  /** Least and most, s; left out, there is none. */
  readonly retryAfter?: readonly [number, number]
}

/** What a host does, by how it was asked. */
export interface Fault {
  /** What callers see of it where it is an answer all the same, as a text that is broken off. */
  readonly answer?: string
  readonly name: string
  /** `harmless`: the answer is exact. The others: before or after the first content of a stream has come. */
  readonly when: "harmless" | "before" | "after"
  /** The answer to the call of this number, where answers are streamed; left out, not tried. */
  readonly streamed?: (call: number) => Play
  /** The same where the host is asked for one piece. */
  readonly whole?: (call: number) => Play
  /** Of the deployment. */
  readonly options?: Readonly<Record<string, unknown>>
  /** Of the policy. */
  readonly retries?: number
  /** Where nobody else can answer. */
  readonly promise?: Refused
  /** Whom it is handed on to; `nobody` where no other would fare better. Default the next deployment. */
  readonly next?: "nobody" | "contextFallbacks" | "contentFallbacks"
  /** Calls that the host sees of one request; default 1. */
  readonly calls?: number
  /** Calls of six requests, one after another; default 5 where the circuit opens, else 6. `any` where time decides. */
  readonly callsOfSix?: number | "any"
  /** Whether the circuit takes it for the deployment's own fault; default true. */
  readonly counts?: boolean
}

/** How a dialect puts an answer on the wire, in pieces of which so many come before and with the first content. */
export interface Wire {
  readonly headers: Readonly<Record<string, string>>
  readonly pieces: ReadonlyArray<string>
  readonly before: number
  /** The text of the first content. */
  readonly begun: string
  readonly text: string
  readonly whole: string
  /** An event of this data. */
  readonly frame: (data: string) => string
  readonly error: string
  /** What a caller is told of the error; default that the provider failed. */
  readonly told?: Refused
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

/** Short, where the fault is that nothing comes; long enough for a busy machine to bring what does. */
export const short = "400 millis"
export const limit = (name: string) => ({ timeouts: { [name]: short } })

/** No UTF-8. */
export const noise = Uint8Array.from({ length: 300 }, (_, index) => 128 + (index * 37) % 128)

export const always = (play: Play) => () => play

/** What is the same in every dialect: how an answer breaks off before its first content, and after it. */
const breaks = (wire: Wire, when: "before" | "after"): ReadonlyArray<Fault> => {
  const { before, frame, headers, pieces, whole } = wire
  const after = when === "before" ? before : before + 1
  const come = pieces.slice(0, after)
  const half = [whole.slice(0, Math.floor(whole.length / 2))]
  const body = when === "before" ? [] : half
  const streamed = (kind: NonNullable<Play["fault"]>["kind"], next: ReadonlyArray<string | Uint8Array> = []) =>
    always({ headers, pieces: [...come, ...next], fault: { kind, after } })
  const inOne = (kind: NonNullable<Play["fault"]>["kind"]) =>
    always({ headers: json, pieces: body, fault: { kind, after: body.length } })
  const one = (name: string, streamed: Fault["streamed"], whole: Fault["whole"], more: Partial<Fault> = {}): Fault => ({
    name,
    when,
    ...(streamed === undefined ? {} : { streamed }),
    ...(whole === undefined ? {} : { whole }),
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
    one("bytes that are no text", streamed("trickle", [noise]), undefined),
    one("error object in the stream", streamed("trickle", [wire.error]), undefined, { promise: wire.told ?? failed })
  ]
}

const emptyOf = ({ headers }: Wire): Fault => ({
  name: "200 and nothing",
  when: "before",
  streamed: always({ headers, pieces: [] }),
  whole: always({ headers: json, pieces: [] }),
  promise: failed
})

/** What is tried with every dialect. */
export const framingFaults = (wire: Wire): ReadonlyArray<Fault> => [
  { name: "slow bytes", when: "harmless", streamed: always({ ...wire, bytesAtATime: 1 }) },
  { name: "split anywhere", when: "harmless", streamed: always({ ...wire, bytesAtATime: 7 }) },
  emptyOf(wire),
  ...breaks(wire, "before"),
  ...breaks(wire, "after")
]
