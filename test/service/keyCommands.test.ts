/** `troupe keys` and `/admin/keys`, with the service running and without; and that no output has a secret. */
import { assert } from "@effect/vitest"
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { afterAll, beforeAll, describe, it } from "vitest"
import { invoke } from "../support/CommandLine.ts"
import type { Service } from "../support/Service.ts"
import { startService, temporaryFolder } from "../support/Service.ts"

const folder = temporaryFolder()
const data = join(folder.path, "data")
const yaml = `
logLevel: debug
storage: { type: sqlite, folder: ${data} }
limits:
  named: { keys: [limited-*], requestsPerDay: 1 }
budgets:
  fewer: { by: [user], period: day, usd: 5, models: [fake/b], mode: shadow }
  others: { period: day, usd: 5, tenants: [elsewhere] }
models:
  fake/a: { deployments: [{ engine: fake, reply: hi }] }
  fake/b: { deployments: [{ engine: fake, reply: hi }] }
`
const file = join(folder.path, "troupe.yaml")

let service: Service
beforeAll(async () => {
  writeFileSync(file, yaml)
  service = await startService(yaml)
})
afterAll(async () => {
  await service.stop()
  folder[Symbol.dispose]()
})

const keys = async (...args: ReadonlyArray<string>) => {
  const finished = await invoke(["keys", ...args, "--config", file])
  return { ...finished, json: finished.stdout.startsWith("{") ? JSON.parse(finished.stdout) as unknown : undefined }
}

const secretIn = (stdout: string): string => /^tk-\w{46}$/m.exec(stdout)![0]

const statusOf = async (secret: string | undefined, model = "fake/a") => {
  const response = await fetch(`${service.url}/v1/chat/completions`, {
    method: "POST",
    headers: {
      "content-type": "application/json",
      ...(secret === undefined ? {} : { authorization: `Bearer ${secret}` })
    },
    body: JSON.stringify({ model, messages: [{ role: "user", content: "Hi" }] })
  })
  await response.text()
  return response.status
}

const used: Array<string> = []

