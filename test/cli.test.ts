/** The command line from a shell. */
import { assert } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import { describe, it } from "vitest"
import { invoke } from "./support/CommandLine.ts"
import { writeLora } from "./support/LoraFiles.ts"
import { run, temporaryFolder, troupe, until } from "./support/Service.ts"

const main = fileURLToPath(new URL("../src/main.ts", import.meta.url))

describe("run", () => {
  it("streams the answer to standard output and nothing else", async () => {
    const result = await run(["run", "tiny-chat", "What is the capital of Japan?", "--temperature", "0"])
    assert.deepStrictEqual(result, { code: 0, stdout: "The capital of Japan is Tokyo.\n", stderr: "" })
  })

  it("reads the prompt from a pipe and prints JSON", async () => {
    const { code, stdout } = await run(["run", "tiny-chat", "--json", "--temperature", "0"], {
      input: "Count to 7.\n"
    })
    assert.strictEqual(code, 0)
    const answer = JSON.parse(stdout) as { text: string; finishReason: string; usage: { completionTokens: number } }
    assert.strictEqual(answer.text, "1, 2, 3, 4, 5, 6, 7.")
    assert.strictEqual(answer.finishReason, "stop")
    assert.isAbove(answer.usage.completionTokens, 7)
  })

  it("accepts a system message, a seed, a maximum length and stop sequences", async () => {
    const call = ["run", "tiny-chat", "Write a story about a fox.", "--system", "You are a helpful assistant."]
    const sample = [...call, "--seed", "5", "--max-tokens", "12"]
    const [first, second] = await Promise.all([invoke(sample), invoke(sample)])
    assert.strictEqual(first.stdout, second.stdout)
    const stopped = await invoke([...call, "--temperature", "0", "--stop", " fox", "--stop", "never"])
    assert.strictEqual(stopped.stdout, "Once upon a time, a sad\n")
  })

  /** A long answer whose beginning has been printed. */
  const startAnswer = async (folder: string) => {
    const reply = "word ".repeat(20_000)
    writeFileSync(
      join(folder, "troupe.yaml"),
      `models:\n  fake/slow:\n    deployments:\n      - { engine: fake, tokenDelayMs: 10, contextSize: 100000, reply: "${reply}" }\n`
    )
    const running = troupe(["run", "fake/slow", "Hello!"], { cwd: folder })
    await until(() => running.output().stdout.includes("word") ? true : undefined)
    return running
  }

  for (const [signal, code] of [["SIGINT", 130], ["SIGTERM", 143]] as const) {
    it(`${signal} stops the generation and exits ${code}`, async () => {
      using folder = temporaryFolder()
      const running = await startAnswer(folder.path)
      running.child.kill(signal)
      assert.strictEqual((await running.finished).code, code)
    })
  }

  it("ends quietly when its reader closes the pipe", async () => {
    using folder = temporaryFolder()
    const running = await startAnswer(folder.path)
    running.child.stdout!.destroy()
    assert.deepInclude(await running.finished, { code: 141, stderr: "" })
  })

  it("lists the available models when one does not exist", async () => {
    const { code, stderr } = await invoke(["run", "gpt-9", "Hello!"])
    assert.strictEqual(code, 1)
    assert.strictEqual(stderr, "troupe: The model \"gpt-9\" does not exist. Available models: tiny-chat, tiny-embed.\n")
  })

  it("names each option that is out of range", async () => {
    const line = ["run", "tiny-chat", "Hello!", "--temperature", "9", "--max-tokens", "1000001"]
    const { code, stderr } = await invoke(line)
    assert.strictEqual(code, 1)
    assert.match(stderr, /^troupe: --temperature: .*2; --max-tokens: .*\n$/)
  })
})

/** The entry is part of the commands that are shown. */
const runSources = (args: ReadonlyArray<string>, { cwd }: { readonly cwd: string }) => run(args, { cwd, entry: main })

