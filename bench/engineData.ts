/**
 * Process entry: measures how local engines render chat templates, read tool calls and accept JSON Schemas.
 *
 * **Details**
 *
 * `node bench/engineData.ts <folder> [templates]`, or the folder in `TROUPE_ENGINE_DATA`. The folder has any of these files:
 * - `prompts.json`: prompts as llama.cpp renders them. `templates` is the folder of the templates; default the one in
 *   node-llama-cpp's sources, which are cloned with git for the run
 * - `tool-calls.json`: answers in the syntaxes of models, with their calls. Each is read whole and cut at every place
 * - `schemas.jsonl`: schemas with valid and invalid instances
 *
 * It prints a line per file. `--verbose` adds what differs.
 */
import { execFileSync } from "node:child_process"
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import type { ChatMessage, JsonSchema, ToolDefinition } from "../src/domain/Job.ts"
import { grammarOf, makeMatcher } from "../src/workers/grammar/JsonGrammar.ts"
import { AnswerWriter } from "../src/workers/job/AnswerWriter.ts"
import type { Sender } from "../src/workers/job/JobSender.ts"
import { styleOf } from "../src/workers/job/ThoughtSyntax.ts"
import { makeChatTemplate } from "../src/workers/model/ChatTemplate.ts"

const { positionals, values: { verbose } } = parseArgs({
  allowPositionals: true,
  options: { verbose: { type: "boolean", default: false } }
})

const print = (line: string): void => void process.stdout.write(`${line}\n`)

const detail = (line: string): void => {
  if (verbose) print(`  ${line}`)
}

const messageOf = (cause: unknown): string => {
  const { message, path } = cause as { readonly message?: string; readonly path?: string }
  return `${path ?? ""} ${message ?? String(cause)}`
}

interface Prompt {
  readonly template: string
  readonly conversation: string
  readonly expected: string
}

const weather: ToolDefinition = {
  name: "get_weather",
  description: "Weather",
  parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] }
}

const asks = { role: "user", content: "Weather in Oslo?" } as const

const conversations: Readonly<Record<string, readonly [ReadonlyArray<ChatMessage>, ReadonlyArray<ToolDefinition>]>> = {
  user: [[{ role: "user", content: "Hello" }], []],
  system: [[{ role: "system", content: "Be brief." }, { role: "user", content: "Hello" }], []],
  multi: [[
    { role: "user", content: "Hi" },
    { role: "assistant", content: "Hello!" },
    { role: "user", content: "More" }
  ], []],
  tools: [[asks], [weather]],
  toolround: [[
    asks,
    {
      role: "assistant",
      content: "",
      toolCalls: [{ id: "call_1", name: "get_weather", arguments: "{\"city\": \"Oslo\"}" }]
    },
    { role: "tool", content: "{\"t\": 3}", toolCallId: "call_1" }
  ], [weather]]
}

/** A prompt without what depends on the day. */
const timeless = (text: string): string =>
  text.replaceAll(/\d{4}-\d\d-\d\d|\d\d? [A-Z][a-z]{2,8} \d{4}|[A-Z][a-z]{2,8} \d\d? \d{4}/g, "DATE")
    .replaceAll(/(?<=[Tt]oday is )[^\n]{5,60}?(?=[.\n])/g, "DATE")

const renderedBy = (source: string, conversation: string): string => {
  const made = makeChatTemplate({ name: "template", source, bos: "<s>", eos: "</s>", control: [] })
  if ("problem" in made) throw new Error(`unusable: ${made.problem}`)
  const [messages, tools] = conversations[conversation]!
  return made.render(messages, tools).map(({ text }) => text).join("")
}

const firstDifference = (a: string, b: string): string => {
  let at = 0
  while (at < a.length && a[at] === b[at]) at++
  const from = Math.max(0, at - 40)
  return `expected ${JSON.stringify(a.slice(from, at + 80))} got ${JSON.stringify(b.slice(from, at + 80))}`
}

const isPromptEqual = (source: string, { conversation, expected, template }: Prompt): boolean => {
  try {
    const rendered = renderedBy(source, conversation)
    const isEqual = timeless(rendered) === timeless(expected)
    if (!isEqual) detail(`${template} ${conversation}: ${firstDifference(expected, rendered)}`)
    return isEqual
  } catch (cause) {
    detail(`${template} ${conversation}: failed: ${messageOf(cause)}`)
    return false
  }
}

/** Clones llama.cpp's sources, which node-llama-cpp has as a bundle. */
const cloneTemplates = (target: string): string => {
  const bundle = fileURLToPath(new URL("../node_modules/node-llama-cpp/llama/gitRelease.bundle", import.meta.url))
  execFileSync("git", ["clone", "--quiet", "--no-checkout", bundle, target])
  execFileSync("git", ["-C", target, "checkout", "--quiet", "HEAD", "--", "models/templates"])
  return join(target, "models", "templates")
}

