/** Random valid request bodies of the dialects that callers share with providers, with undocumented fields. */
import * as fc from "fast-check"

type Fields = Readonly<Record<string, unknown>>
type Arb<A = unknown> = fc.Arbitrary<A>

const text = fc.string({ unit: "grapheme", minLength: 1, maxLength: 20 })
const word = fc.stringMatching(/^[a-z]{1,8}$/)
const toolName = fc.stringMatching(/^[a-zA-Z_-]{1,12}$/)
const schema = fc.record({
  type: fc.constant("object"),
  properties: fc.dictionary(word, fc.constant({ type: "string" }))
})
const base64 = fc.uint8Array({ minLength: 1, maxLength: 12 }).map((bytes) => Buffer.from(bytes).toString("base64"))

/** Fields that no dialect has. */
const unknown: Arb<Fields> = fc.dictionary(word.map((name) => `x_${name}`), fc.jsonValue({ maxDepth: 3 }), {
  maxKeys: 3
})

/** Every field is optional. */
const some = (fields: Readonly<Record<string, Arb>>): Arb<Fields> => fc.record(fields, { requiredKeys: [] })

const all = (...parts: ReadonlyArray<Arb<Fields>>): Arb<Fields> =>
  fc.tuple(...parts).map((found) => Object.assign({}, ...found) as Fields)

/** The required fields, optional ones, and unknown ones. */
const object = (required: Readonly<Record<string, Arb>>, optional: Readonly<Record<string, Arb>> = {}): Arb<Fields> =>
  all(fc.record(required), some(optional), unknown)

const one = fc.constant
const cacheControl = fc.constantFrom({ type: "ephemeral" }, { type: "ephemeral", ttl: "1h" })

/** Null has the meaning of an absent field, and arrives as null. */
const nullable = (arb: Arb): Arb => fc.oneof({ weight: 4, arbitrary: arb }, { weight: 1, arbitrary: one(null) })

const nullables = (fields: Readonly<Record<string, Arb>>): Readonly<Record<string, Arb>> =>
  Object.fromEntries(Object.entries(fields).map(([name, arb]) => [name, nullable(arb)]))

// --- OpenAI

const textPart = object({ type: one("text"), text }, { cache_control: cacheControl })
const openAiPart = fc.oneof(
  textPart,
  object({
    type: one("image_url"),
    image_url: fc.record({ url: base64.map((data) => `data:image/png;base64,${data}`), detail: one("high") })
  }),
  object({ type: one("input_audio"), input_audio: fc.record({ data: base64, format: one("wav") }) }),
  object({ type: one("file"), file: fc.record({ file_id: word, filename: word }) })
)

const call = object({
  id: word,
  type: one("function"),
  function: fc.record({ name: toolName, arguments: fc.json({ maxDepth: 1 }) })
})

/** A call and its result. */
const exchange = fc.tuple(call, text, some({ refusal: one(null), name: word })).map(([made, result, more]) => [
  { role: "assistant", content: null, tool_calls: [made], ...more },
  { role: "tool", tool_call_id: made["id"], content: result }
])

const openAiMessage: Arb<ReadonlyArray<Fields>> = fc.oneof(
  object({ role: fc.constantFrom("system", "developer"), content: text }).map((message) => [message]),
  object({ role: one("user"), content: fc.oneof(text, fc.array(openAiPart, { minLength: 1, maxLength: 3 })) }, {
    name: word
  }).map((message) => [message]),
  object({ role: one("assistant"), content: text }, {
    reasoning_content: text,
    annotations: one([]),
    audio: fc.record({ id: word }),
    refusal: nullable(text)
  }).map((message) => [message]),
  exchange
)

const openAiTools = fc.uniqueArray(toolName, { minLength: 1, maxLength: 3 }).chain((names) =>
  all(
    fc.record({
      tools: fc.tuple(...names.map((name) =>
        object({
          type: one("function"),
          function: all(
            fc.record({ name: one(name), parameters: schema }),
            some({ description: text, strict: fc.boolean() })
          )
        })
      ))
    }),
    some({
      tool_choice: fc.constantFrom("auto", "none", "required", { type: "function", function: { name: names[0] } }),
      parallel_tool_calls: fc.boolean()
    })
  )
)

