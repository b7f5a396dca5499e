/** A caller that disconnects: the provider's socket is closed, no further attempt starts, and its queue slot is free. */
import { assert } from "@effect/vitest"
import { afterAll, beforeAll, describe, it } from "vitest"
import { modelAsked } from "../support/FaultMatrix.ts"
import type { FaultServer, Play } from "../support/FaultServer.ts"
import { startFaultServer } from "../support/FaultServer.ts"
import type { Service } from "../support/Service.ts"
import { startService, until } from "../support/Service.ts"
import { wires } from "../support/Wires.ts"

const { begun, pieces } = wires.openai
/** Fills the sockets between the provider and a caller soon. */
const large = pieces[1]!.replace(begun, "x".repeat(64 * 1024))
const stall: Play = { pieces, fault: { kind: "stall", after: 2 } }
const plays: Readonly<Record<string, Play>> = {
  silent: { silent: "stall", pieces: [] },
  stall,
  buffered: stall,
  flood: { pieces: [...pieces.slice(0, 2), pieces[1]!], fault: { kind: "flood", after: 2 } },
  unread: { pieces: [pieces[0]!, large], fault: { kind: "flood", after: 2 } },
  trickle: { pieces: [": ping\n\n"], fault: { kind: "trickle", after: 0 } },
  often: stall,
  "one piece": {
    headers: { "content-type": "application/json" },
    pieces: ["{", " "],
    fault: { kind: "trickle", after: 1 }
  },
  refusal: { status: 500, pieces: ["x"], fault: { kind: "trickle", after: 0 } },
  busy: { status: 503, pieces: [] },
  narrow: stall
}

/** The number of requests that each provider leaves unanswered; later ones are answered. */
const mostLeft: Readonly<Record<string, number>> = { narrow: 1, unread: 1, often: 6 }

let provider: FaultServer
let service: Service

/** The numbers of the requests to a model. */
const requestsTo = (name: string): ReadonlyArray<number> =>
  provider.seen.flatMap((request, index) => modelAsked(request) === name ? [index] : [])

beforeAll(async () => {
  provider = await startFaultServer((_, request) => {
    const name = modelAsked(request)
    const isLater = requestsTo(name).length > (mostLeft[name] ?? Number.POSITIVE_INFINITY)
    return isLater ? { pieces } : plays[name]!
  })
  const model = (name: string) => ({
    preload: false,
    policy: "patient",
    deployments: [{
      provider: "openai",
      model: name,
      baseUrl: provider.url,
      stream: name !== "one piece",
      maxResponseBytes: "1 GiB",
      timeouts: { firstByte: "1 hour", firstToken: "1 hour", stall: "1 hour", total: "1 hour" },
      ...(name === "narrow" || name === "unread" ? { maxConcurrent: 1 } : {})
    }]
  })
  service = await startService(JSON.stringify({
    models: Object.fromEntries(Object.keys(plays).map((name) => [name, model(name)])),
    // No timeout closes a socket, and no retry ends, within the time limit of a test.
    policies: {
      patient: {
        retries: 10,
        maxAttempts: 11,
        maxWait: "1 hour",
        backoff: { initial: "1 hour", factor: 1, cap: "1 hour" },
        timeouts: { firstToken: "1 hour", stall: "1 hour", total: "1 hour" }
      }
    }
  }))
})

afterAll(async () => {
  await service.stop()
  await provider.close()
})

