import { assert } from "@effect/vitest"
import { get as httpGet } from "node:http"
import { afterAll, beforeAll, describe, it } from "vitest"
import { invoke } from "../support/CommandLine.ts"
import type { Service } from "../support/Service.ts"
import { resume, run, startService, suspend, until } from "../support/Service.ts"

const yaml = `
circuits: { failures: 2, openFor: 1 hour }
models:
  fake/a:
    deployments:
      - engine: fake
        reply: a fake answer
        fault: { kind: error, trigger: break }
`

let service: Service

beforeAll(async () => {
  service = await startService(yaml)
})

afterAll(() => service.stop())

const get = (path: string, headers: Record<string, string> = {}) =>
  fetch(`${path.startsWith("/admin") ? service.admin : service.url}${path}`, { headers })

const act = (model: string, action: string) =>
  fetch(`${service.admin}/admin/models/${encodeURIComponent(model)}/${action}`, { method: "POST" })

const ask = (content = "Hello") =>
  fetch(`${service.url}/v1/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ model: "fake/a", messages: [{ role: "user", content }], temperature: 0 })
  })

const stateOf = async (): Promise<string> => {
  const { deployments } = await (await get("/admin/deployments")).json() as {
    readonly deployments: ReadonlyArray<{ readonly state: string }>
  }
  return deployments[0]!.state
}

describe("administration", () => {
  it("reports the state of each deployment", async () => {
    const { deployments } = await (await get("/admin/deployments")).json() as { readonly deployments: Array<object> }
    assert.strictEqual(deployments.length, 1)
    assert.deepInclude(deployments[0], {
      deployment: "fake/a#0",
      engine: "fake",
      state: "ready",
      running: 0,
      queued: 0
    })
  })

  const long = "x".repeat(400)
  it.each<[method: string, path: string, code: string | null, name: RegExp]>([
    ["GET", `/v1/models/${long}`, "model_not_found", /"x{63}…"/],
    ["GET", `/admin/decisions/${long}`, "decision_not_found", /"x{63}…"/],
    ["POST", `/admin/models/${long}/load`, "model_not_found", /"x{63}…"/],
    ["POST", `/admin/models/fake%2Fa/${long}`, "not_found", /"x{63}…"/],
    ["POST", `/admin/circuits/${long}/reset`, "deployment_not_found", /"x{63}…"/],
    ["GET", `/v1/${long}`, "not_found", / \/v1\/x{251}… /]
  ])("answers a long name with the 404 of short ones, and cuts it: %s %.20s", async (method, path, code, name) => {
    const response = await fetch(`${path.startsWith("/admin") ? service.admin : service.url}${path}`, { method })
    const { error } = await response.json() as { readonly error: { readonly code: string; readonly message: string } }
    assert.deepStrictEqual([response.status, error.code], [404, code])
    assert.match(error.message, name)
  })

  it("unloads a model once its requests have ended, and loads it again", async () => {
    const engines = service.engines()
    suspend(engines)
    const answer = ask()
    await until(async () => {
      const { deployments } = await (await get("/admin/deployments")).json() as {
        readonly deployments: ReadonlyArray<{ readonly running: number }>
      }
      return deployments[0]!.running === 1 ? true : undefined
    })
    const unloading = act("fake/a", "unload")
    await until(async () => await stateOf() === "draining" || undefined)
    resume(engines)
    assert.strictEqual((await unloading).status, 200)
    assert.strictEqual(await stateOf(), "cold")
    const { choices } = await (await answer).json() as {
      readonly choices: ReadonlyArray<{ readonly message: { readonly content: string } }>
    }
    assert.strictEqual(choices[0]?.message.content, "a fake answer")
    assert.strictEqual((await act("fake/a", "load")).status, 200)
    assert.strictEqual(await stateOf(), "ready")
  })

  it("reloads a model without failing a request", async () => {
    const asked = Array.from({ length: 12 }, () => ask())
    const before = service.engines()
    assert.strictEqual((await act("fake/a", "reload")).status, 200)
    const after = await Promise.all([...asked, ...Array.from({ length: 12 }, () => ask())])
    assert.deepStrictEqual(new Set(after.map(({ status }) => status)), new Set([200]))
    const engines = await until(() => service.engines().length === 1 ? service.engines() : undefined)
    assert.notDeepEqual(engines, before)
  })

  it("answers several concurrent reloads with their common result", async () => {
    const answers = await Promise.all(["load", "reload", "reload", "reload"].map((action) => act("fake/a", action)))
    assert.deepStrictEqual(answers.map(({ status }) => status), [200, 200, 200, 200])
    assert.strictEqual(await stateOf(), "ready")
    await until(() => service.engines().length === 1 ? true : undefined)
  })

  it("streams state changes", async () => {
    // Of its own service: events of earlier tests may still be on their way.
    const own = await startService(yaml)
    const { body } = await fetch(`${own.admin}/admin/deployments/events`)
    const reader = body!.pipeThrough(new TextDecoderStream()).getReader()
    await fetch(`${own.admin}/admin/models/fake%2Fa/reload`, { method: "POST" })
    let seen = ""
    /** The last event may not be complete yet. */
    const states = () =>
      seen.split("\n\n").slice(0, -1).filter((line) => line.startsWith("data: ")).map((line) =>
        (JSON.parse(line.slice("data: ".length)) as { readonly state: string }).state
      )
    while (!states().includes("gone")) seen += (await reader.read()).value ?? ""
    await reader.cancel()
    await own.stop()
    assert.deepStrictEqual(states(), ["loading", "ready", "draining", "gone"])
  })

  it("refuses web pages and proxied requests, and rejects unknown models by name", async () => {
    assert.strictEqual((await get("/admin/deployments", { "x-forwarded-for": "203.0.113.7" })).status, 403)
    assert.strictEqual((await get("/admin/deployments", { forwarded: "for=203.0.113.7" })).status, 403)
    assert.strictEqual((await get("/admin/deployments", { origin: "https://example.org" })).status, 403)
    const missing = await act("nope", "load")
    assert.strictEqual(missing.status, 404)
    assert.include(await missing.text(), "model_not_found")
  })

  it("refuses cross-site requests, and requests to a host name that is not local", async () => {
    // Headers that fetch does not allow to set.
    const statusOf = (headers: Record<string, string>) =>
      new Promise<number | undefined>((resolve, reject) => {
        httpGet(`${service.admin}/admin/deployments`, { headers }, (response) => {
          response.resume()
          resolve(response.statusCode)
        }).on("error", reject)
      })
    for (const host of ["localhost", "LOCALHOST:1", "troupe.localhost:8080", "127.0.0.1", "127.8.0.1:80", "[::1]:9"]) {
      assert.strictEqual(await statusOf({ host }), 200, host)
    }
    const others = [
      "evil.example",
      "127.0.0.1.evil.example",
      "evil.example:80",
      "localhost.evil.example",
      "192.0.2.1"
    ]
    for (const host of others) assert.strictEqual(await statusOf({ host }), 403, host)
    for (
      const [site, status] of [["cross-site", 403], ["same-site", 403], ["none", 200], ["same-origin", 200]] as const
    ) {
      assert.strictEqual(await statusOf({ "sec-fetch-site": site }), status, site)
    }
  })

  it("lists the actions when the action is unknown", async () => {
    for (const action of ["explode", "toString", "Load"]) {
      const response = await act("fake/a", action)
      assert.strictEqual(response.status, 404)
      const { error } = await response.json() as { readonly error: { readonly code: string; readonly message: string } }
      assert.strictEqual(error.code, "not_found")
      assert.strictEqual(
        error.message,
        `Unknown action "${action}". Available actions: load, unload, reload, pin, unpin, drain, resume.`
      )
    }
  })

  describe("an open circuit", () => {
    const opened = async () => {
      // As many failures as the configuration allows.
      for (const status of [500, 500, 503]) assert.strictEqual((await ask("break")).status, status)
      assert.strictEqual((await ask()).status, 503)
    }
    const reset = (deployment: string) =>
      fetch(`${service.admin}/admin/circuits/${encodeURIComponent(deployment)}/reset`, { method: "POST" })

    it("is closed by a reset", async () => {
      await opened()
      const response = await reset("fake/a#0")
      assert.strictEqual(response.status, 200)
      const { circuits } = await response.json() as { readonly circuits: ReadonlyArray<object> }
      assert.deepInclude(circuits[0], { deployment: "fake/a#0", phase: "closed", retryAfterMs: 0 })
      assert.strictEqual((await ask()).status, 200)
    })

    it("is closed by a successful load or reload, but not by an unload", async () => {
      for (const action of ["load", "reload"]) {
        await opened()
        assert.strictEqual((await act("fake/a", "unload")).status, 200)
        assert.strictEqual((await ask()).status, 503)
        assert.strictEqual((await act("fake/a", action)).status, 200)
        assert.strictEqual((await ask()).status, 200, action)
      }
    })

    it("is shown and reset by the command line", async () => {
      await opened()
      const listed = await invoke(["circuits", "ls", "--url", service.url])
      assert.match(listed.stdout, /fake\/a#0 +open +\d+ s/)
      const closed = await invoke(["circuits", "reset", "fake/a#0", "--url", service.admin])
      assert.match(closed.stdout, /fake\/a#0 +closed/)
      assert.strictEqual((await ask()).status, 200)
    })

    it("cannot be reset for an unknown deployment", async () => {
      const response = await reset("nope#0")
      assert.strictEqual(response.status, 404)
      const { error } = await response.json() as { readonly error: { readonly code: string; readonly message: string } }
      assert.strictEqual(error.code, "deployment_not_found")
      assert.strictEqual(error.message, "Deployment \"nope#0\" not found. GET /admin/deployments lists them.")
    })

    it.each([
      ["fake/a", " Did you mean fake/a#0?"],
      ["fake/b#0", " Did you mean fake/a#0?"],
      ["nope#0", ""]
    ])("named by %s gets a suggestion, and the command that lists the deployments", async (name, meant) => {
      const { code, stderr } = await invoke(["circuits", "reset", name, "--url", service.admin])
      assert.strictEqual(code, 1)
      assert.match(
        stderr,
        new RegExp(
          `^troupe: Deployment "${name}" not found\\.${meant.replace("?", "\\?")} \`.+ ps\` lists them\\.\n$`
        )
      )
      const decision = await invoke(["decisions", "dec-nope", "--url", service.url])
      assert.match(decision.stderr, /`.+ decisions` lists them\.\n$/)
    })
  })

  it("is used by the command line", async () => {
    const listed = await run(["ps", "--url", service.url])
    assert.match(listed.stdout, /fake\/a#0\s+fake\s+ready/)
    const byPort = await run(["ps"], { env: { PORT: new URL(service.url).port } })
    // The memory of an engine process changes from one measurement to the next.
    const withoutMemory = (table: string) => table.replace(/[\d.]+ [KMG]iB/g, "memory").replace(/ +/g, " ")
    assert.strictEqual(withoutMemory(byPort.stdout), withoutMemory(listed.stdout))
    const unloaded = await invoke(["unload", "fake/a", "--url", service.admin, "--json"])
    assert.deepInclude((JSON.parse(unloaded.stdout) as Array<object>)[0], { state: "cold" })
    const wrong = await invoke(["load", "nope", "--url", service.admin])
    assert.strictEqual(wrong.code, 1)
    assert.include(wrong.stderr, "does not exist")
  })
})