const measurePrompts = (file: string): void => {
  using cleanup = new DisposableStack()
  const templatesFolder = (): string => {
    const target = mkdtempSync(join(tmpdir(), "troupe-templates-"))
    cleanup.defer(() => rmSync(target, { recursive: true, force: true }))
    return cloneTemplates(target)
  }
  const folder = positionals[1] ?? templatesFolder()
  const prompts = JSON.parse(readFileSync(file, "utf8")) as ReadonlyArray<Prompt>
  const equal = prompts.filter((prompt) => isPromptEqual(readFileSync(join(folder, prompt.template), "utf8"), prompt))
  print(`prompts.json: ${equal.length} of ${prompts.length} prompts equal`)
}

interface Call {
  readonly name: string
  readonly arguments: unknown
}

interface Answer {
  readonly name: string
  readonly text: string
  readonly calls: ReadonlyArray<Call>
  readonly content?: string
}

/** The calls and the text that an engine sends for an answer in pieces. */
const readAnswer = (tools: ReadonlyArray<string>, text: string, pieces: ReadonlyArray<string>): string => {
  const calls: Array<{ name: string; arguments: string }> = []
  let content = ""
  const sender: Pick<Sender, "send"> = {
    send(part) {
      if (part.type === "text") content += part.text
      if (part.type !== "tool_call") return
      if (part.name !== undefined) calls.push({ name: part.name, arguments: "" })
      calls.at(-1)!.arguments += part.arguments
    }
  }
  const style = styleOf(text)
  const writer = new AnswerWriter(
    {
      kind: "generate",
      messages: [],
      sampling: { temperature: 0, topP: 1, seed: 1 },
      stop: [],
      window: 1,
      tools: tools.map((name) => ({ name }))
    },
    style && { style, begins: "before" },
    sender as Sender
  )
  for (const piece of pieces) writer.push(piece, undefined)
  writer.flush("", false)
  return JSON.stringify({
    calls: calls.map(({ arguments: args, name }) => {
      try {
        return { name, arguments: JSON.parse(args) as unknown }
      } catch {
        return { name, arguments: `not JSON: ${args}` }
      }
    }),
    content: content.trim()
  })
}

const isAnswerRead = (tools: ReadonlyArray<string>, { calls, content = "", name, text }: Answer): boolean => {
  const expected = JSON.stringify({ calls, content: content.trim() })
  const cuts = [[text], Array.from(text), ...Array.from(text, (_, at) => [text.slice(0, at), text.slice(at)])]
  const wrong = cuts.map((pieces) => readAnswer(tools, text, pieces)).find((found) => found !== expected)
  if (wrong !== undefined) detail(`${name}: expected ${expected} got ${wrong}`)
  return wrong === undefined
}

const measureToolCalls = (file: string): void => {
  const { cases, tools } = JSON.parse(readFileSync(file, "utf8")) as {
    readonly tools: ReadonlyArray<string>
    readonly cases: ReadonlyArray<Answer>
  }
  const read = cases.filter((one) => isAnswerRead(tools, one))
  print(`tool-calls.json: ${read.length} of ${cases.length} answers read`)
}

interface Case {
  readonly name: string
  readonly schema: JsonSchema
  readonly tests: ReadonlyArray<{ readonly valid: boolean; readonly data: unknown }>
}

/** A value in the layout that a model may write. */
const layOut = (value: unknown): string => JSON.stringify(value)

const counts = { accepted: 0, valid: 0, validAccepted: 0, invalid: 0, invalidAccepted: 0 }

const countInstance = (name: string, grammar: ReturnType<typeof grammarOf>, { data, valid }: Case["tests"][0]) => {
  const matcher = makeMatcher(grammar)
  matcher.push(layOut(data))
  const accepted = matcher.isComplete()
  counts[valid ? "valid" : "invalid"]++
  if (accepted) counts[valid ? "validAccepted" : "invalidAccepted"]++
  if (accepted !== valid) detail(`${name}: ${valid ? "rejects" : "accepts"} ${layOut(data).slice(0, 200)}`)
}

const measureSchemas = (file: string): void => {
  const cases = readFileSync(file, "utf8").trim().split("\n").map((line) => JSON.parse(line) as Case)
  for (const { name, schema, tests } of cases) {
    let grammar
    try {
      grammar = grammarOf({ type: "json_schema", schema })
    } catch (cause) {
      detail(`${name}: refused: ${messageOf(cause)}`)
      continue
    }
    counts.accepted++
    for (const test of tests) countInstance(name, grammar, test)
  }
  const { accepted, invalid, invalidAccepted, valid, validAccepted } = counts
  print(
    `schemas.jsonl: ${accepted} of ${cases.length} schemas accepted; of their instances ${validAccepted} of ${valid} ` +
      `valid ones accepted, ${invalid - invalidAccepted} of ${invalid} invalid ones rejected`
  )
}

const folder = positionals[0] ?? process.env["TROUPE_ENGINE_DATA"]
if (folder === undefined) throw new Error("Name the folder of the data, or set TROUPE_ENGINE_DATA")
const measures: Readonly<Record<string, (file: string) => void>> = {
  "prompts.json": measurePrompts,
  "tool-calls.json": measureToolCalls,
  "schemas.jsonl": measureSchemas
}
for (const [name, measure] of Object.entries(measures)) {
  const file = join(folder, name)
  if (existsSync(file)) measure(file)
  else print(`${name}: not in ${folder}`)
}
