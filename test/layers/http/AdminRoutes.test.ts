/** Administration over fake services, without sockets and engines. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Redacted, Stream } from "effect"
import { HttpRouter, HttpServer } from "effect/http"
import { HttpApiBuilder } from "effect/http-api"
import { keptDecisions } from "../../../src/domain/Defaults.ts"
import type { Model } from "../../../src/domain/Deployment.ts"
import * as InferenceError from "../../../src/domain/InferenceError.ts"
import * as AdminKeys from "../../../src/layers/http/AdminKeys.ts"
import * as AdminLive from "../../../src/layers/http/AdminLive.ts"
import * as AdminRollouts from "../../../src/layers/http/AdminRollouts.ts"
import * as AdminRoutes from "../../../src/layers/http/AdminRoutes.ts"
import * as AdminUsage from "../../../src/layers/http/AdminUsage.ts"
import { TypedApi } from "../../../src/layers/http/Api.ts"
import * as ServiceRoutes from "../../../src/layers/http/ServiceRoutes.ts"
import { none as noCache, ResponseCache } from "../../../src/services/cache/ResponseCache.ts"
import { none, Providers } from "../../../src/services/engines/Providers.ts"
import type { State, Transition } from "../../../src/services/health/Breaker.ts"
import { Breaker } from "../../../src/services/health/Breaker.ts"
import { Readiness } from "../../../src/services/health/Readiness.ts"
import * as VirtualKeys from "../../../src/services/keys/VirtualKeys.ts"
import * as Ledger from "../../../src/services/ledger/Ledger.ts"
import { Models } from "../../../src/services/models/Models.ts"
import * as Registry from "../../../src/services/models/Registry.ts"
import { Rollouts } from "../../../src/services/rollout/Rollouts.ts"
import { DecisionLog } from "../../../src/services/routing/DecisionLog.ts"
import { Router } from "../../../src/services/routing/Router.ts"
import { fixed, Reload } from "../../../src/services/settings/Reload.ts"
import { Settings } from "../../../src/services/settings/Settings.ts"
import * as Deployments from "../../support/Deployments.ts"

const token = "a-token-of-an-operator"

const ids = ["chat#0", "chat#1", "chat#2", "chat#3", "fake/a#0"]

const modelsOf = (): ReadonlyArray<Model> => {
  const byName = Map.groupBy(ids.map((id) => Deployments.deployment(id)), ({ model }) => model)
  return [...byName].map(([name, deployments]) => ({ name, deployments } as unknown as Model))
}

const notCalled = (): never => {
  throw new Error("This operation is not part of administration.")
}

interface Setting {
  readonly states?: ReadonlyArray<State>
  /** Cooldowns of keys by deployment, ms. */
  readonly cooldowns?: Readonly<Record<string, number>>
  /** The deployment whose load, unload and replacement fail. */
  readonly failing?: string
  readonly events?: Models["Service"]["events"]
  readonly transitions?: Stream.Stream<Transition>
}

type Fetch = (path: string, init?: RequestInit) => Promise<Response>

