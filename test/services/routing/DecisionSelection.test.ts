import { assert, describe, it } from "@effect/vitest"
import type { Record } from "../../../src/services/routing/DecisionRecord.ts"
import { merge, problemOf, select } from "../../../src/services/routing/DecisionSelection.ts"

const record = (id: string, at: number, more: Partial<Record> = {}): Record =>
  ({ id, at, model: "chat", attempts: [], end: "success", ...more }) as unknown as Record

const idsOf = ({ decisions }: { readonly decisions: ReadonlyArray<Record> }) => decisions.map(({ id }) => id)

const tried = (...deployments: ReadonlyArray<string>) =>
  deployments.map((deployment) => ({ deployment, startedMs: 0, outcome: "failed" as const }))

const all = [
  record("a-1", 1, {
    end: "failure",
    error: { reason: "QueueFull", message: "", status: 429 },
    attempts: tried("chat#0")
  }),
  record("a-2", 2, { model: "other", tenant: "t", key: "k" }),
  record("a-3", 3, { attempts: tried("chat#0"), answeredBy: "chat#1" }),
  { ...record("a-4", 4), end: undefined } as unknown as Record
]

describe("select", () => {
  it.each([
    [{}, ["a-4", "a-3", "a-2", "a-1"]],
    [{ model: "other" }, ["a-2"]],
    [{ deployment: "chat#0" }, ["a-3", "a-1"]],
    [{ deployment: "chat#1" }, ["a-3"]],
    [{ status: "failure" }, ["a-1"]],
    [{ status: "running" }, ["a-4"]],
    [{ status: "ended" }, ["a-3", "a-2", "a-1"]],
    [{ status: "429" }, ["a-1"]],
    [{ tenant: "t" }, ["a-2"]],
    [{ key: "k", model: "chat" }, []],
    [{ since: 3 }, ["a-4", "a-3"]]
  ])("finds %o", (selection, expected) => {
    assert.deepStrictEqual(idsOf(select(all, { ...selection, limit: 10 })), expected)
  })

  it("has every record on one page, of several processes as well", () => {
    const processes = ["a", "b"].map((name) =>
      Array.from({ length: 40 }, (_, index) => record(`${name}-${index.toString(36)}`, Math.floor(index / 7)))
    )
    const seen: Array<string> = []
    let cursor: string | undefined
    do {
      const selection = { limit: 9, cursor }
      const page = merge(processes.map((records) => select(records, selection)), selection.limit)
      seen.push(...idsOf(page))
      cursor = page.next
    } while (cursor !== undefined)
    assert.strictEqual(seen.length, 80)
    assert.strictEqual(new Set(seen).size, 80)
    assert.deepStrictEqual(seen.slice(0, 4), ["b-13", "b-12", "b-11", "b-10"])
  })
})

describe("problemOf", () => {
  it("accepts the cursor of a page", () => {
    const { next } = select(all, { limit: 1 })
    assert.isUndefined(problemOf({ limit: 1, cursor: next }))
    assert.strictEqual(problemOf({ limit: 1, cursor: "3" })?.path, "cursor")
  })
})
