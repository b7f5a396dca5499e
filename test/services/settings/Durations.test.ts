/** Every duration of `troupe.yaml`, found in its JSON Schema: what 0, false and others mean. */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Result } from "effect"
import { decode } from "../../../src/services/settings/Decode.ts"
import type { ResolveContext } from "../../../src/services/settings/Resolution.ts"
import { fileJsonSchema } from "../../../src/services/settings/Schema.ts"

interface Node {
  readonly anyOf?: ReadonlyArray<Node>
  readonly maxLength?: number
  readonly enum?: ReadonlyArray<unknown>
  readonly const?: unknown
  readonly allOf?: ReadonlyArray<Node>
  readonly properties?: Readonly<Record<string, Node>>
  readonly additionalProperties?: Node | false
  readonly items?: Node
  readonly prefixItems?: ReadonlyArray<Node>
  readonly description?: string
}

type Path = ReadonlyArray<string>

/** The node and what it is put together from. */
const partsOf = (
  node: Node
): ReadonlyArray<Node> => [node, ...[...node.anyOf ?? [], ...node.allOf ?? []].flatMap(partsOf)]

/** Nothing else is a text of at most 100 characters. */
const isDuration = (node: Node): boolean => partsOf(node).some(({ maxLength }) => maxLength === 100)
const mayBeOff = (node: Node): boolean =>
  partsOf(node).some((part) => part.const === false || part.enum?.includes(false) === true)

/** Paths of durations; `*` is any name, `0` an element. */
const durationsIn = (node: Node, path: Path = []): ReadonlyArray<readonly [path: Path, node: Node]> => {
  if (isDuration(node)) return [[path, node]]
  return partsOf(node).flatMap(({ additionalProperties, items, prefixItems = [], properties = {} }) => [
    ...Object.entries(properties).flatMap(([name, inner]) => durationsIn(inner, [...path, name])),
    ...(additionalProperties ? durationsIn(additionalProperties, [...path, "*"]) : []),
    ...[...prefixItems, ...(items ? [items] : [])].flatMap((inner) => durationsIn(inner, [...path, "0"]))
  ])
}

const found = new Map(
  durationsIn(fileJsonSchema()).filter(([[first]]) => first !== "environments")
    .map(([path, node]) => [path.join("."), { path, node }])
)

/** What must stand beside a field for the rest of the file to be right. */
const beside: Readonly<Record<string, object>> = {
  "alerts.webhook": { url: "https://hooks.example.com" },
  "alerts.rules.*": { metric: "latency_p95", threshold: 1 },
  "models.*.cache.semantic": { embeddings: "any" },
  "models.*": { deployments: [{ provider: "openai", model: "m" }, { provider: "openai", model: "n" }] },
  "models.*.experiment": {
    variants: [{ deployment: "any#0", weight: 1 }, { deployment: "any#1", weight: 1 }]
  },
  "models.*.shadow": { candidate: "any#1", percent: 5 },
  "models.*.deployments.0": { provider: "openai", model: "m" },
  "policies.*.hedge": { share: 0.5 }
}

const fileWith = (path: Path, value: unknown, from: Path = []): unknown => {
  const [step, ...rest] = path
  if (step === undefined) return value
  const inner = fileWith(rest, value, [...from, step])
  if (step === "0") return [inner]
  return { ...beside[from.join(".")], [step === "*" ? "any" : step]: inner }
}

const context: ResolveContext = {
  environment: "test",
  variables: {},
  resolvePath: (path) => path,
  embedded: { "tiny-chat": { options: { engine: "fake" }, preload: true } },
  defaultEngineHost: "thread",
  defaultStoreFolder: "/store",
  defaultStorage: "memory",
  defaultDataFolder: "/data",
  findInStore: () => undefined
}

const decoded = (path: Path, value: unknown) => decode(fileWith(path, value), context)

describe("durations of troupe.yaml", () => {
  it("are found", () => {
    for (const path of ["server.shutdownGrace", "models.*.idleUnload", "policies.*.backoff.initial"]) {
      assert.isTrue(found.has(path), [...found.keys()].join(" "))
    }
    assert.isAtLeast(found.size, 18)
  })

  for (const [name, { node, path }] of found) {
    describe(name, () => {
      it.each(["1 ms", "1ms", "2 minutes", "1h30m"])("takes %j", (value) => {
        assert.isTrue(Result.isSuccess(decoded(path, value)))
      })

      it.each([0, "0", "0s", "0 ms", "0.0 minutes", -1, "-5 minutes", 300, "300", true, null, "soon"])(
        "refuses %j",
        (value) => {
          const result = decoded(path, value)
          // A key without a value is left out.
          if (value === null && Result.isSuccess(result)) return
          const [problem, ...others] = Result.isFailure(result) ? result.failure : assert.fail("it was taken")
          assert.lengthOf(others, 0)
          assert.strictEqual(problem?.path, path.join(".").replaceAll("*", "any").replace(".0", "[0]"))
          assert.match(problem!.expected, /^Expected a duration above 0 with its unit/)
        }
      )

      it("accepts false exactly where the time can be turned off, and says so", () => {
        const result = decoded(path, false)
        assert.strictEqual(Result.isSuccess(result), mayBeOff(node))
        if (Result.isFailure(result)) assert.notInclude(result.failure[0]!.expected, "false")
        else assert.match(JSON.stringify(node), /false/)
      })
    })
  }

  it("that are off are infinite, or zero for a wait", () => {
    const off = { total: false, stall: false, firstToken: false }
    const settings = Result.getOrThrow(decode({
      server: { shutdownGrace: false },
      memory: { hold: false },
      policies: { default: { timeouts: { total: "1 s", stall: "1 s" } }, own: { maxWait: false, timeouts: off } },
      models: { "fake/a": { deployments: [{ engine: "fake" }], idleUnload: false, stallAfter: false } }
    }, context))
    const [{ idleUnload, stallAfter }] = settings.models[0]!.deployments
    assert.isFalse(Duration.isFinite(idleUnload) || Duration.isFinite(stallAfter))
    assert.isTrue(Duration.isZero(settings.server.shutdownGrace) && Duration.isZero(settings.memory.hold))
    // A load always has a limit.
    assert.deepInclude(settings.policies[1], { maxWaitMs: 0, timeouts: { loadMs: 300_000 } })
    assert.deepStrictEqual(settings.policies[0]!.timeouts, { loadMs: 300_000, totalMs: 1_000, stallMs: 1_000 })
  })
})
