/** A service of several processes on one port, with real processes: what they share, and what is left when one ends. */
import { assert } from "@effect/vitest"
import { execFileSync } from "node:child_process"
import { once } from "node:events"
import { readdirSync, writeFileSync } from "node:fs"
import { createServer, request as httpRequest } from "node:http"
import type { IncomingMessage, ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"
import { dirname, join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { afterEach, describe, it } from "vitest"
import type * as HealthDetails from "../../src/services/health/HealthDetails.ts"
import type { Service } from "../support/Service.ts"
import { run, startService, temporaryFolder, until } from "../support/Service.ts"

/** What `ps` shows of a process. */
interface Row {
  readonly pid: number
  readonly ppid: number
  readonly args: string
}

const allProcesses = (): ReadonlyArray<Row> =>
  execFileSync("ps", ["-A", "-o", "pid=,ppid=,args="], { encoding: "utf8" }).split("\n").flatMap((line) => {
    const [, pid, ppid, args] = /^\s*(\d+)\s+(\d+)\s+(.*)$/.exec(line) ?? []
    return args === undefined ? [] : [{ pid: Number(pid), ppid: Number(ppid), args }]
  })

/** The processes that the service has started, directly or not. */
const processesOf = ({ process: { child } }: Service) => {
  const all = allProcesses()
  const under = (pid: number): ReadonlyArray<Row> =>
    all.filter(({ ppid }) => ppid === pid).flatMap((row) => [row, ...under(row.pid)])
  const found = under(child.pid!)
  return {
    all: found.map(({ pid }) => pid),
    services: found.filter(({ args }) => / serve /.test(args)).map(({ pid }) => pid),
    engines: found.filter(({ args }) => /host\.[tj]s/.test(args)).map(({ pid }) => pid)
  }
}

const isGone = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return false
  } catch {
    return true
  }
}

/** What `GET /admin/deployments` has of one. */
interface Run {
  readonly deployment: string
  readonly running: number
}

/** A provider whose answers wait until they are released, and which counts those at once. */
const startProvider = async (answer: (response: ServerResponse, path: string, body: string) => void) => {
  const waiting: Array<() => void> = []
  let isOpen = true
  let running = 0
  let most = 0
  let count = 0
  const server = createServer((request, response) => {
    let body = ""
    request.setEncoding("utf8").on("data", (chunk: string) => {
      body += chunk
    }).on("end", () => {
      count++
      most = Math.max(most, ++running)
      response.on("close", () => void running--)
      const end = () => answer(response, request.url!, body)
      if (isOpen) end()
      else waiting.push(end)
    })
  }).listen(0, "127.0.0.1")
  await once(server, "listening")
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    count: () => count,
    most: () => most,
    waiting: () => waiting.length,
    hold: () => void (isOpen = false),
    releaseOne: () => waiting.shift()?.(),
    releaseAll: () => {
      isOpen = true
      for (const end of waiting.splice(0)) end()
    },
    [Symbol.dispose]: () => {
      server.closeAllConnections()
      server.close()
    }
  }
}

const completion = JSON.stringify({
  id: "c",
  object: "chat.completion",
  created: 0,
  model: "m",
  choices: [{ index: 0, message: { role: "assistant", content: "hi" }, finish_reason: "stop" }],
  usage: { prompt_tokens: 1, completion_tokens: 1, total_tokens: 2 }
})

const answered = (response: ServerResponse) =>
  void response.writeHead(200, { "content-type": "application/json" }).end(completion)

const broken = (response: ServerResponse) =>
  void response.writeHead(500, { "content-type": "application/json" }).end("{}")

/** The signed thoughts of a host of the Anthropic dialect. */
const signed = (response: ServerResponse, host: string) =>
  void response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify({
    id: "m",
    type: "message",
    role: "assistant",
    model: "m",
    content: [{ type: "thinking", thinking: "Hm.", signature: `signed-by-${host}` }, { type: "text", text: "hi" }],
    stop_reason: "end_turn",
    usage: { input_tokens: 1, output_tokens: 1 }
  }))

interface Answer {
  readonly status: number
  readonly text: string
}

