import { assert, describe, it } from "@effect/vitest"
import { Duration } from "effect"
import { readFileSync } from "node:fs"
import { memoryPressure } from "../../../src/domain/Defaults.ts"
import { durationText } from "../../../src/domain/Fields.ts"
import type { AlertRule } from "../../../src/services/alerts/AlertRule.ts"
import { defaultRules, metricNames, metrics, valueText } from "../../../src/services/alerts/AlertRule.ts"

const docs = readFileSync(new URL("../../../docs/observability.md", import.meta.url), "utf8")

const rowOf = ({ actions, clear, for: hold, metric, name, severity, threshold, window }: AlertRule): string => {
  const span = (duration: Duration.Duration) =>
    Duration.toMillis(duration) === 0 ? "at once" : durationText(Duration.toMillis(duration))
  const cells = [
    `\`${name}\``,
    `\`${metric}\``,
    valueText(metric, threshold),
    valueText(metric, clear),
    metrics[metric].overWindow ? durationText(Duration.toMillis(window)) : "",
    span(hold),
    severity,
    actions.join(", ")
  ]
  return `| ${cells.join(" | ")} |`.replaceAll("|  |", "| |")
}

describe("a default rule", () => {
  it.each(defaultRules.map((rule) => [rule.name, rule] as const))("%s is documented as it is", (_, rule) => {
    assert.include(docs, rowOf(rule))
  })

  it("has a name of its own, and a clear value of at most its threshold", () => {
    assert.strictEqual(new Set(defaultRules.map(({ name }) => name)).size, defaultRules.length)
    for (const { clear, threshold } of defaultRules) assert.isAtMost(clear, threshold)
  })

  it("about memory has the levels of the memory pressure", () => {
    const rule = defaultRules.find(({ name }) => name === "emergency_memory")!
    assert.strictEqual(rule.threshold, memoryPressure.emergency)
    assert.closeTo(rule.clear, memoryPressure.emergency - memoryPressure.hysteresis, 1e-9)
    assert.include(rule.actions, "emergency_memory")
  })
})

describe("a metric of rules", () => {
  it.each(metricNames)("%s is documented", (name) => {
    const { meaning, of, unit } = metrics[name]
    assert.include(docs, `| \`${name}\` | ${of} | ${unit} | ${meaning} |`)
  })
})
