/**
 * Finds texts that attack a model, a page or a program: markup, scripts, injected commands and instructions. Pure.
 *
 * **Details**
 *
 * These are heuristics: a question about SQL may contain what an attack contains, and an attack can be written in other
 * words. The default mode of every rule is therefore `flag`.
 *
 * **Gotchas**
 *
 * Callers choose the text, so the time of a search must grow with its length only. Every quantifier of a pattern is
 * bounded, and its alternatives begin differently; `test/services/guard/AttackPatterns.test.ts` checks the former. The
 * keywords that a search needs follow from its patterns: a pattern that changes may need others.
 */
import type { attackRules } from "../../domain/GuardRule.ts"
import type { Keywords } from "./KeywordAutomaton.ts"
import { combine } from "./KeywordAutomaton.ts"

/** A part of a text. */
export interface Span {
  readonly from: number
  readonly to: number
}

/** Finds parts of a text. They may overlap. */
export type Find = (text: string) => ReadonlyArray<Span>

export const nothing: ReadonlyArray<Span> = []

/** The first match of each pattern at each place; patterns are global. */
export const findAll = (patterns: ReadonlyArray<RegExp>): Find => (text) => {
  let found: Array<Span> | undefined
  for (const pattern of patterns) {
    pattern.lastIndex = 0
    for (let match = pattern.exec(text); match !== null; match = pattern.exec(text)) {
      ;(found ??= []).push({ from: match.index, to: match.index + match[0].length })
    }
  }
  return found ?? nothing
}

/** One of a rule's searches. */
export interface Search {
  readonly find: Find
  /** A text that the search finds something in has a keyword of each list. */
  readonly needs: ReadonlyArray<Keywords>
  /** What it finds, unless it is more than patterns. */
  readonly patterns: ReadonlyArray<RegExp>
}

/** @param patterns global ones */
export const matching = (patterns: ReadonlyArray<RegExp>, ...needs: ReadonlyArray<Keywords>): Search => ({
  find: findAll(patterns),
  needs,
  patterns
})

const findAny = (searches: ReadonlyArray<Search>): Find => (text) => {
  let found = nothing
  for (const { find } of searches) {
    const spans = find(text)
    if (spans.length > 0) found = found.length === 0 ? spans : [...found, ...spans]
  }
  return found
}

/** All searches of each rule. */
export const findersOf = <Rule extends string>(
  searches: Readonly<Record<Rule, ReadonlyArray<Search>>>
): Readonly<Record<Rule, Find>> =>
  Object.fromEntries(
    Object.entries<ReadonlyArray<Search>>(searches).map(([rule, some]) => [rule, findAny(some)])
  ) as Record<Rule, Find>

/** From each opening to the next closing, or to the end of the text. */
const between = (text: string, open: RegExp, close: RegExp): ReadonlyArray<Span> => {
  const found: Array<Span> = []
  open.lastIndex = 0
  for (let match = open.exec(text); match !== null; match = open.exec(text)) {
    close.lastIndex = open.lastIndex
    const end = close.exec(text)
    found.push({ from: match.index, to: end === null ? text.length : close.lastIndex })
    if (end === null) break
    open.lastIndex = close.lastIndex
  }
  return found
}

const commentOpen = /<!--/g
const commentClose = /-->/g
const scriptOpen = /<script(?=[\s/>])/gi
const scriptClose = /<\/script[^>]{0,64}>/gi