/** A request over a connection of its own, which the kernel gives to any process. */
const ask = (url: string, path: string, body?: object): Promise<Answer> =>
  new Promise((resolve, reject) => {
    const headers = { "content-type": "application/json" }
    const options = { agent: false as const, headers, method: body === undefined ? "GET" : "POST" }
    httpRequest(`${url}${path}`, options, (response: IncomingMessage) => {
      let text = ""
      response.setEncoding("utf8").on("data", (chunk: string) => {
        text += chunk
      })
      response.on("end", () => resolve({ status: response.statusCode!, text }))
      response.on("error", reject)
    }).on("error", reject).end(body === undefined ? undefined : JSON.stringify(body))
  })

const chat = ({ url }: Service, model: string, more: object = {}): Promise<Answer> =>
  ask(url, "/v1/chat/completions", { model, messages: [{ role: "user", content: "Hello" }], ...more })

const chats = (service: Service, model: string, count: number) =>
  Promise.all(Array.from({ length: count }, () => chat(service, model)))

const many = 32

const yamlOf = (provider: { readonly url: string }, more = "") => `
server: { processes: 2 }
storage: { type: sqlite, folder: data }
models:
  fake/local: { deployments: [{ engine: fake, reply: one two three, tokenDelayMs: 2 }] }
  remote: { deployments: [{ provider: openai, model: m, baseUrl: "${provider.url}/v1", maxConcurrent: 3 }] }
${more}`

let service: Service | undefined
const start = async (yaml: string, env?: Record<string, string>): Promise<Service> => {
  service = await startService(yaml, env)
  return service
}
afterEach(() => service?.process.child.kill("SIGKILL"))

const samples = (text: string, name: string): number =>
  text.split("\n").filter((line) => line.startsWith(`${name}{`))
    .reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0)

