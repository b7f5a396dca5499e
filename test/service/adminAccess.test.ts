/** Access to administration: by its own socket and port, by the main port with a token, and to read for the same user. */
import { assert } from "@effect/vitest"
import { execFile } from "node:child_process"
import { once } from "node:events"
import { statSync, writeFileSync } from "node:fs"
import { createServer, request as httpRequest } from "node:http"
import type { AddressInfo } from "node:net"
import { createServer as createSocketServer } from "node:net"
import { dirname, join } from "node:path"
import { promisify } from "node:util"
import { afterAll, beforeAll, describe, it } from "vitest"
import { invoke } from "../support/CommandLine.ts"
import type { Service } from "../support/Service.ts"
import { startService, temporaryFolder } from "../support/Service.ts"

const models = `
models:
  fake/a: { deployments: [{ engine: fake, reply: hi }] }
`
const token = "a-long-token-of-an-operator"

let open: Service
let guarded: Service
beforeAll(async () => {
  open = await startService(models)
  guarded = await startService(`${models}\nserver: { admin: { token: "\${OPERATOR_TOKEN}" } }`, {
    OPERATOR_TOKEN: token
  })
})
afterAll(async () => {
  await open.stop()
  await guarded.stop()
})

interface Asked {
  readonly method?: string
  readonly path?: string
  readonly headers?: Readonly<Record<string, string>>
  readonly socketPath?: string
}

const statusOf = (url: string, asked: Asked = {}): Promise<number | undefined> =>
  new Promise((resolve, reject) => {
    const { headers = {}, method = "GET", path = "/admin/deployments", socketPath } = asked
    const options = { headers, method, ...(socketPath === undefined ? {} : { socketPath }) }
    httpRequest(`${url}${path}`, options, (response) => {
      response.resume()
      resolve(response.statusCode)
    }).on("error", reject).end()
  })

/** As nginx and HAProxy forward requests by default: without a header that shows it. */
const withProxy = async <A>(to: string, use: (url: string) => Promise<A>): Promise<A> => {
  const { hostname, port } = new URL(to)
  const proxy = createServer((incoming, outgoing) => {
    const { headers, method, url } = incoming
    incoming.pipe(httpRequest(
      { hostname, port, path: url, method, headers: { ...headers, host: `${hostname}:${port}` } },
      (answer) => {
        outgoing.writeHead(answer.statusCode!, answer.headers)
        answer.pipe(outgoing)
      }
    ))
  })
  proxy.listen(0, "127.0.0.1")
  await once(proxy, "listening")
  try {
    return await use(`http://127.0.0.1:${(proxy.address() as AddressInfo).port}`)
  } finally {
    proxy.closeAllConnections()
    proxy.close()
  }
}

const reads = ["/admin/deployments", "/admin/circuits", "/admin/decisions"]

/** Linux names the user of a connection; elsewhere the main port refuses. */
const statusOfReads = process.platform === "linux" ? 200 : 403

/** The answer to a program of another user, over one connection. */
const asUser = async (uid: number, url: string, paths: ReadonlyArray<string>): Promise<ReadonlyArray<string>> => {
  const script = `
    process.setgid(${uid})
    process.setuid(${uid})
    const http = require("node:http")
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
    const ask = (path) => new Promise((resolve, reject) => {
      http.get(${JSON.stringify(url)} + path, { agent }, async (response) => {
        resolve(response.statusCode + " " + (await response.toArray()).join(""))
      }).on("error", reject)
    })
    const all = async () => {
      const answers = []
      for (const path of ${JSON.stringify(paths)}) answers.push(await ask(path))
      agent.destroy()
      console.log(JSON.stringify(answers))
    }
    all()`
  const { stdout } = await promisify(execFile)(process.execPath, ["-e", script])
  return JSON.parse(stdout) as ReadonlyArray<string>
}

const socketOf = ({ process }: Service): string => / and (\S+)/.exec(process.output().stdout)![1]!

const bearer = (text: string): Asked => ({ headers: { authorization: `Bearer ${text}` } })