/** Runs `use` with the routes, and the calls of services as `operation id`. */
const withRoutes = async (
  { cooldowns = {}, events = Stream.never, failing, states = [], transitions = Stream.never }: Setting,
  use: (fetch: Fetch, calls: ReadonlyArray<string>) => Promise<void>
): Promise<void> => {
  const calls: Array<string> = []
  const reason = new InferenceError.ModelLoadFailed({ deployment: failing ?? "", detail: "out of disk." })
  const called = (operation: string) => ({ id }: { readonly id: string }) =>
    Effect.suspend(() => {
      calls.push(`${operation} ${id}`)
      return id === failing ? Effect.fail(InferenceError.make(reason)) : Effect.void
    })
  const services = Layer.mergeAll(
    Layer.succeed(Registry.Registry, Registry.make(modelsOf())),
    Layer.succeed(ResponseCache, noCache),
    Layer.succeed(Reload, fixed),
    Layer.mock(Router)({
      route: notCalled,
      preview: notCalled,
      facts: notCalled,
      noteFailure: notCalled,
      measure: notCalled
    }),
    Layer.mock(DecisionLog)({
      running: () => 0,
      subscribe: () => () => {},
      collect: () => ({ flush() {}, end() {} }),
      begin: notCalled,
      latest: (limit) => {
        calls.push(`latest ${limit}`)
        return []
      },
      find: (id) => void calls.push(`find ${id}`)
    }),
    Layer.mock(Breaker)({
      closedFor: notCalled,
      enterClosed: notCalled,
      failures: notCalled,
      openings: notCalled,
      states: Effect.succeed(states),
      reset: (id) => Effect.sync(() => void calls.push(`reset circuit ${id}`)),
      transitions
    }),
    Layer.mock(Models)({
      drained: new Map(),
      load: called("load"),
      unload: (deployment) => Effect.orDie(called("unload")(deployment)),
      replace: called("replace"),
      status: ({ id }) =>
        Effect.succeed({ deployment: id, state: "ready", running: 1, queued: 2, memoryBytes: 3 } as const),
      snapshot: notCalled,
      tryLease: notCalled,
      renew: ({ id, pinned }) => void calls.push(`renew ${id} ${pinned}`),
      events
    }),
    Layer.succeed(
      Providers,
      Providers.of({
        ...none,
        waitingKeys: ({ id }) => ({
          waiting: id in cooldowns ? 1 : 0,
          total: 2,
          rejected: 0,
          retryAfterMs: cooldowns[id] ?? 0
        }),
        resetKeys: ({ id }) => void calls.push(`reset keys ${id}`)
      })
    ),
    Layer.succeed(Readiness, { status: "ready" }),
    Layer.succeed(VirtualKeys.VirtualKeys, VirtualKeys.none),
    Layer.succeed(Ledger.Ledger, Ledger.none),
    Layer.mock(Rollouts)({}),
    Layer.succeed(
      Settings,
      {
        server: { ...Deployments.settings().server, admin: { token: Redacted.make(token) } }
      } as Settings["Service"]
    ),
    HttpServer.layerServices
  )
  const routes = HttpApiBuilder.layer(TypedApi).pipe(
    Layer.provide([
      ServiceRoutes.health,
      AdminRoutes.layer,
      AdminKeys.layer,
      AdminUsage.layer,
      AdminRollouts.layer,
      AdminLive.layer
    ]),
    Layer.provide(services)
  )
  const { dispose, handler } = HttpRouter.toWebHandler(routes.pipe(Layer.provideMerge(HttpServer.layerServices)), {
    disableLogger: true
  })
  const fetch: Fetch = (path, init = {}) =>
    handler(
      new globalThis.Request(`http://localhost/admin/${path}`, {
        ...init,
        headers: { authorization: `Bearer ${token}`, ...init.headers as Record<string, string> }
      })
    )
  try {
    await use(fetch, calls)
  } finally {
    await dispose()
  }
}

const post = (body?: string): RequestInit => ({
  method: "POST",
  headers: { "content-type": "application/json" },
  ...(body === undefined ? {} : { body })
})

const errorOf = async (response: Response) => {
  const { error } = await response.json() as { readonly error: { readonly code: string; readonly message: string } }
  return { status: response.status, code: error.code, message: error.message }
}

const deploymentsOf = async (response: Response) =>
  (await response.json() as { readonly deployments: ReadonlyArray<Readonly<Record<string, unknown>>> }).deployments

describe("every route", () => {
  it.each<[path: string, init: RequestInit]>([
    ["deployments", {}],
    ["models/chat/load", post()],
    ["models/chat/unload", post()],
    ["models/chat/reload", post()],
    ["deployments/events", {}],
    ["circuits", {}],
    ["circuits/chat%230/reset", post()],
    ["circuits/events", {}],
    ["decisions", {}],
    ["decisions/dec-1", {}],
    ["decisions/dec-1/request", {}],
    ["decisions/dec-1/replay", post()],
    ["route", post("{}")]
  ])("requires the token and has no effect without it: %s", async (path, init) => {
    await withRoutes({}, async (fetch, calls) => {
      for (const authorization of ["", "Bearer wrong", `Basic ${token}`, `Bearer ${token}x`]) {
        const response = await fetch(path, { ...init, headers: { ...init.headers as object, authorization } })
        assert.strictEqual(response.status, 401)
        assert.strictEqual((await errorOf(response)).code, "unauthorized")
        assert.strictEqual(response.headers.get("www-authenticate"), "Bearer")
      }
      assert.deepStrictEqual(calls, [])
    })
  })
})