describe("a service of two processes", () => {
  it("loads a local model once, answers from both processes, and answers administration for both", async () => {
    const sentTo = { ada: [] as Array<string>, bob: [] as Array<string> }
    using provider = await startProvider((response, path, body) => {
      const [, host] = path.split("/") as [string, keyof typeof sentTo]
      if (sentTo[host] === undefined) return answered(response)
      sentTo[host].push(body)
      return signed(response, host)
    })
    const host = (name: string) =>
      `  ${name}: { deployments: [{ provider: anthropic, model: m, baseUrl: "${provider.url}/${name}" }] }`
    const own = await start(yamlOf(provider, `${host("ada")}\n${host("bob")}`))
    assert.include(own.process.output().stdout, "with 2 processes")
    assert.lengthOf(processesOf(own).services, 2)
    assert.lengthOf(processesOf(own).engines, 1)
    for (const model of ["fake/local", "remote"]) {
      const answers = await chats(own, model, many)
      assert.deepStrictEqual(answers.map(({ status }) => status), answers.map(() => 200))
    }
    assert.include((await chat(own, "fake/local", { stream: true })).text, "[DONE]")
    assert.lengthOf(processesOf(own).engines, 1)
    // Whichever process gets the connection.
    for (let time = 0; time < 8; time++) {
      const metrics = (await ask(own.url, "/metrics")).text
      assert.strictEqual(samples(metrics, "llm_requests_total"), 2 * many + 1)
      const { windows } = JSON.parse((await ask(own.url, "/health/details")).text) as HealthDetails.Report
      assert.deepStrictEqual(
        windows.map(({ failed, requests }) => [requests, failed]),
        windows.map(() => [2 * many + 1, 0])
      )
      assert.strictEqual((await ask(own.url, "/health/ready")).status, 200)
      const { decisions } = JSON.parse((await ask(own.url, "/admin/decisions?limit=1000")).text) as {
        readonly decisions: ReadonlyArray<{ readonly id: string }>
      }
      assert.lengthOf(decisions, 2 * many + 1)
      assert.strictEqual((await ask(own.url, `/admin/decisions/${decisions[time]!.id}`)).status, 200)
    }
    // Both know the maker of signed thoughts that one of them has passed on, once it is written.
    const question = { role: "user", content: "Hello" }
    const first = await ask(own.url, "/v1/messages", { model: "ada", max_tokens: 9, messages: [question] })
    using database = new DatabaseSync(join(dirname(own.file), "data", "troupe.sqlite"), { readOnly: true })
    await until(() => database.prepare("SELECT mark FROM troupe_makers").get())
    const { content } = JSON.parse(first.text) as { readonly content: ReadonlyArray<object> }
    const messages = [question, { role: "assistant", content }, question]
    for (const model of ["ada", "bob"]) {
      const next = Array.from({ length: 8 }, () => ask(own.url, "/v1/messages", { model, max_tokens: 9, messages }))
      assert.deepStrictEqual((await Promise.all(next)).map(({ status }) => status), next.map(() => 200))
    }
    assert.isTrue(sentTo.ada.slice(1).every((body) => body.includes("signed-by-ada")))
    assert.lengthOf(sentTo.bob, 8)
    assert.isFalse(sentTo.bob.some((body) => body.includes("signed-by-ada")))
    assert.strictEqual((await own.stop()).code, 0)
  })

  it("never has more requests at a provider than its `maxConcurrent`, and answers all", async () => {
    using provider = await startProvider(answered)
    const own = await start(yamlOf(provider))
    provider.hold()
    const answers = chats(own, "remote", many)
    await until(() => provider.waiting() === 3 ? true : undefined)
    const deployments = await until(async () => {
      const { deployments } = JSON.parse((await ask(own.url, "/admin/deployments")).text) as {
        readonly deployments: ReadonlyArray<
          { readonly model: string; readonly running: number; readonly queued: number }
        >
      }
      const remote = deployments.find(({ model }) => model === "remote")!
      return remote.running + remote.queued === many ? remote : undefined
    })
    assert.strictEqual(deployments.running, 3)
    for (let ended = 0; ended < many; ended++) {
      await until(() => provider.waiting() > 0 ? true : undefined)
      provider.releaseOne()
    }
    assert.deepStrictEqual((await answers).map(({ status }) => status), Array.from({ length: many }, () => 200))
    assert.strictEqual(provider.most(), 3)
    assert.strictEqual((await own.stop()).code, 0)
  })

  it("opens a circuit in both when it opens in one", async () => {
    using provider = await startProvider(broken)
    const own = await start(yamlOf(provider, "policies: { default: { retries: 0, maxWait: false } }"))
    const events = await fetch(`${own.admin}/admin/circuits/events`)
    // Failures of calls that begin one after another count each, in the process that makes them.
    await until(async () => {
      await chat(own, "remote")
      return /"phase":"open"/.test((await ask(own.url, "/admin/circuits")).text) ? true : undefined
    })
    const before = provider.count()
    const answers = await chats(own, "remote", many)
    assert.deepStrictEqual(answers.map(({ status }) => status), answers.map(() => 503))
    assert.strictEqual(provider.count(), before)
    const reader = events.body!.pipeThrough(new TextDecoderStream()).getReader()
    let text = ""
    while (!text.includes("\"to\":\"open\"")) text += (await reader.read()).value ?? ""
    assert.strictEqual((await ask(own.admin, "/admin/circuits/remote%230/reset", {})).status, 200)
    while (!text.includes("\"to\":\"closed\"")) text += (await reader.read()).value ?? ""
    await reader.cancel()
    await chats(own, "remote", 1)
    assert.isAbove(provider.count(), before)
    assert.strictEqual((await own.stop()).code, 0)
  })

  it("restarts a process that was killed, while the other answers", async () => {
    using provider = await startProvider(answered)
    const slow = "  fake/slow: { deployments: [{ engine: fake, tokenDelayMs: 50, reply: \"word \", slots: 64 }] }"
    const own = await start(yamlOf(provider, slow.replace("word ", "word ".repeat(2_000).trim())))
    for (let round = 0; round < 2; round++) {
      const { services } = processesOf(own)
      const victim = services[round]!
      // Of the first process, which serves local models, or passed on to it by the other one.
      const lost = round === 0 ? Array.from({ length: many }, () => chat(own, "fake/slow")) : []
      const ends = Promise.allSettled(lost)
      const runs = async () =>
        JSON.parse((await ask(own.url, "/admin/deployments")).text) as { deployments: Array<Run> }
      if (round === 0) {
        await until(async () =>
          (await runs()).deployments.find(({ deployment }) => deployment === "fake/slow#0")!.running === many ||
          undefined
        )
      }
      process.kill(victim, "SIGKILL")
      await until(() => isGone(victim) ? true : undefined)
      const answered503 = (await ends).filter((end) => end.status === "fulfilled" && end.value.status === 503)
      assert.strictEqual((await chat(own, "remote")).status, 200)
      await until(() => {
        const now = processesOf(own)
        return now.services.length === 2 && now.engines.length === 1 && !now.services.includes(victim)
          ? true
          : undefined
      })
      await until(async () => (await ask(own.url, "/health/ready")).status === 200 ? true : undefined)
      if (round === 0) {
        assert.isAbove(answered503.length, 0)
        const { requests } = JSON.parse((await ask(own.url, "/admin/requests?limit=1000")).text) as {
          readonly requests: ReadonlyArray<{ readonly model: string; readonly refused?: true; readonly error?: object }>
        }
        const refused = requests.filter(({ refused }) => refused === true)
        assert.lengthOf(refused, answered503.length)
        for (const { error, model } of refused) {
          assert.strictEqual(model, "fake/slow")
          assert.propertyVal(error, "reason", "EngineCrashed")
        }
      }
      const answers = [...await chats(own, "remote", many), ...await chats(own, "fake/local", many)]
      assert.deepStrictEqual(answers.map(({ status }) => status), answers.map(() => 200))
    }
    assert.match(
      own.process.output().stderr,
      /was ended by SIGKILL\. (?:No|\d+) requests? ran there by its last report\. Another one starts\./
    )
    assert.strictEqual((await own.stop()).code, 0)
  })

  it("completes its answers when it is stopped, and leaves no process and no file", async () => {
    using provider = await startProvider(answered)
    const own = await start(yamlOf(
      provider,
      `  fake/slow: { deployments: [{ engine: fake, tokenDelayMs: 20, reply: "${"word ".repeat(60).trim()}" }] }`
    ))
    const socket = /and (\S+\.sock)|at (\S+\.sock)/.exec(own.process.output().stdout)
    const folder = dirname(socket![1] ?? socket![2]!)
    const { port } = new URL(own.url)
    const { all } = processesOf(own)
    provider.hold()
    const answers = chats(own, "remote", 3)
    await until(() => provider.waiting() === 3 ? true : undefined)
    const body = { model: "fake/slow", stream: true, messages: [{ role: "user", content: "Hello" }] }
    // The status comes with the first content.
    const streams = await Promise.all(
      Array.from(
        { length: 4 },
        () => fetch(`${own.url}/v1/chat/completions`, { method: "POST", body: JSON.stringify(body) })
      )
    )
    const stopped = own.stop()
    // Neither process takes connections any more.
    await until(() => ask(own.url, "/health/live").then(() => undefined, () => true))
    provider.releaseAll()
    for (const { status } of await answers) assert.strictEqual(status, 200)
    for (const stream of streams) assert.include(await stream.text(), "[DONE]")
    assert.strictEqual((await stopped).code, 0)
    assert.deepStrictEqual(all.filter((pid) => !isGone(pid)), [])
    assert.deepStrictEqual(readdirSync(folder).filter((name) => name.startsWith(port)), [])
  })

  it("completes what the first process answers for another one, though it has no connection of its own", async () => {
    using provider = await startProvider(answered)
    const own = await start(yamlOf(
      provider,
      `  fake/slow: { deployments: [{ engine: fake, tokenDelayMs: 20, reply: "${"word ".repeat(60).trim()}" }] }`
    ))
    const text = own.process.output().stdout
    const socketPath = /(\S+)\.sock/.exec(text)![1]! + "-2.sock"
    const stream = await new Promise<IncomingMessage>((resolve, reject) => {
      httpRequest({ method: "POST", path: "/v1/chat/completions", socketPath }, resolve).on("error", reject).end(
        JSON.stringify({ model: "fake/slow", stream: true, messages: [{ role: "user", content: "Hello" }] })
      )
    })
    await once(stream, "readable")
    const stopped = own.stop()
    let received = ""
    for await (const piece of stream.setEncoding("utf8")) received += piece
    assert.include(received, "[DONE]")
    assert.strictEqual((await stopped).code, 0)
  })

  it("leaves no process when the supervisor is killed", async () => {
    using provider = await startProvider(answered)
    const own = await start(yamlOf(provider))
    const { all } = processesOf(own)
    assert.lengthOf(all, 3)
    own.process.child.kill("SIGKILL")
    await until(() => all.every(isGone) ? true : undefined)
  })
})

