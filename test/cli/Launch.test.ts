import { assert } from "@effect/vitest"
import { Result } from "effect"
import { Toml, Yaml } from "effect/encoding"
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { dirname, join } from "node:path"
import { afterAll, beforeAll, describe, it } from "vitest"
import { agents } from "../../src/cli/AgentSettings.ts"
import { invoke } from "../support/CommandLine.ts"
import { temporaryFolder } from "../support/Service.ts"

const key = "sk-troupe-secret"

/** Lists its models, to those who have the key if it needs one. */
const server = createServer((request, response) => {
  const needsKey = request.url!.startsWith("/keyed")
  if (needsKey && request.headers.authorization !== `Bearer ${key}`) {
    response.writeHead(401).end("{}")
    return
  }
  if (request.url === "/other/v1/models") {
    response.end("<html>")
    return
  }
  const vectors = { id: "vectors", object: "model", created: 1, owned_by: "troupe", output_modalities: ["embeddings"] }
  if (request.url === "/vectors/v1/models") {
    response.end(JSON.stringify({ object: "list", data: [vectors] }))
    return
  }
  const data = [
    vectors,
    { id: "openai/*", object: "model", created: 1, owned_by: "openai", output_modalities: ["text"] },
    {
      id: "coder",
      object: "model",
      created: 1,
      owned_by: "troupe",
      context_window: 65_536,
      output_modalities: ["text"]
    },
    { id: "org/small", object: "model", created: 1, owned_by: "troupe" }
  ]
  response.setHeader("content-type", "application/json").end(JSON.stringify({ object: "list", data }))
})

let url: string
beforeAll(async () => {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
})
afterAll(() => server.close())

/** Runs `launch` with an empty home folder, in which the files of `before` are. */
const launch = async (
  args: ReadonlyArray<string>,
  { before = {}, env = {} }: { before?: Record<string, string>; env?: Record<string, string> } = {}
) => {
  const folder = temporaryFolder()
  for (const [path, text] of Object.entries(before)) {
    mkdirSync(dirname(join(folder.path, path)), { recursive: true })
    writeFileSync(join(folder.path, path), text)
  }
  const finished = await invoke(["launch", ...args, ...(args.includes("--url") ? [] : ["--url", url])], {
    env: { HOME: folder.path, XDG_CONFIG_HOME: "", TROUPE_API_KEY: "", ...env },
    cwd: folder.path
  })
  return {
    ...finished,
    home: folder.path,
    file: (path: string) => readFileSync(join(folder.path, path), "utf8"),
    names: (path: string) => readdirSync(join(folder.path, path)),
    [Symbol.dispose]: () => folder[Symbol.dispose]()
  }
}

const json = (text: string): unknown => JSON.parse(text)
const toml = (text: string): unknown => JSON.parse(JSON.stringify(Result.getOrThrow(Toml.parse(text))))

const withKey = { env: { TROUPE_API_KEY: key } }

