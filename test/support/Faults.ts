/** What can go wrong with a provider, as plays of a `FaultServer`, and what a caller is promised then. */
import { gzipSync } from "node:zlib"
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
  /** Calls of six requests, one after another; default of 5 where the circuit opens, else of 6. */
  readonly callsOfSix?: number
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
}

export const json = { "content-type": "application/json" }
const failed: Refused = { status: 502, code: "upstream_failed" }
const timedOut: Refused = { status: 504, code: "upstream_timeout" }
const refusedKey: Refused = { status: 502, code: "upstream_authentication_failed" }
const limited = (least: number, most = least): Refused => ({
  status: 429,
  code: "rate_limit_exceeded",
  retryAfter: [least, most]
})
const refusedContent: Refused = { status: 400, code: "content_policy_violation" }
const mistaken: Refused = { status: 400, code: "invalid_request_error" }

/** Short, where the fault is that nothing comes; long enough for a busy machine to bring what does. */
const short = "400 millis"
const limit = (name: string) => ({ timeouts: { [name]: short } })
const small = { maxResponseBytes: 20_000 }
const megabytes = gzipSync(Buffer.alloc(50 * 2 ** 20))

const noise = Uint8Array.from({ length: 300 }, (_, index) => 128 + (index * 37) % 128)

const always = (play: Play) => () => play

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
    one("bytes that are no text", always({ headers, pieces: [...come, noise] }), undefined),
    one("error object in the stream", streamed("trickle", [wire.error]), undefined)
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

const raw = (...pieces: ReadonlyArray<string>): Play => ({ raw: true, pieces })
const head = (...lines: ReadonlyArray<string>) => ["HTTP/1.1 200 OK", ...lines, "", ""].join("\r\n")
const sse = "content-type: text/event-stream"

/** With a text that holds the key, as providers write them. */
const refusal = (status: number, key: string, error: object = {}, headers: Record<string, string> = {}): Play => ({
  status,
  headers: { ...json, ...headers },
  pieces: [JSON.stringify({ error: { message: `No: Bearer ${key}.`, ...error } })]
})

const date = () => new Date(Date.now() + 3_600_000).toUTCString()

/** With a status, however the answer was to come. */
const statuses = (key: string): ReadonlyArray<Fault> => {
  const both = (name: string, play: (call: number) => Play, promise: Refused, more: Partial<Fault> = {}): Fault => ({
    name,
    when: "before",
    streamed: play,
    whole: play,
    promise,
    ...more
  })
  const status = (
    status: number,
    promise: Refused,
    more: Partial<Fault> = {},
    ...of: [object?, Record<string, string>?]
  ) => both(`${status}${of[1] === undefined ? "" : ", Retry-After"}`, () => refusal(status, key, ...of), promise, more)
  const keyRests = { counts: false, callsOfSix: 1 }
  return [
    both("429, Retry-After in seconds", () => refusal(429, key, {}, { "retry-after": "7" }), limited(7), keyRests),
    both(
      "429, Retry-After as a date",
      () => refusal(429, key, {}, { "retry-after": date() }),
      limited(3500, 3600),
      keyRests
    ),
    both(
      "429, Retry-After of a century",
      () => refusal(429, key, {}, { "retry-after": "9".repeat(400) }),
      limited(86_400),
      keyRests
    ),
    both(
      "429, Retry-After of nonsense",
      () => refusal(429, key, {}, { "retry-after": "-soon 5", "retry-after-ms": "Infinity" }),
      limited(1),
      keyRests
    ),
    status(500, failed),
    status(503, { ...failed, retryAfter: [2, 2] }, {}, {}, { "retry-after": "2" }),
    status(529, failed),
    both("503 and 502, again and again", (call) => refusal(call % 2 === 0 ? 503 : 502, key), failed, {
      retries: 2,
      calls: 3
    }),
    status(401, refusedKey, { callsOfSix: 1 }),
    status(403, refusedKey, { callsOfSix: 1 }),
    status(400, mistaken, { next: "nobody", counts: false }, { param: `Bearer ${key}` }),
    status(413, mistaken, { next: "nobody", counts: false }, { message: `${"x".repeat(290)}${key}` }),
    status(422, mistaken, { next: "nobody", counts: false }),
    status(404, failed),
    both(
      "context too long",
      () =>
        refusal(400, key, {
          code: "context_length_exceeded",
          message: "This model's maximum context length is 10 tokens. However, your messages resulted in 12 tokens."
        }),
      { status: 400, code: "context_length_exceeded" },
      { next: "contextFallbacks", counts: false }
    ),
    both(
      "context of more tokens than are counted",
      () =>
        refusal(400, key, {
          code: "context_length_exceeded",
          message: `maximum context length is ${"9".repeat(30)} tokens, you requested 12`
        }),
      mistaken,
      { next: "nobody", counts: false }
    ),
    both("content refused", () => refusal(400, key, { code: "content_filter" }), refusedContent, {
      next: "contentFallbacks",
      counts: false
    }),
    both(
      "endless refusal",
      always({ status: 500, pieces: ["x".repeat(1000)], fault: { kind: "flood", after: 1 } }),
      failed
    )
  ]
}