const streaming = fc.constantFrom<Fields>({}, { stream: false }, { stream: true }, {
  stream: true,
  stream_options: { include_usage: true, include_obfuscation: false }
})

/** Bodies of chat completions, with all documented fields. */
export const openAiChat: Arb<Fields> = all(
  fc.record({
    model: one("m"),
    messages: fc.array(openAiMessage, { minLength: 1, maxLength: 4 }).map((messages) => messages.flat())
  }),
  some(nullables({
    temperature: fc.constantFrom(0, 0.5, 1, 2),
    top_p: fc.constantFrom(0.1, 1),
    n: fc.constantFrom(1, 3),
    seed: fc.integer(),
    stop: fc.oneof(text, fc.array(text, { maxLength: 4 })),
    presence_penalty: fc.constantFrom(-2, 0, 1.5),
    frequency_penalty: fc.constantFrom(0, 0.5),
    logit_bias: fc.dictionary(fc.nat(1000).map(String), fc.integer({ min: -100, max: 100 }), { maxKeys: 3 }),
    max_tokens: fc.integer({ min: 1, max: 10_000 }),
    max_completion_tokens: fc.integer({ min: 1, max: 10_000 }),
    top_k: fc.constantFrom(0, 40),
    min_p: fc.constantFrom(0, 0.1),
    repeat_penalty: fc.constantFrom(1, 1.2),
    user: text,
    safety_identifier: text,
    metadata: fc.dictionary(word, text),
    store: fc.boolean(),
    service_tier: fc.constantFrom("auto", "flex", "priority"),
    reasoning_effort: fc.constantFrom("minimal", "low", "high"),
    verbosity: fc.constantFrom("low", "medium"),
    modalities: fc.constantFrom(["text"], ["text", "audio"]),
    audio: fc.record({ voice: word, format: one("mp3") }),
    prediction: fc.record({ type: one("content"), content: text }),
    prompt_cache_key: word,
    prompt_cache_retention: one("24h"),
    web_search_options: fc.record({ search_context_size: one("low") }),
    functions: one([{ name: "old" }]),
    function_call: one("auto"),
    response_format: fc.constantFrom({ type: "text" }, { type: "json_object" }, {
      type: "json_schema",
      json_schema: { name: "a", strict: true, description: "An answer.", schema: { type: "object" } }
    })
  })),
  fc.constantFrom<Fields>({}, { logprobs: false }, { logprobs: true }, { logprobs: true, top_logprobs: 3 }),
  fc.oneof(one({}), openAiTools),
  streaming,
  unknown
)

/** Bodies of embeddings. */
export const openAiEmbedding: Arb<Fields> = object({
  model: one("m"),
  input: fc.oneof(
    text,
    fc.array(text, { minLength: 1, maxLength: 3 }),
    fc.array(fc.nat(50_000), { minLength: 1, maxLength: 5 }),
    fc.array(fc.array(fc.nat(50_000), { minLength: 1, maxLength: 3 }), { minLength: 1, maxLength: 3 })
  )
}, {
  dimensions: fc.integer({ min: 1, max: 4096 }),
  encoding_format: fc.constantFrom("float", "base64"),
  user: text
})

// --- Anthropic

const citations = one({ enabled: true })

const textBlock = object({ type: one("text"), text }, { cache_control: cacheControl, citations: one(null) })
const imageBlock = object({
  type: one("image"),
  source: fc.oneof(
    fc.record({ type: one("base64"), media_type: one("image/png"), data: base64 }),
    fc.record({ type: one("file"), file_id: word })
  )
}, { cache_control: cacheControl })
const documentBlock = object({
  type: one("document"),
  source: fc.oneof(
    fc.record({ type: one("base64"), media_type: one("application/pdf"), data: base64 }),
    fc.record({ type: one("text"), media_type: one("text/plain"), data: text })
  )
}, { title: text, context: text, citations, cache_control: cacheControl })