describe("troupe launch", () => {
  it("lists the agents", async () => {
    using list = await launch([])
    for (const { name, title } of agents) assert.match(list.stdout, new RegExp(`^${name} +${title}$`, "m"))
    using asJson = await launch(["--json"])
    assert.deepStrictEqual(json(asJson.stdout), agents.map(({ name, title }) => ({ name, title })))
  })

  it("writes the variables of Claude Code without the key", async () => {
    using launched = await launch(["claude-code", "--write"], withKey)
    const model = "coder"
    assert.deepStrictEqual(json(launched.file(".claude/settings.json")), {
      env: {
        ANTHROPIC_BASE_URL: url,
        ANTHROPIC_MODEL: model,
        ANTHROPIC_DEFAULT_OPUS_MODEL: model,
        ANTHROPIC_DEFAULT_SONNET_MODEL: model,
        ANTHROPIC_DEFAULT_HAIKU_MODEL: model
      }
    })
    assert.include(launched.stdout, `export ANTHROPIC_AUTH_TOKEN="$TROUPE_API_KEY"`)
    assert.notInclude(launched.stdout, "export ANTHROPIC_BASE_URL")
  })

  it("prints every variable of Claude Code, and a token that is no key for a service without keys", async () => {
    using launched = await launch(["claude-code"])
    assert.include(launched.stdout, `export ANTHROPIC_BASE_URL='${url}'`)
    assert.include(launched.stdout, "export ANTHROPIC_AUTH_TOKEN='none'")
    assert.deepStrictEqual(launched.names("."), [])
  })

  it.each(agents)("says which variables $name needs that its files do not contain", async ({ name, settings }) => {
    const access = { url, model: "coder", keyVariable: undefined, window: undefined }
    const { environment, files } = settings(access, { home: "/home", variable: () => undefined })
    const contents = JSON.stringify(files.map(({ values }) => values))
    using launched = await launch([name, "--write"])
    for (const [variable, value] of Object.entries(environment)) {
      const isExported = launched.stdout.includes(`export ${variable}='${value}'`)
      assert.strictEqual(isExported, !contents.includes(`"${variable}":"${value}"`), variable)
    }
  })

  it("writes a profile of Codex that speaks the Responses API", async () => {
    using launched = await launch(["codex", "--write"], withKey)
    assert.deepStrictEqual(toml(launched.file(".codex/troupe.config.toml")), {
      model: "coder",
      model_provider: "troupe",
      web_search: "disabled",
      model_context_window: 65_536,
      model_providers: {
        troupe: { name: "Troupe", base_url: `${url}/v1`, wire_api: "responses", env_key: "TROUPE_API_KEY" }
      }
    })
    assert.include(launched.stdout, "codex --profile troupe")
  })

  it("writes a provider of OpenCode with the limits of the model", async () => {
    using launched = await launch(["opencode", "--write", "--model", "org/small"], withKey)
    assert.deepStrictEqual(json(launched.file(".config/opencode/opencode.json")), {
      $schema: "https://opencode.ai/config.json",
      model: "troupe/org/small",
      provider: {
        troupe: {
          npm: "@ai-sdk/openai-compatible",
          name: "Troupe",
          options: { baseURL: `${url}/v1`, apiKey: "{env:TROUPE_API_KEY}" },
          models: { "org/small": { name: "org/small", limit: { context: 32_768, output: 8_192 } } }
        }
      }
    })
  })

  it("writes the options and the model metadata of Aider", async () => {
    using launched = await launch(["aider", "--write"], withKey)
    assert.deepStrictEqual(Yaml.parse(launched.file(".aider.conf.yml")), {
      "model": "openai/coder",
      "weak-model": "openai/coder",
      "openai-api-base": `${url}/v1`
    })
    const { "openai/coder": about } = json(launched.file(".aider.model.metadata.json")) as Record<string, object>
    assert.deepInclude(about, { max_input_tokens: 65_536, litellm_provider: "openai", mode: "chat" })
    assert.include(launched.stdout, `export OPENAI_API_KEY="$TROUPE_API_KEY"`)
  })

  it("prints the command that stores the settings of Cline", async () => {
    using launched = await launch(["cline", "--write"], withKey)
    assert.include(launched.stdout, `cline auth -p openai -b ${url}/v1 -m 'coder' -k "$TROUPE_API_KEY"`)
    assert.deepStrictEqual(launched.names("."), [])
  })

  it("writes a model of Continue whose key is a secret", async () => {
    using launched = await launch(["continue", "--write"], withKey)
    assert.deepStrictEqual(Yaml.parse(launched.file(".continue/config.yaml")), {
      name: "Local configuration",
      version: "1.0.0",
      schema: "v1",
      models: [{
        name: "Troupe coder",
        provider: "openai",
        model: "coder",
        apiBase: `${url}/v1`,
        apiKey: "${{ secrets.TROUPE_API_KEY }}",
        roles: ["chat", "edit", "apply", "summarize"],
        capabilities: ["tool_use"],
        defaultCompletionOptions: { contextLength: 65_536 }
      }]
    })
  })

  it("writes a provider and the default model of Zed", async () => {
    using launched = await launch(["zed", "--write", "--context-window", "20000"], withKey)
    assert.deepStrictEqual(json(launched.file(".config/zed/settings.json")), {
      language_models: {
        openai_compatible: {
          Troupe: {
            api_url: `${url}/v1`,
            available_models: [{
              name: "coder",
              display_name: "coder",
              max_tokens: 20_000,
              max_output_tokens: 5_000,
              capabilities: { tools: true, images: false, parallel_tool_calls: true, prompt_cache_key: false }
            }]
          }
        }
      },
      agent: { default_model: { provider: "Troupe", model: "coder" } }
    })
  })

  it("writes a model that a wildcard serves", async () => {
    using launched = await launch(["codex", "--write", "--model", "openai/gpt-x"], withKey)
    assert.deepInclude(toml(launched.file(".codex/troupe.config.toml")), { model: "openai/gpt-x" })
  })

  it("writes a provider of Crush", async () => {
    using launched = await launch(["crush", "--write"], withKey)
    const { models, providers } = json(launched.file(".config/crush/crush.json")) as Record<
      string,
      Record<string, object>
    >
    assert.deepStrictEqual(models, {
      large: { provider: "troupe", model: "coder" },
      small: { provider: "troupe", model: "coder" }
    })
    assert.deepInclude(providers!["troupe"], {
      type: "openai-compat",
      base_url: `${url}/v1`,
      api_key: "$TROUPE_API_KEY"
    })
  })

  it.each(agents.map(({ name }) => name))("never prints or writes the key of %s", async (name) => {
    using launched = await launch([name, "--write", "--json"], withKey)
    assert.strictEqual(launched.code, 0, launched.stderr)
    assert.notInclude(launched.stdout, key)
    const { files } = json(launched.stdout) as { files: ReadonlyArray<{ path: string }> }
    for (const { path } of files) assert.notInclude(readFileSync(path, "utf8"), key)
  })
})