/** Of the exchange, before there is an answer. */
const exchanges = (elsewhere: string, nowhere: string): ReadonlyArray<Fault> => {
  const both = (name: string, play: Play, more: Partial<Fault> = {}): Fault => ({
    name,
    when: "before",
    streamed: always(play),
    whole: always(play),
    promise: failed,
    ...more
  })
  const redirect = (status: number) =>
    both(`${status} to another host`, { status, headers: { ...json, location: elsewhere }, pieces: [] })
  return [
    both("no headers", { silent: "stall", pieces: [] }, {
      options: { timeouts: { firstByte: short, total: short } },
      promise: timedOut
    }),
    both("reset before an answer", { silent: "reset", pieces: [] }),
    both("refused connection", { pieces: [] }, { options: { baseUrl: nowhere }, calls: 0 }),
    redirect(302),
    redirect(307),
    both("HTML", { headers: { "content-type": "text/html" }, pieces: ["<html>Hello, data: {}</html>"] }),
    both("no content type", raw(`${head("content-length: 2")}{}`)),
    {
      ...both("gzip bomb", { headers: { ...json, "content-encoding": "gzip" }, pieces: [megabytes] }),
      streamed: always({ headers: { "content-encoding": "gzip" }, pieces: [megabytes] })
    },
    both("no HTTP", raw("SSH-2.0-OpenSSH_9.6\r\n")),
    both("a header too large", raw(head(sse, `x-large: ${"x".repeat(70_000)}`))),
    both("headers without end", { ...raw("HTTP/1.1 200 OK\r\n", "x-more: x\r\n"), fault: { kind: "flood", after: 1 } }),
    both("100 for ever", { ...raw("HTTP/1.1 100 Continue\r\n\r\n"), fault: { kind: "flood", after: 0 } })
  ]
}

const choice = (delta: object, more: object = {}) =>
  `data: ${JSON.stringify({ choices: [{ index: 0, delta, finish_reason: null, ...more }] })}\n\n`

/** A stream whose form is unusual and whose meaning is plain. */
const oddities = ({ pieces, text }: Wire): ReadonlyArray<Fault> => {
  const all = pieces.join("")
  const harmless = (name: string, play: Play): Fault => ({ name, when: "harmless", streamed: always(play) })
  const finish = choice({}, { finish_reason: "stop" })
  return [
    harmless("delays", { pieces, delayMs: 20 }),
    harmless("all in one write", { pieces: [all] }),
    harmless("CRLF, CR, no space, comments, BOM", {
      pieces: [
        "\uFEFF: hello\r\n\r\n",
        ...pieces.slice(0, 2).map((piece) => piece.replaceAll("\n", "\r\n").replace("data: ", "data:")),
        "retry: 10\nid: 7\nevent: ping\n\n",
        ...pieces.slice(2).map((piece) => piece.replaceAll("\n", "\r"))
      ],
      bytesAtATime: 11
    }),
    harmless("data of several lines", {
      pieces: pieces.map((piece) => piece.replaceAll(",\"", ",\ndata: \""))
    }),
    harmless(
      "early hints, and a chunked body with trailers",
      raw(
        "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n",
        head(sse, "transfer-encoding: chunked", "trailer: x-end"),
        ...pieces.map((piece) => `${Buffer.byteLength(piece).toString(16)};x=y\r\n${piece}\r\n`),
        "0\r\nx-end: 1\r\n\r\n"
      )
    ),
    harmless("HTTP/1.0 without a length", raw(["HTTP/1.0 200 OK", sse, "", all].join("\r\n"))),
    harmless("no [DONE] after the finish", { pieces: pieces.slice(0, -1) }),
    harmless("no end after [DONE]", {
      pieces: [...pieces, ": more\n\n"],
      fault: { kind: "flood", after: pieces.length }
    }),
    harmless("a second answer after the end", {
      pieces: [...pieces, choice({ content: "More." }), finish, pieces.at(-1)!]
    }),
    harmless("usage first, and nonsense in it", {
      pieces: [
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":-5,\"completion_tokens\":\"7\"}}\n\n",
        ...pieces.slice(0, -2),
        pieces.at(-1)!
      ]
    }),
    harmless("another choice between", {
      pieces: [...pieces.slice(0, 2), choice({ content: "Other" }, { index: 1 }), ...pieces.slice(2)]
    }),
    {
      name: "one write",
      when: "harmless",
      whole: always({
        headers: json,
        pieces: [JSON.stringify({
          choices: [{ index: 0, message: { content: text }, finish_reason: "stop" }],
          usage: null
        })]
      })
    }
  ]
}

