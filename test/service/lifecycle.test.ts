/** Start, failed start and shutdown of the service. */
import { assert } from "@effect/vitest"
import { copyFileSync, existsSync, truncateSync, writeFileSync } from "node:fs"
import { createServer } from "node:net"
import type { AddressInfo } from "node:net"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { describe, it } from "vitest"
import { invoke } from "../support/CommandLine.ts"
import { startFaultServer } from "../support/FaultServer.ts"
import type { Service } from "../support/Service.ts"
import { resume, run, startService, suspend, temporaryFolder, until } from "../support/Service.ts"
import { wires } from "../support/Wires.ts"

const tinyChat = fileURLToPath(new URL("../../models/tiny-chat-q8_0.gguf", import.meta.url))

const question = { role: "user", content: "What is the capital of Japan?" }

const post = (url: string, body: object): Promise<Response> =>
  fetch(`${url}/v1/chat/completions`, { method: "POST", body: JSON.stringify(body) })

const isGone = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return false
  } catch {
    return true
  }
}

/** A `troupe.yaml` with one GGUF file. */
const yamlFor = (file: string): string =>
  `models:\n  m:\n    deployments:\n      - { engine: llama, file: "${file}" }\n`

describe("start", () => {
  it("prints the models, the URL, and a curl command that works", async () => {
    const service = await startService()
    const { stdout } = service.process.output()
    assert.include(stdout, "tiny-chat")
    const curl = /curl -s (\S+) -H 'content-type: application\/json' -d '(.*)'/.exec(stdout)
    assert.isNotNull(curl)
    const response = await fetch(curl[1]!, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: curl[2]!
    })
    assert.include(await response.text(), "The capital of Japan is Tokyo.")
    const { code } = await service.stop()
    assert.strictEqual(code, 0)
  })

  it("rejects a port in use with one line", async () => {
    const taken = createServer().listen(0, "127.0.0.1")
    await new Promise((resolve) => taken.once("listening", resolve))
    const { port } = taken.address() as AddressInfo
    const { code, stderr } = await run(["serve", "--port", String(port)])
    taken.close()
    assert.strictEqual(code, 1)
    assert.strictEqual(
      stderr,
      `troupe: Port ${port} of 127.0.0.1 is already in use. Choose another port with --port or PORT.\n`
    )
  })

  const files: ReadonlyArray<readonly [string, (file: string) => void, RegExp, typeof invoke]> = [
    ["missing", () => {}, /model\.gguf does not exist or is not readable/, invoke],
    ["empty", (file) => writeFileSync(file, ""), /model\.gguf is empty/, invoke],
    ["not a GGUF file", (file) => writeFileSync(file, "x".repeat(5000)), /Invalid GGUF magic/, invoke],
    [
      "cut short",
      (file) => {
        copyFileSync(tinyChat, file)
        truncateSync(file, 1_000_000)
      },
      /corrupted or incomplete/,
      run
    ]
  ]
  for (const [name, prepare, message, call] of files) {
    it(`rejects a model file that is ${name} with one line`, async () => {
      using folder = temporaryFolder()
      prepare(join(folder.path, "model.gguf"))
      writeFileSync(join(folder.path, "troupe.yaml"), yamlFor("model.gguf"))
      const { code, stderr } = await call(["serve", "--port", "0"], { cwd: folder.path })
      assert.strictEqual(code, 1)
      assert.match(stderr, message)
      assert.match(stderr, /^troupe: The deployment "m#0" could not be loaded: [^\n]+\n$/)
    })
  }

  it("fails for a model whose load kills its engine, and names it", async () => {
    using folder = temporaryFolder()
    writeFileSync(
      join(folder.path, "troupe.yaml"),
      "models:\n  fake/broken:\n    deployments:\n      - { engine: fake, fault: { kind: load-abort } }\n"
    )
    const { code, stderr } = await run(["serve", "--port", "0"], { cwd: folder.path })
    assert.strictEqual(code, 1)
    assert.match(stderr, /troupe: The engine of "fake\/broken#0" crashed.*SIGABRT/)
  })

  it("fails for a Redis that cannot be reached, whatever uses it", async () => {
    using folder = temporaryFolder()
    writeFileSync(
      join(folder.path, "troupe.yaml"),
      "redis: { url: \"redis://127.0.0.1:1\" }\nmodels:\n  fake/model: { deployments: [{ engine: fake }] }\n"
    )
    const { code, stderr } = await invoke(["serve", "--port", "0"], { cwd: folder.path })
    assert.strictEqual(code, 1)
    assert.match(stderr, /^troupe: [^\n]*127\.0\.0\.1:1[^\n]*cannot be reached[^\n]*\n$/)
  })

  const invocations: ReadonlyArray<readonly [ReadonlyArray<string>, Record<string, string>, RegExp]> = [
    [["serve", "--nope"], {}, /^troupe: Unrecognized flag: --nope/],
    [["serve", "--port", "70000"], {}, /^troupe: Invalid value for flag --port/],
    [
      ["serve"],
      { PORT: "http" },
      /^troupe: The environment variable PORT must be a port from 0 to 65535, not "http"\.\n$/
    ],
    [
      ["serve"],
      { NODE_ENV: "staging" },
      /^troupe: Invalid configuration: the environment variables\n {2}NODE_ENV: Expected one of development, test, production, not "staging"\n$/
    ],
    [["serve", "--config", "nowhere.yaml"], {}, /Invalid configuration: .*nowhere\.yaml\n {2}No such file/]
  ]
  for (const [args, env, message] of invocations) {
    it(`refuses ${[...Object.entries(env).map(([key, value]) => `${key}=${value}`), ...args].join(" ")}`, async () => {
      const { code, stderr } = await invoke(args, { env })
      assert.strictEqual(code, 1)
      assert.match(stderr, message)
      assert.notMatch(stderr, /\n\s+at /)
    })
  }

  it("uses HOST and PORT of the environment; flags take precedence", async () => {
    using folder = temporaryFolder()
    const file = join(folder.path, "troupe.yaml")
    writeFileSync(file, "server: { allowAnonymous: true }\n")
    const options = { env: { HOST: "127.0.0.1", PORT: "0" } }
    const { code, stderr } = await invoke(["serve", "--config", file, "--host", "192.0.2.1"], options)
    assert.strictEqual(code, 1)
    assert.match(stderr, /192\.0\.2\.1 is not an address/)
  })
})