describe("a file that exists", () => {
  const before = { ".claude/settings.json": `{\n  // mine\n  "env": { "MINE": "1" },\n  "theme": "dark",\n}\n` }

  it("keeps its other settings, and its copy is kept", async () => {
    using launched = await launch(["claude-code", "--write"], { before, ...withKey })
    const text = launched.file(".claude/settings.json")
    assert.include(text, "// mine")
    assert.include(text, `"MINE": "1"`)
    assert.include(text, `"theme": "dark"`)
    const [backup, ...others] = launched.names(".claude").filter((name) => name.endsWith(".bak"))
    assert.deepStrictEqual(others, [])
    assert.strictEqual(launched.file(`.claude/${backup}`), before[".claude/settings.json"])
  })

  it("is not written again with the same settings", async () => {
    using first = await launch(["claude-code", "--write"], withKey)
    const written = { ".claude/settings.json": first.file(".claude/settings.json") }
    using second = await launch(["claude-code", "--write"], { before: written, ...withKey })
    assert.include(second.stdout, "has these settings already")
    assert.deepStrictEqual(second.names(".claude"), ["settings.json"])
  })

  it("stays as it is if it cannot be merged, and so do the others", async () => {
    const files = { ".aider.conf.yml": "auto-commits: false\n", ".aider.model.metadata.json": "{ broken" }
    using launched = await launch(["aider", "--write"], { before: files })
    assert.strictEqual(launched.code, 1)
    assert.match(launched.stderr, /Cannot merge the settings into \S+metadata\.json: line 1: invalid symbol/)
    for (const [path, text] of Object.entries(files)) assert.strictEqual(launched.file(path), text)
  })
})

describe("an invalid launch", () => {
  it.each([
    [["vim"], /There are no settings for "vim"\. Agents: claude-code, codex/],
    [["codex", "--model", "none"], /has no model "none"\. Available: vectors, openai\/\*, coder, org\/small\./],
    [
      ["codex", "--model", "vectors"],
      /The model "vectors" generates no text, as agents need\. Models that do: openai\/\*, coder, org\/small\./
    ],
    [
      ["codex", "--model", "openai/*"],
      /"openai\/\*" stands for every model of its provider\. Name one: --model openai\/NAME\./
    ],
    [["codex", "--key-variable", "sk-1234"], /name of an environment variable, not a key/],
    [["codex", "--url", "http://127.0.0.1:9"], /No service is running at http:\/\/127\.0\.0\.1:9\. Check --url\./]
  ])("%j fails with what to do", async (args, message) => {
    using launched = await launch(args)
    assert.strictEqual(launched.code, 1)
    assert.match(launched.stderr, message)
  })

  it("tells that no model of the service generates text", async () => {
    using launched = await launch(["codex", "--url", `${url}/vectors`])
    assert.strictEqual(launched.code, 1)
    assert.match(launched.stderr, /The model "vectors" generates no text, as agents need\. Models that do: none\./)
  })

  it("tells that the service needs a key, and which variable has it", async () => {
    using without = await launch(["codex", "--url", `${url}/keyed`])
    assert.match(without.stderr, /needs a key\. Create one with .*keys create.* and set TROUPE_API_KEY/)
    using wrong = await launch(["codex", "--url", `${url}/keyed`], { env: { TROUPE_API_KEY: "other" } })
    assert.match(wrong.stderr, /rejects the key in TROUPE_API_KEY \(401\)/)
    assert.notInclude(wrong.stderr, "other\"")
  })

  it("tells that the server is another", async () => {
    using launched = await launch(["codex", "--url", `${url}/other`])
    assert.match(launched.stderr, /does not list models at \/v1\/models/)
  })
})

describe("without a running service", () => {
  it("uses the address and the models of the configuration", async () => {
    using folder = temporaryFolder()
    const path = join(folder.path, "troupe.yaml")
    writeFileSync(path, "server: { port: 1 }\nmodels: { fake/mine: { deployments: [{ engine: fake }] } }\n")
    const { stdout } = await invoke(["launch", "codex", "--config", path, "--json"], { cwd: folder.path })
    const { model, notes, url } = json(stdout) as { model: string; notes: ReadonlyArray<string>; url: string }
    assert.deepStrictEqual({ model, url }, { model: "fake/mine", url: "http://127.0.0.1:1" })
    assert.include(notes.join(" "), "No service is running at http://127.0.0.1:1")
  })
})