describe("an invalid invocation", () => {
  it.each([
    [
      "runn",
      "troupe: Unknown subcommand \"runn\" for \"troupe\". Did you mean run? See: node main.ts --help\n",
      runSources
    ],
    [
      "serve --prot 3",
      "troupe: Unrecognized flag: --prot in command troupe serve. Did you mean --port? See: node main.ts serve --help\n",
      invoke
    ],
    ["models show", "troupe: Missing required argument: name. See: node main.ts models show --help\n", invoke]
  ])("is answered in one line: %s", async (line, expected, call) => {
    const { code, stderr, stdout } = await call(line.split(" "), { cwd: dirname(main) })
    assert.deepStrictEqual({ code, stderr, stdout }, { code: 1, stderr: expected, stdout: "" })
  })
})

describe("models", () => {
  it("lists the embedded models as a table and as JSON", async () => {
    const table = await run(["models"])
    assert.match(
      table.stdout,
      /^MODEL +ENGINE +SOURCE\ntiny-chat +llama +\S+tiny-chat-q8_0\.gguf\ntiny-embed +onnx +\S+tiny-embed\n$/
    )
    const models = JSON.parse((await invoke(["models", "--json"])).stdout) as ReadonlyArray<{ name: string }>
    assert.deepStrictEqual(models.map(({ name }) => name), ["tiny-chat", "tiny-embed"])
  })
})

describe("flags with numbers", () => {
  it.each([["serve", "--port", "abc"], ["route", "Hi", "--timeout-ms", "1.5"], ["route", "Hi", "--retries", "x"]])(
    "%s %s %s asks for a whole number",
    async (...args) => {
      const { code, stderr } = await invoke(args)
      assert.strictEqual(code, 1)
      assert.include(stderr, "Expected a whole number")
    }
  )

  it.each(["--temperature", "--top-p"])("%s asks for a number", async (flag) => {
    const { code, stderr } = await invoke(["run", "tiny-chat", "Hi", flag, "0.5.5"])
    assert.strictEqual(code, 1)
    assert.include(stderr, `${flag}: "0.5.5". Expected a number.`)
  })

  it("are typed in the help", async () => {
    const { stdout } = await invoke(["route", "--help"])
    assert.match(stdout, /--retries integer/)
    assert.match(stdout, /--continue true\|false/)
  })
})