/** A use of a tool and its result. */
const use = fc.tuple(
  object({ type: one("tool_use"), id: word, name: toolName, input: fc.dictionary(word, text) }, {
    cache_control: cacheControl,
    caller: one({ type: "direct" })
  }),
  some({ is_error: fc.boolean(), cache_control: cacheControl }),
  fc.oneof(text, fc.array(fc.oneof(textBlock, imageBlock, documentBlock), { minLength: 1, maxLength: 2 })),
  fc.array(
    fc.oneof(
      object({ type: one("thinking"), thinking: text, signature: base64 }),
      object({ type: one("redacted_thinking"), data: base64 }),
      textBlock
    ),
    { maxLength: 2 }
  )
).map(([made, more, content, before]) => [
  { role: "assistant", content: [...before, made] },
  { role: "user", content: [{ type: "tool_result", tool_use_id: made["id"], content, ...more }] }
])

const serverUse = fc.tuple(word, text).map(([id, query]) => [{
  role: "assistant",
  content: [
    { type: "server_tool_use", id: `srvtoolu_${id}`, name: "web_search", input: { query } },
    { type: "web_search_tool_result", tool_use_id: `srvtoolu_${id}`, content: [] },
    { type: "text", text: query, citations: [{ type: "web_search_result_location", url: "https://example.com" }] }
  ]
}, { role: "user", content: "Go on." }])

const anthropicMessage: Arb<ReadonlyArray<Fields>> = fc.oneof(
  object({
    role: one("user"),
    content: fc.oneof(text, fc.array(fc.oneof(textBlock, imageBlock, documentBlock), { minLength: 1, maxLength: 3 }))
  }).map(({ content, role }) => [{ role, content }]),
  text.map((content) => [{ role: "assistant", content }, { role: "user", content: "Yes?" }]),
  use,
  serverUse
)

const anthropicTools = fc.uniqueArray(toolName, { minLength: 1, maxLength: 3 }).chain((names) =>
  all(
    fc.record({
      tools: fc.tuple(...names.map((name) =>
        fc.oneof(
          object({ name: one(name), input_schema: schema }, {
            type: one("custom"),
            description: text,
            strict: fc.boolean(),
            cache_control: cacheControl,
            defer_loading: fc.boolean()
          }),
          object({ type: one("web_search_20250305"), name: one(name) }, { max_uses: one(3) })
        )
      ))
    }),
    some({
      tool_choice: fc.constantFrom(
        { type: "auto" },
        { type: "auto", disable_parallel_tool_use: true },
        { type: "any", disable_parallel_tool_use: false },
        { type: "tool", name: names[0] },
        { type: "none" }
      )
    })
  )
)

/** The common fields of a message and its token count. */
const anthropicPrompt: Arb<Fields> = all(
  fc.record({
    model: one("m"),
    messages: fc.array(anthropicMessage, { minLength: 1, maxLength: 4 }).map((messages) => messages.flat())
  }),
  some(nullables({
    system: fc.oneof(text, fc.array(textBlock, { minLength: 1, maxLength: 3 })),
    thinking: fc.constantFrom({ type: "enabled", budget_tokens: 1024 }, { type: "adaptive" }, { type: "disabled" }),
    output_config: fc.constantFrom({ effort: "max" }, { effort: "high" }, {
      format: { type: "json_schema", schema: { type: "object" } }
    }),
    cache_control: cacheControl,
    context_management: fc.record({ edits: one([]) }),
    mcp_servers: fc.array(fc.record({ type: one("url"), url: one("https://example.com"), name: word }), {
      maxLength: 1
    })
  })),
  fc.oneof(one({}), anthropicTools),
  unknown
)

