/** Reranking by the llama engine, with a model whose scores are known: in a thread, and over HTTP in a child process. */
import { assert } from "@effect/vitest"
import * as fc from "fast-check"
import { afterAll, beforeAll, describe, it } from "vitest"
import type { EngineHost } from "../../src/domain/EngineProtocol.ts"
import type { EngineFailure, Job, JobResult } from "../../src/domain/Job.ts"
import { makePoolHost } from "../../src/layers/engines/PoolHost.ts"
import { contextWindow, scoreOf, tokensOf, writeRankingModel } from "../support/RankingModel.ts"
import { startService, temporaryFolder } from "../support/Service.ts"

const folder = temporaryFolder()
const file = writeRankingModel(folder.path)
afterAll(() => folder[Symbol.dispose]())

const words = fc.array(fc.constantFrom("red", "fox", "blue", "whale", "a", "the"), { minLength: 1, maxLength: 12 })
  .map((all) => all.join(" "))

/** Attention is computed in half precision: the largest observed error is 0.00012; a missing separator changes 0.01. */
const close = 5e-4

describe("in a thread", () => {
  let host: EngineHost
  beforeAll(async () => {
    host = makePoolHost({
      spec: { engine: "llama", file, slots: 2, threads: 1 },
      replicas: 1,
      cancelGraceMs: 10_000,
      closeGraceMs: 10_000
    })
    await host.ready
  })
  afterAll(() => host.close())

  const answer = (job: Job): Promise<JobResult | EngineFailure> =>
    new Promise((resolve) => {
      host.start(job, (events) => {
        const last = events.at(-1)
        if (last?.type === "result") resolve(last.result)
        if (last?.type === "failed") resolve(last.failure)
      })
    })

  const rankOne = async (query: string, documents: ReadonlyArray<string>) => {
    const result = await answer({ kind: "rerank", requests: [{ query, documents }] })
    return result.kind === "rerank" ? result.rankings[0] : assert.fail(JSON.stringify(result))
  }

  /** The failure of the first query. */
  const refused = async (query: string, documents: ReadonlyArray<string>) => {
    const each = await rankOne(query, documents)
    return each?.ok === false ? each.failure : assert.fail(JSON.stringify(each))
  }

  const rerank = async (query: string, documents: ReadonlyArray<string>) => {
    const each = await rankOne(query, documents)
    return each?.ok === true ? each.value : assert.fail(JSON.stringify(each))
  }

  it("supports ranking and token counts, but neither text nor vectors", async () => {
    assert.deepStrictEqual([...(await host.ready).capabilities].sort(), ["rerank", "tokenize"])
    assert.strictEqual((await answer({ kind: "embed", inputs: ["a fox"] })).kind, "not_supported")
  })

  it("gives each document its score with the query, independent of other documents", async () => {
    await fc.assert(
      fc.asyncProperty(words, fc.array(words, { minLength: 1, maxLength: 6 }), async (query, documents) => {
        const { promptTokens, scores } = await rerank(query, documents)
        assert.strictEqual(
          promptTokens,
          documents.reduce((sum, document) => sum + tokensOf(query, document).length, 0)
        )
        for (const [index, document] of documents.entries()) {
          assert.closeTo(scores[index]!, scoreOf(query, document), close)
        }
      }),
      { numRuns: 30 }
    )
  })

  it("gives the same scores to the last digit in any order, and to several callers at once", async () => {
    const documents = ["a red fox", "the whale", "blue", "a blue whale", "fox fox fox"]
    const { scores } = await rerank("red fox", documents)
    assert.strictEqual(new Set(scores).size, documents.length)
    const turned = await Promise.all(Array.from({ length: 4 }, () => rerank("red fox", documents.toReversed())))
    for (const one of turned) assert.deepStrictEqual(one.scores.toReversed(), scores)
  })

  it("ranks for several queries in one job; an invalid one fails alone", async () => {
    const single = await rerank("red fox", ["the whale", "a red fox"])
    const result = await answer({
      kind: "rerank",
      requests: [
        { query: "whale", documents: [""] },
        { query: "red fox", documents: ["the whale", "a red fox"] }
      ]
    })
    const [first, second] = result.kind === "rerank" ? result.rankings : assert.fail(JSON.stringify(result))
    assert.deepInclude(first, { ok: false })
    assert.deepStrictEqual(second, { ok: true, value: single })
  })

  it("treats the name of a control token as ordinary text", async () => {
    const { promptTokens } = await rerank("red [SEP] fox", ["[CLS]"])
    // Neither is in the vocabulary, so a bracket is an unknown token and so are the letters: more than one each.
    assert.isAbove(promptTokens, tokensOf("red fox fox", "fox").length)
  })

  it("rejects empty texts by their path, and too long texts by their length", async () => {
    assert.deepInclude(await refused("", ["a"]), {
      kind: "invalid_request",
      path: "query"
    })
    assert.deepInclude(await refused("a", ["a", ""]), {
      kind: "invalid_request",
      path: "documents[1]"
    })
    const most = contextWindow - tokensOf("a", "a").length
    assert.strictEqual((await rerank("a", ["a ".repeat(most)])).promptTokens, contextWindow - 1)
    assert.deepStrictEqual(await refused("a", ["a ".repeat(most + 1)]), {
      kind: "context_length_exceeded",
      promptTokens: contextWindow,
      contextWindow
    })
  })
})

describe("over HTTP", () => {
  it("orders documents by the model's score", async () => {
    const service = await startService(
      `models:\n  ranks:\n    deployments:\n      - { engine: llama, file: ${JSON.stringify(file)} }\n`
    )
    try {
      const [query, documents] = ["red fox", ["a blue whale", "a red fox", "the fox"]]
      const response = await fetch(`${service.url}/v1/rerank`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ model: "ranks", query, documents })
      })
      const { results, usage } = await response.json() as {
        readonly results: ReadonlyArray<{ readonly index: number; readonly relevance_score: number }>
        readonly usage: { readonly total_tokens: number }
      }
      const expected = documents.map((document) => scoreOf(query, document))
      assert.deepStrictEqual(
        results.map(({ index }) => index),
        [...expected.keys()].sort((a, b) => expected[b]! - expected[a]!)
      )
      for (const one of results) assert.closeTo(one.relevance_score, expected[one.index]!, close)
      assert.strictEqual(usage.total_tokens, documents.flatMap((document) => tokensOf(query, document)).length)
    } finally {
      await service.stop()
    }
  })
})
