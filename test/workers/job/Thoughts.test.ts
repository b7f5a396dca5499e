/** The thoughts of local models: markers, channels, prompts that begin thoughts, and every cut of an answer. */
import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { makeThoughtReader } from "../../../src/workers/job/ThoughtReader.ts"
import type { Beginning, ThoughtStyle } from "../../../src/workers/job/ThoughtSyntax.ts"
import { begin, styleOf } from "../../../src/workers/job/ThoughtSyntax.ts"
import { makeChatTemplate } from "../../../src/workers/model/ChatTemplate.ts"
import { repetitions } from "../../support/Repetitions.ts"

const think: ThoughtStyle = { type: "pair", pair: { start: "<think>", end: "</think>" } }
const own: ThoughtStyle = { type: "pair", pair: { start: "((", end: "))" } }
const channels: ThoughtStyle = { type: "channels" }

/** The parts of an answer that arrives in pieces, joined. */
const read = (
  style: ThoughtStyle,
  begins: Beginning,
  pieces: ReadonlyArray<string>,
  hasTools = true,
  isCut = false
) => {
  const reader = makeThoughtReader({ style, begins }, hasTools)
  const answer = { thoughts: "", text: "", calls: [] as Array<string>, characters: 0 }
  for (const part of [...pieces.flatMap((piece) => [...reader.push(piece)]), ...reader.flush(isCut)]) {
    if (part.type === "thoughts") answer.thoughts += part.text
    if (part.type === "text") answer.text += part.text
    if (part.type !== "call") answer.characters += part.text.length
    else if (part.isNew) answer.calls.push(`${part.name} ${part.arguments}`)
    else answer.calls.push(`${answer.calls.pop()}${part.arguments}`)
  }
  return { ...answer, isWithin: reader.isWithin() }
}

type Row = readonly [
  ThoughtStyle,
  Beginning,
  answer: string,
  thoughts: string,
  text: string,
  calls?: ReadonlyArray<string>
]

const rows: ReadonlyArray<Row> = [
  [think, "before", "<think>\nHm.\n</think>\n\nHi", "Hm.", "Hi"],
  [think, "before", "\n <think>Hm.</think>Hi", "Hm.", "Hi"],
  [think, "before", "<think>\n\n</think>\n\nHi", "", "Hi"],
  [
    think,
    "before",
    "<think>A < b </thin> c\n\nd</think>Hi <think>no</think>",
    "A < b </thin> c\n\nd",
    "Hi <think>no</think>"
  ],
  [think, "before", "Hi <think>no</think>", "", "Hi <think>no</think>"],
  [think, "before", "  Hi", "", "  Hi"],
  [think, "before", "<thin", "", "<thin"],
  [think, "before", "<think>Hm. It is", "Hm. It is", ""],
  [think, "before", "<think>Hm. </thi", "Hm. </thi", ""],
  [think, "before", "", "", ""],
  [think, "within", "Hm.\n</think>\n\nHi", "Hm.", "Hi"],
  [think, "within", "Hm. <think> x</think>Hi", "Hm. <think> x", "Hi"],
  [think, "text", "<think>Hm.</think>Hi", "", "<think>Hm.</think>Hi"],
  [own, "before", "((Hm (a) b))Hi ((x))", "Hm (a) b", "Hi ((x))"],
  [
    channels,
    "before",
    "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Hi<|return|>",
    "Hm.",
    "Hi"
  ],
  [
    channels,
    "before",
    "<|channel|>analysis<|message|>A<|end|><|start|>assistant<|channel|>analysis<|message|>B<|end|>",
    "A\nB",
    ""
  ],
  [channels, "before", "<|channel|>final<|message|>Hi < there <| x", "", "Hi < there <| x"],
  [channels, "text", "Hi<|return|>", "", "Hi"],
  [channels, "before", "Just a text.", "", "Just a text."],
  [channels, "before", "x".repeat(500), "", "x".repeat(500)],
  [channels, "before", "<|channel|>analysis<|message|>Hm. It", "Hm. It", ""],
  [
    channels,
    "before",
    "<|channel|>analysis<|message|>Look.<|end|><|start|>assistant<|channel|>commentary<|message|>I look.<|end|>" +
    "<|start|>assistant<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{\"city\":\"Oslo\"}<|call|>",
    "Look.",
    "I look.",
    ["get_weather {\"city\":\"Oslo\"}"]
  ],
  [
    channels,
    "before",
    " to=functions.f<|channel|>commentary json<|message|><|call|>",
    "",
    "",
    ["f {}"]
  ],
  [channels, "before", "<|channel|>commentary to=functions.f<|message|>", "", "", ["f {}"]],
  [channels, "before", "<|channel|>commentary to=python code<|message|>1 + 1<|call|>", "1 + 1", ""]
]

const cutAt = (text: string, places: ReadonlyArray<number>): ReadonlyArray<string> => {
  const sorted = [...places.map((place) => place % (text.length + 1)), text.length].sort((a, b) => a - b)
  return sorted.map((place, index) => text.slice(index === 0 ? 0 : sorted[index - 1], place))
}

