/** The settings `guard`: what the policy for prompts does with what its rules find. */
import type { Redacted } from "effect"
import { Schema } from "effect"
import { described, optional } from "../../domain/Fields.ts"
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

const secret = (schema: Schema.String["Rebuild"]) => Schema.RedactedFromValue(schema, { disallowEncode: true })

/** The section `guard.webhook`. */
const Webhook = Schema.Struct({
  url: described(
    "URL that gets a POST for each request or answer, and answers with a verdict: security.md has their shapes.",
    secret(Schema.String.check(
      Schema.isPattern(/^(?:https?:\/\/[^\s/?#]+|\$\{)/, {
        message: "Expected a URL such as https://policy.example.com/check"
      })
    ))
  ),
  key: optional("${NAME}: bearer token for the URL. Default none.", secret(Schema.NonEmptyString)),
  stages: optional(
    "What it decides about: requests (before), answers (after). With after, no answer is streamed before it is complete. " +
      "Default before.",
    Schema.NonEmptyArray(Schema.Literals(["before", "after"]))
  ),
  onFailure: optional(
    "What happens to a request if the webhook fails or takes longer than 5 s. Default reject.",
    Schema.Literals(["allow", "reject"])
  )
})

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
      "them (drop), or they reach deployments of the dialect (pass). Default pass, but refuse where that would send a " +
      "prompt off this machine.",
    Schema.Literals(unknownFieldModes)
  ),
  webhook: optional("A program that decides about requests and answers over HTTP.", Webhook)
})

/** The webhook of the policy. */
export interface WebhookSettings {
  readonly url: Redacted.Redacted
  readonly key: Redacted.Redacted | undefined
  readonly stages: ReadonlyArray<"before" | "after">
  readonly onFailure: "allow" | "reject"
}

/** What the policy for prompts does. */
export interface GuardSettings {
  readonly modes: RuleModes
  /** Left out: as `pass`, but no field sends a prompt off this machine. */
  readonly unknownFields?: UnknownFieldMode
  readonly webhook?: WebhookSettings
}

/** Every rule with one mode. */
export const allRules = (mode: Mode): RuleModes =>
  Object.fromEntries(rules.map((rule) => [rule, mode])) as Record<Rule, Mode>

const webhookOf = ({ key, onFailure = "reject", stages = ["before"], url }: typeof Webhook.Type): WebhookSettings => ({
  url,
  key,
  stages,
  onFailure
})

export const guardOf = (
  { mode = "flag", rules: own = {}, unknownFields, webhook }: typeof Guard.Type = {}
): GuardSettings => ({
  modes: { ...allRules(mode), ...own },
  ...(unknownFields === undefined ? {} : { unknownFields }),
  ...(webhook === undefined ? {} : { webhook: webhookOf(webhook) })
})