describe("administration", () => {
  it.each([
    "/admin/models/fake%2Fa/load",
    "/admin/models/fake%2Fa/unload",
    "/admin/models/fake%2Fa/reload",
    "/admin/circuits/fake%2Fa%230/reset"
  ])("changes nothing through the main port, proxied or not: %s", async (path) => {
    const change = { method: "POST", path }
    assert.strictEqual(await statusOf(open.url, change), 403)
    assert.strictEqual(await statusOf(open.url, { ...change, headers: { host: "localhost" } }), 403)
    assert.strictEqual(await withProxy(open.url, (url) => statusOf(url, change)), 403)
    assert.strictEqual(await statusOf(open.admin, change), 200)
  })

  it("says at the main port where it listens", async () => {
    const { stderr } = await invoke(["reload", "--url", open.url])
    assert.include(stderr, `Administration listens at the socket file ${socketOf(open)} and at the port that`)
  })

  it("can be read by programs of the same user through the main port, and not by web pages", async () => {
    for (const path of reads) {
      assert.strictEqual(await statusOf(open.url, { path }), statusOfReads)
      assert.strictEqual(await statusOf(open.url, { path, headers: { origin: "https://example.com" } }), 403)
      assert.strictEqual(await statusOf(open.url, { path, headers: { host: "example.com" } }), 403)
    }
  })

  it("can be read through a proxy of the same user: it cannot be distinguished", async () => {
    for (const path of reads) {
      assert.strictEqual(await withProxy(open.url, (url) => statusOf(url, { path })), statusOfReads)
    }
  })

  it.skipIf(process.getuid?.() !== 0).each([65_533, 65_534])(
    "refuses reads of user %i at the main port (needs root, to start a program of that user)",
    async (uid) => {
      const answers = await asUser(uid, open.url, ["/v1/models", ...reads, ...reads])
      assert.strictEqual(answers[0]!.slice(0, 3), "200")
      for (const answer of answers.slice(1)) {
        assert.strictEqual(answer.slice(0, 3), "403")
        for (const way of ["troupe command", "socket file", "server.admin.port", "server.admin.token"]) {
          assert.include(answer, way)
        }
      }
    }
  )

  it.each([
    "via",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded",
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "true-client-ip",
    "fastly-client-ip",
    "cf-connecting-ip",
    "cf-ray",
    "cdn-loop",
    "x-original-url",
    "x-envoy-external-address",
    "x-amz-cf-id",
    "x-azure-clientip"
  ])("refuses a proxied request by its header %s", async (name) => {
    assert.strictEqual(await statusOf(open.admin, { headers: { [name]: "203.0.113.7" } }), 403)
    assert.strictEqual(await statusOf(open.url, { headers: { [name]: "203.0.113.7" } }), 403)
    const socketPath = socketOf(open)
    assert.strictEqual(await statusOf("http://localhost", { socketPath, headers: { [name]: "203.0.113.7" } }), 403)
  })

  it("answers on a socket that only the current user can open", async () => {
    const socketPath = socketOf(open)
    assert.strictEqual(await statusOf("http://localhost", { socketPath }), 200)
    assert.strictEqual(statSync(socketPath).mode & 0o777, 0o600)
    assert.strictEqual(statSync(dirname(socketPath)).mode & 0o777, 0o700)
  })

  it("accepts the token on every port, and rejects other tokens", async () => {
    for (const url of [guarded.url, guarded.admin]) {
      assert.strictEqual(await statusOf(url), 401)
      assert.strictEqual(await statusOf(url, bearer("another")), 401)
      assert.strictEqual(await statusOf(url, bearer(token)), 200)
      assert.strictEqual(await withProxy(url, (proxied) => statusOf(proxied)), 401)
      assert.strictEqual(await withProxy(url, (proxied) => statusOf(proxied, bearer(token))), 200)
    }
    assert.strictEqual(await statusOf("http://localhost", { socketPath: socketOf(guarded) }), 200)
  })

  it("rejects a token that is written in the configuration file", async () => {
    using folder = temporaryFolder()
    const file = join(folder.path, "troupe.yaml")
    writeFileSync(file, `${models}\nserver: { admin: { token: spelled-out } }`)
    const { code, stderr } = await invoke(["config", "check", "--config", file])
    assert.strictEqual(code, 1)
    assert.include(stderr, "server.admin.token")
    assert.notInclude(stderr, "spelled-out")
  })

  it("is reached by the command line through the socket, or with the token", async () => {
    assert.strictEqual((await invoke(["ps", "--url", open.url])).code, 0)
    const port = new URL(guarded.url).port
    assert.strictEqual((await invoke(["ps"], { env: { PORT: port } })).code, 0)
    const refused = await invoke(["ps", "--url", guarded.admin])
    assert.strictEqual(refused.code, 1)
    assert.include(refused.stderr, "token")
    const byToken = await invoke(["ps", "--url", guarded.admin], { env: { TROUPE_ADMIN_TOKEN: token } })
    assert.strictEqual(byToken.code, 0)
  })

  it("is reached by --url with the token only, although the socket would answer without one", async () => {
    for (const url of [guarded.url, guarded.admin]) {
      for (const command of [["ps"], ["usage"], ["load", "fake/a"]]) {
        const refused = await invoke([...command, "--url", url], { env: { TROUPE_ADMIN_TOKEN: "bad" } })
        assert.deepStrictEqual([refused.code, refused.stdout], [1, ""])
        assert.include(refused.stderr, "token")
        assert.strictEqual(
          (await invoke([...command, "--url", url], { env: { TROUPE_ADMIN_TOKEN: token } })).code,
          0
        )
      }
    }
    const change = await invoke(["load", "fake/a", "--url", open.url])
    assert.strictEqual(change.code, 1)
    assert.include(change.stderr, "without --url")
  })
})