describe("troupe keys", () => {
  it("changes who may call a running service: the next request after the command is the first", async () => {
    assert.strictEqual(await statusOf(undefined), 200)
    const created = await keys("create", "app", "--models", "fake/a, none-*", "--user", "ann", "--limit", "parallel=3")
    assert.strictEqual(created.code, 0)
    assert.strictEqual(
      created.stderr,
      "Warning: --models: No configured model matches \"none-*\".\n" +
        "This is the first key: from now on, every request to the service needs one.\n"
    )
    const first = secretIn(created.stdout)
    assert.strictEqual(await statusOf(undefined), 401)
    assert.strictEqual(await statusOf(first), 200)
    assert.strictEqual(await statusOf(first, "fake/b"), 403)

    const second = secretIn((await keys("rotate", "app", "--overlap", "1 hour")).stdout)
    assert.strictEqual(await statusOf(first), 200)
    assert.strictEqual(await statusOf(second), 200)
    const atOnce = await keys("rotate", "app", "--now")
    assert.include(atOnce.stdout, "The secret before it is no longer accepted.")
    const third = secretIn(atOnce.stdout)
    assert.strictEqual(await statusOf(second), 401)
    assert.strictEqual(await statusOf(third), 200)

    assert.strictEqual((await keys("revoke", "app")).code, 0)
    assert.strictEqual(await statusOf(third), 401)
    assert.strictEqual(await statusOf(undefined), 401)
    used.push(first, second, third)
  })

  it("says that a second rotation within the overlap ends the secret before the last one", async () => {
    const first = secretIn((await keys("create", "twice")).stdout)
    const once = await keys("rotate", "twice")
    assert.notInclude(once.stdout, "Warning")
    const second = secretIn(once.stdout)
    const twice = await keys("rotate", "twice")
    assert.match(
      twice.stdout,
      /^Warning: the secret before that one, which was to be accepted until .*Z, is no longer/m
    )
    const third = secretIn(twice.stdout)
    assert.deepStrictEqual([await statusOf(first), await statusOf(second), await statusOf(third)], [401, 200, 200])
    used.push(first, second, third)
    assert.isNumber((JSON.parse((await keys("rotate", "twice", "--json")).stdout) as { endedEarly: number }).endedEarly)
  })

  it("extends a key that has expired, which cannot be rotated, and keeps its secret", async () => {
    const end = new Date(Date.now() + 1_500)
    const secret = secretIn((await keys("create", "brief", "--user", "ann", "--expires", end.toISOString())).stdout)
    used.push(secret)
    while (Date.now() <= end.getTime()) await new Promise((resolve) => setTimeout(resolve, 100))
    assert.strictEqual(await statusOf(secret), 401)
    const refused = await keys("rotate", "brief")
    assert.strictEqual(refused.code, 1)
    assert.match(refused.stderr, /The key brief has expired.* keys extend` or/)
    const extended = await keys("extend", "brief", "--expires", "2099-01-31")
    assert.match(extended.stdout, /^expires +2099-02-01T00:00Z$/m)
    assert.match(extended.stdout, /^user +ann$/m)
    assert.strictEqual(await statusOf(secret), 200)
    const forEver = await keys("extend", "brief", "--expires", "never")
    assert.notMatch(forEver.stdout, /^expires/m)
    assert.strictEqual(await statusOf(secret), 200)
  })

  it("makes keys that a limit of the configuration names", async () => {
    const secret = secretIn((await keys("create", "limited-1")).stdout)
    used.push(secret)
    assert.strictEqual(await statusOf(secret), 200)
    assert.strictEqual(await statusOf(secret), 429)
  })

  it("says which limits and budgets apply to a key, and where they are set", async () => {
    const created = await keys("create", "limited-2", "--limit", "tokensPerDay=9")
    used.push(secretIn(created.stdout))
    for (const { stdout } of [created, await keys("show", "limited-2"), await keys("revoke", "limited-2")]) {
      assert.match(stdout, /^limits +tokensPerDay=9 \(its own\)$/m)
      assert.match(
        stdout,
        /^ +requestsPerHour=100 for each tenant, user, endpoint \(by default; limits\.default of the configuration changes it\)$/m
      )
      assert.match(stdout, /^ +requestsPerDay=1 for all requests together \(limits\.named\)$/m)
      assert.match(
        stdout,
        /^budgets +5 USD a day for each user for models fake\/b \(budgets\.fewer, in shadow mode\)$/m
      )
      assert.notInclude(stdout, "budgets.others")
    }
    const own = await keys("create", "free", "--limit", "requestsPerDay=9")
    used.push(secretIn(own.stdout))
    assert.notInclude(own.stdout, "requestsPerHour")
  })

  it("shows keys without their secrets", async () => {
    const secret = secretIn(
      (await keys("create", "shown", "--budget", "month=20usd", "--expires", "2099-01-31")).stdout
    )
    used.push(secret)
    const listed = await keys("ls")
    assert.match(listed.stdout, /^NAME +ID /)
    assert.match(listed.stdout, /^shown +key_\w+ +shown +all +valid +2099-02-01T00:00Z/m)
    assert.match(listed.stdout, /^app .* revoked/m)
    const shown = await keys("show", "shown")
    assert.match(shown.stdout, /^budgets +20 USD a month \(its own\)$/m)
    const asJson = await keys("show", "shown", "--json")
    assert.deepInclude(asJson.json as object, { name: "shown", budgets: [{ period: "month", usd: 20 }] })
    for (const { stdout } of [listed, shown, asJson, await keys("ls", "--json")]) {
      assert.notInclude(stdout, secret.slice(9))
    }
  })

  it.each([
    [["create", "shown"], "A key named \"shown\" exists"],
    [["create", " x"], "name: Expected 1 to 100 printable characters"],
    [["create", "y", "--expires", "tomorrow"], "Expected a day or a time"],
    [["create", "y", "--budget", "month=20"], "Expected PERIOD=AMOUNT"],
    [["create", "y", "--limit", "paralel=3"], "paralel"],
    [["create", "y", "--limit", "parallel=many"], "--limit parallel=many: Expected a whole number of at least 1.\n"],
    [["create", "y", "--limit", "foo=1"], "--limit foo=1: Unknown limit. Expected one of requestsPerMinute, "],
    [["create", "y", "--limit", "requestPerMinute=3"], "Unknown limit. Did you mean requestsPerMinute?\n"],
    [
      ["create", "y", "--limit", "parallel=5", "--limit", "parallel=9"],
      "--limit parallel=9: The limit parallel is given"
    ],
    [["create", "y", "--limit", "parallel=1e30"], "from 1 to 9007199254740991 (2^53 - 1), not 1e+30.\n"],
    [["create", "y", "--limit", "parallel=999999999999999999999"], "from 1 to 9007199254740991 (2^53 - 1)"],
    [["create", "y", "--budget", "day=1usd", "--budget", "month=0usd"], "--budget month=0usd: Expected"],
    [["create", "y", "--budget", "year=5usd"], "--budget year=5usd: Expected one of"],
    [["create", "y", "--expires", "2999-02-30"], "--expires 2999-02-30: Expected a day"],
    [["create", "y", "--expires", "2020-01-31"], "--expires 2020-01-31: Expected a time in the future"],
    [["rotate", "shown", "--now", "--overlap", "1 hour"], "Use either --now or --overlap, not both."],
    [["extend", "shown", "--expires", "2020-01-31"], "--expires 2020-01-31: Expected a time in the future.\n"],
    [["extend", "shown", "--expires", "soon"], "--expires soon: Expected a day or a time"],
    [["show", "showm"], "Did you mean shown?"],
    [["revoke", "app"], "has been revoked"]
  ])("%j fails with one line", async (args, expected) => {
    const { code, stderr, stdout } = await keys(...args)
    assert.strictEqual(code, 1)
    assert.strictEqual(stdout, "")
    assert.include(stderr, expected)
    assert.strictEqual(stderr.trimEnd().split("\n").length, 1)
  })

  it("keeps its data for this user only", () => {
    if (process.platform === "win32") return
    assert.strictEqual(statSync(data).mode & 0o077, 0)
    for (const name of readdirSync(data)) assert.strictEqual(statSync(join(data, name)).mode & 0o077, 0, name)
  })
})

describe("/admin/keys", () => {
  const call = async (path: string, secret: string, body?: unknown) => {
    const response = await fetch(`${service.url}/admin/keys${path}`, {
      method: body === undefined ? "GET" : "POST",
      headers: { authorization: `Bearer ${secret}`, "content-type": "application/json" },
      ...(body === undefined ? {} : { body: JSON.stringify(body) })
    })
    return {
      status: response.status,
      headers: response.headers,
      json: await response.json() as Record<string, unknown>
    }
  }

  it("creates, lists, rotates and revokes with an admin key, and with no other", async () => {
    const admin = secretIn((await keys("create", "operator", "--admin")).stdout)
    const created = await call("", admin, { name: "made by http", tenant: "t" })
    assert.strictEqual(created.status, 201)
    assert.strictEqual(created.headers.get("cache-control"), "no-store")
    const { key, secret } = created.json as { key: { id: string; name: string }; secret: string }
    used.push(admin, secret)
    assert.strictEqual(await statusOf(secret), 200)
    for (
      const [path, body] of [["", undefined], ["", { name: "x" }], [`/${key.id}`, undefined], [`/${key.id}/revoke`, {}]]
    ) {
      assert.strictEqual((await call(path as string, secret, body)).status, 403)
      assert.strictEqual((await call(path as string, "tk-none", body)).status, 401)
    }
    assert.strictEqual((await call(`/${encodeURIComponent(key.name)}`, admin)).json["id"], key.id)
    const rotated = await call(`/${key.id}/rotate`, admin, { overlapMs: 0 })
    assert.strictEqual(rotated.status, 200)
    assert.strictEqual(await statusOf(secret), 401)
    assert.strictEqual(await statusOf(rotated.json["secret"] as string), 200)
    const revoked = await call(`/${key.id}/revoke`, admin, {})
    assert.isNumber(revoked.json["revokedAt"])
    assert.strictEqual(await statusOf(rotated.json["secret"] as string), 401)
    const listed = JSON.stringify((await call("", admin)).json)
    assert.include(listed, key.id)
    for (const one of used) assert.notInclude(listed, one.slice(9))
    used.push(rotated.json["secret"] as string)
  })

  it.each<[path: string, body: unknown, status: number, code: string]>([
    ["", { name: "shown" }, 409, "key_exists"],
    ["", { name: "" }, 400, "invalid_value"],
    ["", { name: "n", model: ["a"] }, 400, "invalid_value"],
    ["", { name: "n", expiresAt: 1 }, 400, "invalid_value"],
    ["", { name: "far", expiresAt: 1e300 }, 400, "invalid_value"],
    ["", { name: "part", expiresAt: 4e12 + 0.5 }, 400, "invalid_value"],
    ["/shown/extend", { expiresAt: 1 }, 400, "invalid_value"],
    ["/shown/extend", { expiresAt: 1e300 }, 400, "invalid_value"],
    ["/shown/extend", {}, 400, "invalid_value"],
    ["/none/extend", { expiresAt: null }, 404, "key_not_found"],
    ["/none/revoke", {}, 404, "key_not_found"],
    ["/app/rotate", { overlapMs: 1 }, 409, "key_revoked"],
    ["/shown/rotate", { overlapMs: -1 }, 400, "invalid_value"]
  ])("rejects %s %j with %i", async (path, body, status, code) => {
    const answer = await call(path, used.at(-3)!, body)
    assert.strictEqual(answer.status, status, JSON.stringify(answer.json))
    const { error } = answer.json as { error: { code: string } }
    if (status !== 400) assert.strictEqual(error.code, code)
  })
})

describe("secrets", () => {
  it("occur in no output of the service, and in no file", async () => {
    const mistyped = `${used[0]!.slice(0, -1)}-`
    const wrong = ["tk-wrong-secret-in-a-header", mistyped, "a-wrong-secret-of-the-file"]
    const places = (secret: string): ReadonlyArray<readonly [string, RequestInit]> => [
      ["/v1/models", { headers: { authorization: `Bearer ${secret}` } }],
      ["/v1/models", { headers: { authorization: secret } }],
      ["/v1/models", { headers: { authorization: `Basic ${secret}` } }],
      ["/v1/messages", {
        method: "POST",
        headers: { "x-api-key": secret, "anthropic-version": "2023-06-01" },
        body: "{"
      }],
      ["/v1/chat/completions", { method: "POST", headers: { authorization: `Bearer ${secret}` }, body: "not json" }],
      ["/admin/keys", { headers: { authorization: `Bearer ${secret}` } }],
      ["/admin/keys", { method: "POST", headers: { authorization: `Bearer ${secret}` }, body: "{}" }],
      ["/metrics", { headers: { authorization: `Bearer ${secret}` } }]
    ]
    const secrets = [...used, ...wrong]
    for (const secret of secrets) {
      for (const [path, init] of places(secret)) {
        const response = await fetch(`${service.url}${path}`, init)
        assert.notInclude(await response.text(), secret.slice(9), path)
        for (const [, value] of response.headers) assert.notInclude(value, secret.slice(9))
      }
    }
    const admin = used.at(-3)!
    const headers = { authorization: `Bearer ${admin}` }
    const outputs = [service.process.output().stdout, service.process.output().stderr]
    for (const path of ["/metrics", "/admin/decisions", "/admin/deployments", "/openapi.json"]) {
      outputs.push(await (await fetch(`${service.url}${path}`, { headers })).text())
    }
    for (const name of readdirSync(data)) outputs.push(readFileSync(join(data, name), "latin1"))
    for (const secret of secrets) {
      for (const output of outputs) assert.notInclude(output, secret.slice(9))
    }
  })
})