describe("GET /admin/deployments", () => {
  const own = { running: 1, queued: 2, memoryBytes: 3, state: "ready", engine: "fake", pinned: false }

  it("lists every deployment with its status", () =>
    withRoutes({}, async (fetch) => {
      assert.deepStrictEqual(
        await deploymentsOf(await fetch("deployments")),
        ids.map((id) => ({ ...own, deployment: id, model: id.split("#")[0] }))
      )
    }))

  it("has a circuit unless it is closed, and keys only during a cooldown", () => {
    const state = { retryAfterMs: 7, successes: 1 }
    const keys = { waiting: 1, total: 2, rejected: 0 }
    const states: ReadonlyArray<State> = [
      { ...state, deployment: "chat#0", phase: "open" },
      { ...state, deployment: "chat#1", phase: "half-open" },
      { ...state, deployment: "chat#2", phase: "closed" }
    ]
    return withRoutes({ states, cooldowns: { "chat#1": 5, "chat#2": 9 } }, async (fetch) => {
      const listed = await deploymentsOf(await fetch("deployments"))
      assert.deepStrictEqual(listed.map(({ circuit }) => circuit), [
        { phase: "open", retryAfterMs: 7 },
        { phase: "half-open", retryAfterMs: 7 },
        undefined,
        undefined,
        undefined
      ])
      assert.deepStrictEqual(
        listed.map(({ keys }) => keys),
        [undefined, { ...keys, retryAfterMs: 5 }, { ...keys, retryAfterMs: 9 }, undefined, undefined]
      )
      const { circuits } = await (await fetch("circuits")).json() as { readonly circuits: unknown }
      assert.deepStrictEqual(circuits, states)
    })
  })
})

describe("POST /admin/models/:model/:action", () => {
  const resets = (operation: string) =>
    ids.slice(0, 4).flatMap((id) => [`${operation} ${id}`, `reset keys ${id}`, `reset circuit ${id}`])

  it.each<[action: string, calls: ReadonlyArray<string>]>([
    ["load", resets("load")],
    ["reload", resets("replace")],
    ["unload", ids.slice(0, 4).map((id) => `unload ${id}`)],
    ["pin", ids.slice(0, 4).map((id) => `renew ${id} true`)],
    ["unpin", ids.slice(0, 4).map((id) => `renew ${id} false`)]
  ])(
    "%s acts on every deployment of the model in order, and lists them",
    (action, expected) =>
      withRoutes({}, async (fetch, calls) => {
        const response = await fetch(`models/chat/${action}`, post())
        assert.strictEqual(response.status, 200)
        assert.deepStrictEqual((await deploymentsOf(response)).map(({ deployment }) => deployment), ids.slice(0, 4))
        assert.deepStrictEqual(calls, expected)
      })
  )

  it.each([["load", "load"], ["reload", "replace"]])(
    "%s ends at the first failure, which resets no circuit and no keys",
    (action, operation) =>
      withRoutes({ failing: "chat#1" }, async (fetch, calls) => {
        const { code, message, status } = await errorOf(await fetch(`models/chat/${action}`, post()))
        assert.deepStrictEqual([status, code], [503, "model_load_failed"])
        assert.include(message, "out of disk.")
        assert.deepStrictEqual(calls, [...resets(operation).slice(0, 3), `${operation} chat#1`])
      })
  )

  it("accepts a model's name with a slash, encoded", () =>
    withRoutes({}, async (fetch, calls) => {
      assert.strictEqual((await fetch("models/fake%2Fa/unload", post())).status, 200)
      assert.deepStrictEqual(calls, ["unload fake/a#0"])
    }))

  it.each<[path: string, code: string, message: RegExp]>([
    ["models/nope/load", "model_not_found", /"nope" does not exist.*Available models: chat, fake\/a\.$/],
    [
      "models/chat/start",
      "not_found",
      /^Unknown action "start"\. Available actions: load, unload, reload, pin, unpin, drain, resume\.$/
    ],
    ["models/chat/toString", "not_found", /^Unknown action "toString"/]
  ])("rejects %s by name, without an action", (path, code, message) =>
    withRoutes({}, async (fetch, calls) => {
      const error = await errorOf(await fetch(path, post()))
      assert.deepStrictEqual([error.status, error.code], [404, code])
      assert.match(error.message, message)
      assert.deepStrictEqual(calls, [])
    }))
})

