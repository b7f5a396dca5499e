/**
 * Every fault of a provider, with every kind of request and moment of the fault, against the real service and real
 * sockets: the expected and the observed outcome. The matrix is printed at the end.
 */
import { assert } from "@effect/vitest"
import { once } from "node:events"
import { createServer } from "node:net"
import type { AddressInfo } from "node:net"
import { afterAll, beforeAll, describe, it } from "vitest"
import type { Case, Row } from "../support/FaultMatrix.ts"
import { casesOf, modelAsked, modelsOf, modes, playOf, policies, print, read, seenOf } from "../support/FaultMatrix.ts"
import type { Fault } from "../support/Faults.ts"
import { framingFaults } from "../support/Faults.ts"
import type { FaultServer } from "../support/FaultServer.ts"
import { startFaultServer } from "../support/FaultServer.ts"
import { openAiFaults } from "../support/OpenAiFaults.ts"
import type { Service } from "../support/Service.ts"
import { startService } from "../support/Service.ts"
import { wires } from "../support/Wires.ts"

const key = "a-secret-key-of-the-matrix"

/** A port without a listener. */
const closedPort = async (): Promise<number> => {
  const server = createServer().listen(0, "127.0.0.1")
  await once(server, "listening")
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, "close")
  return port
}

const elsewhere = await startFaultServer(() => ({ pieces: wires.openai.pieces }))
const nowhere = `http://127.0.0.1:${await closedPort()}`

const groups = {
  openai: openAiFaults(wires.openai, key, elsewhere.url, nowhere),
  anthropic: framingFaults(wires.anthropic),
  gemini: framingFaults(wires.gemini),
  ollama: framingFaults(wires.ollama)
} as const
const dialects = Object.keys(groups) as ReadonlyArray<keyof typeof groups>
const all = dialects.flatMap((dialect) => casesOf(dialect, wires[dialect], groups[dialect]))
const byId = new Map(all.map((one) => [one.id, one]))

/** The numbers of the requests to each model. */
const calls = new Map<string, Array<number>>()
const callsOf = (name: string): number => calls.get(name)?.length ?? 0

let provider: FaultServer
let service: Service
const rows: Array<Row> = []
/** Everything that callers received. */
const received: Array<string> = []

beforeAll(async () => {
  provider = await startFaultServer((index, request) => {
    const name = modelAsked(request)
    const before = calls.get(name) ?? []
    calls.set(name, [...before, index])
    return playOf(byId, request, before.length)
  })
  const models = Object.assign({}, ...all.map((one) => modelsOf(one, provider.url))) as object
  // On a busy machine a fault takes longer than the time until frames without content, which give the status 200.
  const server = { streamKeepAlive: false }
  service = await startService(JSON.stringify({ server, models, policies }), { FAULT_MATRIX_KEY: key })
})

afterAll(async () => {
  process.stdout.write(`${print(rows)}\n`)
  await service.stop()
  await provider.close()
  await elsewhere.close()
})

const ask = async ({ id, mode }: Case) => {
  const response = await fetch(`${service.url}/v1/chat/completions`, {
    method: "POST",
    // An idle connection may end just when it is used again.
    headers: { "content-type": "application/json", connection: "close" },
    body: JSON.stringify({ model: id, messages: [{ role: "user", content: "Hello" }], stream: mode === "stream" })
  })
  const answer = await read(response, () => calls.get(id)?.forEach(provider.release))
  received.push(answer.all)
  return answer
}

const phaseOf = async ({ id }: Case) => {
  const response = await fetch(`${service.url}/admin/circuits`)
  const { circuits } = await response.json() as {
    readonly circuits: ReadonlyArray<{ readonly deployment: string; readonly phase: string }>
  }
  return circuits.find(({ deployment }) => deployment === `${id}#0`)?.phase ?? "closed"
}

/** The state of the circuit after five requests, and whether it refuses the sixth. */
const circuitOf = async (one: Case) => {
  for (let count = 2; count < 6; count++) await ask(one)
  const phase = await phaseOf(one)
  const { code, retryAfter } = await ask(one)
  const refuses = code === "no_deployment" || code === "circuit_open"
  return { phase, refuses, text: refuses ? `open for ${retryAfter} s` : phase }
}

const expectCircuit = async (one: Case, row: Row) => {
  const { callsOfSix, counts = true } = one.fault
  const { phase, refuses, text } = await circuitOf(one)
  row.circuit = text
  assert.strictEqual(phase === "closed", !counts)
  // On a busy machine, the second for which an unreachable host is left out may be over.
  if (counts && !refuses) return
  assert.match(text, counts ? /^open for \d+ s$/ : /^closed$/)
  if (callsOfSix !== "any") assert.strictEqual(callsOf(one.id), callsOfSix ?? (counts ? 5 : 6))
}

const expectCase = async (one: Case, row: Row) => {
  const { fault, id, promise, setup } = one
  const seen = seenOf(one, await ask(one))
  row.seen[setup] = { promise, seen, calls: callsOf(id) }
  assert.strictEqual(seen, promise)
  assert.strictEqual(callsOf(id), fault.calls ?? 1)
  assert.strictEqual(callsOf(`${id}+`), promise.endsWith("by the second") ? 1 : 0)
}

/** The tested modes, each with the expected outcome. */
const tryFault = async (cases: ReadonlyArray<Case>, fault: Fault) => {
  const own = Map.groupBy(cases.filter((one) => one.fault === fault), ({ mode }) => mode)
  const tried = modes.filter((mode) => own.has(mode))
  const { dialect } = cases[0]!
  await Promise.all(tried.map(async (mode) => {
    const row: Row = { dialect, fault, mode, seen: {} }
    rows.push(row)
    for (const one of own.get(mode)!) await expectCase(one, row)
    const alone = own.get(mode)!.find(({ setup }) => setup === "alone")!
    // Circuits depend on reasons, not on dialects.
    if (mode === tried[0] && fault.when !== "harmless" && dialect === "openai") await expectCircuit(alone, row)
  }))
  return tried
}

describe.concurrent("a provider's fault", () => {
  for (const dialect of dialects) {
    const cases = all.filter((one) => one.dialect === dialect)
    for (const fault of groups[dialect]) {
      it(`${dialect}: ${fault.name}, ${fault.when}`, async () => {
        assert.isNotEmpty(await tryFault(cases, fault))
      })
    }
  }
})

describe("all faults together", () => {
  it("reveal no key and no stack trace, send the key to no other host, and leave the service able to answer", async () => {
    assert.isAbove(received.length, 500)
    const { stderr, stdout } = service.process.output()
    for (const text of [...received, stdout, stderr]) {
      assert.notInclude(text, key)
      assert.notInclude(text, key.slice(0, 10))
      assert.notMatch(text, /\n\s+at |node:internal|\.ts:\d/)
    }
    const asked = provider.seen.filter((request) => byId.has(modelAsked(request)))
    assert.isTrue(asked.every(({ headers }) => JSON.stringify(headers).includes(key)))
    assert.strictEqual(elsewhere.seen.length, 0)
    assert.strictEqual((await fetch(`${service.url}/health/ready`)).status, 200)
  })
})