describe("a load that hangs", () => {
  it("is stopped by an unload, and its caller gets the reason", async () => {
    const hanging = await startService(`
models:
  fake/hangs: { preload: false, deployments: [{ engine: fake, loadDelayMs: 600000 }] }
`)
    const post = (action: string) => fetch(`${hanging.admin}/admin/models/fake%2Fhangs/${action}`, { method: "POST" })
    const stateIn = async (response: Response) =>
      (await response.json() as { readonly deployments: ReadonlyArray<{ readonly state: string }> }).deployments[0]
        ?.state
    const state = async () => stateIn(await fetch(`${hanging.admin}/admin/deployments`))
    try {
      const loading = post("load")
      await until(async () => await state() === "loading" ? true : undefined)
      const unloaded = await post("unload")
      assert.deepStrictEqual([unloaded.status, await stateIn(unloaded)], [200, "cold"])
      const refused = await loading
      assert.strictEqual(refused.status, 503)
      assert.deepInclude((await refused.json() as { readonly error: object }).error, {
        code: "engine_stopped",
        message: "The load of \"fake/hangs#0\" was stopped: the model was unloaded meanwhile."
      })
      assert.strictEqual(await state(), "cold")
    } finally {
      await hanging.stop()
    }
  })
})

describe("the live view in the terminal", () => {
  const at = () => ["--url", service.url]

  it("prints a snapshot, the requests, and whether the service is healthy", async () => {
    const response = await ask("What is new?")
    const id = response.headers.get("x-request-id")!
    await response.text()
    const top = await invoke(["top", ...at()])
    assert.match(top.stdout, /^troupe \d\S+: ready for .*, 1 process\nRequests: 0 running/)
    assert.match(top.stdout, /fake\/a#0 +ready/)
    const logs = await invoke(["logs", "--json", "--deployment", "fake/a#0", ...at()])
    const last = JSON.parse(logs.stdout.trimEnd().split("\n").at(-1)!) as Record<string, unknown>
    assert.deepInclude(last, { type: "request", requestId: id, status: "success", deployment: "fake/a#0" })
    assert.strictEqual((await invoke(["logs", "--model", "other", ...at()])).stdout, "")
    const found = await invoke(["decisions", id, ...at()])
    assert.include(found.stdout, "Longest part: ")
    const status = await invoke(["status", ...at()])
    assert.deepStrictEqual([status.code, status.stdout.split("\n")[0]], [0, "Healthy."])
  })

  it("prints a request once, at its end, and one that runs with --running", async () => {
    const engines = service.engines()
    const ids = async (...args: ReadonlyArray<string>) => {
      const { stdout } = await invoke(["logs", "--json", "--limit", "1000", ...args, ...at()])
      return stdout.split("\n").filter((line) => line !== "").map((line) => (JSON.parse(line) as { id: string }).id)
    }
    suspend(engines)
    const asked = ask("What is slow?")
    try {
      const [running] = await until(async () => {
        const found = await ids("--status", "running")
        return found.length === 1 ? found : undefined
      })
      assert.notInclude(await ids(), running)
      assert.include(await ids("--running"), running)
      resume(engines)
      await (await asked).text()
      assert.strictEqual((await ids()).filter((id) => id === running).length, 1)
    } finally {
      resume(engines)
    }
  })

  it("finds refused requests, and failed ones by their HTTP status", async () => {
    const missing = await fetch(`${service.url}/v1/chat/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ model: "missing", messages: [{ role: "user", content: "Hello" }] })
    })
    assert.strictEqual(missing.status, 404)
    for (const status of ["refused", "404", "4xx"]) {
      const { stdout } = await invoke(["logs", "--status", status, ...at()])
      assert.match(stdout, /^\S+ ref-\S+ REFUSED missing .*http=404 ModelNotFound: [^\n]+\n$/, status)
    }
    assert.include((await invoke(["logs", "--status", "2xx", ...at()])).stdout, "answered fake/a")
  })

  it.each([
    [["logs", "--since", "5x"], /--since: expected a duration/],
    [
      ["logs", "--status", "eror"],
      /--status eror: Expected one of answered, failed, refused, canceled, running, or an HTTP status such as 429 or 5xx\. Did you mean error\?/
    ],
    [["logs", "-f", "--status", "running"], /--status running lists the requests that run now: leave out --follow\./],
    [["top", "--sort", "size"], /--sort/]
  ])("rejects %o", async (args, expected) => {
    const { code, stderr } = await invoke([...args, ...at()])
    assert.strictEqual(code, 1)
    assert.match(stderr, expected)
  })

  it.each(["top", "logs", "status"])("%s says that no service runs", async (name) => {
    const { code, stderr } = await invoke([name, "--url", "http://127.0.0.1:9"])
    assert.strictEqual(code, 1)
    assert.match(stderr, /No service is running at http:\/\/127\.0\.0\.1:9/)
  })
})
