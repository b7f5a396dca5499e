/** `troupe deploy` on a real service: nothing is refused or cut while one generation of processes replaces the other. */
import { assert } from "@effect/vitest"
import { readdirSync, writeFileSync } from "node:fs"
import { Agent, request as httpRequest } from "node:http"
import { dirname, join } from "node:path"
import { afterAll, beforeAll, describe, it } from "vitest"
import { invoke } from "../support/CommandLine.ts"
import type { Running } from "../support/Service.ts"
import { temporaryFolder, troupe, until } from "../support/Service.ts"

interface Answer {
  /** Undefined for a connection that was refused or cut. */
  readonly status: number | undefined
  readonly text: string
}

const ask = (url: string, model: string, options: { readonly agent: Agent | false; readonly stream: boolean }) =>
  new Promise<Answer>((resolve) => {
    let text = ""
    const failed = (error: Error) => resolve({ status: undefined, text: `${text}${error.message}` })
    const asked = httpRequest(`${url}/v1/chat/completions`, { method: "POST", agent: options.agent }, (response) => {
      response.setEncoding("utf8").on("error", failed).on("data", (chunk: string) => {
        text += chunk
      })
      response.on("end", () => resolve({ status: response.statusCode!, text }))
    })
    const messages = [{ role: "user", content: "Hello" }]
    asked.on("error", failed).end(JSON.stringify({ model, stream: options.stream, messages }))
  })

const tinyChat = new URL("../../models/tiny-chat-q8_0.gguf", import.meta.url).pathname

const adminToken = "administration-of-this-test"

const yaml = (processes: number, reply: string, more = "") => `
server: { processes: ${processes}, supervised: true, admin: { token: "\${ADMIN_TOKEN}" } }
storage: { type: sqlite, folder: data }
reload: { watch: false }
models:
  fake/short: { deployments: [{ engine: fake, promptDelayMs: 15, reply: ${reply}${more} }] }
  fake/long: { deployments: [{ engine: fake, slots: 64, tokenDelayMs: 20, reply: "${"word ".repeat(40).trim()}" }] }
`

/** Requests until `end`, over kept and new connections, and streams. */
const traffic = (url: string) => {
  const agent = new Agent({ keepAlive: true, maxSockets: 2 })
  const short: Array<Answer> = []
  const streams: Array<Answer> = []
  let isOver = false
  const repeat = async (to: Array<Answer>, model: string, options: Parameters<typeof ask>[2]) => {
    while (!isOver) to.push(await ask(url, model, options))
  }
  const callers = [
    ...Array.from({ length: 2 }, () => repeat(short, "fake/short", { agent, stream: false })),
    ...Array.from({ length: 4 }, () => repeat(short, "fake/short", { agent: false, stream: false })),
    ...Array.from({ length: 2 }, () => repeat(streams, "fake/long", { agent: false, stream: true }))
  ]
  return {
    short,
    end: async () => {
      isOver = true
      await Promise.all(callers)
      agent.destroy()
      return { short, streams }
    }
  }
}

/** A WebSocket and an event stream without a request: how they end. */
const openIdle = async (url: string) => {
  const socket = new WebSocket(`${url.replace("http", "ws")}/v1/responses`)
  const closed = new Promise<number>((resolve) => socket.addEventListener("close", ({ code }) => resolve(code)))
  await new Promise((resolve) => socket.addEventListener("open", resolve))
  const { body } = await fetch(`${url}/admin/deployments/events`, {
    headers: { authorization: `Bearer ${adminToken}` }
  })
  const reader = body!.getReader()
  await reader.read()
  const ended = (async () => {
    for (;;) if ((await reader.read()).done) return "ended"
  })()
  return { ends: Promise.all([closed, ended]) }
}

/** Until a new connection gets this answer. */
const untilReplied = (url: string, reply: string) =>
  until(async () =>
    (await ask(url, "fake/short", { agent: false, stream: false })).text.includes(reply) ? true : undefined
  )

const isWhole = ({ status, text }: Answer): boolean => status === 200 && text.includes("[DONE]")

