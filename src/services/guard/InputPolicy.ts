/**
 * Applies the rules to a request: which texts are rejected, and the request with the others replaced. Pure.
 *
 * **Details**
 *
 * Rules that reject or redact see every text of the decoded request and of the caller's own body. A part that only the body
 * has therefore cannot carry a text past them, and a body whose texts change is not sent as it was. A text that is JSON is searched in its decoded strings and numbers.
 */
import type { Rule, RuleModes } from "../../domain/GuardRule.ts"
import { attackRules, labels, rules } from "../../domain/GuardRule.ts"
import { formatPath } from "../../domain/Problem.ts"
import type { Source } from "../../domain/Source.ts"
import { isComplete, withBody } from "../../domain/Source.ts"
import type { Find } from "./AttackPatterns.ts"
import * as AttackPatterns from "./AttackPatterns.ts"
import { bitOf, RuleSearches } from "./FlagChecks.ts"
import * as PersonalData from "./PersonalData.ts"
import type { Match } from "./Redaction.ts"
import { placeholdersIn, Redaction } from "./Redaction.ts"
import type { Change, Path } from "./TextWalk.ts"
import * as TextWalk from "./TextWalk.ts"

const finders: Readonly<Record<Rule, Find>> = { ...AttackPatterns.finders, ...PersonalData.finders }

/** A request of any operation. */
export interface Guarded {
  readonly source?: Source | undefined
}

/** What a request is about. */
export type Subject = "conversation" | "data"

/** A text that a rule rejects. */
export interface Rejection {
  readonly rule: Rule
  readonly path: string
  /** Whether the path is that of the caller's own body. */
  readonly inBody: boolean
}

/** A request after the rules. */
export interface Applied<R> {
  readonly request: R
  /** What was replaced; undefined if nothing was. */
  readonly redaction: Redaction | undefined
  /** The rules that found something. */
  readonly found: ReadonlySet<Rule>
  /** The first text that is rejected. */
  readonly rejection: Rejection | undefined
}

/** How texts and numbers change, in the caller's own body or in the decoded request. */
interface Changes {
  readonly text: (inBody: boolean) => Change
  readonly number: (inBody: boolean) => Change
}

/** Fields of a body whose numbers are content, not options. */
const contentFields: ReadonlySet<string | number | undefined> = new Set(
  ["messages", "tools", "functions", "system", "metadata", "response_format", "output_config", "format", "documents"]
)

/** Whether a number of a body may be a value of the caller: not where Troupe knows its field as an option. */
const isContentOf = ({ unknownFields = [] }: Source) => (path: Path): boolean =>
  contentFields.has(path[0]) || unknownFields.some((field) => field.path.every((step, index) => step === path[index]))

const isResponsesContent = ([name]: Path): boolean => name === "input" || contentFields.has(name)

/** The caller's request with other texts. */
const changedSource = (source: Source, changes: Changes): Source => {
  const bodyWith = (body: Source["body"], isContent: (path: Path) => boolean) =>
    TextWalk.changeBody(body, changes.text(true), { number: changes.number(true), isContent, joins: true })
  const { responses } = source
  const body = bodyWith(source.body, isContentOf(source))
  const own = body === source.body ? source : withBody(source, body)
  const native = responses && bodyWith(responses.body, isResponsesContent)
  return native === undefined || native === responses!.body
    ? own
    : { ...own, responses: { ...responses!, body: native } }
}

/** A request with other texts in its fields and in the caller's own body. */
const changed = <R extends Guarded>(request: R, fields: ReadonlyArray<keyof R & string>, changes: Changes): R => {
  const { source } = request
  const own = source && changedSource(source, changes)
  const other = TextWalk.changeRequest(request, fields, changes.text(false), {
    number: changes.number(false),
    joins: true
  })
  return own === source ? other : { ...other, source: own }
}

/** The labels of what was replaced in the caller's own body and in the decoded request. */
class Replaced {
  readonly #inBody = new Set<string>()
  readonly #decoded = new Set<string>()

