/** `troupe models pull`, `ls`, `show` and `rm`, and the use of pulled models. */
import { assert } from "@effect/vitest"
import { copyFileSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs"
import { join, relative } from "node:path"
import { fileURLToPath } from "node:url"
import { afterAll, beforeAll, describe, it } from "vitest"
import { invoke } from "../support/CommandLine.ts"
import { startModelServer } from "../support/ModelServer.ts"
import { run, temporaryFolder, troupe, until } from "../support/Service.ts"

const file = fileURLToPath(new URL("../../models/tiny-chat-q8_0.gguf", import.meta.url))
const main = fileURLToPath(new URL("../../src/main.ts", import.meta.url))
const bytes = new Uint8Array(readFileSync(file))

const folder = temporaryFolder()
const store = join(folder.path, "store")
const env = { TROUPE_MODELS: store }
const models = (...args: ReadonlyArray<string>) => invoke(["models", ...args], { env, cwd: folder.path })

afterAll(() => folder[Symbol.dispose]())

describe("with a pulled model", () => {
  beforeAll(async () => {
    const { code, stderr, stdout } = await models("pull", file, "--name", "mine")
    assert.strictEqual(code, 0, stderr)
    assert.strictEqual(stdout, `Pulled: mine, Q8_0, 2.9 MiB\nTry it: node ${main} run mine "Hello!"\n`)
    assert.include(stderr, "Pulling mine, 2.9 MiB\n")
    assert.include(stderr, "tiny-chat-q8_0.gguf: 100 % of 2.9 MiB\n")
    assert.include(stderr, "Testing that mine loads\n")
  })

  it("lists it", async () => {
    const { stdout } = await models("ls")
    assert.match(stdout, /^NAME +SIZE +QUANTIZATION +INSPECTED +SOURCE\nmine +2\.9 MiB +Q8_0 +yes +\S+\.gguf\n$/)
    const listed = JSON.parse((await models("ls", "--json")).stdout) as ReadonlyArray<Readonly<Record<string, unknown>>>
    assert.deepInclude(listed[0], { name: "mine", bytes: bytes.length, inspected: "yes" })
  })

  it("answers without a configuration, and with one that references it", async () => {
    const question = ["What is the capital of Japan?", "--temperature", "0"]
    const answer = { code: 0, stdout: "The capital of Japan is Tokyo.\n", stderr: "" }
    assert.deepStrictEqual(await invoke(["run", "mine", ...question], { env, cwd: folder.path }), answer)
    const config = join(folder.path, "named.yaml")
    writeFileSync(config, "models:\n  chat:\n    deployments:\n      - { engine: llama, file: store:mine }\n")
    assert.deepStrictEqual(await invoke(["run", "chat", ...question, "--config", config], { env }), answer)
    const used = await invoke(["models", "rm", "mine", "--yes", "--config", config], { env })
    assert.strictEqual(used.code, 1)
    assert.include(used.stderr, `mine is used by "chat" in ${config}. Remove it anyway with --force.`)
    const missing = await invoke(["config", "check", "--config", config])
    assert.strictEqual(missing.code, 1)
    assert.include(missing.stderr, "models.chat.deployments[0].file: The store has no model \"mine\". Pull it with:")
  })

  it("is served without a configuration, by its name and by its path", async () => {
    const args = ["serve", "mine", file, "--port", "0", "--admin-port", "0"]
    const own = { ...env, TROUPE_DATA: join(folder.path, "data"), TMPDIR: folder.path, PORT: "" }
    const service = troupe(args, { env: own, cwd: folder.path })
    const url = await until(() => /listens on (http:\S+)/.exec(service.output().stdout)?.[1])
    const { data } = await (await fetch(`${url}/v1/models`)).json() as {
      readonly data: ReadonlyArray<{ readonly id: string }>
    }
    assert.deepStrictEqual(data.map(({ id }) => id), ["mine", "tiny-chat-q8_0"])
    const found = await run(["ps"], { env: own, cwd: folder.path })
    assert.include(found.stdout, "mine#0", found.stderr)
    const used = await run(["models", "rm", "mine", "--yes"], { env: own, cwd: folder.path })
    assert.include(used.stderr, `mine is used by the running service at ${url}. Remove it anyway with --force.`)
    service.child.kill("SIGTERM")
    assert.strictEqual((await service.finished).code, 0)
    const unknown = await invoke(["serve", "nobody"], { env, cwd: folder.path })
    assert.include(unknown.stderr, "The model \"nobody\" is neither configured nor in the store.")
    const gone = await invoke(["serve", "./gone.gguf"], { env, cwd: folder.path })
    assert.include(gone.stderr, "No such file or folder: ./gone.gguf")
  })

  it("answers from a source that is pulled first, and later without the network", async () => {
    const server = await startModelServer({ "m-Q8_0.gguf": bytes })
    const call = ["run", "hf:org/model", "What is the capital of Japan?", "--temperature", "0"]
    const first = await invoke(call, { env: { ...env, HF_ENDPOINT: server.url }, cwd: folder.path })
    assert.strictEqual(first.stdout, "The capital of Japan is Tokyo.\n")
    assert.include(first.stderr, "Pulling m-Q8_0")
    await server.close()
    const second = await invoke(call, { env: { ...env, HF_ENDPOINT: server.url }, cwd: folder.path })
    assert.deepInclude(second, { stdout: "The capital of Japan is Tokyo.\n", stderr: "" })
    assert.strictEqual((await models("rm", "m-Q8_0", "--yes", "--force")).code, 0)
  })

  it("shows its properties and the memory it needs, by name and by path", async () => {
    const { stdout } = await models("show", "mine")
    assert.match(stdout, /^architecture +llama$/m)
    assert.match(stdout, /^contextWindow +512$/m)
    assert.match(stdout, /^memory +about \d+\.\d MiB .* slots: fits the .* available on this machine now$/m)
    assert.include(stdout, "<|im_start|>")
    const shown = JSON.parse((await models("show", file, "--json")).stdout) as Readonly<Record<string, unknown>>
    assert.deepInclude(shown, { bits: 8, fits: true, path: file })
    const { memory } = shown as { readonly memory: Readonly<Record<string, number>> }
    const { totalBytes, ...parts } = memory
    assert.strictEqual(totalBytes, Object.values(parts).reduce((sum, bytes) => sum + bytes, 0))
  })

  it("shows the memory that `config check` expects, engine process included", async () => {
    const config = join(folder.path, "shown.yaml")
    writeFileSync(config, "models:\n  chat:\n    deployments:\n      - { engine: llama, file: store:mine }\n")
    const checked = /about ([\d.]+ MiB)/.exec((await invoke(["config", "check", "--config", config], { env })).stdout)
      ?.[1]
    const shown = /^memory +about ([\d.]+ MiB)/m.exec((await models("show", "chat", "--config", config)).stdout)?.[1]
    assert.isDefined(checked)
    assert.strictEqual(shown, checked)
  })

  it("prints a valid entry for troupe.yaml", async () => {
    using place = temporaryFolder()
    const pasted = async (shown: string) => {
      const { stdout } = await models("show", shown)
      const section = /^In troupe\.yaml:\n\n(models:\n(?: .*\n)*)/m.exec(stdout)![1]!
      writeFileSync(join(place.path, "troupe.yaml"), section)
      const { code, stderr } = await invoke(["config", "check"], { env, cwd: place.path })
      assert.deepStrictEqual({ code, stderr }, { code: 0, stderr: "" })
      return section
    }
    assert.strictEqual(
      await pasted("mine"),
      "models:\n  mine:\n    deployments:\n      - engine: llama\n        file: store:mine\n"
    )
    assert.match(await pasted("tiny-chat"), /^ {2}tiny-chat:[^]*file: \/.*q8_0\.gguf\n {8}slots: 8\n {8}threads: 1\n$/m)
    const odd = join(place.path, "7 \"odd\" #name: é.gguf")
    copyFileSync(file, odd)
    assert.include(await pasted(odd), `file: ${JSON.stringify(odd)}`)
    assert.include(await pasted(relative(folder.path, file)), `file: ${file}`)
  })

  it("removes it by its full name only", async () => {
    // Part of a name requires a confirmation, and there is no terminal.
    assert.strictEqual((await models("rm", "min")).code, 1)
    assert.deepStrictEqual(await models("rm", "mine", "--yes"), { code: 0, stdout: "Removed mine.\n", stderr: "" })
    const { code, stderr } = await models("rm", "mine", "--yes")
    assert.strictEqual(code, 1)
    assert.strictEqual(stderr, "troupe: The store has no model \"mine\". The store is empty.\n")
  })
})

describe("pull", () => {
  it("resumes the download of a killed process", async () => {
    using place = temporaryFolder()
    const server = await startModelServer(
      { "slow.gguf": bytes },
      (index) => index === 0 ? { stallAfter: 1_000_000 } : undefined
    )
    const url = `${server.url}/org/model/resolve/main/slow.gguf`
    const options = { env: { TROUPE_MODELS: place.path } }
    const first = troupe(["models", "pull", url], options)
    const part = join(place.path, "slow", "slow.gguf.part")
    await until(() => statSync(part, { throwIfNoEntry: false })?.size === 1_000_000 ? true : undefined)
    first.child.kill("SIGKILL")
    await first.finished
    const second = await invoke(["models", "pull", url], options)
    assert.strictEqual(second.code, 0, second.stderr)
    assert.strictEqual(server.seen[1]!.headers.range, "bytes=1000000-")
    assert.deepStrictEqual(new Uint8Array(readFileSync(join(place.path, "slow", "slow.gguf"))), bytes)
    assert.deepStrictEqual(readdirSync(place.path), ["slow"])
    await server.close()
  })

  it("stops on Ctrl-C, and leaves no lock", async () => {
    using place = temporaryFolder()
    const server = await startModelServer({ "slow.gguf": bytes }, () => ({ stallAfter: 1000 }))
    const running = troupe(["models", "pull", `${server.url}/org/model/resolve/main/slow.gguf`], {
      env: { TROUPE_MODELS: place.path }
    })
    await until(() => server.seen.length > 0 ? true : undefined)
    running.child.kill("SIGINT")
    assert.strictEqual((await running.finished).code, 130)
    assert.notInclude(readdirSync(place.path), ".slow.lock")
    await server.close()
  })

  it("reports an error in one line, without a token", async () => {
    const server = await startModelServer({}, () => ({ status: 401 }))
    const { code, stderr } = await invoke(["models", "pull", "hf:org/model"], {
      env: { ...env, HF_ENDPOINT: server.url, HF_TOKEN: "hf_hush" }
    })
    assert.strictEqual(code, 1)
    assert.match(stderr, /^troupe: Access to \S+ was denied \(HTTP status 401\)\. .*HF_TOKEN\.\n$/)
    assert.strictEqual(server.seen[0]!.headers.authorization, "Bearer hf_hush")
    assert.notInclude(stderr, "hush")
    await server.close()
  })
})
