/** `start.mjs`: builds the bundle when it is out of date, and runs it; otherwise the sources. */
import { assert } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { afterEach, beforeEach, describe, it } from "vitest"

const launcher = fileURLToPath(new URL("../start.mjs", import.meta.url))

/** In place of rolldown: the bundle prints how many builds there were before. */
const bundler = `
import { appendFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs"
appendFileSync("builds", "1")
mkdirSync(process.env.TROUPE_BUILD_OUTPUT)
const count = readFileSync("builds", "utf8").length
writeFileSync(process.env.TROUPE_BUILD_OUTPUT + "/main.js", "console.log('bundle " + count + "', ...process.argv.slice(2))")
`

let folder: string
const write = (path: string, text: string) => writeFileSync(join(folder, path), text)
const installBundler = (text: string) => {
  mkdirSync(join(folder, "node_modules/rolldown/bin"), { recursive: true })
  write("node_modules/rolldown/bin/cli.mjs", text)
}
const run = (...args: ReadonlyArray<string>) => {
  const { stderr, stdout } = spawnSync(process.execPath, [join(folder, "start.mjs"), ...args], { encoding: "utf8" })
  return { stdout: stdout.trim(), stderr }
}

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "troupe-start-"))
  copyFileSync(launcher, join(folder, "start.mjs"))
  mkdirSync(join(folder, "src/cli"), { recursive: true })
  write("package.json", "{\"type\":\"module\"}")
  write("src/main.ts", "console.log('sources', ...process.argv.slice(2))")
  write("src/cli/Serve.ts", "")
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

describe("start.mjs", () => {
  it("builds once, and runs the bundle with the arguments", () => {
    installBundler(bundler)
    assert.strictEqual(run("--build").stdout, "")
    assert.strictEqual(run("serve", "--port", "0").stdout, "bundle 1 serve --port 0")
    assert.strictEqual(run("serve").stdout, "bundle 1 serve")
  })

  it("builds again after a file of the sources has changed or is deleted", () => {
    installBundler(bundler)
    run("--build")
    write("src/cli/Serve.ts", "0")
    assert.strictEqual(run().stdout, "bundle 2")
    rmSync(join(folder, "src/cli/Serve.ts"))
    assert.strictEqual(run().stdout, "bundle 3")
    assert.strictEqual(run().stdout, "bundle 3")
  })

  it("runs the sources if the build fails, and keeps the bundle", () => {
    installBundler(bundler)
    run("--build")
    write("src/cli/Serve.ts", "0")
    installBundler("console.error('No such module'); process.exit(1)")
    const { stderr, stdout } = run("serve")
    assert.strictEqual(stdout, "sources serve")
    assert.include(stderr, "No such module")
    assert.isTrue(existsSync(join(folder, "dist/main.js")))
    assert.deepStrictEqual(readdirSync(folder).filter((name) => name.startsWith("dist-")), [])
  })

  it("builds the package with types beside dist, which stays until all is built", () => {
    installBundler(bundler)
    mkdirSync(join(folder, "node_modules/typescript/bin"), { recursive: true })
    const compiler = (end: string) => `
      import { existsSync, writeFileSync } from "node:fs"
      console.log(existsSync("dist/main.js") ? "dist is there" : "no dist")
      writeFileSync(process.argv.at(-1) + "/main.d.ts", "export {}")
      ${end}
    `
    write("node_modules/typescript/bin/package.json", "{\"type\":\"module\"}")
    write("node_modules/typescript/bin/tsc", compiler(""))
    assert.strictEqual(run("--package").stdout, "no dist")
    assert.strictEqual(run("--package").stdout, "dist is there")
    assert.deepStrictEqual(readdirSync(join(folder, "dist")).toSorted(), ["main.d.ts", "main.js"])
    assert.strictEqual(run().stdout, "bundle 2")
    write("node_modules/typescript/bin/tsc", compiler("process.exit(1)"))
    assert.include(run("--package").stderr, "dist could not be built, and stays as it was.")
    assert.strictEqual(run().stdout, "bundle 2")
    assert.deepStrictEqual(readdirSync(folder).filter((name) => name.startsWith("dist-")), [])
  })

  it("runs the sources without a bundler", () => {
    assert.deepStrictEqual(run("serve"), { stdout: "sources serve", stderr: "" })
  })
})
