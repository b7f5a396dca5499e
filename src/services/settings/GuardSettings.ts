/** The settings `guard`: what the policy for prompts does with what its rules find. */
import { Schema } from "effect"
import { optional } from "../../domain/Fields.ts"
import type { Mode, Rule, RuleModes, UnknownFieldMode } from "../../domain/GuardRule.ts"
import { dataRules, meanings, modes, rules, unknownFieldModes } from "../../domain/GuardRule.ts"

const RuleMode = Schema.Literals(modes)

const isData = new Set<Rule>(dataRules)

const ruleText = (rule: Rule): string =>
  `Mode of the rule about ${meanings[rule]}${isData.has(rule) ? "; what it redacts is restored in answers" : ""}. ` +
  "Default guard.mode."

const ruleFields = Object.fromEntries(rules.map((rule) => [rule, optional(ruleText(rule), RuleMode)])) as Record<
  Rule,
  Schema.optionalKey<typeof RuleMode>
>

/** The section `guard`. */
export const Guard = Schema.Struct({
  mode: optional(
    "What happens to a request with a match: nothing (off), an entry in log and metrics (flag), another text in its place " +
      "(redact), or an error (reject). Default flag.",
    RuleMode
  ),
  rules: optional("Modes of single rules.", Schema.Struct(ruleFields)),
  unknownFields: optional(
    "What happens to a request with fields that its dialect does not have: an error (refuse), the request goes on without " +
      "them (drop), or they reach deployments of the dialect (pass). Default pass.",
    Schema.Literals(unknownFieldModes)
  )
})

/** What the policy for prompts does. */
export interface GuardSettings {
  readonly modes: RuleModes
  readonly unknownFields: UnknownFieldMode
}

/** Every rule with one mode. */
export const allRules = (mode: Mode): RuleModes =>
  Object.fromEntries(rules.map((rule) => [rule, mode])) as Record<Rule, Mode>

export const guardOf = (
  { mode = "flag", rules: own = {}, unknownFields = "pass" }: typeof Guard.Type = {}
): GuardSettings => ({ modes: { ...allRules(mode), ...own }, unknownFields })