/** An answer in OpenAI's own form that is none. */
const nonAnswers = ({ begun, pieces }: Wire): ReadonlyArray<Fault> => {
  const done = pieces.at(-1)!
  const before = (name: string, play: Play, promise = failed, more: Partial<Fault> = {}): Fault => ({
    name,
    when: "before",
    streamed: always(play),
    promise,
    ...more
  })
  const after = (name: string, play: Play, promise = failed, more: Partial<Fault> = {}): Fault => ({
    ...before(name, { ...play, pieces: [...pieces.slice(0, 2), ...play.pieces] }, promise, more),
    when: "after"
  })
  const whole = (name: string, body: string, promise = failed): Fault => ({
    name,
    when: "before",
    whole: always({ headers: json, pieces: [body] }),
    promise
  })
  const flood = "x".repeat(2000)
  const message = (content: unknown, finish_reason: unknown, more: object = {}) =>
    JSON.stringify({ choices: [{ index: 0, message: { content, ...more }, finish_reason }] })
  return [
    before("signs of life for ever", { pieces: [": ping\n\n"], fault: { kind: "trickle", after: 0 } }, timedOut, {
      options: limit("total")
    }),
    before("[DONE] and nothing else", { pieces: [done] }),
    before("finish without content", { pieces: [pieces[0]!, ...pieces.slice(3)] }),
    before("tool calls that are none", { pieces: [choice({}, { finish_reason: "tool_calls" }), done] }),
    before("a tool call without a name", {
      pieces: [
        choice({ tool_calls: [{ index: 0, id: "a", function: { arguments: "{}" } }] }, { finish_reason: "tool_calls" }),
        done
      ]
    }),
    before("a line without end", { pieces: ["data: ", flood], fault: { kind: "flood", after: 1 } }, failed, {
      options: small
    }),
    before(
      "limit told in the stream",
      {
        pieces: ["data: {\"error\":{\"message\":\"x\",\"code\":\"rate_limit_exceeded\"}}\n\n"]
      },
      limited(1),
      { counts: false }
    ),
    before(
      "content refused in the stream",
      { pieces: [choice({}, { finish_reason: "content_filter" }), done] },
      refusedContent,
      {
        next: "contentFallbacks",
        counts: false
      }
    ),
    before("Content-Length of more than comes", raw(`${head(sse, "content-length: 9000")}${pieces[0]}`)),
    after("signs of life for ever", { pieces: [": ping\n\n"], fault: { kind: "trickle", after: 2 } }, timedOut, {
      options: { timeouts: { total: "1 second" } }
    }),
    after("finish that stays null", { pieces: [choice({ content: "" }), done] }),
    after("endless body", { pieces: [`: ${flood}\n`], fault: { kind: "flood", after: 2 } }, failed, { options: small }),
    after(
      "content refused in the stream",
      { pieces: [choice({}, { finish_reason: "content_filter" }), done] },
      refusedContent,
      {
        next: "contentFallbacks",
        counts: false
      }
    ),
    whole("garbage", "{\"choices\":"),
    whole("JSON that is no answer", "[]"),
    whole("no content", message("", "stop")),
    whole("finish that is null", message(begun, null)),
    whole("tool calls that are none", message(null, "tool_calls", { tool_calls: [] })),
    whole("error with status 200", "{\"error\":{\"message\":\"overloaded\"}}"),
    {
      ...whole("bytes that are no text", ""),
      whole: always({
        headers: json,
        pieces: ["{\"choices\":[{\"index\":0,\"message\":{\"content\":\"", noise, "\"},\"finish_reason\":\"stop\"}]}"]
      })
    },
    {
      ...whole("endless body", ""),
      whole: always({ headers: json, pieces: [" ".repeat(2000)], fault: { kind: "flood", after: 0 } }),
      options: small
    },
    {
      ...whole("Content-Length of more than comes", ""),
      whole: always(raw(`${head("content-type: application/json", "content-length: 9000")}${message("Hi", "stop")}`))
    }
  ]
}

/**
 * What is tried with OpenAI's dialect: everything.
 *
 * @param elsewhere a host that must never be asked
 * @param nowhere one that is not there
 */
export const openAiFaults = (wire: Wire, key: string, elsewhere: string, nowhere: string): ReadonlyArray<Fault> => [
  ...oddities(wire),
  ...statuses(key),
  ...exchanges(elsewhere, nowhere),
  ...framingFaults(wire),
  ...nonAnswers(wire)
]