  add(label: string, inBody: boolean): void {
    ;(inBody ? this.#inBody : this.#decoded).add(label)
  }

  /** The request without a body in which nothing was replaced of a kind that the decoded request had. */
  withoutOriginals<R extends Guarded>(request: R): R {
    const { source } = request
    if (source === undefined || !(isComplete(source) || source.responses !== undefined)) return request
    return [...this.#decoded].every((label) => this.#inBody.has(label)) ? request : { ...request, source: undefined }
  }
}

/** The rules that apply to the texts of an author. */
interface RulesOf {
  readonly caller: ReadonlyArray<Rule>
  readonly other: ReadonlyArray<Rule>
}

const attacks = new Set<Rule>(attackRules)

const rulesOf = (enabled: ReadonlyArray<Rule>): RulesOf => ({
  caller: enabled,
  other: enabled.filter((rule) => !attacks.has(rule))
})

/** The digits of the shortest number that a rule finds. */
const shortestNumber = 7

/** One pass over the texts of a request. */
class Pass implements Changes {
  readonly #modes: RuleModes
  readonly #searches: RuleSearches
  readonly #rules: RulesOf
  readonly #reserved: () => ReadonlySet<string>
  readonly found = new Set<Rule>()
  readonly replaced = new Replaced()
  redaction: Redaction | undefined
  rejection: Rejection | undefined

  constructor(modes: RuleModes, searches: RuleSearches, rules: RulesOf, reserved: () => ReadonlySet<string>) {
    this.#modes = modes
    this.#searches = searches
    this.#rules = rules
    this.#reserved = reserved
  }

  readonly text = (inBody: boolean): Change => {
    const change: Change = (text, author, path) => {
      const json = TextWalk.jsonOf(text)
      const applied = this.#rules[author]
      if (json === undefined) return this.#search(text, { applied, path, inBody })
      const number = this.number(inBody)
      const encoded = TextWalk.changeText(
        text,
        json,
        [(inner) => change(inner, author, path), (inner) => number(inner, author, path)],
        (text) => this.#finds(text, applied)
      )
      // An attack may be in several strings.
      return this.#search(encoded, { applied: applied.filter((rule) => attacks.has(rule)), path, inBody })
    }
    return change
  }

  readonly number = (inBody: boolean): Change => (text, author, path) =>
    text.length < shortestNumber ? text : this.#search(text, { applied: this.#rules[author], path, inBody })

  /** The rules that may find something in a text: most find nothing in most. */
  #able(text: string, applied: ReadonlyArray<Rule>): ReadonlyArray<Rule> {
    if (applied.length === 0) return applied
    const able = this.#searches.rulesFor(text)
    return able === 0 ? [] : applied.filter((rule) => (able & bitOf(rule)) !== 0)
  }

  #finds(text: string, applied: ReadonlyArray<Rule>): boolean {
    return this.#able(text, applied).some((rule) => finders[rule](text).length > 0)
  }

  #search(text: string, { applied, inBody, path }: Place): string {
    let matches: Array<Match> | undefined
    for (const rule of this.#able(text, applied)) {
      const spans = finders[rule](text)
      if (spans.length === 0) continue
      this.found.add(rule)
      if (this.#modes[rule] === "reject") this.rejection ??= { rule, path: formatPath(path), inBody }
      else for (const span of spans) (matches ??= []).push({ rule, ...span })
    }
    return matches === undefined ? text : this.#replace(text, matches, inBody)
  }

  #replace(text: string, matches: ReadonlyArray<Match>, inBody: boolean): string {
    this.redaction ??= new Redaction(this.#reserved())
    for (const { rule } of matches) this.replaced.add(labels[rule], inBody)
    return this.redaction.replace(text, matches)
  }
}

/** A place with the rules that apply there. */
interface Place extends Pick<Rejection, "inBody"> {
  readonly applied: ReadonlyArray<Rule>
  readonly path: Path
}

type Values = ReadonlyArray<readonly [value: string, label: string]>