describe("POST /admin/deployments/:deployment/:action", () => {
  it("acts on one deployment, and shows it", () =>
    withRoutes({}, async (fetch, calls) => {
      const response = await fetch("deployments/chat%231/unload", post())
      assert.deepStrictEqual((await deploymentsOf(response)).map(({ deployment }) => deployment), ["chat#1"])
      assert.deepStrictEqual(calls, ["unload chat#1"])
    }))

  it.each([
    ["deployments/chat%239/load", "deployment_not_found", /"chat#9" not found\. Did you mean chat#0\?/],
    ["deployments/chat%231/start", "not_found", /Unknown action "start"/]
  ])("rejects %s, without an action", (path, code, message) =>
    withRoutes({}, async (fetch, calls) => {
      const error = await errorOf(await fetch(path, post()))
      assert.deepStrictEqual([error.status, error.code], [404, code])
      assert.match(error.message, message)
      assert.deepStrictEqual(calls, [])
    }))
})

describe("POST /admin/circuits/:deployment/reset", () => {
  it("closes the circuit, uses the keys again, and lists the circuits", () =>
    withRoutes({}, async (fetch, calls) => {
      const response = await fetch("circuits/chat%231/reset", post())
      assert.deepStrictEqual(await response.json(), { circuits: [] })
      assert.deepStrictEqual(calls, ["reset keys chat#1", "reset circuit chat#1"])
    }))

  it.each<[id: string, suggestion: string]>([
    ["chat", " Did you mean chat#0 or chat#1 or chat#2?"],
    ["fake/a", " Did you mean fake/a#0?"],
    ["chat#9", " Did you mean chat#0?"],
    ["something else", ""]
  ])("suggests deployments for the unknown id %s", (id, suggestion) =>
    withRoutes({}, async (fetch, calls) => {
      const error = await errorOf(await fetch(`circuits/${encodeURIComponent(id)}/reset`, post()))
      assert.deepStrictEqual(error, {
        status: 404,
        code: "deployment_not_found",
        message: `Deployment "${id}" not found.${suggestion} GET /admin/deployments lists them.`
      })
      assert.deepStrictEqual(calls, [])
    }))

  it("cuts a long id in its error", () =>
    withRoutes({}, async (fetch) => {
      const { message } = await errorOf(await fetch(`circuits/${"x".repeat(100)}/reset`, post()))
      assert.match(message, /^Deployment "x{40,80}…" not found\./)
    }))
})

describe("events", () => {
  /** The body until it has this text. */
  const readUntil = async (reader: ReadableStreamDefaultReader<string>, text: string) => {
    let read = ""
    while (!read.includes(text)) {
      const { done, value } = await reader.read()
      assert.isFalse(done, read)
      read += value
    }
    return read
  }
  const readerOf = (response: Response) => response.body!.pipeThrough(new TextDecoderStream()).getReader()

  const event = { deployment: "chat#0", state: "loading", at: 1 } as const
  const transition: Transition = { deployment: "chat#0", from: "closed", to: "open", at: 1 }
  const settings: ReadonlyArray<readonly [path: string, setting: Setting, sent: object]> = [
    ["deployments/events", { events: Stream.concat(Stream.make(event, { ...event, at: 2 }), Stream.never) }, event],
    [
      "circuits/events",
      { transitions: Stream.concat(Stream.make(transition, { ...transition, at: 2 }), Stream.never) },
      transition
    ]
  ]

  it.each(settings)(
    "GET /admin/%s streams each change as server-sent events",
    (path, setting, sent) =>
      withRoutes(setting, async (fetch) => {
        const response = await fetch(path)
        assert.match(response.headers.get("content-type")!, /^text\/event-stream/)
        assert.strictEqual(response.headers.get("cache-control"), "no-cache")
        const reader = readerOf(response)
        const text = await readUntil(reader, "\"at\":2}\n\n")
        const changes = text.split("\n\n").filter((frame) => frame.startsWith("data: "))
        assert.deepStrictEqual(changes.map((frame) => JSON.parse(frame.slice(6)) as unknown), [sent, {
          ...sent,
          at: 2
        }])
        await reader.cancel()
      })
  )

  it.each(["deployments/events", "circuits/events"])(
    "GET /admin/%s begins before the first change, with a comment",
    (path) =>
      withRoutes({}, async (fetch) => {
        const reader = readerOf(await fetch(path))
        assert.strictEqual(await readUntil(reader, "\n\n"), ": watching\n\n")
        await reader.cancel()
      })
  )

  it("end their subscription when the client disconnects", async () => {
    const [begun, ended] = [Promise.withResolvers<void>(), Promise.withResolvers<string>()]
    const begins = Stream.fromEffectDrain(Effect.sync(() => begun.resolve()))
    const subscription = Stream.concat(begins, Stream.never)
    const events = Stream.ensuring(subscription, Effect.sync(() => ended.resolve("ended")))
    await withRoutes({ events }, async (fetch) => {
      const reader = readerOf(await fetch("deployments/events"))
      await readUntil(reader, "\n\n")
      await begun.promise
      await reader.cancel()
      assert.strictEqual(await ended.promise, "ended")
    })
  })
})

describe("decisions", () => {
  it.each(["", "?limit=1", `?limit=${keptDecisions}`, "?model=a&deployment=b&status=failure&tenant=t&key=k&since=5"])(
    "GET /admin/decisions%s lists the latest",
    (query) =>
      withRoutes({}, async (fetch) => {
        assert.deepStrictEqual(await (await fetch(`decisions${query}`)).json(), { decisions: [] })
        assert.deepStrictEqual(await (await fetch(`requests${query}`)).json(), { requests: [] })
      })
  )

  it.each([
    [
      "status=eror",
      /status: Expected one of running, ended, success, failure, refused, interruption, or an HTTP status such as 429 or 5xx\. Did you mean error\?/
    ],
    ["cursor=x", /cursor: Expected the `next` of an earlier answer/],
    ["modle=chat", /modle: Unknown query parameter\. Did you mean model\?/]
  ])("rejects %s", (query, expected) =>
    withRoutes({}, async (fetch) => {
      const { message, status } = await errorOf(await fetch(`requests?${query}`))
      assert.strictEqual(status, 400)
      assert.match(message, expected)
    }))

  it.each(["0", "-1", "1.5", "NaN", "Infinity", "1e9", String(keptDecisions + 1)])(
    "rejects the limit %s",
    (limit) =>
      withRoutes({}, async (fetch, calls) => {
        const { message, status } = await errorOf(await fetch(`decisions?limit=${limit}`))
        assert.strictEqual(status, 400)
        assert.include(message, `Expected a whole number from 1 to ${keptDecisions}`)
        assert.deepStrictEqual(calls, [])
      })
  )

  it("GET /admin/decisions/:id is 404 for an unknown id", () =>
    withRoutes({}, async (fetch) => {
      const { code, message, status } = await errorOf(await fetch("decisions/dec-0"))
      assert.deepStrictEqual([status, code], [404, "decision_not_found"])
      assert.include(message, "\"dec-0\"")
    }))
})

describe("POST /admin/route", () => {
  it.each(["", "{", "[]", "null", "{\"model\":1}", "{\"model\":\"chat\",\"unknown\":1}"])(
    "rejects the body %s with the reason",
    (body) =>
      withRoutes({}, async (fetch) => {
        const { message, status } = await errorOf(await fetch("route", post(body)))
        assert.strictEqual(status, 400)
        assert.isAbove(message.length, 0)
      })
  )
})
