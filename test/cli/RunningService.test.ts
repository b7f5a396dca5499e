import { assert, describe, it } from "@effect/vitest"
import { mkdirSync, writeFileSync } from "node:fs"
import { dirname, join, resolve } from "node:path"
import { ofFile } from "../../src/cli/RunningService.ts"
import { defaultSocket } from "../../src/services/settings/Resolution.ts"
import { run, temporaryFolder } from "../support/Service.ts"

const place = (url: string, file?: string) => ({ pid: 1, url, ...(file === undefined ? {} : { file: resolve(file) }) })

const places = [place("http://a", "a.yaml"), place("http://b", "troupe.yaml"), place("http://c"), place("http://d")]

const urlsOf = (file: string | undefined, exists: boolean, some = places) =>
  ofFile(some, file, () => exists).map(({ url }) => url)

describe("the services that a command finds", () => {
  it("are those of its file", () => {
    assert.deepStrictEqual(urlsOf("a.yaml", true), ["http://a"])
    assert.deepStrictEqual(urlsOf("other.yaml", false), [])
  })

  it("are those of the default file, and without one those that have none", () => {
    assert.deepStrictEqual(urlsOf(undefined, true), ["http://b"])
    assert.deepStrictEqual(urlsOf(undefined, true, places.slice(2)), [])
    assert.deepStrictEqual(urlsOf(undefined, false, places.slice(2)), ["http://c", "http://d"])
  })

  it("are named where there are two", async () => {
    using folder = temporaryFolder()
    const records = dirname(defaultSocket(0, folder.path, process))
    mkdirSync(records, { recursive: true })
    const write = (name: string, pid: number, port: number) =>
      writeFileSync(join(records, `service-${name}.json`), JSON.stringify({ pid, url: `http://127.0.0.1:${port}` }))
    write("1", process.pid, 1)
    write("2", process.ppid, 2)
    // No process has this number.
    write("3", 2 ** 30, 3)
    const { code, stderr } = await run(["logs"], { cwd: folder.path, env: { TMPDIR: folder.path, PORT: "" } })
    assert.strictEqual(code, 1)
    assert.include(stderr, "2 services run: http://127.0.0.1:1, http://127.0.0.1:2. Choose one with --url.")
  })
})
