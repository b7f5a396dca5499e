/** Routing for operators: explanations, decision records, and open circuits. */
import { assert } from "@effect/vitest"
import { afterAll, beforeAll, describe, it } from "vitest"
import type { DecisionDetail } from "../../src/layers/http/AdminSchema.ts"
import type { Record as DecisionRecord } from "../../src/services/routing/DecisionRecord.ts"
import type { Explanation } from "../../src/services/routing/Explanation.ts"
import { invoke } from "../support/CommandLine.ts"
import type { Service } from "../support/Service.ts"
import { startService } from "../support/Service.ts"

const yaml = `
policies:
  once: { strategy: quality, retries: 0 }
models:
  fake/chain:
    preload: false
    policy: once
    deployments:
      - { engine: fake, reply: the first answers, quality: 0.9, fault: { kind: error, trigger: fail early } }
      - { engine: fake, reply: the second answers, quality: 0.8 }
  fake/remembered:
    preload: false
    policy: once
    fallbacks: [fake/spare, cached-responses]
    deployments: [{ engine: fake, reply: an answer to remember, abilities: [generate] }]
  fake/spare:
    preload: false
    policy: once
    deployments: [{ engine: fake, fault: { kind: error } }]
  fake/broken:
    preload: false
    policy: once
    deployments: [{ engine: fake, fault: { kind: error } }]
`

let service: Service

beforeAll(async () => {
  service = await startService(yaml)
})

afterAll(() => service.stop())

const get = (path: string, headers: Record<string, string> = {}) =>
  fetch(`${path.startsWith("/admin") ? service.admin : service.url}${path}`, { headers })

const post = (path: string, body: unknown, headers: Record<string, string> = {}) =>
  fetch(`${path.startsWith("/admin") ? service.admin : service.url}${path}`, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: JSON.stringify(body)
  })

const ask = (model: string, content: string, more: object = {}) =>
  post("/v1/chat/completions", { model, messages: [{ role: "user", content }], temperature: 0, ...more })

const json = async <A>(response: Response | Promise<Response>): Promise<A> => await (await response).json() as A

const errorOf = async (response: Response) =>
  (await json<
    { readonly error: { readonly code: string | null; readonly param: string | null; readonly message: string } }
  >(
    response
  )).error

describe("how a request was routed", () => {
  it("is found by the answer's decision ID, and in the list of the latest", async () => {
    const answer = await ask("fake/chain", "fail early, please")
    const id = answer.headers.get("x-troupe-decision")!
    await answer.text()
    const { replay, ...record } = await json<DecisionDetail>(get(`/admin/decisions/${id}`))
    assert.isFalse(replay!.possible)
    assert.deepInclude(record, { id, model: "fake/chain", policy: "once", answeredBy: "fake/chain#1", end: "success" })
    assert.deepStrictEqual(record.attempts.map(({ deployment, outcome }) => [deployment, outcome]), [
      ["fake/chain#0", "failed"],
      ["fake/chain#1", "answered"]
    ])
    assert.strictEqual(record.attempts[0]?.error?.reason, "EngineFailed")
    assert.notInclude(JSON.stringify(record), "please")
    const { decisions } = await json<{ readonly decisions: ReadonlyArray<DecisionRecord> }>(
      get("/admin/decisions?limit=1")
    )
    assert.deepStrictEqual(decisions, [record])

    const shown = await invoke(["decisions", id, "--url", service.url])
    assert.include(shown.stdout, "Answered by fake/chain#1")
    assert.include(shown.stdout, "fake/chain#0: EngineFailed: ")
    const listed = await invoke(["decisions", "--url", service.url])
    assert.match(listed.stdout, new RegExp(`${id} .* fake/chain +fake/chain#1 +2 .* answered`))
  })

  it("is reported as missing with a hint, and an invalid limit is rejected", async () => {
    const missing = await get("/admin/decisions/dec-nope")
    assert.strictEqual(missing.status, 404)
    const error = await errorOf(missing)
    assert.strictEqual(error.code, "decision_not_found")
    assert.include(error.message, "GET /admin/decisions")
    for (const limit of ["0", "1001", "1.5", "many"]) {
      const refused = await get(`/admin/decisions?limit=${limit}`)
      assert.strictEqual(refused.status, 400, limit)
      assert.strictEqual((await errorOf(refused)).param, "limit")
      const { code, stderr } = await invoke(["decisions", "--limit", limit, "--url", service.url])
      assert.strictEqual(code, 1)
      assert.include(stderr, "--limit")
    }
  })

  it("is available to local programs only", async () => {
    const elsewhere = { origin: "https://example.org" }
    for (const path of ["decisions", "decisions/dec-nope", "circuits", "circuits/events"]) {
      assert.strictEqual((await get(`/admin/${path}`, elsewhere)).status, 403, path)
    }
    assert.strictEqual((await post("/admin/route", {}, elsewhere)).status, 403)
  })
})

