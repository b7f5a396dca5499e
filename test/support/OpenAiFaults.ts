/** The faults of a provider with OpenAI's dialect. */
import type { Fault, Wire } from "./Faults.ts"
import { always, failed, framingFaults, json, limit, limited, noise, refusedContent, timedOut } from "./Faults.ts"
import type { Play } from "./FaultServer.ts"
import { exchanges, head, raw, sse, statuses } from "./HttpFaults.ts"

const small = { maxResponseBytes: 20_000 }

const choice = (delta: object, more: object = {}) =>
  `data: ${JSON.stringify({ choices: [{ index: 0, delta, finish_reason: null, ...more }] })}\n\n`

/** A stream with an unusual form and a valid meaning. */
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
      buffered: always({
        headers: json,
        pieces: [JSON.stringify({
          choices: [{ index: 0, message: { content: text }, finish_reason: "stop" }],
          usage: null
        })]
      })
    }
  ]
}

/** An answer in OpenAI's format without content. */
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
  const buffered = (name: string, body: string, promise = failed): Fault => ({
    name,
    when: "before",
    buffered: always({ headers: json, pieces: [body] }),
    promise
  })
  const flood = "x".repeat(2000)
  const filtered = (text: string) => `200, "${text}", error undefined, finish content_filter, done true`
  const message = (content: unknown, finish_reason: unknown, more: object = {}) =>
    JSON.stringify({ choices: [{ index: 0, message: { content, ...more }, finish_reason }] })
  return [
    before("keep-alives without end", { pieces: [": ping\n\n"], fault: { kind: "trickle", after: 0 } }, timedOut, {
      options: limit("total")
    }),
    before("[DONE] and nothing else", { pieces: [done] }),
    before("finish without content", { pieces: [pieces[0]!, ...pieces.slice(3)] }),
    before("empty tool calls", { pieces: [choice({}, { finish_reason: "tool_calls" }), done] }),
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
      "rate limit in the stream",
      {
        pieces: ["data: {\"error\":{\"message\":\"x\",\"code\":\"rate_limit_exceeded\"}}\n\n"]
      },
      limited(1),
      // The key has a cooldown of one second.
      { counts: false, callsOfSix: "any" }
    ),
    before(
      "content refused in the stream",
      { pieces: [choice({}, { finish_reason: "content_filter" }), done] },
      refusedContent,
      {
        answer: filtered(""),
        next: "contentFallbacks",
        counts: false
      }
    ),
    before("Content-Length above the sent bytes", raw(`${head(sse, "content-length: 9000")}${pieces[0]}`)),
    after("keep-alives without end", { pieces: [": ping\n\n"], fault: { kind: "trickle", after: 2 } }, timedOut, {
      options: limit("total")
    }),
    after("finish that stays null", { pieces: [choice({ content: "" }), done] }),
    after("endless body", { pieces: [`: ${flood}\n`], fault: { kind: "flood", after: 2 } }, failed, { options: small }),
    after(
      "content refused in the stream",
      { pieces: [choice({}, { finish_reason: "content_filter" }), done] },
      refusedContent,
      {
        answer: filtered(begun),
        next: "contentFallbacks",
        counts: false
      }
    ),
    buffered("garbage", "{\"choices\":"),
    buffered("JSON that is not an answer", "[]"),
    buffered("no content", message("", "stop")),
    buffered("finish that is null", message(begun, null)),
    buffered("empty tool calls", message(null, "tool_calls", { tool_calls: [] })),
    buffered("error with status 200", "{\"error\":{\"message\":\"overloaded\"}}"),
    {
      ...buffered("bytes that are not text", ""),
      buffered: always({
        headers: json,
        pieces: ["{\"choices\":[{\"index\":0,\"message\":{\"content\":\"", noise, "\"},\"finish_reason\":\"stop\"}]}"]
      })
    },
    {
      ...buffered("endless body", ""),
      buffered: always({ headers: json, pieces: [" ".repeat(2000)], fault: { kind: "flood", after: 0 } }),
      options: small
    },
    {
      ...buffered("Content-Length above the sent bytes", ""),
      buffered: always(raw(`${head("content-type: application/json", "content-length: 9000")}${message("Hi", "stop")}`))
    }
  ]
}

/**
 * All faults.
 *
 * @param elsewhere a host that must never be called
 * @param nowhere a host that does not exist
 */
export const openAiFaults = (wire: Wire, key: string, elsewhere: string, nowhere: string): ReadonlyArray<Fault> => [
  ...oddities(wire),
  ...statuses(key),
  ...exchanges(elsewhere, nowhere),
  ...framingFaults(wire),
  ...nonAnswers(wire)
]