describe("a prompt of megabytes", () => {
  it("is rejected without tokenization, with a lower bound", async () => {
    const service = await startService()
    const message = { role: "user", content: "a ".repeat(4_000_000) }
    const response = await post(service.url, { model: "tiny-chat", messages: [message] })
    assert.strictEqual(response.status, 400)
    const { error } = await response.json() as { readonly error: { readonly code: string; readonly message: string } }
    assert.strictEqual(error.code, "context_length_exceeded")
    assert.match(error.message, /has at least \d+ tokens, and the context window of "tiny-chat" is 512 tokens/)
    await service.stop()
  })
})

describe("stop", () => {
  /** An answer of more than 25 minutes has 100,000 words. */
  const slow = (words: number, grace: string): string =>
    `server: { shutdownGrace: ${grace} }\nlogLevel: info\nmodels:\n  fake/slow:\n    deployments:\n` +
    "      - { engine: fake, tokenDelayMs: 10, contextSize: 1000000, " +
    `reply: "${"word ".repeat(words).trim()}" }\n`
  const request = { model: "fake/slow", messages: [question], temperature: 0, stream: true }

  const runningIn = async (service: Service): Promise<number | undefined> => {
    const { deployments } = await (await fetch(`${service.url}/health/ready`)).json() as {
      readonly deployments: ReadonlyArray<{ readonly running: number }>
    }
    return deployments[0]?.running
  }

  it("finishes running requests, accepts no new ones, leaves no engine process and exits 0", async () => {
    const { pieces } = wires.openai
    const provider = await startFaultServer(() => ({ pieces, gated: 3 }))
    const service = await startService(
      `${slow(5, "1 hour")}  remote:\n    deployments:\n` +
        `      - { provider: openai, model: gpt, baseUrl: "${provider.url}" }\n`
    )
    const engines = service.engines()
    assert.strictEqual(engines.length, 1)
    const response = await post(service.url, { ...request, model: "remote" })
    const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader()
    let text = (await reader.read()).value ?? ""
    suspend(engines)
    const local = post(service.url, request)
    await until(async () => await runningIn(service) === 1 || undefined)
    const stopped = service.stop()
    // Not with a chat request: one that arrives before the signal would wait for the suspended engine.
    await until(() =>
      fetch(`${service.url}/health/ready`).then((response) => response.text()).then(() => undefined, () => true)
    )
    provider.release()
    for (let next = await reader.read(); !next.done; next = await reader.read()) text += next.value
    assert.match(text, /data: \[DONE\]\n\n$/)
    resume(engines)
    assert.match(await (await local).text(), /data: \[DONE\]\n\n$/)
    const { code, stderr } = await stopped
    await provider.close()
    assert.strictEqual(code, 0)
    assert.match(
      stderr,
      /"level":"INFO","message":"Stopping after 2 requests have finished, in at most 1 hour\. Press Ctrl-C again to stop immediately\."/
    )
    assert.strictEqual(stderr.split("Stopping").length, 2)
    for (const pid of engines) assert.throws(() => process.kill(pid, 0))
  })

  it("interrupts requests after the grace period, and still exits 0", async () => {
    const service = await startService(slow(100_000, "100 millis"))
    const response = await post(service.url, request)
    const text = response.text()
    const others = [1, 2, 3, 4, 5].map(() => post(service.url, { ...request, stream: false }))
    await until(async () => {
      const report = await (await fetch(`${service.url}/health/ready`)).json() as {
        readonly deployments: ReadonlyArray<{ readonly running: number; readonly queued: number }>
      }
      return report.deployments[0]?.running === 4 && report.deployments[0].queued === 2 ? true : undefined
    })
    const { code } = await service.stop()
    assert.strictEqual(code, 0)
    assert.match(await text, /"code":"engine_stopped".*\n\n$/)
    for (const other of await Promise.all(others)) {
      assert.strictEqual(other.status, 503)
      const { error } = await other.json() as { readonly error: { readonly code: string } }
      assert.include(["engine_stopped", "shutting_down"], error.code)
    }
  })

  it("logs in-flight requests on the first Ctrl-C, and ends at once with its engines on the second", async () => {
    const service = await startService(slow(100_000, "1 hour"))
    const text = post(service.url, request).then((response) => response.text())
    text.catch(() => {})
    await until(async () => await runningIn(service) === 1 || undefined)
    const engines = service.engines()
    assert.strictEqual(engines.length, 1)
    service.process.child.kill("SIGINT")
    await until(() => service.process.output().stderr.includes("Stopping after 1 request") ? true : undefined)
    const socket = / and (\/\S+\.sock)/.exec(service.process.output().stdout)![1]!
    assert.isTrue(existsSync(socket))
    service.process.child.kill("SIGINT")
    await service.process.finished
    assert.strictEqual(service.process.child.signalCode, "SIGKILL")
    assert.isFalse(existsSync(socket))
    await until(() => engines.every(isGone) ? true : undefined)
  })

  it("does not wait for a loading model, and answers requests that wait for it with 503", async () => {
    const service = await startService(
      "server: { shutdownGrace: 1 hour }\nmodels:\n  fake/slow:\n    preload: false\n    deployments:\n" +
        "      - { engine: fake, loadDelayMs: 3600000 }\n"
    )
    const waiting = post(service.url, { ...request, stream: false })
    await until(() => service.engines().length === 1 ? true : undefined)
    const engines = service.engines()
    const { code } = await service.stop()
    assert.strictEqual(code, 0)
    const response = await waiting
    assert.strictEqual(response.status, 503)
    assert.strictEqual((await response.json() as { error: { code: string } }).error.code, "shutting_down")
    await until(() => engines.every(isGone) ? true : undefined)
  })

  it("stops at once without running requests", async () => {
    const { code, stderr } = await (await startService(slow(1, "1 hour"))).stop()
    assert.strictEqual(code, 0)
    assert.include(stderr, "Stopping; no requests are running.")
  })

  it("an engine process ends when its service is killed", async () => {
    const service = await startService(slow(1000, "1 second"))
    const [engine] = service.engines()
    service.process.child.kill("SIGKILL")
    await service.process.finished
    await until(() => isGone(engine!) ? true : undefined)
  })
})
