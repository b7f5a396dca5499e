/**
 * The rules of the input policy, their modes, and what the policy did to a request. Plain data.
 *
 * **Details**
 *
 * Rules about attacks apply to what users and tools write: messages of role `user` and `tool`. Rules about personal data and
 * secrets apply to every text of a request.
 */

/** What happens to a request with a match: nothing, an entry in log and metrics, a replaced text, or an error. */
export const modes = ["off", "flag", "redact", "reject"] as const
export type Mode = typeof modes[number]

/** Rules about texts that attack a model, a page or a program that gets its answer. */
export const attackRules = [
  "htmlComment",
  "script",
  "scriptLink",
  "sql",
  "shell",
  "injection",
  "hiddenText"
] as const

/** Rules about personal data and secrets. What they redact is restored in answers. */
export const dataRules = ["apiKey", "iban", "card", "email", "phone"] as const

export const rules = [...attackRules, ...dataRules] as const
export type Rule = typeof rules[number]

/** The mode of each rule. */
export type RuleModes = Readonly<Record<Rule, Mode>>

/** What is in place of a redacted text: the name in `[EMAIL_1]` or `[REMOVED_SCRIPT]`. */
export const labels: Readonly<Record<Rule, string>> = {
  htmlComment: "REMOVED_COMMENT",
  script: "REMOVED_SCRIPT",
  scriptLink: "REMOVED_LINK",
  sql: "REMOVED_SQL",
  shell: "REMOVED_SHELL",
  injection: "REMOVED_INSTRUCTION",
  hiddenText: "REMOVED_HIDDEN_TEXT",
  apiKey: "API_KEY",
  iban: "IBAN",
  card: "CARD",
  email: "EMAIL",
  phone: "PHONE"
}

/** What the rules find, for messages and descriptions. */
export const meanings: Readonly<Record<Rule, string>> = {
  htmlComment: "HTML comments",
  script: "script blocks",
  scriptLink: "javascript: links",
  sql: "SQL injection",
  shell: "shell injection",
  injection: "instructions that override those of the system",
  hiddenText: "invisible characters that encode text",
  apiKey: "API keys and private keys",
  iban: "IBANs",
  card: "numbers of payment cards",
  email: "e-mail addresses",
  phone: "phone numbers"
}

/** What the input policy changed in a request. */
export interface PolicyUse {
  /** The names of what was replaced by placeholders, such as `EMAIL`. */
  readonly redacted?: ReadonlyArray<string>
  /** The paths of fields that were left out. */
  readonly dropped?: ReadonlyArray<string>
}

/** What to do with the fields of a body that its dialect does not have. */
export const unknownFieldModes = ["refuse", "drop", "pass"] as const
export type UnknownFieldMode = typeof unknownFieldModes[number]