describe("an answer with thoughts", () => {
  for (const [style, begins, answer, thoughts, text, calls = []] of rows) {
    it(`${JSON.stringify(style)} ${begins}: ${answer}`, () => {
      const found = read(style, begins, [answer])
      assert.deepStrictEqual([found.thoughts, found.text, found.calls], [thoughts, text, [...calls]])
    })
  }

  it("has the same parts wherever it is cut", () => {
    for (const [style, begins, answer] of rows) {
      const whole = read(style, begins, [answer])
      assert.deepStrictEqual(read(style, begins, answer.split("")), whole)
      for (let at = 0; at <= answer.length; at++) {
        assert.deepStrictEqual(read(style, begins, [answer.slice(0, at), answer.slice(at)]), whole)
      }
    }
  })

  it("has the same parts however it is cut, whatever it says", () => {
    const piece = fc.constantFrom(
      ..."<think> </think> (( )) \n Hm <| <|channel|> <|message|> <|end|> <|start|> final analysis to=functions.f"
        .split(" "),
      " ",
      "😀",
      "\uD83D"
    )
    fc.assert(
      fc.property(
        fc.constantFrom(think, own, channels),
        fc.constantFrom<Beginning>("before", "within", "text"),
        fc.array(piece, { maxLength: 12 }),
        fc.array(fc.nat(200), { maxLength: 8 }),
        fc.boolean(),
        (style, begins, words, places, hasTools) => {
          const answer = words.join("")
          assert.deepStrictEqual(
            read(style, begins, cutAt(answer, places), hasTools),
            read(style, begins, [answer], hasTools)
          )
        }
      ),
      { numRuns: repetitions(500, 10_000) }
    )
  })

  it.each<readonly [ThoughtStyle, Beginning, answer: string, thoughts: string, text: string]>([
    [think, "before", "<th", "", ""],
    [think, "before", "\n<", "", ""],
    [think, "before", "Hi <th", "", "Hi <th"],
    [think, "before", "<th> is a tag", "", "<th> is a tag"],
    [think, "before", "<think>Hm. </thi", "Hm.", ""],
    [think, "before", "<think>A <b", "A <b", ""],
    [think, "text", "<th", "", "<th"],
    [channels, "before", "<|chan", "", ""],
    [channels, "before", "<|channel|>analysis<|message|>Hm.<|en", "Hm.", ""],
    [channels, "before", "<|channel|>final<|message|>Hi <|re", "", "Hi "]
  ])("without the beginning of a marker where its limit cuts it: %j %s %j", (style, begins, answer, thoughts, text) => {
    for (const pieces of [[answer], answer.split("")]) {
      const found = read(style, begins, pieces, true, true)
      assert.deepStrictEqual([found.thoughts, found.text, found.characters], [thoughts, text, answer.length])
    }
  })

  it("loses no character of a pair of markers", () => {
    fc.assert(fc.property(
      fc.constantFrom<Beginning>("before", "within", "text"),
      fc.array(fc.constantFrom("<think>", "</think>", " ", "\n", "a", "<", "/"), { maxLength: 10 }),
      (begins, words) => {
        const answer = words.join("")
        for (const isCut of [false, true]) {
          assert.strictEqual(read(think, begins, answer.split(""), true, isCut).characters, answer.length)
        }
      }
    ))
  })
})

const chatTemplates = JSON.parse(
  readFileSync(fileURLToPath(new URL("../../fixtures/chatTemplates.json", import.meta.url)), "utf8")
) as ReadonlyArray<{ readonly name: string; readonly source: string }>

describe("a chat template", () => {
  it.each([
    ["{{ '<think>' }}", think],
    ["content.split('</think>')", think],
    ["[THINK]", { type: "pair", pair: { start: "[THINK]", end: "[/THINK]" } }],
    ["<|start|>assistant<|channel|>final<|message|>", channels],
    ["{{ messages }}", undefined]
  ])("%s shows how the model marks thoughts", (template, expected) => {
    assert.deepStrictEqual(styleOf(template), expected as ThoughtStyle | undefined)
    assert.deepStrictEqual(styleOf(template, { start: "((", end: "))" }), own)
    assert.isUndefined(styleOf(template, false))
  })

  /** The end of the prompt, and where the answer begins, of a published template. */
  const promptOf = (name: string, thinking: { readonly on: boolean } | undefined) => {
    const { source } = chatTemplates.find((one) => one.name === name)!
    const template = makeChatTemplate({ name, source, bos: "<s>", eos: "</s>", control: [] })
    if ("problem" in template) throw new Error(template.problem)
    const style = styleOf(source)!
    const pieces = template.render([{ role: "user", content: "Hello" }], [], thinking)
    const begun = begin(style, pieces, thinking?.on !== false, template.hasThinkingSwitch)
    return { end: begun.pieces.map(({ text }) => text).join("").slice(-40), begins: begun.thoughts.begins }
  }

  it.each(
    [
      ["Qwen3.5-4B", undefined, "within"],
      ["Qwen3.5-4B", { on: true }, "within"],
      ["deepseek-ai-DeepSeek-R1-Distill-Llama-8B", undefined, "within"],
      ["NVIDIA-Nemotron-Nano-v2", undefined, "within"],
      ["deepseek-ai-DeepSeek-V3.1", { on: true }, "within"],
      ["GLM-4.6", undefined, "before"]
    ] as const
  )("%s with %j lets the answer begin %s", (name, thinking, expected) => {
    assert.strictEqual(promptOf(name, thinking).begins, expected, promptOf(name, thinking).end)
  })

  it.each([
    "Qwen3.5-4B",
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B",
    "NVIDIA-Nemotron-Nano-v2",
    "deepseek-ai-DeepSeek-V3.1",
    "GLM-4.6"
  ])("%s ends thoughts in the prompt where there must be none", (name) => {
    const { begins, end } = promptOf(name, { on: false })
    assert.strictEqual(begins, "text")
    assert.match(end, /<\/think>\s*$/)
  })

  it("cannot begin thoughts by the text of a caller", () => {
    const pieces = [{ text: "<|user|>", special: true }, { text: "<think>", special: false }]
    assert.strictEqual(begin(think, pieces, true, false).thoughts.begins, "before")
  })
})
