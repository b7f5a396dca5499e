import { assert, describe, it } from "@effect/vitest"
import { Duration, Equal, Redacted, Result } from "effect"
import * as fc from "fast-check"
import { decode } from "../../../src/services/settings/Decode.ts"
import type { Resolved } from "../../../src/services/settings/Settings.ts"
import * as SettingsDiff from "../../../src/services/settings/SettingsDiff.ts"

const context = {
  environment: "test",
  variables: { KEY_A: "secret-a-secret-a", KEY_B: "secret-b-secret-b" },
  resolvePath: (path: string) => `/config/${path}`,
  embedded: {},
  defaultEngineHost: "thread",
  defaultStoreFolder: "/store",
  defaultStorage: "memory",
  defaultDataFolder: "/data",
  findInStore: () => undefined
} as const

const settingsOf = (file: Parameters<typeof decode>[0]): Resolved => {
  const decoded = decode(file, context)
  assert.isTrue(Result.isSuccess(decoded), JSON.stringify(decoded))
  return Result.getOrThrow(decoded)
}

const linesOf = (before: object, after: object): ReadonlyArray<string> =>
  SettingsDiff.shown(SettingsDiff.diff(settingsOf(before), settingsOf(after))).map(SettingsDiff.line)

const remote = (model: string, more: object = {}) => ({ provider: "openai", model, key: "${KEY_A}", ...more })

const base = { models: { chat: { deployments: [remote("gpt-4o")] }, other: { deployments: [remote("gpt-4o-mini")] } } }

const some = <A>(arbitrary: fc.Arbitrary<A>) => fc.option(arbitrary, { nil: undefined })

/** Without fields that are left out. */
const present = (fields: Readonly<Record<string, unknown>>): object =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined))

const deploymentFile = fc.record({
  model: fc.constantFrom("x", "y", "z"),
  key: fc.constantFrom("${KEY_A}", "${KEY_B}"),
  price: some(fc.record({ input: fc.integer({ min: 0, max: 3 }), output: fc.integer({ min: 0, max: 3 }) })),
  maxConcurrent: some(fc.integer({ min: 1, max: 3 }))
}).map((fields) => present({ provider: "openai", ...fields }))

const modelFile = fc.record({
  deployments: fc.array(deploymentFile, { minLength: 1, maxLength: 3 }),
  queueLimit: some(fc.integer({ min: 1, max: 3 })),
  idleUnload: some(fc.constantFrom("1 minute", "2 minutes", false)),
  fallbacks: some(fc.constant(["cached-responses"])),
  rollout: some(fc.record({ minRequests: fc.integer({ min: 1, max: 3 }) }))
}).map(present)

const names = fc.constantFrom("a", "b", "c", "d")

const file = fc.record({
  models: fc.dictionary(names, modelFile, { minKeys: 1 }),
  policies: some(
    fc.dictionary(fc.constantFrom("default", "fast"), fc.record({ maxAttempts: fc.integer({ min: 1, max: 4 }) }))
  ),
  limits: some(fc.dictionary(names, fc.record({ requestsPerHour: fc.integer({ min: 1, max: 9 }) }))),
  budgets: some(fc.dictionary(
    names,
    fc.record({
      usd: fc.integer({ min: 1, max: 9 }),
      period: fc.constantFrom("day", "month"),
      models: fc.constant(["a*"])
    })
  )),
  guard: some(fc.record({ mode: fc.constantFrom("off", "flag", "reject") })),
  circuits: some(fc.record({ failures: fc.integer({ min: 1, max: 9 }) })),
  server: some(fc.record({ port: fc.integer({ min: 1, max: 9 }) })),
  logLevel: some(fc.constantFrom("info", "debug"))
}).map(present)

