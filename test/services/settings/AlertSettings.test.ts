import { assert, describe, it } from "@effect/vitest"
import { Duration, Redacted } from "effect"
import { inspect } from "node:util"
import { defaultRules } from "../../../src/services/alerts/AlertRule.ts"
import * as SettingsDiff from "../../../src/services/settings/SettingsDiff.ts"
import { problems, resolved } from "./support.ts"

const alerts = (section: object, variables = {}) => resolved({ alerts: section }, { variables }).alerts!
const ruleOf = (rules: object, name: string) => alerts({ rules }).rules.find((rule) => rule.name === name)

describe("the section alerts", () => {
  it("changes the default rules, turns them off, and adds others", () => {
    const rules = {
      latency: false,
      error_rate: { threshold: 0.2 },
      slow_chat: { metric: "first_token_p95", threshold: 2, for: "2 minutes", targets: ["chat*"], severity: "critical" }
    }
    const names = alerts({ rules }).rules.map(({ name }) => name)
    assert.sameMembers(names, [
      ...defaultRules.map(({ name }) => name).filter((name) => name !== "latency"),
      "slow_chat"
    ])
    const usual = defaultRules.find(({ name }) => name === "error_rate")
    assert.deepStrictEqual(ruleOf(rules, "error_rate"), { ...usual!, threshold: 0.2 })
    assert.deepInclude(ruleOf(rules, "slow_chat"), {
      threshold: 2,
      clear: 2,
      for: Duration.minutes(2),
      window: Duration.minutes(5),
      minRequests: 20
    })
  })

  it("keeps the clear value of a default rule at most at its threshold", () => {
    assert.deepInclude(ruleOf({ error_rate: { threshold: 0.01 } }, "error_rate"), { threshold: 0.01, clear: 0.01 })
  })

  it("fires at once with for: false", () => {
    assert.isTrue(Duration.isZero(ruleOf({ error_rate: { for: false } }, "error_rate")!.for))
  })

  it.each<[string, object, string]>([
    ["a rule without a metric", { slow: { threshold: 2 } }, "alerts.rules.slow"],
    ["a misspelt default rule", { error_rates: { for: "1 minute" } }, "alerts.rules.error_rates"],
    ["a clear value above the threshold", { error_rate: { clear: 0.5 } }, "alerts.rules.error_rate.clear"],
    ["a share above 1", { error_rate: { threshold: 5 } }, "alerts.rules.error_rate.threshold"],
    ["a threshold of 0", { error_rate: { threshold: 0 } }, "alerts.rules.error_rate.threshold"],
    ["a window above a day", { error_rate: { window: "25 hours" } }, "alerts.rules.error_rate.window"],
    ["targets of the service", { emergency_memory: { targets: ["x"] } }, "alerts.rules.emergency_memory.targets"],
    ["an unknown action", { error_rate: { actions: ["mail"] } }, "alerts.rules.error_rate.actions[0]"],
    ["a name with capitals", { Slow: { metric: "latency_p95", threshold: 1 } }, "alerts.rules.Slow"],
    ["false for a rule that is not a default one", { slow: false }, "alerts.rules.slow"]
  ])("refuses %s by its path", (_, rules, path) => {
    assert.deepStrictEqual(problems({ alerts: { rules } }).map((one) => one.path), [path])
  })

  const file = { alerts: { webhook: { url: "${HOOK}", secret: "${SECRET}" } } }
  const variables = { HOOK: "https://hooks.example.com/T0K3N", SECRET: "a secret of the webhook" }

  it("takes the webhook and its secret from the environment, and shows neither", () => {
    const { webhook } = resolved(file, { variables }).alerts!
    assert.strictEqual(Redacted.value(webhook!.secret!), variables.SECRET)
    assert.deepInclude(webhook, { timeout: Duration.seconds(5), attempts: 6, queue: 100 })
    const shown = SettingsDiff.shown(SettingsDiff.diff(resolved({}), resolved(file, { variables })))
    const text = inspect(webhook, { depth: 5 }) + JSON.stringify([webhook, shown])
    for (const secret of ["T0K3N", variables.SECRET]) assert.notInclude(text, secret)
  })

  it("refuses a secret in the file, and one whose variable is not set", () => {
    const literal = { alerts: { webhook: { url: "https://hooks.example.com", secret: "written down" } } }
    assert.deepStrictEqual(problems(literal).map(({ path }) => path), ["alerts.webhook.secret"])
    const unset = problems(file, { variables: { HOOK: variables.HOOK } })
    assert.deepStrictEqual(unset.map(({ path }) => path), ["alerts.webhook.secret"])
    assert.include(unset[0]!.expected, "SECRET")
  })

  it("is compared rule by rule", () => {
    const changed = resolved({ alerts: { rules: { error_rate: { threshold: 0.2 }, latency: false } } })
    const shown = SettingsDiff.shown(SettingsDiff.diff(resolved({}), changed))
    assert.deepStrictEqual(shown.map(({ change, needsRestart, path }) => [path, change, needsRestart]), [
      ["alerts.rules.error_rate.threshold", "changed", false],
      ["alerts.rules.latency", "removed", false]
    ])
  })
})
