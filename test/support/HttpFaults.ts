/** Faults of an HTTP exchange before an answer. */
import { gzipSync } from "node:zlib"
import type { Fault, Refused } from "./Faults.ts"
import { always, failed, json, limited, overloaded, refusedContent, short, timedOut } from "./Faults.ts"
import type { Play } from "./FaultServer.ts"

const refusedKey: Refused = { status: 502, code: "upstream_authentication_failed" }
const usedUp: Refused = { status: 429, code: "insufficient_quota" }
const mistaken: Refused = { status: 400, code: "invalid_request_error" }
const megabytes = gzipSync(Buffer.alloc(50 * 2 ** 20))

export const raw = (...pieces: ReadonlyArray<string>): Play => ({ raw: true, pieces })
export const head = (...lines: ReadonlyArray<string>) => ["HTTP/1.1 200 OK", ...lines, "", ""].join("\r\n")
export const sse = "content-type: text/event-stream"

/** With a text that contains the key, as some providers send. */
const refusal = (status: number, key: string, error: object = {}, headers: Record<string, string> = {}): Play => ({
  status,
  headers: { ...json, ...headers },
  pieces: [JSON.stringify({ error: { message: `No: Bearer ${key}.`, ...error } })]
})

const date = () => new Date(Date.now() + 3_600_000).toUTCString()

/** With a status, in every mode. */
export const statuses = (key: string): ReadonlyArray<Fault> => {
  const both = (name: string, play: (call: number) => Play, promise: Refused, more: Partial<Fault> = {}): Fault => ({
    name,
    when: "before",
    streamed: play,
    buffered: play,
    promise,
    ...more
  })
  const status = (
    status: number,
    promise: Refused,
    more: Partial<Fault> = {},
    ...of: [object?, Record<string, string>?]
  ) => both(`${status}${of[1] === undefined ? "" : ", Retry-After"}`, () => refusal(status, key, ...of), promise, more)
  const keyCooldowns = { counts: false, callsOfSix: 1 }
  return [
    both(
      "429, Retry-After in seconds",
      () => refusal(429, key, {}, { "retry-after": "70" }),
      limited(70),
      keyCooldowns
    ),
    both(
      "429, Retry-After as a date",
      () => refusal(429, key, {}, { "retry-after": date() }),
      limited(3500, 3600),
      keyCooldowns
    ),
    both(
      "429, Retry-After of a century",
      () => refusal(429, key, {}, { "retry-after": "9".repeat(400) }),
      limited(86_400),
      keyCooldowns
    ),
    both(
      "429, Retry-After of nonsense",
      () => refusal(429, key, {}, { "retry-after": "-soon 5", "retry-after-ms": "Infinity" }),
      limited(1),
      { ...keyCooldowns, callsOfSix: "any" }
    ),
    status(500, failed),
    status(503, { ...failed, retryAfter: [2, 2] }, {}, {}, { "retry-after": "2" }),
    status(529, overloaded),
    both("503 and 502 by turns", (call) => refusal(call % 2 === 0 ? 503 : 502, key), failed, {
      retries: 2,
      calls: 3
    }),
    both("429, insufficient_quota", () => refusal(429, key, { code: "insufficient_quota" }), usedUp, {
      counts: false,
      callsOfSix: 1
    }),
    both("402", () => refusal(402, key), usedUp, { counts: false, callsOfSix: 1 }),
    // A key is retried after a second: requests in between do not count as failures of the deployment.
    status(401, refusedKey, { counts: false, callsOfSix: "any" }),
    status(403, refusedKey, { counts: false, callsOfSix: "any" }),
    status(400, mistaken, { next: "none", counts: false }, { param: `Bearer ${key}` }),
    status(413, mistaken, { next: "none", counts: false }, { message: `${"x".repeat(290)}${key}` }),
    status(422, mistaken, { next: "none", counts: false }),
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
      { status: 400, code: "context_length_exceeded" },
      { next: "contextFallbacks", counts: false }
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

/** Faults of the exchange, before an answer. */
export const exchanges = (elsewhere: string, nowhere: string): ReadonlyArray<Fault> => {
  const both = (name: string, play: Play, more: Partial<Fault> = {}): Fault => ({
    name,
    when: "before",
    streamed: always(play),
    buffered: always(play),
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
    both("refused connection", { pieces: [] }, { options: { baseUrl: nowhere }, calls: 0, callsOfSix: 0 }),
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
