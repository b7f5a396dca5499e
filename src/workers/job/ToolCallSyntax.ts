/**
 * The syntaxes in which models write tool calls, as data: sections with the forms of the calls in them.
 *
 * **Details**
 *
 * A section begins with its `open` text and has one call or more, each in one of its forms. Families share forms: Qwen, GLM
 * and Hermes write different calls after the same `<tool_call>`.
 *
 * Sources: the models' chat templates, and the cases of llama.cpp's parser.
 */

/** Arguments with a marker around each. In `end`, `{key}` stands for the argument's name. */
export interface Params {
  readonly begin: string
  /** After the name, and after attributes that a quotation mark separates from it. */
  readonly keyEnd: string
  readonly end: string
}

/** A call whose name comes before its arguments, which are a JSON object or marked one by one. */
export interface NamedForm {
  readonly type: "named"
  /** Before the name; empty if the call begins with it, which must then be a tool's. */
  readonly begin: string
  readonly nameEnd: string
  /** What comes before the name ends with this text, if it is there. */
  readonly before?: string
  /** What comes after the name begins with this text, if it is there. */
  readonly after?: string
  /** Left out, the arguments are a JSON object. */
  readonly params?: Params
  /** After the arguments, each if it is there. */
  readonly ends: ReadonlyArray<string>
}

export type Form =
  /** A JSON object with the name and the arguments, or with the name as its only key. */
  | { readonly type: "object" }
  | NamedForm
  /** `name(key="value")` or `name.call(...)`, in Python. */
  | { readonly type: "python" }
  /** `call:name{key:<|"|>value<|"|>}` of Gemma. */
  | { readonly type: "gemma" }

export interface Section {
  /** Empty if the section begins with the `begin` of its first form, or, without one, with the answer. */
  readonly open: string
  /** After `open`: white space is allowed before it. */
  readonly next?: string
  /** Ends the section, if it is there. */
  readonly close: string
  readonly forms: ReadonlyArray<Form>
  /** The text is not a control token's: only a call of one of the tools is a call. */
  readonly isLoose?: true
  /** Texts that single control tokens have, where they are not `open`, `close` or those of a form. */
  readonly tokens?: ReadonlyArray<string>
}

const object: Form = { type: "object" }
const python: Form = { type: "python" }

const named = (
  begin: string,
  nameEnd: string,
  ends: ReadonlyArray<string>,
  more: Partial<NamedForm> = {}
): NamedForm => ({
  type: "named",
  begin,
  nameEnd,
  ends,
  ...more
})

/** `<function=name>` with `<parameter=key>` of Qwen3-Coder, or with a JSON object of Llama and Functionary. */
const functionTag = named("<function=", ">", ["</function>"], {
  params: { begin: "<parameter=", keyEnd: ">", end: "</parameter>" }
})

/** `<invoke name="...">` with `<parameter name="...">`, with a prefix in the tags. */
const invoke = (prefix: string): NamedForm =>
  named(`<${prefix}invoke name="`, ">", [`</${prefix}invoke>`], {
    after: "\"",
    params: { begin: `<${prefix}parameter name="`, keyEnd: ">", end: `</${prefix}parameter>` }
  })

/** `name<arg_key>key</arg_key><arg_value>value</arg_value>` of GLM. */
const keyed = (begin: string, suffix: string, ends: ReadonlyArray<string>, nameEnd = ""): NamedForm =>
  named(begin, nameEnd, ends, {
    params: {
      begin: `<arg_key${suffix}>`,
      keyEnd: `<arg_value${suffix}>`,
      end: `</arg_value${suffix}>`
    }
  })

const deepSeek = [
  named("<｜tool▁call▁begin｜>", "\n```json\n", ["```", "<｜tool▁call▁end｜>"], { before: "function<｜tool▁sep｜>" }),
  named("<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", ["<｜tool▁call▁end｜>"])
]

const kimi = named("<|tool_call_begin|>", "<|tool_call_argument_begin|>", ["<|tool_call_end|>"])

