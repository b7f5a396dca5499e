/**
 * Keys, limits, budgets and the ledger: the CPU time of a request with all of them and without, of admissions while 200
 * requests run, and of admissions with many keys.
 */
import type { Deployment } from "../src/domain/Deployment.ts"
import { draw } from "../src/domain/Hashing.ts"
import type { Identity } from "../src/domain/Identity.ts"
import { Accounts } from "../src/services/admission/Accounts.ts"
import type { Demand, Ticket } from "../src/services/admission/Admission.ts"
import { AdmissionRules } from "../src/services/admission/AdmissionRules.ts"
import { BudgetBook } from "../src/services/budgets/BudgetBook.ts"
import { KeyIndex } from "../src/services/keys/KeyIndex.ts"
import { RateWindows } from "../src/services/limits/RateWindows.ts"
import { admissionOf, covers } from "../src/services/settings/AdmissionSettings.ts"
import { modelWith } from "../src/services/settings/Resolution.ts"
import type { Child } from "./Child.ts"
import { withChild } from "./Child.ts"
import * as Config from "./Config.ts"
import * as Cores from "./Cores.ts"
import type { LoadAnswer, LoadQuestion } from "./load.ts"
import * as ProcessCpu from "./ProcessCpu.ts"
import type { Gateway } from "./ProxyParts.ts"
import * as ProxyParts from "./ProxyParts.ts"
import { connections } from "./ProxyRows.ts"
import type { Effort, Outcome, Row, Scenario } from "./Scenario.ts"
import { withService } from "./Service.ts"
import { median } from "./Statistics.ts"
import type { UpstreamAnswer, UpstreamQuestion } from "./upstream.ts"

const name = "team"
const providerKey = "bench-key"
const callerKey = "the-secret-key-of-the-bench"
const cpuRatio = 1.15
/** What a request may take longer with 100,000 keys than with 10, µs. */
const growth = 5

const forms = { request: ProxyParts.forms.buffered, stream: ProxyParts.forms.streamed }
type Form = keyof typeof forms
const formNames = ["request", "stream"] as const

/** A request, µs of CPU time of the service. */
type Round = Readonly<Record<Form, { readonly off: number; readonly on: number }>>

interface Setting {
  readonly load: Child<LoadQuestion, LoadAnswer>
  readonly off: Gateway
  readonly on: Gateway
}

const costOf = async ({ load }: Setting, gateway: Gateway, form: Form, milliseconds: number): Promise<number> => {
  const question = { ...forms[form], connections, milliseconds, port: gateway.port, headers: gateway.headers }
  const [{ requests }, { tree }] = await ProcessCpu.during(gateway.pid, () => load.ask(question))
  return tree / requests
}

const measureRound = async (setting: Setting, milliseconds: number, turn: number): Promise<Round> => {
  const order = turn % 2 === 0 ? ["off", "on"] as const : ["on", "off"] as const
  const of = async (form: Form) => {
    const costs = { off: 0, on: 0 }
    for (const side of order) costs[side] = await costOf(setting, setting[side], form, milliseconds)
    return costs
  }
  return { request: await of("request"), stream: await of("stream") }
}

const cpuRow = (rounds: ReadonlyArray<Round>, form: Form): Row => ({
  scenario: name,
  measure: `CPU with keys, limits, budgets, ledger, ${form}`,
  unit: `µs/${form}`,
  baseline: median(rounds.map((round) => round[form].off)),
  troupe: median(rounds.map((round) => round[form].on)),
  comparison: "ratio",
  target: { atMost: cpuRatio }
})

const measureService = async (setting: Setting, { roundMs, rounds: count, warmUpMs }: Effort) => {
  await ProxyParts.check(setting.off)
  await ProxyParts.check(setting.on)
  for (let turn = 0; turn < 2; turn++) await measureRound(setting, 2 * warmUpMs, turn)
  const rounds: Array<Round> = []
  while (rounds.length < count) rounds.push(await measureRound(setting, roundMs, rounds.length))
  return rounds
}

const limits = { requestsPerMinute: 1e9, tokensPerDay: 1e12, parallel: 1_000 }

/** Every concern is in use, and none rejects a request. */
const everything = {
  keys: { caller: { key: "${BENCH_CALLER_KEY}", user: "ann", limits, budgets: [{ period: "day", usd: 1e5 }] } },
  limits: { tenant: { by: ["tenant"], ...limits } },
  budgets: { tenant: { by: ["tenant"], period: "month", usd: 1e5, tokens: 1e13 } }
}

const serviceRounds = (effort: Effort, nodeOptions: ReadonlyArray<string>) =>
  withChild<UpstreamQuestion, UpstreamAnswer, ReadonlyArray<Round>>("upstream.ts", async (upstream) => {
    const { port } = await upstream.ask({ words: ProxyParts.words, key: providerKey, paceMs: 0 })
    const deployment = {
      provider: "openai",
      model: "quick",
      baseUrl: `http://127.0.0.1:${port}/v1`,
      key: "${BENCH_UPSTREAM_KEY}",
      maxConcurrent: 2 * connections,
      price: { input: 1, output: 10, cachedInput: 0.1 }
    }
    const service = (more: object) => ({
      config: JSON.stringify({ ...JSON.parse(Config.make({ quick: deployment })) as object, ...more }),
      nodeOptions,
      env: { BENCH_UPSTREAM_KEY: providerKey, BENCH_CALLER_KEY: callerKey }
    })
    return withChild(
      "load.ts",
      (load: Child<LoadQuestion, LoadAnswer>) =>
        withService(service({}), (off) =>
          withService(service(everything), (on) => {
            Cores.part([off.pid, on.pid], [upstream.pid, load.pid])
            const gateway = { side: "troupe" as const, headers: { authorization: `Bearer ${callerKey}` } }
            return measureService({ load, off: { ...gateway, ...off }, on: { ...gateway, ...on } }, effort)
          }))
    )
  })