/** The characters that a part of JSON has which is more than a string or a number. */
const structure = /["[\]{}]/

/** Replaces the values that a hook names. */
class ValuePass implements Changes {
  readonly #redaction: Redaction
  readonly #values: Values
  readonly replaced = new Replaced()

  constructor(redaction: Redaction, values: Values) {
    this.#redaction = redaction
    this.#values = values
  }

  readonly text = (inBody: boolean): Change => {
    const change = (given: string): string => {
      if (TextWalk.jsonOf(given) === undefined) return this.#replace(given, this.#values, inBody)
      const text = this.#replace(given, this.#values.filter(([value]) => structure.test(value)), inBody)
      const json = TextWalk.jsonOf(text)
      if (json === undefined) return this.#replace(text, this.#values, inBody)
      const isHidden = (text: string) => this.#values.some(([value]) => text.includes(value))
      return TextWalk.changeText(text, json, [change, (number) => this.#number(number, inBody)], isHidden)
    }
    return change
  }

  readonly number = (inBody: boolean): Change => (text) => this.#number(text, inBody)

  /** Only a whole number is a value: its digits are no texts of their own. */
  #number(text: string, inBody: boolean): string {
    return this.#replace(text, this.#values.filter(([value]) => value === text), inBody)
  }

  #replace(text: string, values: Values, inBody: boolean): string {
    for (const [value, label] of values) {
      if (text.includes(value)) this.replaced.add(label, inBody)
    }
    return this.#redaction.replaceValues(text, values)
  }
}

/** A request without the values that a hook names, longest first: one may contain another. */
export const redactValues = <R extends Guarded>(
  request: R,
  fields: ReadonlyArray<keyof R & string>,
  values: Values,
  known: Redaction | undefined
): Pick<Applied<R>, "redaction" | "request"> => {
  const redaction = known ?? new Redaction(reservedIn(request, fields))
  const ordered = values.filter(([value]) => value !== "").toSorted(([one], [two]) => two.length - one.length)
  const pass = new ValuePass(redaction, ordered)
  const redacted = pass.replaced.withoutOriginals(changed(request, fields, pass))
  return { request: redacted, redaction: redaction.labels.size === 0 ? undefined : redaction }
}

/** The texts of a request that look like placeholders. */
const reservedIn = <R extends Guarded>(request: R, fields: ReadonlyArray<keyof R & string>): ReadonlySet<string> => {
  const reserved = new Set<string>()
  const collect = (text: string): string => {
    for (const found of placeholdersIn(text)) reserved.add(found)
    const json = TextWalk.jsonOf(text)
    return json === undefined ? text : TextWalk.changeText(text, json, [collect, (number) => number], () => false)
  }
  changed(request, fields, { text: () => collect, number: () => (text) => text })
  return reserved
}

/** The policy of a configuration. */
export class InputPolicy {
  readonly #modes: RuleModes
  readonly #enforced: Readonly<Record<Subject, RulesOf>>
  readonly #searches: RuleSearches
  /** The rules of mode `flag`. */
  readonly flagged: ReadonlyArray<Rule>

  constructor(modes: RuleModes) {
    this.#modes = modes
    const enforced = rules.filter((rule) => modes[rule] === "redact" || modes[rule] === "reject")
    this.#searches = new RuleSearches(enforced)
    const data = enforced.filter((rule) => !attacks.has(rule))
    this.#enforced = { conversation: rulesOf(enforced), data: rulesOf(data) }
    this.flagged = rules.filter((rule) => modes[rule] === "flag")
  }

  /** Whether a rule rejects or redacts. */
  get enforces(): boolean {
    return this.#enforced.conversation.caller.length > 0
  }

  /**
   * Applies the rules that reject or redact.
   *
   * @param fields of the request that have texts
   * @param subject the rules about attacks apply to conversations only
   */
  apply<R extends Guarded>(request: R, fields: ReadonlyArray<keyof R & string>, subject: Subject): Applied<R> {
    const pass = new Pass(this.#modes, this.#searches, this.#enforced[subject], () => reservedIn(request, fields))
    const applied = changed(request, fields, pass)
    const { found, redaction, rejection, replaced } = pass
    return { request: replaced.withoutOriginals(applied), redaction, found, rejection }
  }
}