const section = (open: string, close: string, forms: ReadonlyArray<Form>, more: Partial<Section> = {}): Section => ({
  open,
  close,
  forms,
  ...more
})

/** Where an answer may begin with a call without a marker before it. */
export const bareObject = section("", "", [object], { isLoose: true })
export const bareList = section("", "", [object, python], { isLoose: true })
export const bareName = section("", "", [named("", "\n", [])], { isLoose: true })
export const fenced = section("```json", "```", [object], { isLoose: true })

/** Sections that begin anywhere in an answer. */
export const sections: ReadonlyArray<Section> = [
  // Hermes, Qwen, Granite 4; Qwen3-Coder, Nemotron 3, Step 3.5; GLM 4, Laguna
  section("<tool_call>", "</tool_call>", [object, functionTag, invoke(""), keyed("", "", [])], {
    tokens: ["</arg_key>"]
  }),
  section("<seed:tool_call>", "</seed:tool_call>", [functionTag]),
  // Llama 3
  section("<|python_tag|>", "", [object, python]),
  // Mistral: a list, or names
  section("[TOOL_CALLS]", "", [object, named("", "[ARGS]", [], { after: "[CALL_ID]" })], { tokens: ["[CALL_ID]"] }),
  section("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", deepSeek, { tokens: ["<｜tool▁sep｜>"] }),
  section("<｜DSML｜function_calls>", "</｜DSML｜function_calls>", [invoke("｜DSML｜")], { tokens: ["｜DSML｜"] }),
  section("<｜DSML｜tool_calls>", "</｜DSML｜tool_calls>", [invoke("｜DSML｜")]),
  section("<minimax:tool_call>", "</minimax:tool_call>", [invoke("")]),
  section("]<]minimax[>[<tool_call>", "]<]minimax[>[</tool_call>", [
    named("]<]minimax[>[<invoke name=\"", ">", ["]<]minimax[>[</invoke>"], {
      after: "\"",
      params: { begin: "]<]minimax[>[<", keyEnd: ">", end: "]<]minimax[>[</{key}>" }
    })
  ], { tokens: ["]<]minimax[>["] }),
  section("<atem:function_calls>", "</atem:function_calls>", [invoke("atem:")]),
  section("<tool_calls:opensource>", "</tool_calls:opensource>", [
    keyed("<tool_call:opensource>", ":opensource", ["</tool_call:opensource>"], "<tool_sep:opensource>")
  ], { tokens: ["</arg_key:opensource>"] }),
  section("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>", [kimi]),
  section("<|open|>tools<|sep|>", "<|close|>tools<|sep|>", [
    named("<|open|>call tool=\"", "<|sep|>", ["<|close|>call<|sep|>"], {
      after: "\"",
      params: { begin: "<|open|>argument key=\"", keyEnd: "<|sep|>", end: "<|close|>argument<|sep|>" }
    })
  ], { tokens: ["<|open|>", "<|sep|>", "<|close|>"] }),
  // Granite 3, Phi 4 mini
  section("<|tool_call|>", "<|/tool_call|>", [object]),
  section("<TOOLCALL>", "</TOOLCALL>", [object]),
  section("<tool_calls>", "</tool_calls>", [object]),
  // Apertus
  section("<|tools_prefix|>", "<|tools_suffix|>", [object]),
  // LFM 2
  section("<|tool_call_start|>", "<|tool_call_end|>", [object, python]),
  // Gemma 4
  section("<|tool_call>", "<tool_call|>", [{ type: "gemma" }], { tokens: ["<|\"|>"] }),
  // Command R7B and A
  section("<|START_ACTION|>", "<|END_ACTION|>", [object]),
  // Solar
  section("<|tool_calls|>", "<|calls|>", [
    named("<|tool_call:begin|>", "<|tool_call:args|>", ["<|tool_call:end|>"], { before: "<|tool_call:name|>" })
  ], { tokens: ["<|tool_call:name|>"] }),
  // GigaChat
  section("<|function_call|>", "", [object]),
  section("function call<|role_sep|>", "", [object]),
  // Firefunction
  section("functools", "", [object], { next: "[", isLoose: true }),
  // Command R+
  section("Action:", "```", [object], { next: "```json", isLoose: true }),
  section("<function_call>", "</function_call>", [object], { isLoose: true }),
  // Llama 3.1 and Functionary 3.1; Qwen3-Coder without its first marker
  section("", "</tool_call>", [functionTag], { isLoose: true }),
  // MiniCPM
  section("", "", [
    named("<function name=\"", ">", ["</function>"], {
      after: "\"",
      params: { begin: "<param name=\"", keyEnd: ">", end: "</param>" }
    })
  ], { isLoose: true }),
  section("", "", [kimi]),
  section("", "", deepSeek.slice(0, 1)),
  // Functionary 3.2
  section(">>>", "", [named("", "\n", [])], { isLoose: true })
]

