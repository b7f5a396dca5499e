import { assert } from "@effect/vitest"
import { execFile } from "node:child_process"
import { readFileSync } from "node:fs"
import { setImmediate } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { afterAll, beforeAll, describe, it } from "vitest"
import type { Service } from "../support/Service.ts"
import { resume, startService, suspend } from "../support/Service.ts"

const read = (path: string) => readFileSync(new URL(`../../${path}`, import.meta.url), "utf8")
const document = read("docs/routing.md")
const block = (language: string): string => new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\``, "ms").exec(document)![1]!

/** The document's configuration, and models with faults. */
const yaml = block("yaml").replace("models/tiny", fileURLToPath(new URL("../../models/tiny", import.meta.url))) + `
  fake/two:
    strategy: quality
    fallbacks: [tiny-chat]
    deployments:
      - { engine: fake, reply: first, quality: 0.9 }
      - { engine: fake, reply: second, quality: 0.7 }
  fake/fails:
    policy: careful
    deployments: [{ engine: fake, fault: { kind: error } }]
  fake/falls:
    strategy: quality
    deployments:
      - { engine: fake, fault: { kind: error }, quality: 0.9 }
      - { engine: fake, reply: the other, quality: 0.1 }
  fake/windows:
    strategy: quality
    deployments:
      - { engine: fake, contextSize: 512, quality: 0.9 }
      - { engine: fake, contextSize: 9000, quality: 0.1 }
  fake/loads:
    preload: false
    strategy: quality
    deployments:
      - { engine: fake, reply: home, quality: 0.9, loadDelayMs: 3600000 }
      - { engine: fake, reply: away, quality: 0.1 }
  fake/loaded:
    preload: false
    strategy: quality
    deployments:
      - { engine: fake, reply: home, quality: 0.9 }
      - { engine: fake, reply: away, quality: 0.1 }
  fake/full:
    preload: false
    strategy: quality
    queueLimit: 1
    deployments:
      - { engine: fake, reply: home, quality: 0.9, slots: 1 }
      - { engine: fake, reply: away, quality: 0.1 }
  fake/slow:
    deployments: [{ engine: fake, promptDelayMs: 60000 }]
`

let service: Service
beforeAll(async () => {
  service = await startService(yaml, { ANTHROPIC_API_KEY: "sk-one", OPENAI_API_KEY: "sk-two" })
})
afterAll(() => service.stop())

const post = (path: string, body: object, headers: Record<string, string> = {}) =>
  fetch(`${service.url}${path}`, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: JSON.stringify(body)
  })

const messages = [{ role: "user", content: "Hello" }]
const chat = (body: object, headers?: Record<string, string>) =>
  post("/v1/chat/completions", { messages, temperature: 0, ...body }, headers)

const by = ({ headers }: Response) =>
  ["deployment", "attempts", "decision"].map((name) => headers.get(`x-troupe-${name}`))

const errorOf = async (response: Response) => {
  const { error } = await response.json() as { error: { message: string; param: string | null } }
  return { status: response.status, param: error.param, message: error.message }
}

describe("docs/routing.md", () => {
  it("has a command that works", async () => {
    const { stdout } = await promisify(execFile)("sh", [
      "-c",
      block("sh").replace("http://127.0.0.1:3000", service.url)
    ])
    assert.include(stdout, "Tokyo")
  })
})

describe("an answer's headers", () => {
  for (const stream of [false, true]) {
    it(`name the deployment and the number of attempts, ${stream ? "streamed" : "buffered"}`, async () => {
      const response = await chat({ model: "fake/falls", stream })
      const [deployment, attempts, decision] = by(response)
      assert.deepStrictEqual([deployment, attempts], ["fake/falls#1", "2"])
      assert.match(decision!, /^dec-/)
      assert.include(await response.text(), "other")
    })
  }

  it("name the deployment whose context window has room for the prompt, as the first attempt", async () => {
    for (const [words, deployment] of [[10, "fake/windows#0"], [2_000, "fake/windows#1"]] as const) {
      const messages = [{ role: "user", content: "word ".repeat(words) }]
      const response = await chat({ model: "fake/windows", messages, max_tokens: 4 })
      assert.deepStrictEqual([response.status, ...by(response).slice(0, 2)], [200, deployment, "1"])
    }
  })

  it("do so for several choices and in Anthropic's dialect", async () => {
    for (const stream of [false, true]) {
      const several = await chat({ model: "fake/two", n: 3, stream })
      assert.deepStrictEqual(by(several).slice(0, 2), ["fake/two#0", "1"])
      await several.text()
    }
    const response = await post("/v1/messages", { model: "fake/two", messages, max_tokens: 50 })
    assert.deepStrictEqual(by(response).slice(0, 2), ["fake/two#0", "1"])
  })

  it("report the number of attempts with an error", async () => {
    const response = await chat({ model: "fake/fails", troupe: { fallbacks: [] } })
    assert.strictEqual(response.status, 500)
    const [deployment, attempts, decision] = by(response)
    assert.deepStrictEqual([deployment, attempts], [null, "1"])
    assert.match(decision!, /^dec-/)
  })

  it("are present for embeddings", async () => {
    const response = await post("/v1/embeddings", { model: "fake/two", input: "Hello" })
    assert.strictEqual(response.headers.get("x-troupe-deployment"), "fake/two#0")
  })
})

