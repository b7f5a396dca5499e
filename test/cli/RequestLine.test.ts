/** The log entry of a request as text. */
import { assert } from "@effect/vitest"
import * as fc from "fast-check"
import { describe, it } from "vitest"
import * as RequestLine from "../../src/cli/RequestLine.ts"
import type { Entry } from "../../src/services/observability/RequestLog.ts"
import { fieldsOf, messageOf } from "../../src/services/observability/RequestLog.ts"

const name = fc.oneof(fc.constantFrom("chat", "a \"b\"\n", "é\u2028"), fc.string({ unit: "binary" }))
const some = <A>(of: fc.Arbitrary<A>) => fc.option(of, { nil: undefined })
const entries: fc.Arbitrary<Entry> = fc.record({
  operation: name,
  model: name,
  end: fc.constantFrom("success", "failure", "interruption"),
  decision: name,
  deployment: some(name),
  attempts: fc.nat(9),
  cache: some(name),
  ms: fc.double({ min: 0, max: 1e9, noNaN: true }),
  firstTokenMs: some(fc.nat()),
  inputTokens: some(fc.nat()),
  outputTokens: fc.nat(),
  usd: some(fc.oneof(fc.double(), fc.constantFrom(1e-9, Number.NaN))),
  unpriced: some(fc.nat(9)),
  error: some(name),
  status: some(fc.nat(599)),
  code: some(name),
  detail: some(name),
  key: some(name),
  check: some(fc.constantFrom("health", "probe"))
})
const ids = fc.oneof(fc.constant({}), fc.record({ request_id: name }, { requiredKeys: ["request_id"] }))

describe("the entry of a request as JSON", () => {
  it("is what JSON.stringify makes of its fields", () => {
    const timestamp = "2026-01-02T03:04:05.678Z"
    fc.assert(fc.property(entries, ids, (entry, ids) => {
      assert.strictEqual(
        RequestLine.json(entry, ids, timestamp),
        JSON.stringify({
          timestamp,
          level: entry.end === "failure" ? "WARN" : "INFO",
          message: messageOf(entry),
          ...ids,
          ...fieldsOf(entry)
        })
      )
    }))
  })
})
