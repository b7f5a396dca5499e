/** The live view of a service in this process. */
import { assert, it as effect } from "@effect/vitest"
import { Effect, Queue } from "effect"
import { afterAll, describe, it } from "vitest"
import { toldRefusals } from "../../../src/domain/Defaults.ts"
import { Troupe } from "../../../src/index.ts"
import { mostWaiting, Waiting } from "../../../src/layers/http/AdminLive.ts"
import type { LiveEvent } from "../../../src/layers/http/AdminLive.ts"
import * as AdminOverview from "../../../src/layers/http/AdminOverview.ts"
import type { DecisionDetail, Replay } from "../../../src/layers/http/AdminSchema.ts"
import type { Overview } from "../../../src/layers/http/OverviewSchema.ts"
import type { DecisionSummary } from "../../../src/services/routing/DecisionSummary.ts"

const boss = "boss-key-0123456789"
const app = "app-key-0123456789"

const troupe = Troupe.start({
  config: {
    decisions: { keepBodies: 1 },
    keys: { app: { key: app }, boss: { key: boss, admin: true } },
    models: {
      "fake/chat": { deployments: [{ engine: "fake", fault: { kind: "error" } }], fallbacks: ["fake/second"] },
      "fake/second": { deployments: [{ engine: "fake", reply: "Snow is white." }] },
      "fake/broken": { deployments: [{ engine: "fake", fault: { kind: "error" } }] }
    }
  }
})
afterAll(() => troupe.close())

const origin = "https://models.example"

const get = (path: string, key = boss, signal?: AbortSignal) =>
  troupe.handler(
    new Request(`${origin}${path}`, {
      headers: { authorization: `Bearer ${key}` },
      ...(signal === undefined ? {} : { signal })
    })
  )

const ask = (model: string, content: string) =>
  troupe.handler(
    new Request(`${origin}/v1/chat/completions`, {
      method: "POST",
      headers: { "content-type": "application/json", authorization: `Bearer ${app}` },
      body: JSON.stringify({ model, messages: [{ role: "user", content }], temperature: 0 })
    })
  )

const postTo = (path: string) =>
  troupe.handler(new Request(`${origin}${path}`, { method: "POST", headers: { authorization: `Bearer ${boss}` } }))

const overviewOf = async () => await (await get("/admin/overview")).json() as Overview

interface Read {
  readonly event: string
  readonly data: unknown
}

/** Reads events until the function has found what it looks for; then the stream is left. */
const watch = async <A>(
  path: string,
  then: () => Promise<unknown>,
  find: (read: Read) => A | undefined
): Promise<A> => {
  const leave = new AbortController()
  const response = await get(path, boss, leave.signal)
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader()
  let text = (await reader.read()).value ?? ""
  assert.include(text, ": watching")
  await then()
  for (;;) {
    for (const frame of text.split("\n\n").slice(0, -1)) {
      const [, event, data] = /^event: (\w+)\ndata: (.*)$/.exec(frame) ?? []
      const found = event === undefined ? undefined : find({ event, data: JSON.parse(data!) })
      if (found === undefined) continue
      await reader.cancel()
      return found
    }
    const { done, value } = await reader.read()
    if (done) throw new Error("The stream has ended.")
    text = `${text.slice(text.lastIndexOf("\n\n") + 2)}${value}`
  }
}

const requestIn = ({ data, event }: Read) => event === "request" ? data as DecisionSummary : undefined

describe("the events that wait for a reader", () => {
  const refused = (id: string) => ({ id, status: "failure", refused: true }) as unknown as DecisionSummary
  const frameOf = (id: string) => ({ frame: `event: request\ndata: ${JSON.stringify(refused(id))}\n\n` })

  effect.effect("have the refused requests of all processes up to the limit of a second", () =>
    Effect.gen(function*() {
      let now = 0
      const waiting = new Waiting(yield* Queue.dropping<LiveEvent>(100), () => now)
      const add = (count: number) => {
        for (let index = 0; index < count; index++) {
          waiting.add({ event: "request", data: refused(`own-${now}-${index}`) })
          waiting.add(frameOf(`other-${now}-${index}`))
        }
        waiting.add({ frame: `event: request\ndata: ${JSON.stringify({ model: "\"refused\":true" })}\n\n` })
      }
      add(10)
      now = 1_000
      add(2)
      const texts = (yield* Queue.takeAll(waiting.queue)).map((event) => waiting.textOf([event]))
      assert.strictEqual(texts.filter((text) => text.includes("-0-")).length, toldRefusals)
      assert.strictEqual(texts.filter((text) => text.includes("-1000-")).length, 4)
      assert.strictEqual(texts.length, toldRefusals + 4 + 2)
    }))
})