describe("SettingsDiff", () => {
  it("finds nothing between equal configurations", () => {
    fc.assert(
      fc.property(file, (one) => {
        assert.deepStrictEqual(SettingsDiff.diff(settingsOf(one), settingsOf(structuredClone(one))), [])
      }),
      { numRuns: 20 }
    )
  })

  it("has everything that makes one configuration the other", () => {
    fc.assert(
      fc.property(file, file, (one, other) => {
        const [before, after] = [settingsOf(one), settingsOf(other)]
        const applied = SettingsDiff.apply(before, SettingsDiff.diff(before, after))
        assert.deepStrictEqual(SettingsDiff.diff(applied, after), [])
        assert.deepStrictEqual(applied.models, after.models)
        assert.deepStrictEqual(applied.policies, after.policies)
        assert.deepStrictEqual(applied.rollouts, after.rollouts)
        assert.deepStrictEqual(
          applied.admission.limits.map(({ rule }) => rule),
          after.admission.limits.map(({ rule }) => rule)
        )
      }),
      { numRuns: 50 }
    )
  })

  it("shows paths of the file and values without secrets", () => {
    const lines = linesOf({ ...base, keys: { team: { key: "${KEY_A}" } } }, {
      models: {
        chat: { deployments: [remote("gpt-4o", { key: "${KEY_B}", price: { input: 1, output: 2 } })], queueLimit: 64 },
        more: { deployments: [remote("gpt-5")] }
      },
      keys: { team: { key: "${KEY_B}" } },
      circuits: { openFor: "5 seconds" },
      limits: { default: false },
      guard: { mode: "reject" },
      logLevel: "debug"
    })
    assert.includeMembers([...lines], [
      "~ models.chat.queueLimit: 512 -> 64",
      "~ models.chat.deployments.chat#0.key: <redacted> -> <redacted>",
      "+ models.chat.deployments.chat#0.price: {\"input\":1,\"output\":2}",
      "~ circuits.openFor: 1 minute -> 5 seconds",
      "~ logLevel: Warn -> Debug",
      "~ keys.team.key: <redacted> -> <redacted>"
    ])
    assert.isTrue(lines.includes("- models.other: openai: gpt-4o-mini"))
    assert.isTrue(lines.includes("+ models.more: openai: gpt-5"))
    assert.notInclude(lines.join("\n"), "secret-")
  })

  it("shows how rollouts and A/B tests of a model change", () => {
    const testOf = (weight: number, evaluateEvery: string) => ({
      variants: [{ deployment: "chat#0", weight }, { deployment: "chat#1", weight: 1 }],
      evaluateEvery
    })
    const models = (more: object) => ({
      models: { chat: { deployments: [remote("gpt-4o"), remote("gpt-5")], ...more }, other: base.models.other }
    })
    const lines = linesOf(
      models({ experiment: testOf(1, "10 seconds"), rollout: { minRequests: 10 } }),
      models({ experiment: testOf(3, "1 minute"), rollout: { minRequests: 20, every: "1 minute" } })
    )
    assert.sameMembers([...lines], [
      "+ models.chat.rollout.every: 1 minute",
      "~ models.chat.rollout.minRequests: 10 -> 20",
      "~ models.chat.experiment.evaluateEvery: 10 seconds -> 1 minute",
      "~ models.chat.experiment.variants: [{\"deployment\":\"chat#0\",\"weight\":1},{\"deployment\":\"chat#1\",\"weight\":1}] -> " +
      "[{\"deployment\":\"chat#0\",\"weight\":3},{\"deployment\":\"chat#1\",\"weight\":1}]"
    ])
    assert.deepStrictEqual(linesOf(models({ rollout: { minRequests: 10 } }), models({})), [
      "- models.chat.rollout: {\"minRequests\":10}"
    ])
  })

  it("shows a change of a policy once, not for each model that has it", () => {
    const withPolicy = (maxAttempts: number) => ({
      policies: { default: { maxAttempts } },
      models: { chat: { ...base.models.chat, fallbacks: ["other"] }, other: base.models.other }
    })
    assert.deepStrictEqual(linesOf(withPolicy(2), withPolicy(3)), ["~ policies.default.maxAttempts: 2 -> 3"])
  })

  it("says which settings need a restart", () => {
    const lines = linesOf(base, { ...base, server: { port: 4000 }, troupe: { model: "requested" } })
    assert.deepStrictEqual(lines, [
      "~ server.port: 3000 -> 4000 (needs a restart)",
      "~ troupe.model: served -> requested"
    ])
  })

  it("shows the order of models", () => {
    const { chat, other } = base.models
    assert.deepStrictEqual(linesOf(base, { models: { other, chat } }), [
      "~ models.order: [\"chat\",\"other\"] -> [\"other\",\"chat\"]"
    ])
  })

  it("compares secrets and durations by their values", () => {
    assert.isTrue(Equal.equals(Redacted.make("a"), Redacted.make("a")))
    assert.deepStrictEqual(
      linesOf({ ...base, circuits: { openFor: "60 seconds" } }, { ...base, circuits: { openFor: "1 minute" } }),
      []
    )
    assert.isTrue(Equal.equals(Duration.seconds(60), Duration.minutes(1)))
  })
})
