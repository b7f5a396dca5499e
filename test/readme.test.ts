/** Every command, program and configuration that README shows works as it stands there. */
import { assert } from "@effect/vitest"
import { execFile } from "node:child_process"
import { readFileSync, symlinkSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { afterAll, beforeAll, describe, it } from "vitest"
import type { Service } from "./support/Service.ts"
import { run, startService, temporaryFolder } from "./support/Service.ts"

const root = fileURLToPath(new URL("..", import.meta.url))
const readme = readFileSync(join(root, "README.md"), "utf8")

const blocks = (language: string): ReadonlyArray<string> =>
  [...readme.matchAll(/^```(\w+)\n(.*?)^```/gms)].flatMap(([, tag, text]) => tag === language ? [text!] : [])

/** What the whole run of the tests has shown already. */
const shownByRunning = new Set(["npm ci && npm start", "npm ci && npm test"])

const execute = promisify(execFile)

/** In which the commands pull. */
const store = temporaryFolder()

let service: Service
beforeAll(async () => {
  service = await startService()
})
afterAll(async () => {
  store[Symbol.dispose]()
  await service.stop()
})

describe("README", () => {
  for (const line of blocks("sh").flatMap((block) => block.trim().split("\n"))) {
    it(line.slice(0, 100), async () => {
      if (shownByRunning.has(line)) {
        return assert.include(readFileSync(join(root, ".ci/run"), "utf8"), "npm ci && npm")
      }
      if (line.startsWith("curl ")) {
        const { stdout } = await execute("sh", ["-c", line.replace("http://127.0.0.1:3000", service.url)])
        return assert.include(
          stdout,
          line.includes("embeddings") ? "\"embedding\":[" : "The capital of Japan is Tokyo."
        )
      }
      const command = /^npm run troupe -- (.*)$/.exec(line)
      assert.isNotNull(command, "a supported kind of command")
      const args = [...command[1]!.matchAll(/"([^"]*)"|(\S+)/g)].map(([, quoted, bare]) => quoted ?? bare!)
      // In test, the service stores nothing.
      const env = { TROUPE_MODELS: store.path, TROUPE_DATA: join(store.path, "data"), NODE_ENV: "development" }
      const { code, stdout } = await run(args, { cwd: root, env })
      assert.strictEqual(code, 0)
      assert.isNotEmpty(stdout)
    })
  }

  for (const [index, program] of blocks("ts").entries()) {
    it(`program ${index + 1}`, async () => {
      // With the built package, as programs of others run it.
      const flags = ["--input-type=module-typescript", "--eval"]
      const { stdout } = await execute(process.execPath, [...flags, program], { cwd: root })
      assert.match(stdout, /The capital of Japan is Tokyo\.|Snow is white\./)
    })
  }

  for (const [index, yaml] of blocks("yaml").entries()) {
    it(`configuration ${index + 1}`, async () => {
      using folder = temporaryFolder()
      const file = join(folder.path, "troupe.yaml")
      writeFileSync(file, yaml)
      // Its models are beside it, as they are beside a file in this project's folder.
      symlinkSync(join(root, "models"), join(folder.path, "models"), "junction")
      const { code, stderr } = await run(["config", "check", "--config", file], { env: { TROUPE_HOST: "0.0.0.0" } })
      assert.deepStrictEqual({ code, stderr }, { code: 0, stderr: "" })
    })
  }
})