describe("serve with several processes", () => {
  it.each([
    ["0", "from 1 to 128, or auto"],
    ["129", "from 1 to 128, or auto"],
    ["two", "from 1 to 128, or auto"]
  ])("rejects --processes %s", async (count, message) => {
    const { code, stderr } = await run(["serve", "--port", "0", "--processes", count])
    assert.strictEqual(code, 1)
    assert.include(stderr, message)
  })

  it("rejects a port in use, with one line", async () => {
    const taken = createServer().listen(0, "127.0.0.1")
    await once(taken, "listening")
    const { port } = taken.address() as AddressInfo
    using folder = temporaryFolder()
    writeFileSync(join(folder.path, "troupe.yaml"), "storage: { type: sqlite, folder: data }\n")
    const { code, stderr } = await run(["serve", "--port", String(port), "--processes", "2"], { cwd: folder.path })
    taken.close()
    assert.strictEqual(code, 1)
    assert.match(stderr, new RegExp(`^.*${port}.*in use.*\n$`))
  })

  it("rejects limits that leave a process nothing, and problems of the configuration once", async () => {
    using folder = temporaryFolder()
    const file = join(folder.path, "troupe.yaml")
    writeFileSync(file, "server: { processes: 4, maxConnections: 3 }\nstorage: { type: memory }\n")
    const few = await run(["serve", "--port", "0"], { cwd: folder.path })
    assert.strictEqual(few.code, 1)
    assert.include(few.stderr, "server.maxConnections")
    assert.include(few.stderr, "Expected at least 4, 1 for each of the 4 processes")
    assert.match(few.stderr, /storage\.type.*Expected sqlite or postgres.* 4 processes/s)
    writeFileSync(
      file,
      "server: { processes: 2 }\nstorage: { type: sqlite, folder: data }\nmodels: { m: { deployments: [{ engine: llama, file: none.gguf }] } }\n"
    )
    const missing = await run(["serve", "--port", "0"], { cwd: folder.path })
    assert.strictEqual(missing.code, 1)
    assert.lengthOf(missing.stderr.match(/none\.gguf/g) ?? [], 1)
  })
})

