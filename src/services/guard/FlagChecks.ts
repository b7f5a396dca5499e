/**
 * Checks the rules of mode `flag` beside the requests: what they find is counted and logged, and changes nothing.
 *
 * **Details**
 *
 * One pass over a text tells which searches can find something in it (`KeywordAutomaton`): about 3 µs for 1,000 characters.
 * In most texts none can. A text of JSON is searched as it is, and with a backslash or an exponent in it, its decoded strings and
 * numbers are searched as well: the rules find the same in every mode. A request of at most `mostAtOnce` characters is checked when it comes, and nothing of it is kept.
 * `LongChecks` checks longer ones between requests, as far as they do not pile up.
 */
import type { Effect } from "effect"
import type { Rule } from "../../domain/GuardRule.ts"
import { attackRules, rules } from "../../domain/GuardRule.ts"
import type { Message, Request } from "../../domain/Inference.ts"
import type { Part } from "../../domain/Message.ts"
import type { Chat } from "../inference/Chat.ts"
import type { Search } from "./AttackPatterns.ts"
import * as AttackPatterns from "./AttackPatterns.ts"
import type { KeywordAutomaton, Keywords } from "./KeywordAutomaton.ts"
import { build, kindBits } from "./KeywordAutomaton.ts"
import type { LongText } from "./LongChecks.ts"
import { LongChecks } from "./LongChecks.ts"
import * as PersonalData from "./PersonalData.ts"
import type { Origin, SecurityEvents } from "./SecurityEvents.ts"
import { hiddenTexts } from "./TextWalk.ts"

/** Characters of a request that are checked when it comes. */
const mostAtOnce = 4_096

const searchesOf: Readonly<Record<Rule, ReadonlyArray<Search>>> = {
  ...AttackPatterns.searches,
  ...PersonalData.searches
}

/** The bit of texts with characters beyond Latin-1; those after it are of keywords. */
const wideBit = 1

/** Most texts are not JSON: they need no further search. */
const mayBeJson = /^\s*[[{]/

/** The bit of a rule. */
export const bitOf = (rule: Rule): number => 1 << rules.indexOf(rule)

/** One search of a rule. */
interface Prepared {
  readonly find: Search["find"]
  /** The bits that a text has in which it can find something. */
  readonly needs: number
  /** The bit of its rule. */
  readonly rule: number
  readonly isForAttacks: boolean
}

/** Searches of some rules, with the pass that tells which of them can find something. */
export class RuleSearches {
  readonly #searches: ReadonlyArray<Prepared>
  readonly #keywords: ReadonlyArray<Keywords>
  /** Built for the first text: it takes a few ms. */
  #automaton: KeywordAutomaton | undefined

  constructor(some: ReadonlyArray<Rule>) {
    const lists: Array<Keywords> = [[]]
    const keywordBit = (list: Keywords): number => 1 << (lists.push(list) - 1)
    this.#searches = some.flatMap((rule) =>
      searchesOf[rule].map(({ find, needs }) => ({
        find,
        needs: needs.length === 0 ? wideBit : needs.reduce((bits, list) => bits | keywordBit(list), 0),
        rule: bitOf(rule),
        isForAttacks: (attackRules as ReadonlyArray<Rule>).includes(rule)
      }))
    )
    this.#keywords = lists
  }

  /** The bits of the rules that may find something in a text: no other rule does. */
  rulesFor(text: string): number {
    const bits = this.#bitsOf(text)
    let able = 0
    for (const { needs, rule } of this.#searches) if ((bits & needs) === needs) able |= rule
    return able
  }

  /**
   * The bits of the rules that find something in a text.
   *
   * @param isCallers whether a user or a tool wrote it: rules about attacks apply to those only
   */
  rulesIn(text: string, isCallers: boolean): number {
    const bits = this.#bitsOf(text)
    return bits === 0 ? 0 : this.#search(text, bits, isCallers)
  }

  #bitsOf(text: string): number {
    const { found, kinds, next } = this.#automaton ??= build(this.#keywords)
    let bits = 0
    let codes = 0
    let state = 0
    for (let index = 0; index < text.length; index++) {
      const code = text.charCodeAt(index)
      codes |= code
      state = next[state << kindBits | kinds[code]!]!
      bits |= found[state]!
    }
    return codes > 0xff ? bits | wideBit : bits
  }

  #search(text: string, bits: number, isCallers: boolean): number {
    let found = 0
    for (const { find, isForAttacks, needs, rule } of this.#searches) {
      if ((bits & needs) !== needs || (found & rule) !== 0 || (isForAttacks && !isCallers)) continue
      if (find(text).length > 0) found |= rule
    }
    return found
  }
}