describe("config", () => {
  it("checks every environment and names every problem", async () => {
    using folder = temporaryFolder()
    const file = join(folder.path, "troupe.yaml")
    writeFileSync(file, "server: { port: 70000 }\nenvironments: { production: { server: { hots: x } } }\n")
    const { code, stderr } = await run(["config", "check", "--config", file])
    assert.strictEqual(code, 1)
    assert.include(stderr, "server.port: ")
    assert.include(
      stderr,
      "environments.production.server.hots: Unknown field. Did you mean host? (line 2, column 41)\n"
    )
    const json = await invoke(["config", "check", "--config", file, "--json"])
    assert.strictEqual(json.code, 1)
    assert.strictEqual((JSON.parse(json.stdout) as { problems: ReadonlyArray<unknown> }).problems.length, 2)
  })

  it("names model files that are missing or invalid", async () => {
    using folder = temporaryFolder()
    const file = join(folder.path, "troupe.yaml")
    writeFileSync(join(folder.path, "there.gguf"), "")
    mkdirSync(join(folder.path, "half"))
    writeFileSync(join(folder.path, "half", "config.json"), "{}")
    writeFileSync(
      file,
      "models: { a: { deployments: [{ engine: llama, file: there.gguf, variants: [gone.gguf] }, " +
        "{ engine: onnx, folder: none }, { engine: onnx, folder: half, model: small }] } }\n"
    )
    const { code, stderr } = await invoke(["config", "check", "--config", file])
    assert.strictEqual(code, 1)
    assert.strictEqual(
      stderr,
      `troupe: Invalid configuration: ${file}\n` +
        `  models.a.deployments[0].file: ${join(folder.path, "there.gguf")} is not a model file that can be loaded: ` +
        "it is empty (line 1, column 47)\n" +
        `  models.a.deployments[0].variants[0]: No such file or folder: ${
          join(folder.path, "gone.gguf")
        } (line 1, column 76)\n` +
        `  models.a.deployments[1].folder: No such file or folder: ${
          join(folder.path, "none")
        } (line 1, column 106)\n` +
        `  models.a.deployments[2].folder: The folder ${
          join(folder.path, "half")
        } has no tokenizer.json, no onnx/small.onnx (line 1, column 138)\n`
    )
  })

  it("names LoRA adapters that are missing or of another model", async () => {
    using folder = temporaryFolder()
    const file = join(folder.path, "troupe.yaml")
    const [model, other] = ["q8_0", "f16"].map((name) =>
      fileURLToPath(new URL(`../models/tiny-chat-${name}.gguf`, import.meta.url))
    )
    const adapter = join(folder.path, "qwen.gguf")
    writeLora(adapter, { metadata: { "general.architecture": "qwen2" } })
    const deployments = [
      { engine: "llama", file: model, lora: "gone.gguf" },
      { engine: "llama", file: model, variants: [other], lora: [{ path: "qwen.gguf", scale: 0.5 }] }
    ]
    writeFileSync(file, JSON.stringify({ models: { a: { deployments } } }))
    const { code, stdout } = await invoke(["config", "check", "--config", file, "--json"])
    assert.strictEqual(code, 1)
    const { problems } = JSON.parse(stdout) as { readonly problems: ReadonlyArray<{ path: string; expected: string }> }
    assert.deepStrictEqual(problems.map(({ path }) => path), [
      "models.a.deployments[0].lora",
      "models.a.deployments[1].lora[0].path"
    ])
    assert.include(problems[0]!.expected, `No such file or folder: ${join(folder.path, "gone.gguf")}`)
    assert.include(
      problems[1]!.expected,
      `${adapter} is not a LoRA adapter of this model. It is for models of the arch`
    )
  })

  it.each([
    ["8.8.8.8", "troupe: 8.8.8.8 is not an address of this machine. Use 127.0.0.1,"],
    ["no.such.host.invalid", "troupe: Could not resolve the host no.such.host.invalid. Use 127.0.0.1,"]
  ])("has advice for a host that is not of this machine: %s", async (host, expected) => {
    using folder = temporaryFolder()
    const file = join(folder.path, "troupe.yaml")
    const key = "keys: { ann: { key: \"${ANN_KEY}\" } }"
    writeFileSync(file, `${key}\nmodels: { fake/a: { deployments: [{ engine: fake }] } }\n`)
    const env = { ANN_KEY: "a-secret-of-a-caller" }
    const { code, stderr } = await invoke(["serve", "--port", "0", "--config", file, "--host", host], { env })
    assert.strictEqual(code, 1)
    assert.include(stderr, expected)
  })

  it("rejects what the service rejects: settings that its processes cannot share", async () => {
    using folder = temporaryFolder()
    const file = join(folder.path, "troupe.yaml")
    writeFileSync(file, "server: { processes: 4, maxConnections: 2 }\n")
    for (const args of [["config", "check"], ["serve", "--port", "0"]]) {
      const { code, stderr } = await invoke([...args, "--config", file])
      assert.strictEqual(code, 1)
      assert.include(stderr, "server.maxConnections: Expected at least 4")
    }
  })

  it("confirms a valid configuration", async () => {
    const { code, stdout } = await invoke(["config", "check"])
    assert.strictEqual(code, 0)
    assert.match(
      stdout,
      /^The configuration is valid\. Environment: test\. Models: tiny-chat, tiny-embed\.\n\nMODEL .*\ntiny-chat +512 of 512 tokens  about [\d.]+ MiB: fits the .* available on this machine now .*\.gguf\ntiny-embed +128 of .*\n$/
    )
  })

  it("and serve name the line of a model that does not fit in memory", async () => {
    using folder = temporaryFolder()
    const file = join(folder.path, "troupe.yaml")
    writeFileSync(
      file,
      "memory: { budget: 8 MiB }\nmodels:\n  fake/a: { deployments: [{ engine: fake, memory: 1 GiB }] }\n"
    )
    for (const args of [["config", "check"], ["serve", "--port", "0"]]) {
      const { code, stderr } = await invoke([...args, "--config", file])
      assert.strictEqual(code, 1)
      assert.match(
        stderr,
        /^troupe: Invalid configuration: .*troupe\.yaml\n {2}models\.fake\/a\.deployments\[0\]: .* \(line 3, column 27\)\n$/
      )
    }
  })

  it("rejects a PORT that the service would not start with", async () => {
    const { code, stderr } = await invoke(["config", "check"], { env: { PORT: "abc" } })
    assert.strictEqual(code, 1)
    assert.include(stderr, "PORT: The environment variable PORT must be a port from 0 to 65535, not \"abc\"\n")
  })

  it("says that a file is empty", async () => {
    using folder = temporaryFolder()
    const file = join(folder.path, "troupe.yaml")
    for (const text of ["", "# nothing yet\n"]) {
      writeFileSync(file, text)
      const { code, stderr, stdout } = await invoke(["config", "check", "--config", file])
      assert.strictEqual(code, 0)
      assert.include(stdout, "Models: tiny-chat, tiny-embed.")
      assert.strictEqual(stderr, `Warning: ${file} is empty. The defaults apply\n`)
    }
  })

  it("warns of a public provider API without a key, and of nothing else", async () => {
    using folder = temporaryFolder()
    const file = join(folder.path, "troupe.yaml")
    const remote = (...fields: ReadonlyArray<string>) => `{ deployments: [{ model: m, ${fields.join(", ")} }] }`
    const models = {
      open: remote("provider: openai"),
      written: remote("provider: anthropic", "baseUrl: \"https://api.anthropic.com/\""),
      keyed: remote("provider: openai", "key: \"${KEY}\""),
      headed: remote("provider: gemini", "headers: { X-Goog-Api-Key: \"${KEY}\" }"),
      local: remote("provider: ollama"),
      other: remote("provider: openai", "baseUrl: \"http://127.0.0.1:8000/v1\"")
    }
    const lines = Object.entries(models).map(([name, model]) => `  ${name}: ${model}\n`)
    writeFileSync(file, `models:\n${lines.join("")}`)
    const env = { KEY: "k" }
    const { code, stderr, stdout } = await invoke(["config", "check", "--config", file], { env })
    assert.strictEqual(code, 0)
    assert.match(stdout, /^The configuration is valid\./)
    const warning = (url: string) =>
      `No API key is configured, and ${url} requires one. Set key: \${NAME}, or set baseUrl ` +
      "to another host"
    assert.strictEqual(
      stderr,
      `Warning: models.open.deployments[0]: ${warning("https://api.openai.com/v1")} (line 2, column 25)\n` +
        `Warning: models.written.deployments[0]: ${warning("https://api.anthropic.com")} (line 3, column 28)\n`
    )
    const json = JSON.parse((await invoke(["config", "check", "--config", file, "--json"], { env })).stdout) as {
      readonly valid: boolean
      readonly warnings: ReadonlyArray<{ readonly path: string }>
    }
    assert.isTrue(json.valid)
    assert.deepStrictEqual(json.warnings.map(({ path }) => path), [
      "models.open.deployments[0]",
      "models.written.deployments[0]"
    ])
  })

  it("rejects the port of the service as that of administration", async () => {
    using folder = temporaryFolder()
    const file = join(folder.path, "troupe.yaml")
    writeFileSync(file, "server: { port: 4100, admin: { port: 4200 } }\n")
    const check = (env: Record<string, string>) => invoke(["config", "check", "--config", file], { env })
    assert.include(
      (await check({ PORT: "4200" })).stderr,
      "server.admin.port: Expected another port than 4200, on which the service listens (line 1, column"
    )
    assert.strictEqual((await check({})).code, 0)
    assert.strictEqual((await check({ PORT: "4200", HOST: "127.0.0.2" })).code, 0)
  })

  it("says that the service would not listen without keys, as serve does", async () => {
    using folder = temporaryFolder()
    const file = join(folder.path, "troupe.yaml")
    const storage = `storage: { type: sqlite, folder: "${folder.path}" }`
    const check = (text: string, env: Record<string, string> = {}) => {
      writeFileSync(file, text)
      return invoke(["config", "check", "--config", file], { env })
    }
    const open = "server: { host: 0.0.0.0 }\n"
    const refused = await check(`${open}storage: { type: memory }`)
    assert.strictEqual(refused.code, 1)
    assert.match(
      refused.stderr,
      /server\.host: The service has no keys, and other machines .* \(line 1, column \d+\)\n$/
    )
    assert.include((await check("storage: { type: memory }", { HOST: "::" })).stderr, "HOST: The service has no keys")
    const unknown = await check(`${open}${storage}`)
    assert.strictEqual(unknown.code, 0)
    assert.match(unknown.stderr, /^Warning: server\.host: Without a key in its database the service does not start\. /)
    assert.strictEqual((await invoke(["keys", "create", "app", "--config", file])).code, 0)
    assert.deepInclude(await check(`${open}${storage}`), { code: 0, stderr: "" })
    for (
      const text of [
        `${open}storage: { type: memory }\nkeys: { app: { key: "\${APP}" } }`,
        "server: { host: 0.0.0.0, allowAnonymous: true }\nstorage: { type: memory }"
      ]
    ) assert.deepInclude(await check(text, { APP: "a-key-of-the-app-1234" }), { code: 0, stderr: "" })
  })

  const weights = fileURLToPath(new URL("../models/tiny-chat-q8_0.gguf", import.meta.url))
  const checkOf = async (text: string, env: Record<string, string> = {}) => {
    using folder = temporaryFolder()
    const file = join(folder.path, "troupe.yaml")
    writeFileSync(file, text)
    return await invoke(["config", "check", "--config", file], { env })
  }

  it("checks the context window and the memory of model files", async () => {
    const { code, stderr } = await checkOf(`
memory: { budget: 20 MiB }
engines: { host: thread }
models:
  wide: { deployments: [{ engine: llama, file: ${weights}, contextSize: 1024 }] }
  many: { deployments: [{ engine: llama, file: ${weights}, slots: 64 }] }
  few: { deployments: [{ engine: llama, file: ${weights}, slots: 1, contextSize: 128 }] }
`)
    assert.strictEqual(code, 1)
    const [, ...problems] = stderr.trimEnd().split("\n")
    assert.deepStrictEqual(problems.map((line) => line.replace(/about [\d.]+/, "about N")), [
      `  models.wide.deployments[0].contextSize: Expected at most 512 tokens, the context window that ${weights} was trained with (line 5, column ${
        50 + weights.length
      })`,
      "  models.many.deployments[0]: The model needs about N MiB of memory, but at most 20.0 MiB can be available " +
      "(memory.budget minus pinned models). Use a smaller variant, fewer slots or a shorter contextSize, or raise memory.budget " +
      "(line 6, column 25)"
    ])
  })

  it("checks memory like the service, including engine processes and pinned models", async () => {
    using folder = temporaryFolder()
    const file = join(folder.path, "troupe.yaml")
    const small = `{ engine: llama, file: ${weights}, slots: 1, contextSize: 128 }`
    const text = (budget: string) => `
memory: { budget: ${budget} }
server: { port: 0 }
models:
  a: { deployments: [${small}], pinned: true }
  b: { deployments: [${small}] }
`
    // One process needs about 115 MiB.
    for (const [budget, refused] of [["20 MiB", "a"], ["150 MiB", "b"]] as const) {
      writeFileSync(file, text(budget))
      const checked = await invoke(["config", "check", "--config", file])
      assert.strictEqual(checked.code, 1)
      assert.match(checked.stderr, new RegExp(`models\\.${refused}\\.deployments\\[0\\]: The model needs about 11\\d`))
      const served = await invoke(["serve", "--config", file])
      assert.notStrictEqual(served.code, 0)
      assert.include(served.stderr, `"${refused}#0" needs`)
    }
    writeFileSync(file, text("300 MiB"))
    assert.strictEqual((await invoke(["config", "check", "--config", file])).code, 0)
  })

  it("finds problems of every kind in one pass, each with its line", async () => {
    const { code, stderr } = await checkOf(`server:
  port: 70000
  shutdownGrace: 0
policies:
  default: { retries: -1 }
models:
  a:
    deployments: [{ engine: llama, file: ${weights}, slots: 0 }, { engine: llama, file: /nowhere/a.gguf }]
  b:
    deployments: [{ engine: llama, file: /nowhere/b.gguf }]
    fallbacks: [a, missing]
    policy: none
  c:
    deployments:
      - { engine: llama, file: store:missing }
      - { provider: openai, model: m, key: "\${SURELY_NOT_SET}" }
  fake/d: { deployments: [{ engine: llama, file: ${weights} }] }
  e:
    idleUnload: soon
    deployments: [{ engine: llama, file: ${weights}, contextSize: 4096 }]
environments:
  production: { logLevel: loud }
`)
    assert.strictEqual(code, 1)
    const found = stderr.split("\n").flatMap((line) => {
      const [, path, place] = /^ {2}([^ ]+): .* \(line (\d+), column \d+\)$/.exec(line) ?? []
      return path === undefined ? [] : [`${path} ${place}`]
    })
    assert.deepStrictEqual(found, [
      "server.port 2",
      "server.shutdownGrace 3",
      "policies.default.retries 5",
      "models.a.deployments[0].slots 8",
      "models.a.deployments[1].file 8",
      "models.b.deployments[0].file 10",
      "models.b.fallbacks[1] 11",
      "models.b.policy 12",
      "models.c.deployments[0].file 15",
      "models.c.deployments[1].key 16",
      "models.fake/d 17",
      "models.e.idleUnload 19",
      "models.e.deployments[0].contextSize 20",
      "environments.production.logLevel 22"
    ])
  })

  it("accepts a deployment of which one variant fits", async () => {
    const f16 = weights.replace("q8_0", "f16")
    const { code, stdout } = await checkOf(`
memory: { budget: 6 MiB }
engines: { host: thread }
models:
  a: { deployments: [{ engine: llama, file: ${f16}, variants: [${weights}], slots: 1, contextSize: 128 }] }
`)
    assert.strictEqual(code, 0)
    assert.match(
      stdout,
      /128 of 512 tokens .* does not fit the 6\.0 MiB available of the budget .*f16\.gguf\n.* fits .*q8_0/
    )
  })

  it("names the command for a model whose file is missing from the store", async () => {
    using store = temporaryFolder()
    const manifest = {
      version: 1,
      name: "lost",
      kind: "gguf",
      source: "x",
      pulledAt: "",
      files: [{ path: "a.gguf", bytes: 1, sha256: "" }]
    }
    mkdirSync(join(store.path, "lost"))
    writeFileSync(join(store.path, "lost", "model.json"), JSON.stringify(manifest))
    const { code, stderr } = await checkOf(
      "models: { a: { deployments: [{ engine: llama, file: store:lost }] } }\n",
      { TROUPE_MODELS: store.path }
    )
    assert.strictEqual(code, 1)
    assert.match(
      stderr,
      /deployments\[0\]\.file: .*a\.gguf cannot be read: There is no such file\. See: .* models show lost \(line 1, column 47\)\n$/
    )
  })

  it("prints a JSON Schema", async () => {
    const schema = JSON.parse((await invoke(["config", "schema"])).stdout) as { $schema: string; properties: object }
    assert.include(schema.$schema, "json-schema.org")
    assert.hasAllKeys(
      schema.properties,
      [
        "server",
        "embeddingBatches",
        "engines",
        "memory",
        "circuits",
        "keys",
        "limits",
        "budgets",
        "ledger",
        "budgetAlerts",
        "alerts",
        "decisions",
        "deploy",
        "keyCooldowns",
        "reload",
        "store",
        "storage",
        "redis",
        "responses",
        "cache",
        "guard",
        "scaling",
        "telemetry",
        "policies",
        "logLevel",
        "logFormat",
        "logRequests",
        "models",
        "troupe",
        "environments"
      ]
    )
  })
})

