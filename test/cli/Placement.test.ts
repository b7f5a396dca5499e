/** `troupe placement plan`. */
import { assert } from "@effect/vitest"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { afterAll, describe, it } from "vitest"
import { invoke } from "../support/CommandLine.ts"
import { temporaryFolder } from "../support/Service.ts"

const folder = temporaryFolder()
afterAll(() => folder[Symbol.dispose]())

const plan = (yaml: string, ...args: ReadonlyArray<string>) => {
  writeFileSync(join(folder.path, "nodes.yaml"), yaml)
  return invoke(["placement", "plan", "--nodes", "nodes.yaml", ...args], { cwd: folder.path })
}

const cluster = `
nodes:
  - { name: a, gpuMemory: 24 GiB, models: [chat, coder] }
  - { name: b, gpuMemory: 24 GiB, files: [coder] }
  - { name: c, gpuMemory: 24 GiB, models: [{ model: embed, device: gpu }], lost: true }
models:
  - { name: chat, memory: 9 GiB, load: 0.5 }
  - { name: coder, memory: 9 GiB, load: 0.4 }
  - { name: embed, memory: 1 GiB, replicas: 3, load: 0.1 }
`

describe("troupe placement plan", () => {
  it("prints the steps in their order, with reasons, and what fits nowhere", async () => {
    const { code, stderr, stdout } = await plan(cluster)
    assert.strictEqual(stderr, "")
    // A replica has no place.
    assert.strictEqual(code, 1)
    assert.deepStrictEqual(stdout.trimEnd().split("\n").map((line) => line.replaceAll(/ {2,}/g, " | ")), [
      "STEP | ACTION | MODEL | FROM | TO | DEVICE | REASON",
      "1 | load | embed | b | gpu | c is lost",
      "2 | load | embed | a | gpu | 3 wanted",
      "3 | move | chat | a | b | gpu | requests wait 24 min less in all, loading takes 2 min",
      "A replica of embed fits nowhere: every node with enough memory has a replica already."
    ])
  })

  it("prints the assignment as JSON", async () => {
    const { assignment, moves } = JSON.parse((await plan(cluster, "--json")).stdout) as {
      readonly assignment: ReadonlyArray<unknown>
      readonly moves: ReadonlyArray<unknown>
    }
    assert.deepInclude(assignment, { model: "chat", node: "b", device: "gpu" })
    assert.deepInclude(moves[0], { type: "load", model: "embed", to: "b", device: "gpu", unloadsFirst: false })
  })

  it("says what fits nowhere in the units of the file, and nothing else where nothing can move", async () => {
    const planOf = (lost: boolean) =>
      plan(`nodes: [{ name: a, memory: 1 GiB, models: [x], lost: ${lost} }]\nmodels: [{ name: x, memory: 10 GiB }]\n`)
    assert.strictEqual((await planOf(true)).stdout, "A replica of x fits nowhere: every node is lost.\n")
    const { stdout } = await plan("nodes: [{ name: a, memory: 1 GiB }]\nmodels: [{ name: x, memory: 10 GiB }]\n")
    assert.strictEqual(stdout, "A replica of x fits nowhere: needs 10 GiB of memory; at most 1 GiB are free, on a.\n")
  })

  it("says that nothing moves", async () => {
    const { code, stdout } = await plan(
      "nodes: [{ name: a, memory: 8 GiB, models: [x] }]\nmodels: [{ name: x, memory: 1 GiB }]\n"
    )
    assert.strictEqual(stdout, "Nothing has to move.\n")
    assert.strictEqual(code, 0)
  })

  it("names every problem of the file with its line", async () => {
    const { code, stderr } = await plan(`nodes:
  - { name: a, memory: 8 gigs, model: [x] }
models: [{ name: x, replicas: -1, load: 70 }]
`)
    assert.strictEqual(code, 1)
    assert.deepStrictEqual(stderr.split("\n").slice(1, -1), [
      "  nodes[0].memory: Expected an amount of bytes above 0, such as 8 GiB or 1048576 (line 2, column 16)",
      "  nodes[0].model: Unknown field. Did you mean models? (line 2, column 32)",
      "  models[0].memory: `memory` is required (line 3, column 10)",
      "  models[0].replicas: Expected a whole number of at least 0 (line 3, column 21)",
      "  models[0].load: Expected a number from 0 to 1 (line 3, column 35)"
    ])
    const unknown = await plan(`nodes:
  - { name: a, models: [x, { model: z }], files: [w] }
  - { name: a }
models: [{ name: x, memory: 1 GiB }, { name: y, memory: 1 GiB }]
`)
    assert.deepStrictEqual(unknown.stderr.split("\n").slice(1, -1), [
      "  nodes[0].models[1].model: Expected a name in models: x, y (line 2, column 30)",
      "  nodes[0].files[0]: Expected a name in models: x, y (line 2, column 51)",
      "  nodes[1].name: Expected another name: nodes[0] has it (line 3, column 7)"
    ])
    const missing = await invoke(["placement", "plan", "--nodes", "none.yaml"], { cwd: folder.path })
    assert.include(missing.stderr, "none.yaml\n  No such file")
  })
})