/** Texts of one message. Adjacent texts without an image between them are also searched as one. */
const eachPart = (parts: ReadonlyArray<Part>, use: (text: string) => void): void => {
  let run: Array<string> = []
  const end = () => {
    if (run.length === 1) use(run[0]!)
    // What is in one of them is also in all of them with line breaks between them, except for what escapes hide.
    else if (run.length > 1) {
      for (const text of [run.join("\n"), run.join(""), ...run.flatMap(hiddenTexts)]) {
        use(text)
      }
    }
    run = []
  }
  for (const part of parts) {
    if (part.type === "text") run.push(part.text)
    else end()
  }
  end()
}

/** Uses the thoughts of a message, as text and as their provider has signed them. */
const eachThought = ({ reasoning = [], thoughts }: Message, use: (text: string) => void): void => {
  if (thoughts !== undefined) use(thoughts)
  for (const one of reasoning) if (one.type === "thinking") use(one.thinking)
}

const hasThoughts = ({ reasoning, thoughts }: Message): boolean => thoughts !== undefined || reasoning !== undefined

/** Characters of the texts of messages. */
const lengthOf = (messages: ReadonlyArray<Message>): number => {
  let length = 0
  for (const message of messages) {
    const { content, toolCalls } = message
    if (typeof content === "string") length += content.length
    else for (const part of content) if (part.type === "text") length += part.text.length
    if (hasThoughts(message)) eachThought(message, (text) => length += text.length)
    if (toolCalls !== undefined) { for (const call of toolCalls) length += call.arguments.length }
  }
  return length
}

/** Uses the texts of messages, without images. */
const eachText = (messages: ReadonlyArray<Message>, use: (text: string, isCallers: boolean) => void): void => {
  for (const message of messages) {
    const { content, role, toolCalls } = message
    const isCallers = role === "user" || role === "tool"
    if (typeof content === "string") use(content, isCallers)
    else eachPart(content, (text) => use(text, isCallers))
    if (hasThoughts(message)) eachThought(message, (text) => use(text, isCallers))
    if (toolCalls !== undefined) { for (const call of toolCalls) use(call.arguments, isCallers) }
  }
}

/** The checks of an application. */
export class FlagChecks {
  readonly #searches: RuleSearches
  readonly #events: SecurityEvents
  readonly #long: LongChecks

  /**
   * @param flagged the rules of mode `flag`
   * @param start runs the checks of long requests beside the requests
   */
  constructor(
    flagged: ReadonlyArray<Rule>,
    events: SecurityEvents,
    start: (checks: Effect.Effect<void>) => void
  ) {
    this.#searches = new RuleSearches(flagged)
    this.#events = events
    this.#long = new LongChecks({
      searches: this.#searches,
      found: (found, origin) => this.#record(found, origin),
      unchecked: (count, origin) => events.record("unchecked", "flag", origin, count),
      start
    })
  }

  /** Chat completions whose requests are checked beside them. */
  beside(own: Chat): Chat {
    // A program without types may give no request.
    const noted = (request: Request | null | undefined): Request => {
      if (request) this.note(request.messages, request)
      return request as Request
    }
    return {
      generate: (request) => own.generate(noted(request)),
      open: (request) => own.open(noted(request)),
      deliver: (request, sink) => own.deliver(noted(request), sink)
    }
  }

  /** Checks a request, or lets it wait for its check. */
  note(messages: ReadonlyArray<Message>, origin: Origin): void {
    try {
      this.#check(messages, origin)
    } catch {
      // A program without types gave no messages, which validation refuses.
    }
  }

  /** Checks texts that are no conversation, as those to embed: rules about attacks do not apply to them. */
  noteData(textsOf: () => ReadonlyArray<string>, origin: Origin): void {
    try {
      this.#check(textsOf().map((content) => ({ role: "system", content })), origin)
    } catch {
      // As in `note`.
    }
  }

  #check(messages: ReadonlyArray<Message>, origin: Origin): void {
    const length = lengthOf(messages)
    if (length > mostAtOnce) return this.#defer(messages, origin, length)
    let found = 0
    eachText(messages, (text, isCallers) => {
      found |= this.#searches.rulesIn(text, isCallers)
      if (!mayBeJson.test(text)) return
      for (const hidden of hiddenTexts(text)) found |= this.#searches.rulesIn(hidden, isCallers)
    })
    if (found !== 0) this.#record(found, origin)
  }

  #defer(messages: ReadonlyArray<Message>, { identity, model }: Origin, length: number): void {
    if (!this.#long.isFree) return this.#long.leaveOut({ identity, model })
    const texts: Array<LongText> = []
    eachText(messages, (text, isCallers) => texts.push({ text, isCallers }))
    this.#long.add({ texts, length, origin: { identity, model } })
  }

  #record(found: number, origin: Origin): void {
    for (const [index, rule] of rules.entries()) {
      if ((found & 1 << index) !== 0) this.#events.record(rule, "flag", origin)
    }
  }
}
