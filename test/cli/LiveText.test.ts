/** The texts of `troupe top`, `troupe logs` and `troupe status`. */
import { assert, describe, it } from "@effect/vitest"
import { makeParser } from "../../src/cli/LiveClient.ts"
import * as LogText from "../../src/cli/LogText.ts"
import * as OverviewText from "../../src/cli/OverviewText.ts"
import { alertTable, problemsOf } from "../../src/cli/Status.ts"
import type { Overview } from "../../src/layers/http/OverviewSchema.ts"
import { RecentFigures } from "../../src/services/observability/RecentFigures.ts"
import type { DecisionSummary } from "../../src/services/routing/DecisionSummary.ts"

type Deployment = Overview["deployments"][number]

const deployment = (id: string, more: Partial<Deployment> = {}): Deployment => ({
  deployment: id,
  model: id.split("#")[0]!,
  engine: "llama",
  state: "ready",
  running: 1,
  slots: 4,
  queued: 0,
  memoryBytes: 0,
  pinned: false,
  figures: [],
  ...more
})

const overview = (
  deployments: ReadonlyArray<Deployment>,
  status: Overview["service"]["status"] = "ready"
): Overview => ({
  at: 0,
  service: {
    version: "1.2.3",
    status,
    uptimeSeconds: 3_725,
    processes: 2,
    inFlight: 3,
    requestsPerSecond: 1.5,
    errorRate: 0.25,
    targets: { availability: 0.999, errorRate: 0.001 },
    windows: [],
    figures: []
  },
  memory: { budgetBytes: 2 ** 30, grantedBytes: 2 ** 20, processBytes: 2 ** 20, engineBytes: 0, pressure: "warning" },
  deployments,
  models: [...new Set(deployments.map(({ model }) => model))].map((model) => ({ model, figures: [] })),
  cache: {
    memory: { entries: 0, bytes: 0 },
    compact: { entries: 0, bytes: 0 },
    store: false,
    semantic: { entries: 0, bytes: 0, hits: 0, questions: [] },
    hits: { exact: 2, semantic: 1 },
    misses: 4,
    bypasses: 0
  }
})

const open = { phase: "open", retryAfterMs: 4_200 } as const

