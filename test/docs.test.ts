/** The documents agree with the code. */
import { assert } from "@effect/vitest"
import { execFile } from "node:child_process"
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { describe, expect, it } from "vitest"
import * as ErrorCatalog from "../src/domain/ErrorCatalog.ts"
import { fileJsonSchema } from "../src/services/settings/Schema.ts"
import * as ApiTables from "./support/ApiTables.ts"
import { invoke } from "./support/CommandLine.ts"
import * as ErrorTables from "./support/ErrorTables.ts"
import { repetitions } from "./support/Repetitions.ts"
import { temporaryFolder } from "./support/Service.ts"
import { tablesOf, withTables } from "./support/SettingsTables.ts"

const root = fileURLToPath(new URL("..", import.meta.url))

const documents = [
  "README.md",
  "CONTRIBUTING.md",
  "models/README.md",
  "bench/README.md",
  ...readdirSync(join(root, "docs"), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".md"))
    .map((name) => join("docs", name))
]

const read = (name: string): string => readFileSync(join(root, name), "utf8")

/** The anchor that GitHub gives a heading. */
const anchorOf = (heading: string): string => heading.toLowerCase().replaceAll(/[^\w\s-]/g, "").replaceAll(/\s/g, "-")

const anchorsIn = (text: string): ReadonlyArray<string> =>
  [...text.matchAll(/^#+ (.+)$/gm)].map(([, heading]) => anchorOf(heading!))

describe("docs/configuration.md", () => {
  it("has the settings of the schema: update it with `npx vitest run test/docs.test.ts -u`", async () => {
    const text = read("docs/configuration.md")
    const tables = tablesOf(fileJsonSchema())
    for (const name of tables.keys()) assert.include(text, `<!-- settings: ${name} -->`)
    await expect(withTables(text, tables)).toMatchFileSnapshot("../docs/configuration.md")
  })

  const settings = [...tablesOf(fileJsonSchema()).values()].flatMap((table) =>
    table.split("\n").slice(2).map((row) => row.split(" | "))
  )

  it("has every setting of the top level", () => {
    const names = Object.keys(fileJsonSchema()["properties"] as object)
    const inTables = new Set(settings.map(([name = ""]) => /^\| `(\w+)/.exec(name)?.[1]))
    const inText = new Set(["keys", "limits", "budgets", "policies", "models", "environments"])
    for (const name of names) assert.isTrue(inTables.has(name) || inText.has(name), name)
  })

  it("has the default of every setting, in the units that the file accepts", () => {
    for (const [name, , byDefault = ""] of settings) {
      assert.match(byDefault, /^\S/, name)
      assert.notMatch(byDefault, /^and |millis/, name)
    }
  })
})

describe("docs/api.md", () => {
  it("has the fields of every endpoint: update it with `npx vitest run test/docs.test.ts -u`", async () => {
    const text = read("docs/api.md")
    assert.sameMembers([...ApiTables.tablesIn(text)], [...ApiTables.fieldsByEndpoint.keys()])
    await expect(ApiTables.withFields(text)).toMatchFileSnapshot("../docs/api.md")
    assert.deepStrictEqual(ApiTables.incompleteRows(read("docs/api.md")), [])
  })

  it("names every endpoint with its method", () => {
    const text = read("docs/api.md").replaceAll("`", "")
    const missing = ApiTables.endpoints.filter((endpoint) => !text.includes(endpoint))
    assert.deepStrictEqual(missing, [])
  })
})

describe("docs/errors.md", () => {
  it("has the errors of the catalog: update it with `npx vitest run test/docs.test.ts -u`", async () => {
    assert.isAbove(ErrorTables.encoded.length, 1000)
    await expect(ErrorTables.withErrors(read("docs/errors.md"))).toMatchFileSnapshot("../docs/errors.md")
  })

  it("has every code that a reason or a source has, and no other", () => {
    const sources = readdirSync(join(root, "src"), { recursive: true, encoding: "utf8" })
      .filter((name) => /^(?:layers\/http|services)\/.*\.ts$/.test(name))
    const written = sources.flatMap((name) =>
      [...read(join("src", name)).matchAll(/\bcode: "(\w+)"/g)].map(([, code]) => code!)
    )
    assert.isAbove(written.length, 30)
    const codes = new Set([...written, ...ErrorTables.encoded.map(({ code }) => code)])
    assert.deepStrictEqual([...codes].toSorted(), Object.keys(ErrorCatalog.entries).toSorted())
  })

  it("has the statuses of each code", () => {
    for (const [code, { statuses }] of Object.entries(ErrorCatalog.entries)) {
      const isOfReason = ErrorTables.encoded.some((one) => one.code === code)
      assert.strictEqual(statuses === undefined, isOfReason, code)
    }
  })
})

describe("docs/security.md", () => {
  const files = [...read("docs/security.md").matchAll(/^```yaml\n(\w.*?)^```/gms)].map(([, file]) => file!)
  const env = {
    APP_KEY: "a-key-of-an-application",
    OPERATOR_KEY: "a-key-of-an-operator",
    POLICY_KEY: "a-key-of-a-policy"
  }

  it.each(files.map((file, index) => [index + 1, file] as const))("file %i is a configuration", async (_, file) => {
    using folder = temporaryFolder()
    const path = join(folder.path, "troupe.yaml")
    writeFileSync(path, file)
    const { code, stderr } = await invoke(["config", "check", "--config", path], { env })
    assert.strictEqual(code, 0, stderr)
  })
})

describe("docs/embedding.md", () => {
  const programs = [...read("docs/embedding.md").matchAll(/^```ts\n(.*?)^```/gms)].map(([, program]) => program!)

  /** Each starts a process and loads a model: `npm test` runs the first ones, a step of `.ci/run` all. */
  const tested = programs.slice(0, repetitions(2, programs.length))

  it.each(tested.map((program, index) => [index + 1, program] as const))("program %i runs", async (_, program) => {
    // With the built package, as programs of others run it.
    const flags = ["--input-type=module-typescript", "--eval"]
    const { stdout } = await promisify(execFile)(process.execPath, [...flags, program], { cwd: root })
    assert.match(stdout, /The capital of Japan is Tokyo\.|Snow is white\./)
  })
})

describe("documents", () => {
  it.each(documents)("%s links to files and headings that exist", (name) => {
    const links = [...read(name).matchAll(/\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)/g)]
    for (const [link, path = "", anchor] of links) {
      const target = path === "" ? name : join(dirname(name), path)
      assert.isTrue(existsSync(join(root, target)), `${link} in ${name}`)
      if (anchor !== undefined) assert.include(anchorsIn(read(target)), anchor, `${link} in ${name}`)
    }
  })

  const british = /\w*(?:quantis|organis|tokenis|optimis|normalis|behaviour|colour|favour|neighbour|honour)\w*/gi

  it("and sources have American spelling", () => {
    const sources = readdirSync(join(root, "src"), { recursive: true, encoding: "utf8" })
      .filter((name) => name.endsWith(".ts"))
      .map((name) => join("src", name))
    for (const name of [...documents, "CHANGELOG.md", ...sources]) {
      assert.deepStrictEqual(read(name).match(british) ?? [], [], name)
    }
  })

  it.each(documents)("%s names files that exist", (name) => {
    const paths = read(name).matchAll(/`(?:src\/)?((?:domain|dialects|services|layers|workers|cli)\/[\w./-]+)`/g)
    for (const [named, path] of paths) {
      const found = ["", ".ts"].some((extension) => existsSync(join(root, "src", `${path}${extension}`)))
      assert.isTrue(found, `${named} in ${name}`)
    }
  })
})
