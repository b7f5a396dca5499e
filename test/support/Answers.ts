/** Random valid answers of the dialects that providers share with callers, buffered and streamed. */
import * as fc from "fast-check"

export type Fields = Readonly<Record<string, unknown>>
type Arb<A = unknown> = fc.Arbitrary<A>

const text = fc.string({ unit: "grapheme", minLength: 1, maxLength: 20 })
const word = fc.stringMatching(/^[a-z]{1,8}$/)
const one = fc.constant
const unknown: Arb<Fields> = fc.dictionary(word.map((name) => `x_${name}`), fc.jsonValue({ maxDepth: 2 }), {
  maxKeys: 2
})
const some = (fields: Readonly<Record<string, Arb>>): Arb<Fields> => fc.record(fields, { requiredKeys: [] })
const all = (...parts: ReadonlyArray<Arb<Fields>>): Arb<Fields> =>
  fc.tuple(...parts).map((found) => Object.assign({}, ...found) as Fields)

/** In up to three pieces. */
const piecesOf = (whole: string): ReadonlyArray<string> => {
  const characters = Array.from(whole)
  const cut = Math.ceil(characters.length / 3)
  const pieces = [0, 1, 2].map((at) => characters.slice(at * cut, (at + 1) * cut).join(""))
  return pieces.filter((piece) => piece !== "")
}

const numbers = (...names: ReadonlyArray<string>): Arb<Fields> =>
  fc.record(Object.fromEntries(names.map((name) => [name, fc.nat(10_000)])))

// --- OpenAI

const openAiUsage = all(
  numbers("prompt_tokens", "completion_tokens", "total_tokens"),
  some({
    prompt_tokens_details: numbers("cached_tokens", "audio_tokens"),
    completion_tokens_details: numbers("reasoning_tokens", "audio_tokens", "accepted_prediction_tokens")
  }),
  unknown
)

const openAiEnvelope = all(
  fc.record({ id: word, object: one("chat.completion"), created: fc.nat(), model: word }),
  some({ service_tier: fc.constantFrom("default", "flex"), system_fingerprint: word }),
  unknown
)

const openAiCall = all(
  fc.record({
    id: word,
    type: one("function"),
    function: fc.record({
      name: word,
      arguments: fc.dictionary(word, text, { minKeys: 1, maxKeys: 2 }).map((input) => JSON.stringify(input))
    })
  }),
  unknown
)

const openAiMessage = all(
  fc.record({ role: one("assistant"), content: text, refusal: one(null) }),
  some({
    reasoning_content: text,
    reasoning: text,
    annotations: one([{ type: "url_citation", url_citation: { url: "https://example.com" } }]),
    audio: fc.record({ id: word, data: word, expires_at: fc.nat(), transcript: text }),
    tool_calls: fc.uniqueArray(openAiCall, { minLength: 1, maxLength: 3, selector: ({ id }) => id })
  }),
  unknown
)

/** A buffered chat completion. */
export const openAi: Arb<Fields> = all(
  openAiEnvelope,
  fc.record({ usage: openAiUsage }),
  fc.tuple(openAiMessage, fc.constantFrom("stop", "length", "content_filter"), unknown).map((
    [message, reason, more]
  ) => ({
    choices: [{
      index: 0,
      message,
      logprobs: null,
      finish_reason: message["tool_calls"] === undefined ? reason : "tool_calls",
      ...more
    }]
  }))
)

const pieced: ReadonlySet<string> = new Set(["content", "reasoning_content", "reasoning", "refusal"])

/** The chunks of a chat completion. */
export const openAiChunks = ({ choices, usage, ...body }: Fields): ReadonlyArray<Fields> => {
  const [{ finish_reason, message, ...choice }] = choices as [Fields]
  const { role, tool_calls: calls = [], ...said } = message as Fields
  const chunk = (delta: Fields, reason: unknown = null) => ({
    ...body,
    object: "chat.completion.chunk",
    choices: [{ ...choice, delta, finish_reason: reason }],
    usage: null
  })
  const deltas = Object.keys(said).filter((name) => said[name] !== null || !(pieced.has(name) || name === "refusal"))
    .flatMap((name): ReadonlyArray<Fields> =>
      pieced.has(name) ? piecesOf(said[name] as string).map((piece) => ({ [name]: piece })) : [{ [name]: said[name] }]
    )
  const called = (calls as ReadonlyArray<Fields>).flatMap((call, index) => {
    const { function: made, ...rest } = call
    const { arguments: text, name } = made as { readonly arguments: string; readonly name: string }
    return [
      { tool_calls: [{ index, ...rest, function: { name, arguments: "" } }] },
      ...piecesOf(text).map((piece) => ({ tool_calls: [{ index, function: { arguments: piece } }] }))
    ]
  })
  return [
    chunk({ role, content: "", refusal: null }),
    ...deltas.map((delta) => chunk(delta)),
    ...called.map((delta) => chunk(delta)),
    chunk({}, finish_reason),
    { ...body, object: "chat.completion.chunk", choices: [], usage }
  ]
}