describe("troupe top", () => {
  it("has a head, and a row for each deployment without columns that are empty", () => {
    const lines = OverviewText.overviewText(
      overview([deployment("a#0"), deployment("a#1", { queued: 2, oldestWaitMs: 1_500, circuit: open })])
    ).split("\n")
    assert.deepStrictEqual(lines.slice(0, 3), [
      "troupe 1.2.3: ready for 1h 2m, 2 processes",
      "Requests: 3 running, 1.5 per second, 25 % failed in 5 minutes",
      "Memory: models 1.0 MiB of 1.0 GiB, service 1.0 MiB, engines 0 bytes, pressure warning. Cache: 3 hits, 4 misses"
    ])
    assert.deepStrictEqual(lines.slice(4).map((line) => line.split(/ {2,}/)), [
      ["DEPLOYMENT", "STATE", "SLOTS", "QUEUE", "5M", "REASON"],
      ["a#0", "ready", "1/4", "0", "0"],
      ["a#1", "ready, circuit open", "1/4", "2 (1.5 s)", "0", "circuit open after failures; retry in 5 s"]
    ])
  })

  it("sorts, and fits the window", () => {
    const figures = new RecentFigures(0)
    const text = OverviewText.screenText(
      overview([deployment("a#0", { figures: figures.ofAll(0) }), deployment("b#0", { queued: 7 })]),
      { columns: 40, rows: 9, sort: "queue" }
    )
    const lines = text.split("\n")
    assert.isTrue(lines.every(({ length }) => length <= 40))
    assert.strictEqual(lines.length, 9)
    assert.match(lines[5]!, /^b#0/)
  })

  it("leaves out columns at the right that do not fit, never the sorted one, and says how many", () => {
    const costs = [{ ...new RecentFigures(0).ofAll(0)[2]!, usd: 1.5 }]
    const view = overview([deployment("a#0", { figures: costs, memoryBytes: 5e6, restarts: 3 })])
    const linesAt = (columns: number, sort: "cost" | "name") =>
      OverviewText.screenText(view, { columns, rows: 9, sort }).split("\n")
    const wide = linesAt(300, "cost")
    assert.strictEqual(wide[3], "")
    assert.match(wide[4]!, /COST 1H.*MEMORY.*RESTARTS/)
    const narrow = linesAt(40, "cost")
    assert.match(narrow[3]!, /^\(\+\d columns: widen\)$/)
    assert.match(narrow[4]!, /^DEPLOYMENT.*COST 1H$/)
    assert.match(narrow[5]!, /\$1\.50$/)
    assert.notInclude(linesAt(40, "name")[4], "COST")
  })
})

describe("troupe status", () => {
  it("names what is wrong", () => {
    assert.deepStrictEqual(problemsOf(overview([deployment("a#0"), deployment("a#1", { circuit: open })]), []), [])
    assert.deepStrictEqual(problemsOf(overview([deployment("a#0", { circuit: open })], "stopping"), []), [
      "The service is stopping.",
      "No deployment of a can answer now."
    ])
    const keys = { waiting: 2, total: 2, rejected: 0, retryAfterMs: 5 }
    assert.lengthOf(problemsOf(overview([deployment("a#0", { keys }), deployment("a#1", { state: "failed" })]), []), 1)
    assert.lengthOf(problemsOf(overview([deployment("a#0", { drain: "drained" })]), []), 1)
  })

  it("says what /health/ready says, and names the store that is lost", () => {
    const { service, ...others } = overview([deployment("a#0")], "unavailable")
    const stores = [
      { store: "database", available: true, needed: false },
      { store: "redis", available: false, needed: false, problem: "Redis is lost: requests with a budget get 503." }
    ] as const
    const snapshot = { ...others, service: { ...service, stores } }
    assert.deepStrictEqual(problemsOf(snapshot, []), [
      "The service is unavailable.",
      "Redis is lost: requests with a budget get 503."
    ])
    assert.deepStrictEqual(OverviewText.lostText({ ...stores[1], since: 0 }), [
      "Redis is lost: requests with a budget get 503, since 1970-01-01T00:00:00.000Z."
    ])
    assert.include(OverviewText.overviewText(snapshot), "\nRedis is lost: requests with a budget get 503.\n")
  })

  it("lists the alerts that fire; a critical one is a problem", () => {
    const alert = (rule: string, severity: "critical" | "warning", state: "firing" | "pending") =>
      ({ alert: `${rule}/a`, rule, metric: "error_rate", target: "a", severity, value: 0.25, state, since: 0 }) as const
    const alerts = [alert("errors", "warning", "firing"), alert("many_errors", "critical", "pending")]
    assert.deepStrictEqual(problemsOf(overview([deployment("a#0")]), alerts), [])
    assert.deepStrictEqual(alertTable(alerts).split("\n").map((line) => line.split(/ {2,}/)), [
      ["ALERT", "SEVERITY", "VALUE", "SINCE"],
      ["errors/a", "warning", "25 %", "1970-01-01T00:00:00.000Z"]
    ])
    assert.deepStrictEqual(
      problemsOf(overview([deployment("a#0")]), [...alerts, alert("many_errors", "critical", "firing")]),
      ["The critical alert many_errors/a fires."]
    )
    assert.strictEqual(alertTable([]), "")
  })
})

const request: DecisionSummary = {
  id: "dec-1",
  at: 0,
  operation: "chat",
  model: "chat",
  deployment: "chat#1",
  status: "success",
  tookMs: 2_500,
  firstTokenMs: 850,
  waitedMs: 40,
  inputTokens: 3,
  outputTokens: 9,
  usd: 0.00123,
  key: "app",
  attempts: 2,
  failed: ["chat#0"]
}

describe("troupe logs", () => {
  it("has a request in one line", () => {
    assert.strictEqual(
      LogText.requestLine(request),
      "00:00:00.000 dec-1 answered chat -> chat#1 2.5 s first_token=850 ms waited=40 ms tokens=3+9 cost=$0.0012 key=app " +
        "attempts=2 failed=chat#0"
    )
  })

  it("stays in one line, whatever the names of models and the messages of events have", () => {
    const name = "w/a\n00:00:01.000 dec-2 answered b\r\u2028\u001b[31m\u0085"
    const line = LogText.requestLine({ ...request, model: name, deployment: `${name}#0`, failed: [name] })
    const event = LogText.eventLine({ at: 0, id: "1", kind: "circuit", severity: "info", message: name })
    for (const text of [line, event]) assert.notMatch(text, /[\p{Cc}\u2028\u2029]/u)
    assert.include(line, "answered w/a")
  })

  it.each(
    [
      [{ deployment: "chat#0" }, true],
      [{ deployment: "chat#2" }, false],
      [{ status: "failed" }, false],
      [{ status: "5xx" }, false],
      [{ model: "chat", status: "served" }, true]
    ] as const
  )("wants by %o: %s", (filter, expected) => {
    assert.strictEqual(LogText.isWanted(filter)(request), expected)
  })

  it.each([["10m", 400_000], ["1970-01-01T00:10:00Z", 600_000], ["soon", undefined], ["10", undefined]])(
    "reads --since %s",
    (text, expected) => {
      assert.strictEqual(LogText.sinceOf(text, 1_000_000), expected)
    }
  )

  it("reads events in pieces of any length", () => {
    const text = ": watching\n\nevent: request\ndata: {\"id\":1}\n\nevent: lost\ndata: {\"lost\":2}\n\n"
    for (let length = 1; length <= text.length; length++) {
      const parse = makeParser()
      const pieces = text.match(new RegExp(`[^]{1,${length}}`, "g"))!
      assert.deepStrictEqual(pieces.flatMap((piece) => parse(piece)), [
        { event: "request", data: { id: 1 } },
        { event: "lost", data: { lost: 2 } }
      ])
    }
  })
})
