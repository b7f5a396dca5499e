/** Requests as coding agents send them, with the shapes of their public sources and documentation, in words of our own. */

/** One request of an agent. */
export interface AgentRequest {
  readonly path: string
  readonly headers: Readonly<Record<string, string>>
  /** Without the model. */
  readonly body: Readonly<Record<string, unknown>>
}

const ephemeral = { type: "ephemeral" as const, ttl: "1h" }

const object = (properties: Record<string, object>, required = Object.keys(properties)) => ({
  $schema: "http://json-schema.org/draft-07/schema#",
  type: "object",
  properties,
  required,
  additionalProperties: false
})

const text = { type: "string" }

/** The parameters of an agent's tools: nested, with enumerations, bounds and alternatives. */
const shell = object(
  {
    command: { ...text, description: "The command to run" },
    timeout: { type: "number", minimum: 0, maximum: 600_000 },
    run_in_background: { type: "boolean", default: false }
  },
  ["command"]
)
const edits = object({
  file_path: { ...text, description: "An absolute path" },
  edits: {
    type: "array",
    minItems: 1,
    items: object({ old_string: text, new_string: text, replace_all: { type: "boolean" } }, [
      "old_string",
      "new_string"
    ])
  },
  mode: { type: "string", enum: ["replace", "insert"] },
  at: { anyOf: [{ type: "integer" }, { type: "null" }] }
}, ["file_path", "edits"])

const instructions = `You are an agent that changes programs. ${"Follow the conventions of the project. ".repeat(40)}`

const claudeHeaders = {
  "anthropic-version": "2023-06-01",
  "anthropic-beta":
    "claude-code-20250219,interleaved-thinking-2025-05-14,context-management-2025-06-27,effort-2025-11-24",
  "anthropic-dangerous-direct-browser-access": "true",
  "x-app": "cli",
  "user-agent": "claude-cli/2.1.0 (external, cli)",
  "x-stainless-lang": "js",
  "x-stainless-retry-count": "0",
  "x-stainless-timeout": "600",
  authorization: "Bearer none"
}

const claudeSystem = [
  { type: "text", text: "x-anthropic-billing-header: cc_version=2.1.0; cc_entrypoint=cli;" },
  { type: "text", text: "You are a coding agent.", cache_control: ephemeral },
  { type: "text", text: instructions, cache_control: ephemeral }
]

const claudeTools = [
  { name: "Bash", description: "Runs a command", input_schema: shell },
  { name: "Edit", description: "Edits a file", input_schema: edits, cache_control: ephemeral }
]

const claudeMetadata = {
  user_id: JSON.stringify({
    device_id: "d".repeat(64),
    account_uuid: "",
    session_id: "5f0c5f0c-0000-4000-8000-000000000000"
  })
}

const claudeQuestion = {
  role: "user",
  content: [
    { type: "text", text: "<system-reminder>\nThe notes of the project.\n</system-reminder>" },
    { type: "text", text: "List the files", cache_control: ephemeral }
  ]
}

/** Calls and their results: one that failed, one with parts, and one that the user interrupted. */
const claudeTurns = [
  claudeQuestion,
  {
    role: "assistant",
    content: [
      { type: "thinking", thinking: "I should look.", signature: "c2lnbmF0dXJl" },
      { type: "text", text: "I look." },
      { type: "tool_use", id: "toolu_01", name: "Bash", input: { command: "ls" } },
      { type: "tool_use", id: "toolu_02", name: "Bash", input: { command: "cat missing" } }
    ]
  },
  {
    role: "user",
    content: [
      {
        type: "tool_result",
        tool_use_id: "toolu_01",
        content: [{ type: "text", text: "a.ts" }, { type: "text", text: "b.ts" }]
      },
      {
        type: "tool_result",
        tool_use_id: "toolu_02",
        content: "No such file",
        is_error: true,
        cache_control: ephemeral
      },
      { type: "text", text: "[Request interrupted by user]" }
    ]
  },
  { role: "assistant", content: [{ type: "text", text: "(no content)" }] },
  { role: "user", content: "Go on" }
]

const claude = (body: Record<string, unknown>, path = "/v1/messages?beta=true"): AgentRequest => ({
  path,
  headers: claudeHeaders,
  body
})

const claudeMain = {
  max_tokens: 32_000,
  stream: true,
  system: claudeSystem,
  tools: claudeTools,
  metadata: claudeMetadata,
  thinking: { type: "enabled", budget_tokens: 31_999 },
  context_management: { edits: [{ type: "clear_thinking_20251015", keep: "all" }] },
  temperature: 1
}

export const claudeCode = {
  "a first question": claude({ ...claudeMain, messages: [claudeQuestion] }),
  "results of tools": claude({ ...claudeMain, messages: claudeTurns }),
  "adaptive thinking with an effort": claude({
    ...claudeMain,
    thinking: { type: "adaptive" },
    output_config: { effort: "medium" },
    messages: claudeTurns
  }),
  "a title as JSON": claude({
    max_tokens: 32_000,
    stream: true,
    system: claudeSystem,
    tools: [],
    metadata: claudeMetadata,
    temperature: 1,
    thinking: { type: "disabled" },
    output_config: {
      format: {
        type: "json_schema",
        schema: { type: "object", properties: { title: text }, required: ["title"], additionalProperties: false }
      }
    },
    messages: [{ role: "user", content: [{ type: "text", text: "List the files" }] }]
  }),
  "a probe of its quota": claude({
    max_tokens: 1,
    messages: [{ role: "user", content: "quota" }],
    metadata: claudeMetadata
  })
}

