import { assert } from "@effect/vitest"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { describe, it } from "vitest"
import { invoke } from "../support/CommandLine.ts"
import { temporaryFolder } from "../support/Service.ts"

const file = `
server: { port: 9 } # without a listener
policies:
  patient: { retries: 5 }
models:
  fake/a:
    fallbacks: [fake/b]
    deployments:
      - { engine: fake, quality: 0.9, abilities: [generate] }
      - { engine: fake, quality: 0.6 }
  fake/b: { deployments: [{ engine: fake }] }
`

interface RouteOutput {
  readonly source: string
  readonly model: string
  readonly policy: string
  readonly decision: { readonly strategy: string; readonly excluded: ReadonlyArray<unknown> }
  readonly plan: { readonly lists: { readonly ordinary: ReadonlyArray<string> }; readonly retries: number }
}

describe("route without a running service", () => {
  const route = async (...args: ReadonlyArray<string>) => {
    using folder = temporaryFolder()
    writeFileSync(join(folder.path, "troupe.yaml"), file)
    return await invoke(["route", ...args], { cwd: folder.path })
  }
  const routeJson = async (...args: ReadonlyArray<string>) =>
    JSON.parse((await route("Hello", "--json", ...args)).stdout) as RouteOutput

  it("decides by the configuration alone, and prints that", async () => {
    const { stdout } = await route("Hello", "--strategy", "quality")
    assert.include(stdout, "No service is running")
    assert.include(stdout, "fake/a#0 would answer for fake/a (strategy quality, policy default).")
    assert.include(stdout, "Fallbacks: fake/a#1, fake/b#0")
  })

  it("applies required capabilities and routing options", async () => {
    const { decision, plan, policy, source } = await routeJson("--tools", "--policy", "patient", "--fallbacks", "")
    assert.strictEqual(source, "configuration")
    assert.strictEqual(policy, "patient")
    assert.strictEqual(plan.retries, 5)
    assert.deepStrictEqual(plan.lists.ordinary, ["fake/a#1"])
    assert.deepStrictEqual(decision.excluded, [{ deployment: "fake/a#0", reason: "it does not support tool calls" }])
    const only = await routeJson(
      "--model",
      "fake/a",
      "--deployments",
      "fake/a#1",
      "--strategy",
      "session",
      "--session",
      "s"
    )
    assert.deepStrictEqual([only.plan.lists.ordinary[0], only.decision.strategy], ["fake/a#1", "session"])
  })

  it("excludes a local model whose file has a context window too small for the prompt", async () => {
    using folder = temporaryFolder()
    const gguf = new URL("../../models/tiny-chat-q8_0.gguf", import.meta.url).pathname
    const deployments =
      `[{ engine: llama, file: ${gguf}, quality: 0.9 }, { engine: llama, file: ${gguf}, contextSize: 9000 }]`
    writeFileSync(
      join(folder.path, "troupe.yaml"),
      `server: { port: 9 }\nmodels: { long: { strategy: quality, deployments: ${deployments} } }`
    )
    const { stdout } = await invoke(["route", "word ".repeat(2_000), "--explain"], { cwd: folder.path })
    assert.include(stdout, "long#1 would answer")
    assert.include(stdout.replaceAll(/\s+/g, " "), "its context window of 512 tokens is too small")
  })

  it("exits 1 if no deployment can answer", async () => {
    for (const json of [[], ["--json"]]) {
      const args = ["Hello", "--model", "fake/b", "--except", "fake/b#0", ...json]
      const { code, stderr, stdout } = await route(...args)
      assert.deepStrictEqual([code, stderr], [1, ""])
      assert.include(stdout, "the request excludes it")
    }
    assert.strictEqual((await route("Hello", "--model", "fake/a", "--except", "fake/a#0,fake/a#1")).code, 0)
  })

  it("names each invalid flag", async () => {
    const policy = await route("Hello", "--policy", "nope")
    assert.deepStrictEqual([policy.code, policy.stdout], [1, ""])
    assert.strictEqual(policy.stderr, "troupe: --policy: Unknown policy. Available policies: default, patient\n")
    assert.match((await route("Hello", "--retries", "99")).stderr, /^troupe: --retries: Expected .* 10\n$/)
    assert.include((await route("Hello", "--model", "nope")).stderr, "Available models: fake/a, fake/b.")
  })

  it.each(["here", "ftp://127.0.0.1", "http://"])("requires a URL instead of %s", async (url) => {
    const { code, stderr } = await route("Hello", "--url", url)
    assert.strictEqual(code, 1)
    assert.include(stderr, "--url")
    assert.include(stderr, "Expected a URL such as http://127.0.0.1:3000")
  })

  it("does not use the configuration if --url names a service that is not running", async () => {
    const { code, stderr } = await route("Hello", "--url", "http://127.0.0.1:9")
    assert.strictEqual(code, 1)
    assert.include(stderr, "No service is running at http://127.0.0.1:9")
  })
})
