/** Answers of a provider's Responses API, as OpenAI's reference of the API and of its streaming events has them. */
import type { Fields } from "./Answers.ts"
import type { Play } from "./FaultServer.ts"

/** What a response consists of. */
export interface Answered {
  readonly output: ReadonlyArray<Fields>
  readonly status?: string
  readonly more?: Fields
}

export const reasoning = (encrypted: string): Fields => ({
  id: "rs_up1",
  type: "reasoning",
  summary: [{ type: "summary_text", text: "Look it up." }],
  encrypted_content: encrypted
})

export const search: Fields = {
  id: "ws_up2",
  type: "web_search_call",
  status: "completed",
  action: { type: "search", query: "snow", sources: [{ type: "url", url: "https://example.com/snow" }] }
}

const citation: Fields = {
  type: "url_citation",
  start_index: 0,
  end_index: 5,
  url: "https://example.com/snow",
  title: "Snow"
}

export const message = (text: string): Fields => ({
  id: "msg_up3",
  type: "message",
  status: "completed",
  role: "assistant",
  content: [{ type: "output_text", text, annotations: [citation], logprobs: [] }]
})

export const refusal: Fields = {
  id: "msg_up3",
  type: "message",
  status: "completed",
  role: "assistant",
  content: [{ type: "refusal", refusal: "I cannot help with that." }]
}

export const call: Fields = {
  id: "fc_up4",
  type: "function_call",
  status: "completed",
  call_id: "call_1",
  name: "f",
  arguments: "{\"a\":1}"
}

const usage: Fields = {
  input_tokens: 100,
  input_tokens_details: { cached_tokens: 40 },
  output_tokens: 20,
  output_tokens_details: { reasoning_tokens: 12 },
  total_tokens: 120
}

const responseOf = ({ more, output, status = "completed" }: Answered): Fields => ({
  id: "resp_up",
  object: "response",
  created_at: 1,
  status,
  error: null,
  incomplete_details: status === "incomplete" ? { reason: "max_output_tokens" } : null,
  model: "gpt-5-2025-08-07",
  output,
  reasoning: { effort: "medium", summary: "detailed" },
  service_tier: "default",
  store: false,
  temperature: 1,
  top_p: 0.98,
  usage,
  ...more
})

/** The events of a text in pieces of four characters. */
const textEvents = (place: Fields, event: string, text: string): ReadonlyArray<Fields> =>
  (text.match(/.{1,4}/gs) ?? []).map((delta) => ({ type: `${event}.delta`, ...place, delta }))

const partEvents = (item: Fields, output_index: number): ReadonlyArray<Fields> =>
  (item["content"] as ReadonlyArray<Fields>).flatMap((part, content_index) => {
    const place = { item_id: item["id"], output_index, content_index }
    const field = part["type"] === "refusal" ? "refusal" : "text"
    const text = part[field] as string
    return [
      { type: "response.content_part.added", ...place, part: { ...part, [field]: "" } },
      ...textEvents(place, `response.${String(part["type"])}`, text),
      { type: `response.${String(part["type"])}.done`, ...place, [field]: text },
      { type: "response.content_part.done", ...place, part }
    ]
  })

const innerEvents = (item: Fields, output_index: number): ReadonlyArray<Fields> => {
  const place = { item_id: item["id"], output_index }
  switch (item["type"]) {
    case "message":
      return partEvents(item, output_index)
    case "reasoning": {
      const [part] = item["summary"] as ReadonlyArray<Fields>
      const at = { ...place, summary_index: 0 }
      return [
        { type: "response.reasoning_summary_part.added", ...at, part: { type: "summary_text", text: "" } },
        ...textEvents(at, "response.reasoning_summary_text", part!["text"] as string),
        { type: "response.reasoning_summary_text.done", ...at, text: part!["text"] },
        { type: "response.reasoning_summary_part.done", ...at, part }
      ]
    }
    case "web_search_call":
      return ["in_progress", "searching", "completed"].map((step) => ({
        type: `response.web_search_call.${step}`,
        ...place
      }))
    case "function_call":
      return [
        ...textEvents(place, "response.function_call_arguments", item["arguments"] as string),
        { type: "response.function_call_arguments.done", ...place, name: item["name"], arguments: item["arguments"] }
      ]
    default:
      return []
  }
}

const begun = (item: Fields): Fields => ({
  ...item,
  ...("status" in item ? { status: "in_progress" } : {}),
  ...("content" in item ? { content: [] } : {}),
  ...("arguments" in item ? { arguments: "" } : {}),
  ...("summary" in item ? { summary: [] } : {})
})

/** The events of a streamed response. */
export const eventsOf = (answered: Answered): ReadonlyArray<Fields> => {
  const { output, status = "completed" } = answered
  const response = responseOf(answered)
  const opened = { ...response, status: "in_progress", output: [], usage: null }
  const items = output.flatMap((item, output_index) => [
    { type: "response.output_item.added", output_index, item: begun(item) },
    ...innerEvents(item, output_index),
    { type: "response.output_item.done", output_index, item }
  ])
  return [
    { type: "response.created", response: opened },
    { type: "response.in_progress", response: opened },
    ...items,
    { type: `response.${status}`, response }
  ].map((event, sequence_number) => ({ ...event, sequence_number }))
}

const framesOf = (events: ReadonlyArray<Fields>): ReadonlyArray<string> =>
  events.map((event) => `event: ${String(event["type"])}\ndata: ${JSON.stringify(event)}\n\n`)

/**
 * An answer as the request asks for it.
 *
 * @param cutAfter events of a stream, after which the connection ends
 */
export const play = (answered: Answered, stream: boolean, cutAfter?: number): Play => {
  if (!stream) {
    return { headers: { "content-type": "application/json" }, pieces: [JSON.stringify(responseOf(answered))] }
  }
  const pieces = framesOf(eventsOf(answered))
  return cutAfter === undefined ? { pieces } : { pieces, fault: { kind: "cut", after: cutAfter } }
}