/** How arguments are marked in calls that begin like this text. */
export const paramsOf = (text: string): ReadonlyArray<Params> =>
  sections.filter((section) => text.startsWith(openerOf(section))).flatMap(({ forms }) =>
    forms.flatMap((form) => form.type === "named" && form.params !== undefined ? [form.params] : [])
  )

/** The text that a section begins with. */
export const openerOf = ({ forms: [first], open }: Section): string =>
  open === "" && first?.type === "named" ? first.begin : open

const textsOf = (form: Form): ReadonlyArray<string> => {
  if (form.type !== "named") return []
  const { after = "", before = "", begin, ends, nameEnd, params } = form
  return [
    begin,
    nameEnd,
    before,
    after,
    ...ends,
    ...params === undefined ? [] : [params.begin, params.keyEnd, params.end]
  ]
}

/** Texts of calls that control tokens may have: an engine must include them in the answer's text. */
export const markers: ReadonlyArray<string> = [
  ...new Set(
    sections.flatMap(({ close, forms, open, tokens = [] }) => [open, close, ...tokens, ...forms.flatMap(textsOf)])
  )
].filter((text) => text.length > 2)

/** Undecided until more text arrives. */
export type More = "more"

export const skipSpace = (text: string, at: number): number => at + /^\s*/.exec(text.slice(at))![0].length

/** The end of `wanted` if the text continues with it after white space. */
export const skip = (text: string, at: number, wanted: string): number | More | undefined => {
  const begin = skipSpace(text, at)
  if (text.startsWith(wanted, begin)) return begin + wanted.length
  return wanted.startsWith(text.slice(begin)) ? "more" : undefined
}

const openers = new Map(sections.toReversed().map((section) => [openerOf(section), section]))

const escape = (text: string): string => text.replaceAll(/[\\^$.*+?()[\]{}|]/g, String.raw`\$&`)

/** Of several openers at the same place, the longest. */
const opener = new RegExp([...openers.keys()].sort((a, b) => b.length - a.length).map(escape).join("|"))

const firstCharacters = new Set([...openers.keys()].map((text) => text[0]!))
const longestOpener = Math.max(...[...openers.keys()].map(({ length }) => length))

const isOpenerBeginning = (text: string): boolean => [...openers.keys()].some((one) => one.startsWith(text))

/** The number of characters at the end that may belong to a call: white space, and the beginning of a marker. */
export const heldLength = (text: string): number => {
  let at = Math.max(0, text.length - longestOpener + 1)
  while (at < text.length && !(firstCharacters.has(text[at]!) && isOpenerBeginning(text.slice(at)))) at++
  return text.length - text.slice(0, at).trimEnd().length
}

/** The first section that begins in a text. */
export const findSection = (text: string): { readonly section: Section; readonly at: number } | undefined => {
  const found = opener.exec(text)
  return found === null ? undefined : { section: openers.get(found[0])!, at: found.index }
}