/** Bodies of messages, with all documented fields. */
export const anthropicMessages: Arb<Fields> = all(
  anthropicPrompt,
  fc.record({ max_tokens: fc.integer({ min: 1, max: 10_000 }) }),
  some(nullables({
    metadata: fc.record({ user_id: text }),
    stop_sequences: fc.array(text, { maxLength: 3 }),
    temperature: fc.constantFrom(0, 0.5, 1),
    top_p: fc.constantFrom(0.1, 1),
    top_k: fc.constantFrom(0, 40),
    service_tier: fc.constantFrom("auto", "standard_only"),
    container: word,
    inference_geo: one("us"),
    speed: one("fast")
  })),
  fc.constantFrom<Fields>({}, { stream: false }, { stream: true })
)

/** Bodies of `count_tokens`. */
export const anthropicCount = anthropicPrompt

// --- Responses

const inputPart = fc.oneof(
  fc.record({ type: one("input_text"), text }),
  all(
    fc.record({
      type: one("input_image"),
      image_url: base64.map((data) => `data:image/png;base64,iVBORw0KGgo${data}`)
    }),
    some({ detail: fc.constantFrom("auto", "low", "high", "original") })
  ),
  fc.record({ type: one("input_file"), filename: word, file_data: one("SGVsbG8=") })
)

const responsesItems: Arb<ReadonlyArray<Fields>> = fc.oneof(
  fc.record({ role: fc.constantFrom("user", "system", "developer"), content: text }).map((item) => [item]),
  fc.array(inputPart, { minLength: 1, maxLength: 3 }).map((content) => [{ type: "message", role: "user", content }]),
  text.map((content) => [{ role: "assistant", content }]),
  fc.tuple(word, toolName, fc.json({ maxDepth: 1 }), text).map(([call_id, name, json, output]) => [
    { type: "function_call", call_id, name, arguments: json },
    { type: "function_call_output", call_id, output }
  ]),
  fc.tuple(word, toolName, text, text).map(([call_id, name, input, output]) => [
    { type: "custom_tool_call", call_id, name, input },
    { type: "custom_tool_call_output", call_id, output }
  ])
)

const responsesTools = fc.uniqueArray(toolName, { minLength: 1, maxLength: 3 }).chain((names) =>
  all(
    fc.record({
      tools: fc.tuple(...names.map((name) =>
        fc.oneof(
          all(fc.record({ type: one("function"), name: one(name), parameters: schema }), some({ description: text })),
          all(
            fc.record({ type: one("custom"), name: one(name) }),
            some({ format: one({ type: "grammar", syntax: "regex", definition: "[a-z]+" }) })
          )
        )
      ))
    }),
    some({ tool_choice: fc.constantFrom("auto", "none", "required"), parallel_tool_calls: fc.boolean() })
  )
)

/** Bodies of responses. */
export const responses: Arb<Fields> = all(
  fc.record({
    model: one("m"),
    input: fc.oneof(text, fc.array(responsesItems, { minLength: 1, maxLength: 4 }).map((items) => items.flat()))
  }),
  some(nullables({
    instructions: text,
    temperature: fc.constantFrom(0, 0.5, 1, 2),
    top_p: fc.constantFrom(0.1, 1),
    presence_penalty: fc.constantFrom(-2, 0, 1.5),
    frequency_penalty: fc.constantFrom(0, 0.5),
    max_output_tokens: fc.integer({ min: 1, max: 10_000 }),
    top_logprobs: fc.nat(20),
    reasoning: fc.constantFrom({}, { effort: "none" }, { effort: "minimal" }, { effort: "high", summary: "auto" }),
    text: fc.constantFrom({ verbosity: "low" }, { format: { type: "json_object" } }, {
      format: { type: "json_schema", name: "a", schema: { type: "object" } }
    }),
    service_tier: fc.constantFrom("auto", "default", "flex", "priority"),
    prompt_cache_key: word,
    prompt_cache_retention: one("24h"),
    safety_identifier: text,
    user: text,
    store: fc.boolean(),
    truncation: fc.constantFrom("auto", "disabled"),
    metadata: fc.dictionary(word, text, { maxKeys: 3 })
  })),
  fc.oneof(one({}), responsesTools)
)