/** Sends a request whose caller can disconnect. */
const ask = (model: string, stream = true) => {
  const leaving = new AbortController()
  const response = fetch(`${service.url}/v1/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ model, messages: [{ role: "user", content: "Hello" }], stream }),
    signal: leaving.signal
  })
  // A disconnected caller does not receive the end.
  response.catch(() => {})
  return { response, leave: () => leaving.abort() }
}

const requestTo = (name: string): Promise<number> => until(() => requestsTo(name)[0])

/** Requests to a model that have ended, with any outcome. */
const endedOf = async (model: string): Promise<number> => {
  const metrics = await (await fetch(`${service.url}/metrics`)).text()
  return Number(
    new RegExp(`^llm_request_duration_seconds_count\\{.*"${model}".*\\} (\\d+)`, "m").exec(metrics)?.[1] ?? 0
  )
}

const deploymentOf = async (model: string) => {
  const { deployments } = await (await fetch(`${service.admin}/admin/deployments`)).json() as {
    readonly deployments: ReadonlyArray<{ readonly model: string; readonly queued: number; readonly running: number }>
  }
  return deployments.find((one) => one.model === model)!
}

describe("a caller that disconnects", () => {
  for (
    const [when, model, stream, hasContent] of [
      ["before the headers", "silent", true, false],
      ["before the first content", "trickle", true, false],
      ["in the middle of a stalled stream", "stall", true, true],
      ["in the middle of an endless stream", "flood", true, true],
      ["before the end of a buffered answer", "buffered", false, false],
      ["before a buffered answer in one piece", "one piece", false, false],
      ["in the middle of a refusal", "refusal", true, false]
    ] as const
  ) {
    it(`closes the provider's socket ${when}`, async () => {
      const { leave, response } = ask(model, stream)
      const index = await requestTo(model)
      if (hasContent) await (await response).body!.getReader().read()
      leave()
      await provider.left(index)
      await until(async () => await endedOf(model) === 1 || undefined)
      assert.lengthOf(requestsTo(model), 1)
    })
  }

  it("closes the provider's socket and releases the engine slot after it has stopped reading", async () => {
    const { leave, response } = ask("unread")
    const index = await requestTo("unread")
    await (await response).body!.getReader().read()
    await provider.blocked(index)
    leave()
    await provider.left(index)
    assert.include(await (await ask("unread").response).text(), "[DONE]")
    await until(async () => (await deploymentOf("unread")).running === 0 || undefined)
  })

  it("counts as no failure, however often it happens in the middle of a stream", async () => {
    for (let call = 1; call <= 6; call++) {
      const { leave, response } = ask("often")
      await (await response).body!.getReader().read()
      leave()
      await until(async () => await endedOf("often") === call || undefined)
    }
    const seventh = await ask("often").response
    assert.strictEqual(seventh.status, 200)
    assert.include(await seventh.text(), "[DONE]")
    const metrics = await (await fetch(`${service.url}/metrics`)).text()
    assert.notMatch(metrics, /^llm_errors_total\{.*"often".*\} [1-9]/m)
    assert.match(metrics, /^llm_requests_total\{.*"often".*success="true".*\} 1$/m)
    const { circuits } = await (await fetch(`${service.admin}/admin/circuits`)).json() as {
      readonly circuits: ReadonlyArray<{ readonly deployment: string; readonly phase: string }>
    }
    assert.strictEqual(circuits.find(({ deployment }) => deployment === "often#0")?.phase, "closed")
  })

  it("stops further attempts", async () => {
    const { leave } = ask("busy")
    await requestTo("busy")
    leave()
    await until(async () => await endedOf("busy") === 1 || undefined)
    assert.lengthOf(requestsTo("busy"), 1)
  })

  it("releases the queue slot and the engine slot", async () => {
    const first = ask("narrow")
    await (await first.response).body!.getReader().read()
    const second = ask("narrow")
    await until(async () => (await deploymentOf("narrow")).queued === 1 || undefined)
    const third = ask("narrow")
    await until(async () => (await deploymentOf("narrow")).queued === 2 || undefined)
    second.leave()
    await until(async () => (await deploymentOf("narrow")).queued === 1 || undefined)
    assert.lengthOf(requestsTo("narrow"), 1)
    first.leave()
    assert.include(await (await third.response).text(), "[DONE]")
    assert.lengthOf(requestsTo("narrow"), 2)
  })
})