/** Browsers ignore control characters in the name of a scheme. */
const scriptLink =
  /(?:\bj[\t\n\r]?a[\t\n\r]?v[\t\n\r]?a|\bvb|\blive)[\t\n\r]?script[\t\n\r ]{0,4}:(?:[^\s"'<>]{1,2048}|\s{1,4}(?:alert|document|eval|fetch|location|void|window)\b)/gi
const dataLink = /\bdata:text\/html[;,][^\s"'<>]{0,2048}/gi

/** White space that may be there. */
const gap: Keywords = ["", " "]

const quotes: Keywords = ["'", "\""]

/** Sources: OWASP's page on SQL injection, and the names of functions that have no place in an answer's input. */
const sql: ReadonlyArray<Search> = [
  // A condition that is always true after a quote that ends a string.
  matching(
    [
      /['"]\s{0,8}\)?\s{0,8}(?:or|and)\s{1,8}[('"]{0,2}\w{1,32}['")]{0,2}\s{0,8}(?:=|<|>|like\b)\s{0,8}[('"]{0,2}\w{1,32}['"]?/gi
    ],
    combine(quotes, gap, ["", ")", ") "], ["or ", "and "]),
    ["=", "<", ">", "like"]
  ),
  // A comment after a quote that ends a string.
  matching(
    [
      /\w['"]\s{0,4};?\s{0,4}--\s{0,8}(?=$|['"\n])/g
    ],
    combine(quotes, gap, ["", ";", "; "], ["--"])
  ),
  // A second statement.
  matching(
    [
      /;\s{0,8}(?:drop|truncate|alter|create|grant)\s{1,8}(?:table|database|schema|index|view|user|role)\b/gi,
      /;\s{0,8}(?:delete\s{1,8}from|insert\s{1,8}into|exec(?:ute)?\s{1,8}(?:xp_|sp_)|shutdown\s{1,8}with)/gi,
      /;\s{0,8}update\s{1,8}\w{1,64}\s{1,8}set\b/gi
    ],
    combine(
      [";"],
      gap,
      "drop ,truncate ,alter ,create ,grant ,delete from,insert into,exec,shutdown with,update ".split(",")
    )
  ),
  matching(
    [
      /\bunion\s{1,8}(?:all\s{1,8}|distinct\s{1,8})?select\b/gi,
      /\b(?:xp_cmdshell|sp_executesql|pg_sleep\s{0,4}\(|waitfor\s{1,8}delay\b|load_file\s{0,4}\()/gi,
      /\binto\s{1,8}(?:outfile|dumpfile)\b/gi,
      /\bbenchmark\s{0,4}\(\s{0,4}\d/gi
    ],
    [
      ...combine(["union "], ["", "all ", "distinct "], ["select"]),
      ..."xp_cmdshell,sp_executesql,waitfor delay,into outfile,into dumpfile".split(","),
      ...combine(["pg_sleep", "load_file", "benchmark"], gap, ["("])
    ]
  )
]

/** Sources: OWASP's page on command injection. */
const shell: ReadonlyArray<Search> = [
  // A second command.
  matching(
    [
      /[;|&`\n]\s{0,8}(?:sudo\s{1,8})?(?:rm\s{1,8}-\w{0,8}[rRf]|mkfs\b|dd\s{1,8}if=|chmod\s{1,8}[0-7+]|nc\s{1,8}-|ncat\s|wget\s{1,8}http|curl\s{1,8}(?:-|http)|cat\s{1,8}\/etc\/)/g
    ],
    "rm -,mkfs,dd if=,chmod ,nc -,ncat ,wget http,curl -,curl http,cat /etc/".split(",")
  ),
  matching([/\$\(\s{0,8}(?:rm|curl|wget|cat|id|whoami|nc|ncat|bash|sh|python3?|perl)\b/g], ["$("]),
  matching(
    [/\|\s{0,8}(?:sudo\s{1,8})?(?:ba|da|z|k)?sh\b/g],
    combine(["|"], gap, ["", "sudo "], ["sh", "bash", "dash", "zsh", "ksh"])
  ),
  matching(
    [
      /\brm\s{1,8}-(?:rf|fr|r\s{1,8}-f)\s{1,8}[~/*$.]/g,
      /\/etc\/(?:passwd|shadow|sudoers)\b/g,
      /\/dev\/(?:tcp|udp)\//g,
      /:\(\)\s{0,4}\{\s{0,4}:\s{0,4}\|\s{0,4}:/g,
      /\bpowershell(?:\.exe)?\s{1,8}-(?:enc|e\b|nop|w\s)/gi
    ],
    "rm -rf ,rm -fr ,rm -r -f ,powershell,/dev/tcp/,/dev/udp/,:(),/etc/passwd,/etc/shadow,/etc/sudoers".split(",")
  )
]

/**
 * Sources: OWASP's "LLM01 Prompt Injection", the templates of Llama and ChatML. English, and the usual phrase in German,
 * French and Spanish.
 */
const injection: ReadonlyArray<Search> = [
  matching(
    [
      /\b(?:ignore|disregard|forget|override|bypass|neglect)\s{1,8}(?:(?:all|any|the|your|my|these|those|of|previous|prior|above|earlier|preceding|initial|original|system|safety)\s{1,8}){1,6}(?:instruction|prompt|rule|direction|guideline|message|context|constraint|polic|training)(?:s|ies|y)?\b/gi
    ],
    combine("ignore,disregard,forget,override,bypass,neglect".split(","), [" "]),
    "instruction,prompt,rule,direction,guideline,message,context,constraint,polic,training".split(",")
  ),
  matching(
    [
      /\bforget\s{1,8}(?:everything|all)\s{1,8}(?:above|before|you\b|that\b)/gi,
      /\byou\s{1,8}are\s{1,8}now\s{1,8}(?:in\s{1,8})?(?:dan\b|an?\s{1,8}(?:unrestricted|unfiltered|uncensored|jailbroken)\b|developer\s{1,8}mode|jailbroken)/gi,
      /\bdo\s{1,8}anything\s{1,8}now\b/gi,
      /\bpretend\s{1,8}(?:that\s{1,8})?you\s{1,8}(?:have\s{1,8}no|are\s{1,8}not\s{1,8}bound|do\s{1,8}not\s{1,8}have)\b/gi
    ],
    "forget everything ,forget all ,you are now ,do anything now,pretend you ,pretend that you ".split(",")
  ),
  matching(
    [
      /\b(?:reveal|print|show|repeat|output|display|leak|disclose)\s{1,8}(?:(?:me|us|the|your|all|of|exact|full|entire|complete|hidden|secret|verbatim)\s{1,8}){1,6}(?:system\s{1,8}prompt|system\s{1,8}message|hidden\s{1,8}prompt|initial\s{1,8}(?:prompt|instructions)|instructions\s{1,8}above|prompt\s{1,8}above)/gi
    ],
    [
      ...combine(["system ", "hidden "], ["prompt"]),
      ..."system message,initial prompt,initial instructions,instructions above,prompt above".split(",")
    ]
  ),
  matching(
    [/<\|(?:im_start|im_end|system|user|assistant|start_header_id|eot_id|endoftext)\|>|\[\/?INST\]|<<\/?SYS>>/g],
    ["<|", "[inst]", "[/inst]", "<<sys>>", "<</sys>>"]
  ),
  matching(
    [
      /\b(?:ignoriere?|vergiss|missachte)\s{1,8}(?:(?:alle|die|deine|vorherigen|bisherigen|obigen|vorigen)\s{1,8}){1,4}(?:anweisungen|instruktionen|regeln|befehle)/gi,
      /\b(?:ignore[rz]?|oublie[rz]?)\s{1,8}(?:(?:toutes|tous|les|tes|vos|précédentes|consignes)\s{1,8}){1,4}(?:instructions|consignes|règles)/gi,
      /\b(?:ignora|olvida|omite)\s{1,8}(?:(?:todas|las|tus|sus|anteriores|previas)\s{1,8}){1,4}(?:instrucciones|reglas|indicaciones)/gi
    ],
    [
      ...combine(["ignorier", "ignoriere", "vergiss", "missachte"], [" "], "alle,die,deine,vor,bis,obig".split(",")),
      ...combine(["ignore", "oublie"], ["", "r", "z"], [" "], ["t", "les", "vos", "pr", "consignes"]),
      ...combine(["ignora", "olvida", "omite"], [" "])
    ]
  )
]

/** Tag characters, of which the flags of England, Scotland and Wales have six; runs of characters without a width. */
const hidden = [
  /(?:\udb40[\udc20-\udc7e]){7,1024}/g,
  /[\u200b\u200c\u2060-\u2064\ufeff]{8,1024}/g
]

const findHidden = findAll(hidden)

/** Some character of `hidden`: the patterns take five times as long. */
const maybeHidden = /[\u200b\u200c\u2060-\u2064\ufeff\udb40]/

type AttackRule = typeof attackRules[number]

/**
 * Searches of the rules about attacks. What `hiddenText` finds has no keywords: only texts with characters beyond Latin-1
 * have it.
 */
export const searches: Readonly<Record<AttackRule, ReadonlyArray<Search>>> = {
  htmlComment: [{ find: (text) => between(text, commentOpen, commentClose), needs: [["<!--"]], patterns: [] }],
  script: [{ find: (text) => between(text, scriptOpen, scriptClose), needs: [["<script"]], patterns: [] }],
  scriptLink: [matching([scriptLink, dataLink], ["script:", "script :", "data:text/html"])],
  sql,
  shell,
  injection,
  hiddenText: [{
    find: (text) => maybeHidden.test(text) ? findHidden(text) : nothing,
    needs: [],
    patterns: hidden
  }]
}

/** What the rules about attacks find. */
export const finders = findersOf(searches)
