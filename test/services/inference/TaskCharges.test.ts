/** What tasks with one buffered result are charged, however they end: for every operation, at every point. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import type { Scenario, Script, TaskName } from "../../support/ScriptedProviders.ts"
import { observe, taskNames } from "../../support/ScriptedProviders.ts"

const options: NonNullable<Scenario["options"]> = {
  provider: "troupe",
  key: Redacted.make("sk-secret")
}

const usage = { prompt_tokens: 20, total_tokens: 20 }
const vector = (index: number) => ({ object: "embedding", index, embedding: [1, 0] })

const answers: Readonly<Record<TaskName, object>> = {
  embed: { object: "list", data: [vector(0), vector(1)], usage },
  embedNative: { object: "list", data: [vector(0)], usage },
  rerank: { results: [{ index: 0, relevance_score: 0.5 }, { index: 1, relevance_score: 0.2 }], usage },
  classify: {
    data: [{ predictions: [{ label: "a", score: 1 }] }, { predictions: [{ label: "b", score: 1 }] }],
    usage
  },
  tokenize: { tokens: [1, 2] },
  count: { tokens: [1, 2] }
}

/** Those whose providers count tokens free of charge, too: the ledger ignores them. */
const free: ReadonlySet<TaskName> = new Set<TaskName>(["tokenize", "count"])

const json = (value: unknown, more: Partial<Script> = {}): Script => ({
  headers: { "content-type": "application/json" },
  pieces: [[10, Buffer.from(JSON.stringify(value))]],
  ...more
})

const chargesOf = (operation: TaskName, script: Script | ReadonlyArray<Script>, leavesMs?: number) =>
  Effect.map(
    observe(
      { scripts: [[script].flat()], policy: { retries: 0 }, options, leavesMs },
      { operation, starts: false }
    ),
    ({ observation: { charges, end } }) => ({
      end: typeof end === "string" ? end : "failure",
      charges: charges.map((charge) => {
        const { isEstimated, usage } = charge as { readonly isEstimated: boolean; readonly usage: object }
        return { ...usage, isEstimated }
      })
    })
  )

const counted = (promptTokens: number) => ({ promptTokens, completionTokens: 0, cachedTokens: 0, isEstimated: false })

/** The estimate of the request. */
const estimated = { promptTokens: undefined, completionTokens: 0, cachedTokens: 0, isEstimated: true }

describe.each(taskNames)("the task %s", (operation) => {
  const isFree = free.has(operation)

  it.live("is charged what its provider counts", () =>
    Effect.map(chargesOf(operation, json(answers[operation])), (seen) => {
      assert.deepStrictEqual(seen, { end: "success", charges: [counted(isFree ? 2 : 20)] })
    }))

  it.live("is charged an estimate of its inputs where its provider counts nothing", () =>
    Effect.map(chargesOf(operation, json({ ...answers[operation], usage: undefined })), ({ charges, end }) => {
      const [charge] = charges as ReadonlyArray<Partial<ReturnType<typeof counted>>>
      assert.strictEqual(end, "success")
      assert.strictEqual(charges.length, 1)
      assert.strictEqual(charge?.isEstimated, !isFree)
      assert.isAbove(charge?.promptTokens ?? 0, 1)
    }))

  it.live("is charged its estimate where the caller leaves after it was sent, and before it was answered", () =>
    Effect.gen(function*() {
      const expected = { end: "left", charges: isFree ? [] : [estimated] }
      assert.deepStrictEqual(yield* chargesOf(operation, { pieces: [], end: "silent" }, 50), expected)
      assert.deepStrictEqual(yield* chargesOf(operation, json(answers[operation], { end: "stall" }), 50), expected)
    }))

  it.live("costs nothing where the caller leaves before it is sent", () =>
    Effect.map(chargesOf(operation, json(answers[operation]), 0), (seen) => {
      assert.deepStrictEqual(seen, { end: "left", charges: [] })
    }))

  it.live("costs nothing where the provider refuses it or cannot be reached", () =>
    Effect.gen(function*() {
      const error = { error: { message: "No.", type: "server_error" } }
      const refused = { end: "failure", charges: [] }
      assert.deepStrictEqual(yield* chargesOf(operation, json(error, { status: 500 })), refused)
      assert.deepStrictEqual(yield* chargesOf(operation, { pieces: [], end: "refused" }), refused)
      assert.deepStrictEqual(yield* chargesOf(operation, json({ data: [], results: [] })), refused)
    }))

  it.live("is charged what the provider counts for an answer that is wrong", () =>
    Effect.map(chargesOf(operation, json({ data: [], results: [], usage })), (seen) => {
      const charges = isFree ? [] : [{ ...counted(20), isEstimated: true }]
      assert.deepStrictEqual(seen, { end: "failure", charges })
    }))
})

describe.each(["embed", "classify"] as const)("the task %s with an input that its provider refuses", (operation) => {
  const wrong = json({ error: { message: "No.", type: "invalid_request_error" } }, { status: 400 })
  const one = (usage?: object) =>
    json(
      operation === "embed"
        ? { object: "list", data: [vector(0)], usage }
        : { data: [{ predictions: [{ label: "a", score: 1 }] }], usage }
    )
  const ofOne = { prompt_tokens: 7, total_tokens: 7 }

  it.live("is charged the inputs that succeeded", () =>
    Effect.gen(function*() {
      const charged = (charge: object) => ({ end: "failure", charges: [charge] })
      const counts = { ...counted(7), isEstimated: true }
      assert.deepStrictEqual(yield* chargesOf(operation, [wrong, one(ofOne), wrong]), charged(counts))
      assert.deepStrictEqual(yield* chargesOf(operation, [wrong, wrong, one(ofOne)]), charged(counts))
      assert.deepStrictEqual(
        yield* chargesOf(operation, [wrong, one(), wrong]),
        charged({ ...counted(2), isEstimated: true })
      )
    }))

  it.live("is charged the inputs that succeeded before the provider failed", () =>
    Effect.map(
      chargesOf(operation, [wrong, one(ofOne), json({ error: { message: "No." } }, { status: 500 })]),
      (seen) => {
        assert.deepStrictEqual(seen, { end: "failure", charges: [{ ...counted(7), isEstimated: true }] })
      }
    ))

  it.live("costs nothing where every input is refused", () =>
    Effect.map(chargesOf(operation, wrong), (seen) => {
      assert.deepStrictEqual(seen, { end: "failure", charges: [] })
    }))
})