describe("how a request would be routed", () => {
  it("is explained without a call, and the request is routed as explained", async () => {
    const question = { model: "fake/chain", prompt: "Hello", route: { except: ["fake/chain#0"] } }
    const before = await json<object>(get("/admin/decisions"))
    const { decision, plan } = await json<Explanation>(post("/admin/route", question))
    assert.deepStrictEqual(plan.lists.ordinary, ["fake/chain#1"])
    assert.deepStrictEqual(decision.excluded, [{ deployment: "fake/chain#0", reason: "the request excludes it" }])
    assert.deepStrictEqual(await json<object>(get("/admin/decisions")), before)
    const answer = await ask("fake/chain", "Hello", { troupe: question.route })
    assert.strictEqual(answer.headers.get("x-troupe-deployment"), "fake/chain#1")
    await answer.text()
  })

  it("rejects unknown fields, models and deployments by name", async () => {
    const refusals = [
      [{ modl: "fake/chain" }, 400, "modl"],
      [{ needs: ["magic"] }, 400, "needs[0]"],
      [{ route: { deployments: ["fake/other#0"] } }, 400, "route.deployments[0]"],
      [{ model: "nope" }, 404, "model"]
    ] as const
    for (const [body, status, param] of refusals) {
      const refused = await post("/admin/route", body)
      assert.strictEqual(refused.status, status)
      assert.strictEqual((await errorOf(refused)).param, param)
    }
  })

  it("is printed by the command line from the running service", async () => {
    const { stdout } = await invoke(["route", "Hello", "--model", "fake/chain", "--explain", "--url", service.admin])
    assert.include(stdout, "Decision of the running service:")
    assert.include(stdout, "fake/chain#0 would answer for fake/chain (strategy quality, policy once).")
    assert.include(stdout, "Attempt plan")
  })
})

describe("a cached answer", () => {
  /** A request that only the failing spare deployment may answer. */
  const alone = { troupe: { except: ["fake/remembered#0"] } }

  interface Chunk {
    readonly choices: ReadonlyArray<{
      readonly delta: { readonly role?: string; readonly content?: string }
      readonly finish_reason: string | null
    }>
    readonly usage?: { readonly total_tokens: number } | null
  }

  it("replaces a failure, buffered and streamed, for the same caller only", async () => {
    const given = await ask("fake/remembered", "Hello")
    assert.isNull(given.headers.get("x-troupe-cache"))
    const { usage } = await json<{ readonly usage: { readonly total_tokens: number } }>(given)

    const whole = await ask("fake/remembered", "Hello", alone)
    assert.strictEqual(whole.headers.get("x-troupe-cache"), "hit")
    assert.strictEqual(whole.headers.get("x-troupe-deployment"), "cached-responses")
    assert.strictEqual(whole.headers.get("x-troupe-attempts"), "2")
    interface Body {
      readonly choices: ReadonlyArray<{ readonly message: { readonly content: string } }>
    }
    assert.strictEqual((await json<Body>(whole)).choices[0]?.message.content, "an answer to remember")

    const streamed = await ask("fake/remembered", "Hello", {
      ...alone,
      stream: true,
      stream_options: { include_usage: true }
    })
    assert.strictEqual(streamed.headers.get("x-troupe-cache"), "hit")
    const frames = (await streamed.text()).trim().split("\n\n").map((frame) => frame.slice("data: ".length))
    assert.strictEqual(frames.at(-1), "[DONE]")
    const chunks = frames.slice(0, -1).map((frame) => JSON.parse(frame) as Chunk)
    assert.strictEqual(chunks[0]?.choices[0]?.delta.role, "assistant")
    const content = chunks.map(({ choices: [choice] }) => choice?.delta.content ?? "").join("")
    assert.strictEqual(content, "an answer to remember")
    assert.deepStrictEqual(chunks.flatMap(({ choices: [choice] }) => choice?.finish_reason ?? []), ["stop"])
    assert.strictEqual(chunks.at(-1)?.usage?.total_tokens, usage.total_tokens)

    const other = await post("/v1/chat/completions", {
      model: "fake/remembered",
      messages: [{ role: "user", content: "Hello" }],
      temperature: 0,
      ...alone
    }, { authorization: "Bearer somebody-else" })
    assert.strictEqual(other.status, 500)
    assert.include(await other.text(), "engine_failed")
  })

  it("is the end of the plan that is explained", async () => {
    const { plan } = await json<Explanation>(post("/admin/route", { model: "fake/remembered", needs: ["tools"] }))
    assert.strictEqual(plan.lists.ordinary.at(-1), "cached-responses")
  })
})

describe("circuits", () => {
  it("are reported when they open, by the state and by ps, and exclude their deployment", async () => {
    const { body } = await get("/admin/circuits/events")
    const reader = body!.pipeThrough(new TextDecoderStream()).getReader()
    let seen = (await reader.read()).value ?? ""
    for (let index = 0; index < 5; index++) await (await ask("fake/broken", "Hello")).text()
    while (!seen.includes("data: ")) seen += (await reader.read()).value ?? ""
    await reader.cancel()
    const change = JSON.parse(/data: (.*)/.exec(seen)![1]!) as object
    assert.deepInclude(change, { deployment: "fake/broken#0", from: "closed", to: "open" })

    interface Circuit {
      readonly deployment: string
      readonly phase: string
      readonly retryAfterMs: number
    }
    const { circuits } = await json<{ readonly circuits: ReadonlyArray<Circuit> }>(get("/admin/circuits"))
    const open = circuits.filter(({ phase }) => phase === "open")
    assert.deepStrictEqual(open.map(({ deployment }) => deployment), ["fake/broken#0"])
    assert.isAbove(open[0]!.retryAfterMs, 0)

    const listed = (await invoke(["ps", "--url", service.url])).stdout.split("\n")
    const lineOf = (deployment: string) => listed.find((line) => line.startsWith(deployment))
    assert.match(lineOf("fake/broken#0")!, /ready, circuit open .*after failures; retry in \d+ s/)
    assert.notInclude(lineOf("fake/chain#1"), "circuit")

    const { decision, plan } = await json<Explanation>(post("/admin/route", { model: "fake/broken" }))
    assert.deepStrictEqual([plan.lists.ordinary, plan.lists.held], [[], ["fake/broken#0"]])
    assert.include(decision.excluded[0]?.reason, "its circuit is open after")
    const route = await invoke(["route", "--model", "fake/broken", "--url", service.admin])
    assert.match(route.stdout, /No deployment can answer this request for fake\/broken.* in \d+(\.\d+)? s/s)
  })
})