describe("a request's routing options", () => {
  it("apply from the body and from headers; the body takes precedence", async () => {
    const asked = async (...wishes: Parameters<typeof chat>) => by(await chat(...wishes))[0]
    assert.strictEqual(await asked({ model: "fake/two", troupe: { deployments: ["fake/two#1"] } }), "fake/two#1")
    assert.strictEqual(
      await asked({ model: "fake/two" }, { "x-troupe-except": "fake/two#0, fake/two#1" }),
      "tiny-chat#0"
    )
    assert.strictEqual(
      await asked({ model: "fake/two", troupe: { deployments: ["fake/two#1"] } }, {
        "x-troupe-deployments": "fake/two#0"
      }),
      "fake/two#1"
    )
    const body = { model: "fake/two", messages, max_tokens: 5, troupe: { deployments: ["fake/two#1"] } }
    assert.strictEqual(by(await post("/v1/messages", body))[0], "fake/two#1")
    const texts = { model: "fake/two", input: "Hello", troupe: { deployments: ["fake/two#1"] } }
    assert.strictEqual(by(await post("/v1/embeddings", texts))[0], "fake/two#1")
  })

  it("limit the time", async () => {
    const response = await chat({ model: "fake/slow" }, { "x-troupe-timeout-ms": "50" })
    assert.deepInclude(await errorOf(response), { status: 504 })
  })

  for (
    const [what, options, headers, param, detail] of [
      ["a field", { troupe: { deployment: "fake/two#1" } }, {}, "troupe.deployment", "deployments"],
      ["a policy", { troupe: { policy: "reckless" } }, {}, "troupe.policy", "default, careful"],
      [
        "a deployment",
        { troupe: { deployments: ["fake/two#9"] } },
        {},
        "troupe.deployments[0]",
        "fake/two#0, fake/two#1"
      ],
      ["a strategy", {}, { "x-troupe-strategy": "best" }, "x-troupe-strategy", "\"balanced\""],
      ["a number", {}, { "x-troupe-retries": "many" }, "x-troupe-retries", "a whole number from 0 to 10"],
      [
        "a number and a strategy",
        {},
        { "x-troupe-retries": "1.5", "x-troupe-strategy": "best" },
        "x-troupe-strategy",
        "x-troupe-retries"
      ],
      ["a number in its body", { troupe: { retries: 11 } }, { "x-troupe-retries": "12" }, "troupe.retries", "10"],
      ["a policy in a header", {}, { "x-troupe-policy": "reckless" }, "x-troupe-policy", "default, careful"],
      ["a model", {}, { "x-troupe-fallbacks": "tiny-chat, nope" }, "x-troupe-fallbacks", "\"nope\" does not exist"],
      ["an object", { troupe: "fast" }, {}, "troupe", "object"]
    ] as const
  ) {
    it(`are rejected with an unknown or invalid ${what}`, async () => {
      const error = await errorOf(await chat({ model: "fake/two", ...options }, headers))
      assert.deepInclude(error, { status: 400, param })
      assert.include(error.message, detail)
    })
  }
})

describe("routing headers", () => {
  it("are rejected by their header names in Anthropic's dialect", async () => {
    const body = { model: "fake/two", messages, max_tokens: 5 }
    for (const [header, value] of [["x-troupe-timeout-ms", "0"], ["x-troupe-except", "fake/two#9"]] as const) {
      const { message, status } = await errorOf(await post("/v1/messages", body, { [header]: value }))
      assert.strictEqual(status, 400)
      assert.isTrue(message.startsWith(`${header}: `), message)
    }
  })
})

describe("an unavailable local deployment", () => {
  interface Seen {
    readonly deployment: string
    readonly state: string
    readonly running: number
    readonly queued: number
  }
  const seen = async (id: string): Promise<Seen> => {
    const response = await fetch(`${service.admin}/admin/deployments`)
    const { deployments } = await response.json() as { readonly deployments: ReadonlyArray<Seen> }
    return deployments.find(({ deployment }) => deployment === id)!
  }
  const until = async (id: string, holds: (seen: Seen) => boolean) => {
    while (!holds(await seen(id))) await setImmediate()
  }

  it("is replaced by a fallback while it loads", async () => {
    const first = chat({ model: "fake/loads" })
    first.catch(() => {})
    await until("fake/loads#0", ({ state }) => state === "loading")
    assert.strictEqual(by(await chat({ model: "fake/loads" }))[0], "fake/loads#1")
  })

  it("answers the requests that wait for its load, and later ones", async () => {
    const waiting = await chat({ model: "fake/loaded" })
    assert.strictEqual(by(waiting)[0], "fake/loaded#0")
    assert.strictEqual(by(await chat({ model: "fake/loaded" }))[0], "fake/loaded#0")
  })

  it("is replaced by a fallback while its queue is full", async () => {
    const before = service.engines()
    assert.strictEqual(by(await chat({ model: "fake/full" }))[0], "fake/full#0")
    const engines = service.engines().filter((pid) => !before.includes(pid))
    assert.lengthOf(engines, 1)
    suspend(engines)
    const first = chat({ model: "fake/full" })
    await until("fake/full#0", ({ running }) => running === 1)
    const second = chat({ model: "fake/full" })
    await until("fake/full#0", ({ queued }) => queued === 1)
    assert.strictEqual(by(await chat({ model: "fake/full" }))[0], "fake/full#1")
    resume(engines)
    assert.deepStrictEqual([by(await first)[0], by(await second)[0]], ["fake/full#0", "fake/full#0"])
  })
})
