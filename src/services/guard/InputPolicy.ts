/**
 * Applies the rules to a request: which texts are rejected, and the request with the others replaced. Pure.
 *
 * **Details**
 *
 * Rules that reject or redact see every text of the decoded request and of the caller's own body. A part that only the body
 * has therefore cannot carry a text past them, and a body whose texts change is not sent as it was.
 */
import type { Rule, RuleModes } from "../../domain/GuardRule.ts"
import { attackRules, rules } from "../../domain/GuardRule.ts"
import { formatPath } from "../../domain/Problem.ts"
import type { Source } from "../../domain/Source.ts"
import { withBody } from "../../domain/Source.ts"
import type { Find } from "./AttackPatterns.ts"
import * as AttackPatterns from "./AttackPatterns.ts"
import * as PersonalData from "./PersonalData.ts"
import type { Match } from "./Redaction.ts"
import { placeholdersIn, Redaction } from "./Redaction.ts"
import type { Author, Change, Path } from "./TextWalk.ts"
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

/** A request with other texts in its fields and in the caller's own body. */
const changed = <R extends Guarded>(
  request: R,
  fields: ReadonlyArray<keyof R & string>,
  change: (inBody: boolean) => Change
): R => {
  const { source } = request
  const body = source && TextWalk.changeBody(source.body, change(true))
  const other = TextWalk.changeRequest(request, fields, change(false))
  return body === source?.body ? other : { ...other, source: withBody(source!, body!) }
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

/** One pass over the texts of a request. */
class Pass {
  readonly #modes: RuleModes
  readonly #rules: RulesOf
  readonly #reserved: () => ReadonlySet<string>
  readonly found = new Set<Rule>()
  redaction: Redaction | undefined
  rejection: Rejection | undefined

  constructor(modes: RuleModes, rules: RulesOf, reserved: () => ReadonlySet<string>) {
    this.#modes = modes
    this.#rules = rules
    this.#reserved = reserved
  }

  change(inBody: boolean): Change {
    return (text, author, path) => this.#text(text, author, path, inBody)
  }

  #text(text: string, author: Author, path: Path, inBody: boolean): string {
    let matches: Array<Match> | undefined
    for (const rule of this.#rules[author]) {
      const spans = finders[rule](text)
      if (spans.length === 0) continue
      this.found.add(rule)
      if (this.#modes[rule] === "reject") this.rejection ??= { rule, path: formatPath(path), inBody }
      else for (const span of spans) (matches ??= []).push({ rule, ...span })
    }
    if (matches === undefined) return text
    this.redaction ??= new Redaction(this.#reserved())
    return this.redaction.replace(text, matches)
  }
}

/** A request without the values that a hook names, longest first: one may contain another. */
export const redactValues = <R extends Guarded>(
  request: R,
  fields: ReadonlyArray<keyof R & string>,
  values: ReadonlyArray<readonly [value: string, label: string]>,
  known: Redaction | undefined
): Pick<Applied<R>, "redaction" | "request"> => {
  const redaction = known ?? new Redaction(reservedIn(request, fields))
  const ordered = values.filter(([value]) => value !== "").toSorted(([one], [two]) => two.length - one.length)
  const redacted = changed(request, fields, () => (text) => redaction.replaceValues(text, ordered))
  return { request: redacted, redaction: redaction.labels.size === 0 ? undefined : redaction }
}

/** The texts of a request that look like placeholders. */
const reservedIn = <R extends Guarded>(request: R, fields: ReadonlyArray<keyof R & string>): ReadonlySet<string> => {
  const reserved = new Set<string>()
  const collect: Change = (text) => {
    for (const found of placeholdersIn(text)) reserved.add(found)
    return text
  }
  changed(request, fields, () => collect)
  return reserved
}

/** The policy of a configuration. */
export class InputPolicy {
  readonly #modes: RuleModes
  readonly #enforced: Readonly<Record<Subject, RulesOf>>
  /** The rules of mode `flag`. */
  readonly flagged: ReadonlyArray<Rule>

  constructor(modes: RuleModes) {
    this.#modes = modes
    const enforced = rules.filter((rule) => modes[rule] === "redact" || modes[rule] === "reject")
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
    const pass = new Pass(this.#modes, this.#enforced[subject], () => reservedIn(request, fields))
    const applied = changed(request, fields, (inBody) => pass.change(inBody))
    const { found, redaction, rejection } = pass
    return { request: applied, redaction, found, rejection }
  }
}