export const claudeCount = claude(
  {
    messages: claudeTurns,
    system: claudeSystem,
    tools: claudeTools,
    thinking: { type: "enabled", budget_tokens: 1_024 }
  },
  "/v1/messages/count_tokens?beta=true"
)

const codexHeaders = {
  accept: "text/event-stream",
  originator: "codex_cli_rs",
  session_id: "5f0c5f0c-0000-4000-8000-000000000000",
  conversation_id: "5f0c5f0c-0000-4000-8000-000000000000",
  "user-agent": "codex_cli_rs/0.160.0 (Linux; x86_64) xterm",
  "openai-beta": "responses=experimental",
  "x-codex-turn-metadata": "{}",
  authorization: "Bearer none"
}

const message = (role: string, ...texts: ReadonlyArray<string>) => ({
  type: "message",
  role,
  content: texts.map((text) => ({ type: role === "assistant" ? "output_text" : "input_text", text }))
})

const codexMain = {
  instructions,
  tools: [
    { type: "function", name: "shell", description: "Runs a command", strict: false, parameters: shell },
    { type: "function", name: "update_plan", description: "Updates the plan", strict: false, parameters: edits }
  ],
  tool_choice: "auto",
  parallel_tool_calls: true,
  reasoning: { effort: "medium", summary: "auto" },
  store: false,
  stream: true,
  include: ["reasoning.encrypted_content"],
  prompt_cache_key: "5f0c5f0c-0000-4000-8000-000000000000",
  text: { verbosity: "medium" },
  client_metadata: { "x-codex-installation-id": "5f0c" }
}

const codexQuestion = [
  message("developer", "<permissions>read-only</permissions>"),
  message("user", "<environment_context>\n  <cwd>/project</cwd>\n</environment_context>"),
  message("user", "List the files")
]

const codexTurns = [
  ...codexQuestion,
  { type: "reasoning", summary: [{ type: "summary_text", text: "**Looking**" }], encrypted_content: "ZW5jcnlwdGVk" },
  { ...message("assistant", "I look."), phase: "commentary" },
  { type: "function_call", name: "shell", arguments: "{\"command\":\"ls\"}", call_id: "call_1" },
  { type: "function_call_output", call_id: "call_1", output: "{\"output\":\"a.ts\",\"metadata\":{\"exit_code\":0}}" },
  message("user", "Go on")
]

/** A tool whose input is text, held to a grammar. */
const applyPatch = {
  type: "custom",
  name: "apply_patch",
  description: "Edits files",
  format: {
    type: "grammar",
    syntax: "lark",
    definition: "start: \"*** Begin Patch\" LF \"*** End Patch\" LF?\n%import common.LF\n"
  }
}

const codex = (body: Record<string, unknown>): AgentRequest => ({ path: "/v1/responses", headers: codexHeaders, body })

export const codexCli = {
  "a first question": codex({ ...codexMain, input: codexQuestion }),
  "results of tools": codex({ ...codexMain, input: codexTurns }),
  "a tool of the provider": codex({
    ...codexMain,
    tools: [...codexMain.tools, { type: "web_search", external_web_access: false }],
    input: codexQuestion
  }),
  "a tool with a grammar, and its results": codex({
    ...codexMain,
    tools: [...codexMain.tools, applyPatch],
    input: [
      ...codexTurns,
      { type: "custom_tool_call", name: "apply_patch", input: "*** Begin Patch\n*** End Patch\n", call_id: "call_2" },
      { type: "custom_tool_call_output", call_id: "call_2", output: "Done" }
    ]
  })
}

const chatHeaders = { "user-agent": "ai-sdk/openai-compatible/3.0.0", authorization: "Bearer none" }

const chat = (body: Record<string, unknown>): AgentRequest => ({
  path: "/v1/chat/completions",
  headers: chatHeaders,
  body: { stream: true, stream_options: { include_usage: true }, ...body }
})

const chatTools = [
  { type: "function", function: { name: "bash", description: "Runs a command", parameters: shell } },
  { type: "function", function: { name: "edit", description: "Edits a file", parameters: edits, strict: false } }
]

const chatTurns = [
  { role: "system", content: instructions },
  { role: "user", content: [{ type: "text", text: "List the files" }] },
  {
    role: "assistant",
    content: null,
    reasoning_content: "I should look.",
    tool_calls: [{ id: "call_1", type: "function", function: { name: "bash", arguments: "{\"command\":\"ls\"}" } }]
  },
  { role: "tool", tool_call_id: "call_1", content: "a.ts" },
  { role: "user", content: "Go on" }
]

export const chatAgents = {
  "OpenCode with results of tools": chat({
    messages: chatTurns,
    tools: chatTools,
    tool_choice: "auto",
    max_tokens: 32_000,
    reasoning_effort: "medium"
  }),
  "Zed with parallel calls": chat({
    messages: chatTurns,
    tools: chatTools,
    tool_choice: "auto",
    parallel_tool_calls: true,
    max_completion_tokens: 8_192,
    prompt_cache_key: "thread",
    stop: [],
    temperature: 1
  }),
  "Aider without tools": chat({
    messages: [{ role: "system", content: instructions }, { role: "user", content: "List the files" }],
    temperature: 0
  }),
  "Cline with parts and marks of a cache": chat({
    messages: [
      { role: "system", content: instructions },
      {
        role: "user",
        content: [
          { type: "text", text: "<task>\nList the files\n</task>" },
          { type: "text", text: "<environment_details>\n</environment_details>" }
        ]
      }
    ],
    temperature: 0
  })
}