describe("the dashboard", () => {
  it("is served without a key, with a policy that permits its own files only", async () => {
    const response = await fetch(`${guarded.url}/ui`)
    assert.strictEqual(response.status, 200)
    const policy = response.headers.get("content-security-policy")!
    assert.include(policy, "default-src 'none'")
    assert.include(policy, "frame-ancestors 'none'")
    assert.notInclude(policy, "unsafe")
    const names = [...(await response.text()).matchAll(/(?:src|href)="ui\/([^"]+)"/g)].map(([, name]) => name!)
    assert.includeMembers(names, ["app.js", "style.css", "icon.svg"])
    for (const name of names) {
      const file = await fetch(`${guarded.url}/ui/${name}`)
      assert.strictEqual(file.status, 200)
      assert.strictEqual(file.headers.get("x-content-type-options"), "nosniff")
      const headers = { "if-none-match": file.headers.get("etag")! }
      assert.strictEqual((await fetch(`${guarded.url}/ui/${name}`, { headers })).status, 304)
    }
    assert.strictEqual((await fetch(`${guarded.url}/ui/..%2fmain.js`)).status, 404)
    assert.strictEqual((await fetch(`${guarded.url}/ui`, { method: "POST" })).status, 405)
  })

  it("learns whether a key is needed, and whether actions are accepted", async () => {
    const accessOf = async (url: string) => (await fetch(`${url}/ui/access.json`)).json()
    assert.deepStrictEqual(await accessOf(guarded.url), { needsKey: true, mayChange: true })
    assert.deepStrictEqual(await accessOf(open.url), { needsKey: false, mayChange: false })
    assert.deepStrictEqual(await accessOf(open.admin), { needsKey: false, mayChange: true })
  })

  it("changes something at the port of administration as a page of its own, and not as another's", async () => {
    const { host, origin } = new URL(open.admin)
    const change = (headers: Readonly<Record<string, string>>) =>
      statusOf(open.admin, { method: "POST", path: "/admin/models/fake%2Fa/load", headers })
    assert.strictEqual(await change({ origin, "sec-fetch-site": "same-origin" }), 200)
    assert.strictEqual(await change({ origin: "https://example.com", "sec-fetch-site": "cross-site" }), 403)
    assert.strictEqual(await change({ origin, "sec-fetch-site": "cross-site" }), 403)
    assert.strictEqual(await change({ origin: `http://localhost:${new URL(origin).port}`, host }), 403)
    // A name that resolves to this machine: the page's origin is what it asks for.
    assert.strictEqual(await change({ origin: "http://example.com", host: "example.com" }), 403)
  })
})

describe("a configured socket", () => {
  it("replaces the socket file of a killed service, but not a socket in use", async () => {
    using folder = temporaryFolder()
    const socketPath = join(folder.path, "admin.sock")
    const yaml = `${models}\nserver: { admin: { socket: ${socketPath} } }`
    const killed = await startService(yaml)
    killed.process.child.kill("SIGKILL")
    await killed.process.finished
    assert.isTrue(statSync(socketPath).isSocket())
    const next = await startService(yaml)
    assert.strictEqual(await statusOf("http://localhost", { socketPath }), 200)
    await next.stop()
    const other = createSocketServer().listen(socketPath)
    await once(other, "listening")
    const error = await startService(yaml).then(() => undefined, (cause: Error) => cause.message)
    other.close()
    assert.include(error, socketPath)
    assert.include(error, "server.admin")
  })

  it("can be turned off, and the port remains", async () => {
    const service = await startService(`${models}\nserver: { admin: { socket: false } }`)
    assert.notInclude(service.process.output().stdout, ".sock")
    assert.strictEqual(await statusOf(service.admin), 200)
    await service.stop()
  })
})