describe("a Node that is too old", () => {
  const runWith = (version: string) => {
    const pretend = `Object.defineProperty(process, "versions", { value: { ...process.versions, node: "${version}" } })`
    const preload = `data:text/javascript,${encodeURIComponent(pretend)}`
    const { status, stderr, stdout } = spawnSync(process.execPath, ["--import", preload, main, "config", "check"], {
      encoding: "utf8",
      cwd: tmpdir()
    })
    return { status, stderr, stdout: stdout.split(":")[0] }
  }

  it.each(["18.20.8", "20.20.2", "22.18.0"])(
    "is refused in one line that names the required version: %s",
    (version) => {
      assert.deepStrictEqual(runWith(version), {
        status: 1,
        stderr: `troupe: Node.js 22.19 or later is required. This is Node.js ${version}.\n`,
        stdout: ""
      })
    }
  )

  it.each(["22.19.0", "24.0.0"])("%s is accepted", (version) => {
    assert.deepInclude(runWith(version), { status: 0, stderr: "" })
  })

  it("can read the entry and the file that checks the version", () => {
    const importedBy = (file: string) =>
      Array.from(readFileSync(file, "utf8").matchAll(/^import .* from "(.*)"$/gm), ([, from]) => from)
    assert.deepStrictEqual(importedBy(main), ["node:path"])
    assert.match(readFileSync(main, "utf8"), /\nconst unsupported = await import\("\.\/RequireNode\.ts"\)/)
    assert.deepStrictEqual(importedBy(join(dirname(main), "RequireNode.ts")), ["node:fs"])
  })

  it("is refused first where the package is imported", () => {
    const pretend = "Object.defineProperty(process, 'versions', { value: { ...process.versions, node: '20.20.2' } })"
    const index = join(dirname(main), "index.ts")
    const { status, stderr } = spawnSync(process.execPath, [
      "--import",
      `data:text/javascript,${encodeURIComponent(pretend)}`,
      "--input-type=module",
      "--eval",
      `import(${JSON.stringify(index)}).catch(({ message }) => console.error(message))`
    ], { encoding: "utf8", cwd: tmpdir() })
    assert.deepStrictEqual([status, stderr], [
      0,
      "troupe: Node.js 22.19 or later is required. This is Node.js 20.20.2.\n"
    ])
    assert.match(readFileSync(index, "utf8"), /\*\/\nimport "\.\/RequireNode\.ts"\n/)
    const decompression = readFileSync(join(dirname(main), "layers/providers/Decompression.ts"), "utf8")
    assert.match(decompression, /^import \* as zlib from "node:zlib"$/m)
  })
})