describe("the live view", () => {
  it("sends each request that has ended, with its deployments, times and caller", async () => {
    let response: Response | undefined
    const request = await watch("/admin/live", async () => {
      response = await ask("fake/chat", "Please break.")
      await response.text()
    }, requestIn)
    assert.deepInclude(request, {
      id: response!.headers.get("x-troupe-decision")!,
      requestId: response!.headers.get("x-request-id")!,
      model: "fake/chat",
      deployment: "fake/second#0",
      dialect: "openai",
      status: "success",
      key: "app",
      attempts: 2,
      failed: ["fake/chat#0"]
    })
    assert.isAbove(request.outputTokens!, 0)
    const { deployments, models, service } = await overviewOf()
    const countsOf = (index: number) => {
      const { failed, requests } = deployments[index]!.figures[1]!
      return { failed, requests }
    }
    assert.deepStrictEqual([countsOf(0), countsOf(1)], [{ failed: 1, requests: 1 }, { failed: 0, requests: 1 }])
    assert.deepInclude(models[0]!.figures[0], { requests: 1, failed: 0 })
    assert.deepInclude(service, { inFlight: 0, processes: 1, errorRate: 0 })
  })

  it("sends a failed request with its error", async () => {
    const request = await watch(
      "/admin/live?events=request",
      async () => await (await ask("fake/broken", "Hello")).text(),
      requestIn
    )
    assert.deepInclude(request, { model: "fake/broken", status: "failure", failed: ["fake/broken#0"] })
    assert.strictEqual(request.error?.reason, "EngineFailed")
  })

  it("sends an overview at once", async () => {
    const overview = await watch(
      "/admin/live?events=overview",
      async () => {},
      ({ data, event }) => event === "overview" ? data as Overview : undefined
    )
    assert.deepStrictEqual(overview.deployments.map(({ deployment }) => deployment), [
      "fake/chat#0",
      "fake/second#0",
      "fake/broken#0"
    ])
  })

  it("ends the streams of a reader whose key was revoked, and says that the key is not accepted", async () => {
    const send = (path: string, body?: object) =>
      troupe.handler(
        new Request(`${origin}${path}`, {
          method: "POST",
          headers: { "content-type": "application/json", authorization: `Bearer ${boss}` },
          ...(body === undefined ? {} : { body: JSON.stringify(body) })
        })
      )
    const created = await send("/admin/keys", { name: "reader", admin: true })
    const { secret } = await created.json() as { readonly secret: string }
    const streams = await Promise.all(
      ["/admin/live?events=request", "/admin/deployments/events"].map((path) => get(path, secret))
    )
    const ends = Promise.all(streams.map((stream) => stream.text()))
    assert.strictEqual((await send("/admin/keys/reader/revoke")).status, 200)
    assert.deepStrictEqual(await ends, [": watching\n\n", ": watching\n\n"])
    const refused = await get("/admin/overview", secret)
    assert.strictEqual(refused.status, 401)
    assert.match(await refused.text(), /key or token that was sent is not accepted/)
  })

  it.each([
    ["/admin/live?events=request,traces", boss, 400, /traces.*Expected some of overview, request, event/],
    ["/admin/live?event=request", boss, 400, /Did you mean events\?/],
    ["/admin/live", app, 403, /not an admin key/],
    ["/admin/overview", app, 403, /not an admin key/]
  ])("refuses %s", async (path, key, status, message) => {
    const response = await get(path, key)
    assert.strictEqual(response.status, status)
    assert.match(await response.text(), message)
  })

  it("adds the overviews of processes", async () => {
    const one = await overviewOf()
    const { deployments, service } = AdminOverview.sumOf(one, [one, one])
    const [, five] = deployments[1]!.figures
    assert.deepInclude(five, { requests: 3, failed: 0 })
    assert.strictEqual(five!.durationMs.count, 3)
    assert.deepStrictEqual([service.processes, service.figures[1]!.requests], [3, 3 * one.service.figures[1]!.requests])
  })

  it("sends a request again that was a stream, as the administrator's own", async () => {
    const streamed = await troupe.handler(
      new Request(`${origin}/v1/chat/completions`, {
        method: "POST",
        headers: { "content-type": "application/json", authorization: `Bearer ${app}` },
        body: JSON.stringify({
          model: "fake/chat",
          messages: [{ role: "user", content: "Hello" }],
          stream: true,
          stream_options: { include_usage: true }
        })
      })
    )
    await streamed.text()
    const id = streamed.headers.get("x-troupe-decision")!
    const kept = await (await get(`/admin/decisions/${id}/request`)).json()
    assert.deepInclude(kept, { path: "/v1/chat/completions", headers: {} })
    assert.strictEqual((await get(`/admin/decisions/${id}/request`, app)).status, 403)
    const replay = await postTo(`/admin/decisions/${id}/replay`)
    const { answer, decision, replayOf, status } = await replay.json() as Replay
    assert.deepStrictEqual([replay.status, status, replayOf], [200, 200, id])
    assert.deepInclude(decision, {
      replayOf: id,
      key: "boss",
      dialect: "openai",
      end: "success",
      answeredBy: "fake/second#0"
    })
    assert.notStrictEqual(decision!.id, id)
    // The engine without weights writes the words in any order.
    assert.include(JSON.stringify(answer), "Snow")
    // The one that repeats it is repeated by the same body.
    const again = await (await postTo(`/admin/decisions/${decision!.id}/replay`)).json() as Replay
    assert.deepStrictEqual([again.replayOf, again.status], [id, 200])
  })

  it("answers 409 where the body is not kept, and 404 without a record", async () => {
    const first = await ask("fake/second", "one")
    await first.text()
    const second = await ask("fake/second", "two")
    await second.text()
    const gone = await postTo(`/admin/decisions/${first.headers.get("x-troupe-decision")}/replay`)
    assert.strictEqual(gone.status, 409)
    const replayOf = async ({ headers }: Response) => {
      const detail = await get(`/admin/decisions/${headers.get("x-troupe-decision")}`)
      return (await detail.json() as DecisionDetail).replay
    }
    assert.match((await replayOf(first))!.reason!, /is not kept\. decisions\.keepBodies keeps the latest 1/)
    assert.deepStrictEqual(await replayOf(second), { possible: true })
    assert.match(await gone.text(), /is not kept\. decisions\.keepBodies keeps the latest 1, .*body_not_kept/)
    assert.strictEqual((await postTo("/admin/decisions/dec-x/replay")).status, 404)
  })

  it("drains a deployment: its requests go elsewhere, until it is resumed", async () => {
    const post = (action: string) => postTo(`/admin/deployments/${encodeURIComponent("fake/second#0")}/${action}`)
    assert.strictEqual((await post("drain")).status, 200)
    const refused = await ask("fake/second", "Hello")
    assert.strictEqual(refused.status, 503)
    assert.include(await refused.text(), "fake/second#0: drained by an operator")
    // Its engine ends first.
    let drain: string | undefined
    for (let tries = 0; tries < 50 && drain !== "drained"; tries++) {
      await new Promise((resolve) => setTimeout(resolve, 20))
      drain = (await overviewOf()).deployments[1]!.drain
    }
    assert.strictEqual(drain, "drained")
    assert.strictEqual((await post("resume")).status, 200)
    const answered = await ask("fake/second", "Hello")
    await answered.text()
    assert.strictEqual(answered.status, 200)
  })
})

describe("Waiting", () => {
  effect.effect("leaves events out for a slow reader, and says how many", () =>
    Effect.gen(function*() {
      const waiting = new Waiting(yield* Queue.dropping<LiveEvent>(mostWaiting), () => 0)
      for (let count = 0; count < mostWaiting + 3; count++) waiting.add({ event: "event", data: count })
      const text = waiting.textOf(yield* Queue.takeAll(waiting.queue))
      assert.include(text, `event: event\ndata: ${mostWaiting - 1}\n\nevent: lost\ndata: {"lost":3}\n\n`)
      waiting.add({ frame: "event: request\ndata: 1\n\n" })
      assert.strictEqual(waiting.textOf(yield* Queue.takeAll(waiting.queue)), "event: request\ndata: 1\n\n")
    }))
})