describe("troupe deploy", () => {
  const folder = temporaryFolder()
  const file = join(folder.path, "troupe.yaml")
  let service: Running
  let url: string

  beforeAll(async () => {
    writeFileSync(file, yaml(1, "first"))
    service = troupe(["serve", "--port", "0", "--config", file], { env: { ADMIN_TOKEN: adminToken } })
    url = await until(() => /listens on (http:\S+)/.exec(service.output().stdout)?.[1])
  })

  afterAll(async () => {
    service.child.kill("SIGTERM")
    const { code } = await service.finished
    const admin = /at (\S+\.sock)/.exec(service.output().stdout)![1]!
    assert.deepStrictEqual(readdirSync(dirname(admin)).filter((name) => name.startsWith(new URL(url).port)), [])
    folder[Symbol.dispose]()
    assert.strictEqual(code, 0)
  })

  const options = () => ({ env: { PORT: new URL(url).port, ADMIN_TOKEN: adminToken } })
  const deploy = (...args: ReadonlyArray<string>) => invoke(["deploy", ...args, "--config", file], options())

  it("replaces the processes under load: no request fails, and every stream is whole", async () => {
    const idle = await openIdle(url)
    const load = traffic(url)
    await until(() => load.short.length > 20 ? true : undefined)
    writeFileSync(file, `${yaml(2, "second")}\ndeploy: { every: 300 ms }\n`)
    const { code, stderr, stdout } = await deploy()
    assert.strictEqual(code, 0, stderr)
    for (const share of ["10 %", "30 %", "70 %", "100 %"]) assert.include(stdout, `${share} of new connections`)
    assert.deepStrictEqual(await idle.ends, [1012, "ended"])
    const { short, streams } = await load.end()
    assert.deepStrictEqual(short.filter(({ status }) => status !== 200), [])
    assert.deepStrictEqual(streams.filter((stream) => !isWhole(stream)), [])
    const texts = short.map(({ text }) => (JSON.parse(text) as { choices: [{ message: { content: string } }] }))
      .map(({ choices: [{ message }] }) => message.content)
    assert.strictEqual(texts[0], "first")
    assert.strictEqual(texts.at(-1), "second")
    const shown = await invoke(["ps", "--config", file], options())
    assert.match(shown.stdout, /fake\/short#0 +fake +ready/)
    assert.match((await deploy("status")).stdout, /^Generation 2 has the port\. The last deploy has ended/)
  })

  it("changes the configuration of the new processes by a signal, and by administration", async () => {
    writeFileSync(file, yaml(2, "by signal"))
    service.child.kill("SIGHUP")
    await untilReplied(url, "by signal")
    writeFileSync(file, yaml(2, "second"))
    assert.include((await invoke(["reload", "--config", file], options())).stdout, "by signal -> second")
    await untilReplied(url, "second")
  })

  it("prints why the new processes do not start", async () => {
    const large = `tiny-chat: { deployments: [{ engine: llama, file: ${tinyChat}, contextSize: 99999999 }] }`
    writeFileSync(file, `${yaml(1, "none")}  ${large}\n`)
    const { code, stderr, stdout } = await deploy()
    assert.strictEqual(code, 1)
    assert.match(stdout, /^Generation 3 starts with 1 process$/m)
    assert.match(stderr, /The new processes do not start: .*exit code 1: .*"tiny-chat#0" needs \d+ MiB of memory/s)
  })

  it("rolls back a generation that fails, whose share of the requests is all that fails", async () => {
    writeFileSync(file, yaml(2, "third", ", fault: { kind: error }"))
    const load = traffic(url)
    const { code, stderr } = await deploy("--step", "10 seconds")
    assert.strictEqual(code, 1)
    assert.match(stderr, /Rolled back to the old generation: \d+ of its \d+ answers failed \(.* %; the limit is 5 %\)/)
    const { short, streams } = await load.end()
    assert.deepStrictEqual(short.filter(({ status }) => status === undefined), [])
    assert.isBelow(short.filter(({ status }) => status !== 200).length, short.length * 0.2)
    assert.deepStrictEqual(streams.filter((stream) => !isWhole(stream)), [])
    const after = await Promise.all(
      Array.from({ length: 20 }, () => ask(url, "fake/short", { agent: false, stream: false }))
    )
    assert.deepStrictEqual(after.filter(({ status, text }) => status !== 200 || !text.includes("second")), [])
  })

  it("returns to the old generation when it is told to", async () => {
    writeFileSync(file, yaml(1, "fourth"))
    const load = traffic(url)
    const running = troupe(["deploy", "--step", "30 seconds", "--config", file], options())
    await until(() => running.output().stdout.includes("10 % of new connections") ? true : undefined)
    const refused = await invoke(["reload", "--config", file], options())
    assert.include(refused.stderr, "A deploy is running")
    service.child.kill("SIGHUP")
    assert.strictEqual((await deploy("rollback")).code, 0)
    const { code, stderr } = await running.finished
    assert.strictEqual(code, 1)
    assert.include(stderr, "was called")
    const { short, streams } = await load.end()
    assert.deepStrictEqual(
      [...short.filter(({ status }) => status !== 200), ...streams.filter((one) => !isWhole(one))],
      []
    )
    assert.match((await deploy("status")).stdout, /^Generation 2 has the port/)
    await untilReplied(url, "fourth")
  })

  it("changes nothing for a configuration that is invalid, and says where", async () => {
    writeFileSync(file, yaml(1, "fifth", ", slotz: 1"))
    const { code, stderr } = await deploy()
    assert.strictEqual(code, 1)
    assert.include(stderr, "slotz")
    assert.strictEqual((await ask(url, "fake/short", { agent: false, stream: false })).status, 200)
  })
})

describe("troupe deploy without a supervisor", () => {
  it("says what the service needs", async () => {
    const { code, stderr } = await invoke(["deploy"], { env: { PORT: "1" } })
    assert.strictEqual(code, 1)
    assert.match(stderr, /port 1\. Start it with server\.supervised: true or with several processes/)
  })
})