it("a warning of Node is printed, unless it is of an experimental feature", () => {
  const warn = "process.once('beforeExit', () => { process.emitWarning('trial', 'ExperimentalWarning');" +
    "process.emitWarning('old', 'DeprecationWarning') })"
  const preload = `data:text/javascript,${encodeURIComponent(warn)}`
  const { stderr } = spawnSync(process.execPath, ["--import", preload, main, "--version"], { encoding: "utf8" })
  assert.include(stderr, "DeprecationWarning: old")
  assert.notInclude(stderr, "trial")
})

describe("help", () => {
  for (const args of [["--help"], ["serve", "--help"], ["run", "--help"], ["models", "--help"], ["config", "--help"]]) {
    it(`troupe ${args.join(" ")} exits 0`, async () => {
      const { code, stdout } = await invoke(args)
      assert.strictEqual(code, 0)
      assert.include(stdout, "USAGE")
    })
  }

  it("shows commands that can be typed in the current folder", async () => {
    const { stdout } = await runSources(["serve", "--help"], { cwd: fileURLToPath(new URL("..", import.meta.url)) })
    assert.match(stdout, /^ +npm run troupe -- serve \[flags\] \[<model\.\.\.>\]$/m)
    assert.include(stdout, "npm run troupe -- serve --port 8080 --config ./troupe.yaml")
    assert.notMatch(stdout, /^ *troupe serve/m)
  })
})