// --- Anthropic

const tokens = all(
  numbers("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"),
  some({
    cache_creation: numbers("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens"),
    server_tool_use: numbers("web_search_requests"),
    service_tier: one("standard"),
    output_tokens_details: numbers("thinking_tokens")
  }),
  unknown
)

const citation = fc.record({ type: one("char_location"), cited_text: text, document_index: fc.nat(9) })

const block: Arb<Fields> = fc.oneof(
  all(
    fc.record({ type: one("text"), text }),
    fc.oneof(one({ citations: null }), fc.record({ citations: fc.array(citation, { minLength: 1, maxLength: 2 }) }))
  ),
  fc.record({ type: one("thinking"), thinking: text, signature: word }),
  fc.record({ type: one("redacted_thinking"), data: word }),
  all(
    fc.record({
      type: one("server_tool_use"),
      id: word.map((id) => `srvtoolu_${id}`),
      name: one("web_search"),
      input: fc.record({ query: text })
    }),
    unknown
  ),
  fc.record({
    type: one("web_search_tool_result"),
    tool_use_id: word,
    content: one([{ type: "web_search_result", url: "https://example.com" }])
  })
)

const use = all(
  fc.record({
    type: one("tool_use"),
    id: word,
    name: word,
    input: fc.dictionary(word, text, { minKeys: 1, maxKeys: 2 })
  }),
  some({ caller: one({ type: "direct" }) }),
  unknown
)

const end = fc.constantFrom<Fields>(
  { stop_reason: "end_turn", stop_sequence: null },
  { stop_reason: "max_tokens", stop_sequence: null },
  { stop_reason: "stop_sequence", stop_sequence: "x" },
  { stop_reason: "pause_turn", stop_sequence: null, container: { id: "c", expires_at: "2026-01-01T00:00:00Z" } },
  {
    stop_reason: "refusal",
    stop_sequence: null,
    stop_details: { type: "refusal", category: "cyber", explanation: "No." }
  }
)

/** A buffered message. */
export const anthropic: Arb<Fields> = fc.tuple(
  all(fc.record({ id: word, type: one("message"), role: one("assistant"), model: word }), unknown),
  fc.array(block, { maxLength: 3 }),
  fc.record({ type: one("text"), text, citations: one(null) }),
  fc.uniqueArray(use, { maxLength: 2, selector: ({ id }) => id }),
  end,
  tokens
).map(([envelope, blocks, said, uses, ended, usage]) => ({
  ...envelope,
  content: [...blocks, said, ...uses],
  ...(uses.length === 0 ? ended : { stop_reason: "tool_use", stop_sequence: null }),
  usage
}))

const blockEvents = (block: Fields, index: number): ReadonlyArray<Fields> => {
  const start = (content_block: Fields): Fields => ({ type: "content_block_start", index, content_block })
  const delta = (delta: Fields): Fields => ({ type: "content_block_delta", index, delta })
  const stop = { type: "content_block_stop", index }
  switch (block["type"]) {
    case "text":
      return [
        start({ ...block, text: "", ...(block["citations"] === null ? {} : { citations: [] }) }),
        ...(block["citations"] as ReadonlyArray<Fields> | null ?? []).map((citation) =>
          delta({ type: "citations_delta", citation })
        ),
        ...piecesOf(block["text"] as string).map((text) => delta({ type: "text_delta", text })),
        stop
      ]
    case "thinking":
      return [
        start({ ...block, thinking: "", signature: "" }),
        ...piecesOf(block["thinking"] as string).map((thinking) => delta({ type: "thinking_delta", thinking })),
        delta({ type: "signature_delta", signature: block["signature"] }),
        stop
      ]
    case "tool_use":
    case "server_tool_use":
      return [
        start({ ...block, input: {} }),
        delta({ type: "input_json_delta", partial_json: "" }),
        ...piecesOf(JSON.stringify(block["input"])).map((partial_json) =>
          delta({ type: "input_json_delta", partial_json })
        ),
        stop
      ]
    default:
      return [start(block), stop]
  }
}

/** The events of a message. */
export const anthropicEvents = (message: Fields): ReadonlyArray<Fields> => {
  const { container, content, stop_details, stop_reason, stop_sequence, ...envelope } = message
  const more = {
    ...(container === undefined ? {} : { container }),
    ...(stop_details === undefined ? {} : { stop_details })
  }
  return [
    { type: "message_start", message: { ...envelope, content: [], stop_reason: null, stop_sequence: null } },
    { type: "ping" },
    ...(content as ReadonlyArray<Fields>).flatMap(blockEvents),
    { type: "message_delta", delta: { stop_reason, stop_sequence, ...more }, usage: message["usage"] },
    { type: "message_stop" }
  ]
}