describe("another configuration of several processes", () => {
  it("changes all of them under load, or none", async () => {
    using provider = await startProvider(answered)
    const several = await start(yamlOf(provider, "reload: { watch: false }\nlogLevel: info\n"))
    const aliased = yamlOf(provider, "reload: { watch: false }\nlogLevel: info\n").replace(
      "remote: {",
      "remote: { aliases: [other],"
    )
    writeFileSync(several.file, aliased)
    let isOver = false
    const loaded = Array.from({ length: 8 }, async () => {
      while (!isOver) assert.strictEqual((await chat(several, "remote")).status, 200)
    })
    several.process.child.kill("SIGHUP")
    await until(() => /Applied another configuration/.test(several.process.output().stderr) || undefined)
    const answers = await chats(several, "other", many)
    isOver = true
    await Promise.all(loaded)
    assert.isTrue(answers.every(({ status }) => status === 200))
    writeFileSync(several.file, aliased.replace("aliases: [other]", "aliases: [remote]"))
    const refused = await fetch(`${several.admin}/admin/reload`, { method: "POST" })
    assert.strictEqual(refused.status, 400)
    assert.include(await refused.text(), "models.remote.aliases")
    assert.isTrue((await chats(several, "other", many)).every(({ status }) => status === 200))
  })
})