const { deployments: [deployment] } = modelWith("fake/chat", { engine: "fake" })

const makeAccounts = () => {
  const budgets = { tenant: { by: ["tenant"], period: "day", usd: 1_000 } } as const
  return new Accounts({
    rules: new AdmissionRules(admissionOf({ budgets, limits: { tenant: { by: ["tenant"], ...limits } } }), covers),
    windows: new RateWindows(),
    book: new BudgetBook(),
    now: Date.now,
    priceOf: () => ({ input: 0, output: 1 }),
    add: () => {},
    alert: () => {},
    rejected: () => {}
  })
}

type Admission = ReturnType<Accounts["admit"]>

const isAdmitted = (outcome: Admission): outcome is Ticket => !("_tag" in outcome)

const demandOf = (grant: Identity, deployments: ReadonlyArray<Deployment>, maxTokens: number): Demand => ({
  grant,
  tenant: grant.tenant,
  model: "fake/chat",
  operation: "chat",
  deployments,
  promptTokens: 10,
  mostPromptTokens: () => 40,
  choices: 1,
  maxTokens,
  generates: true,
  hedges: false
})

const charge = (ticket: Ticket, completionTokens: number): void => {
  ticket.charge({
    deployment,
    decision: "dec-0",
    attempt: 0,
    usage: { promptTokens: 10, completionTokens, cachedTokens: 0 },
    isEstimated: false,
    tookMs: 1
  })
  ticket.end()
}

const keyOf = (index: number) => ({
  id: `key-${index}`,
  name: `key-${index}`,
  tenant: `tenant-${index}`,
  user: `user-${index}`,
  limits,
  budgets: [{ period: "day" as const, usd: 1_000 }],
  origin: "store" as const
})

const hashOf = (index: number): string => `${index}`.padStart(64, "0")

const indexOf = (count: number): KeyIndex => {
  const index = new KeyIndex()
  for (let at = 0; at < count; at++) index.set({ key: keyOf(at), hash: hashOf(at) })
  return index
}

const parallel = 200

/** The budget of the key has room for half of the requests of one time: the others are rejected. */
const reserveTogether = (accounts: Accounts, grant: Identity): void => {
  const tokens = 1_000
  const demand = demandOf(grant, [deployment], tokens)
  const outcomes = Array.from({ length: parallel }, () => accounts.admit(demand))
  const admitted = outcomes.filter(isAdmitted)
  if (admitted.length !== parallel / 2) throw new Error(`${admitted.length} of ${parallel} requests were admitted`)
  for (const ticket of admitted) charge(ticket, 0)
}

/** µs of each of `calls` in a call of `work`, the median of calls within a time. */
const measureCalls = (milliseconds: number, calls: number, work: () => void): number => {
  const end = performance.now() + milliseconds
  const figures: Array<number> = []
  while (figures.length < 3 || performance.now() < end) {
    const start = performance.now()
    work()
    figures.push((performance.now() - start) * 1_000 / calls)
  }
  return median(figures)
}

const parallelRow = ({ roundMs }: Effort): Row => {
  const accounts = makeAccounts()
  const grant = {
    keyId: "k",
    tenant: "t",
    isAdmin: false,
    setsTenant: false,
    limits,
    budgets: [{ period: "day" as const, usd: 0.1 }]
  }
  const work = () => reserveTogether(accounts, grant)
  measureCalls(roundMs / 4, parallel, work)
  return {
    scenario: name,
    measure: `${parallel} reservations at once in one budget`,
    unit: "µs/request",
    troupe: measureCalls(roundMs / 2, parallel, work)
  }
}

/** Identifies the caller of a request, admits it, charges and ends it. */
const admissionWith = (keys: number, milliseconds: number): number => {
  const accounts = makeAccounts()
  const index = indexOf(keys)
  const grantOf = (at: number): Identity => {
    const found = index.identify(hashOf(at), 0)
    if (typeof found === "string") throw new Error(`The key is ${found}`)
    return found
  }
  const request = (at: number) => {
    const ticket = accounts.admit(demandOf(grantOf(at), [deployment], 100))
    if (!isAdmitted(ticket)) throw new Error(ticket.message)
    charge(ticket, 1)
  }
  // The first request of a key makes its counters.
  for (let at = 0; at < keys; at++) request(at)
  let count = 0
  const batch = 1_000
  const work = () => {
    for (let at = 0; at < batch; at++) request(Math.floor(draw(7, count++) * keys))
  }
  measureCalls(milliseconds / 2, batch, work)
  return measureCalls(milliseconds, batch, work)
}

const growthRows = ({ roundMs }: Effort): ReadonlyArray<Row> => {
  const [few, ...others] = [10, 1_000, 100_000].map((keys) => ({ keys, took: admissionWith(keys, roundMs / 2) }))
  return others.map(({ keys, took }) => ({
    scenario: name,
    measure: `admission with ${keys.toLocaleString("en")} keys, compared with ${few!.keys}`,
    unit: "µs/request",
    baseline: few!.took,
    troupe: took,
    comparison: "difference",
    target: { atMost: growth }
  }))
}

export const team: Scenario = {
  name,
  async run(effort, nodeOptions) {
    const own = [parallelRow(effort), ...growthRows(effort)]
    if (!ProcessCpu.isAvailable) return { rows: own, notes: [ProcessCpu.unavailable], raw: own }
    const rounds = await serviceRounds(effort, nodeOptions)
    const rows = [...formNames.map((form) => cpuRow(rounds, form)), ...own]
    return { rows, notes: [], raw: { rounds, rows } } satisfies Outcome
  }
}
