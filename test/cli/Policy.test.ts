import { assert } from "@effect/vitest"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { describe, it } from "vitest"
import * as RoutingPolicy from "../../src/domain/RoutingPolicy.ts"
import { invoke } from "../support/CommandLine.ts"
import { temporaryFolder } from "../support/Service.ts"

const file = `
policies:
  quick: { strategy: speed, retries: 0 }
models:
  fake/a: { deployments: [{ engine: fake }], policy: quick, strategy: latency, fallbacks: [fake/b] }
  fake/b: { deployments: [{ engine: fake }] }
`

describe("policy show", () => {
  const show = async (...args: ReadonlyArray<string>) => {
    using folder = temporaryFolder()
    writeFileSync(join(folder.path, "troupe.yaml"), file)
    return await invoke(["policy", "show", ...args], { cwd: folder.path })
  }

  it("prints every policy with its defaults filled in", async () => {
    const { stdout } = await show("--json")
    const quick = {
      ...RoutingPolicy.defaults,
      name: "quick",
      selection: { ...RoutingPolicy.defaults.selection, strategy: "speed" },
      retries: 0
    }
    assert.deepStrictEqual(JSON.parse(stdout), [RoutingPolicy.defaults, quick])
  })

  it("prints the routing of a model", async () => {
    const { stdout } = await show("fake/a")
    const lines = stdout.split("\n").map((line) => line.split(/ +/).join(" "))
    for (const line of ["model fake/a", "policy quick", "strategy latency", "fallbacks fake/b"]) {
      assert.include(lines, line)
    }
  })

  it("needs no keys", async () => {
    using folder = temporaryFolder()
    writeFileSync(
      join(folder.path, "troupe.yaml"),
      "models: { chat: { deployments: [{ provider: openai, model: m, key: \"${SURELY_NOT_SET}\" }], policy: default } }"
    )
    const { stdout } = await invoke(["policy", "show", "chat"], { cwd: folder.path })
    assert.include(stdout, "default")
  })

  it("names every value as in troupe.yaml", async () => {
    using folder = temporaryFolder()
    const path = join(folder.path, "troupe.yaml")
    writeFileSync(path, "policies: { p: { hedge: { after: 5 seconds, share: 0.5 }, timeouts: { total: 9s } } }")
    const shown = (stdout: string) => stdout.trim().split("\n").map((line) => line.split(/ {2,}/))
    const [, ...figures] = shown((await invoke(["policy", "show", "p"], { cwd: folder.path })).stdout)
    const tree: Record<string, object | string> = {}
    for (const [name, value] of figures) {
      const [key, inner] = name!.split(".")
      tree[key!] = inner === undefined ? value! : { ...(tree[key!] as object), [inner]: value! }
    }
    const flow = (value: object | string): string =>
      typeof value === "string"
        ? value
        : `{ ${Object.entries(value).map(([key, inner]) => `${key}: ${flow(inner as object | string)}`).join(", ")} }`
    writeFileSync(path, `policies: { p: ${flow(tree)} }`)
    const { code, stdout, stderr } = await invoke(["policy", "show", "p"], { cwd: folder.path })
    assert.deepStrictEqual([code, stderr], [0, ""])
    assert.deepStrictEqual(shown(stdout).slice(1), figures)
  })

  it("prints readable durations", async () => {
    using folder = temporaryFolder()
    const path = join(folder.path, "troupe.yaml")
    writeFileSync(
      path,
      "policies: { p: { backoff: { initial: 250 ms, cap: 10 seconds }, maxWait: 1500 ms, " +
        "timeouts: { queue: 1 second, load: 90 minutes, total: 2h } } }"
    )
    const { stdout } = await invoke(["policy", "show", "p"], { cwd: folder.path })
    const lines = stdout.split("\n").map((line) => line.split(/ +/).join(" "))
    assert.includeMembers(lines, [
      "backoff.initial 250 ms",
      "backoff.cap 10 seconds",
      "maxWait 1500 ms",
      "timeouts.queue 1 second",
      "timeouts.load 90 minutes",
      "timeouts.total 2 hours"
    ])
  })

  it("lists the policies and models for an unknown name", async () => {
    const { code, stderr } = await show("missing")
    assert.notStrictEqual(code, 0)
    assert.include(stderr, "Available: default, quick, fake/a, fake/b.")
  })
})
