import { assert } from "@effect/vitest"
import { renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { afterAll, beforeAll, describe, it } from "vitest"
import { invoke } from "../support/CommandLine.ts"
import type { Service } from "../support/Service.ts"
import { startService, until } from "../support/Service.ts"

interface Answers {
  /** The first word of the answer of fake/a. */
  readonly a?: string
  /** Further lines: models first. */
  readonly more?: string
}

const yamlOf = ({ a = "first", more = "" }: Answers = {}, watch = false) => `
reload: { watch: ${watch}, wait: 20 ms }
logLevel: info
models:
  fake/a:
    deployments: [{ engine: fake, reply: ${a} answer, tokenDelayMs: 2 }]
  fake/b:
    deployments: [{ engine: fake, reply: other answer, tokenDelayMs: 2 }]
${more}`

interface Deployment {
  readonly deployment: string
  readonly state: string
}

interface Report {
  readonly applied: boolean
  readonly changes: ReadonlyArray<{ readonly path: string; readonly needsRestart: boolean }>
}

const write = ({ file }: Service, yaml: string): void => {
  writeFileSync(`${file}.new`, yaml)
  renameSync(`${file}.new`, file)
}

const ask = async ({ url }: Service, model: string, stream = false): Promise<string> => {
  const response = await fetch(`${url}/v1/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ model, messages: [{ role: "user", content: "Hello" }], temperature: 0, stream })
  })
  const text = await response.text()
  assert.strictEqual(response.status, 200, text)
  if (!stream) return (JSON.parse(text) as { choices: [{ message: { content: string } }] }).choices[0].message.content
  assert.include(text, "[DONE]")
  return [...text.matchAll(/"content":"([^"]*)"/g)].map(([, content]) => content).join("")
}

const reload = async ({ admin }: Service, query = "") => {
  const response = await fetch(`${admin}/admin/reload${query}`, { method: "POST" })
  return { status: response.status, body: await response.json() as Report & { readonly error: { message: string } } }
}

const deployments = async ({ admin }: Service): Promise<ReadonlyArray<Deployment>> =>
  ((await (await fetch(`${admin}/admin/deployments`)).json()) as { deployments: ReadonlyArray<Deployment> }).deployments

const pathsOf = ({ changes }: Report) => changes.map(({ path }) => path)

describe("another configuration", () => {
  let service: Service
  beforeAll(async () => {
    service = await startService(yamlOf())
  })
  afterAll(() => service.stop())

  it("changes one model under load, and disturbs no other", async () => {
    let isOver = false
    const answers = new Set<string>()
    const callers = Array.from({ length: 24 }, async (_, index) => {
      while (!isOver) answers.add(await ask(service, index % 2 === 0 ? "fake/a" : "fake/b", index % 3 === 0))
    })
    const before = service.engines()
    await until(() => answers.size === 2 ? true : undefined)
    write(service, yamlOf({ a: "second" }))
    const dry = await reload(service, "?dryRun=true")
    assert.deepStrictEqual([dry.body.applied, pathsOf(dry.body)], [false, [
      "models.fake/a.deployments.fake/a#0.reply"
    ]])
    const { body, status } = await reload(service)
    assert.deepStrictEqual([status, body.applied, body.changes], [200, true, dry.body.changes])
    assert.strictEqual(await ask(service, "fake/a"), "second answer")
    await until(() => answers.has("second answer") ? true : undefined)
    isOver = true
    await Promise.all(callers)
    assert.deepStrictEqual(answers, new Set(["first answer", "second answer", "other answer"]))
    const after = await until(() => service.engines().length === 2 ? service.engines() : undefined)
    assert.strictEqual(after.filter((pid) => before.includes(pid)).length, 1, "the engine of fake/b runs on")
    write(service, yamlOf())
    await reload(service)
  })

  it("adds and removes models and aliases, and ends removed ones after their requests", async () => {
    write(
      service,
      yamlOf({
        more:
          "  fake/c:\n    aliases: [see]\n    deployments:\n      - { engine: fake, reply: new, rollout: candidate }\n" +
          "      - { engine: fake, reply: third, tokenDelayMs: 20 }\n"
      })
    )
    await reload(service)
    const added = (await deployments(service)).filter(({ deployment }) => deployment.startsWith("fake/c"))
    assert.deepStrictEqual(added.map(({ state }) => state), ["cold", "ready"], "a candidate is not loaded")
    assert.strictEqual(await ask(service, "see"), "third")
    const running = ask(service, "fake/c", true)
    await until(async () => (await deployments(service)).some((one) => one.deployment === "fake/c#1") || undefined)
    write(service, yamlOf())
    await reload(service)
    assert.strictEqual(await running, "third")
    assert.deepStrictEqual((await deployments(service)).map(({ deployment }) => deployment), ["fake/a#0", "fake/b#0"])
    await until(() => service.engines().length === 2 || undefined)
  })

  it("changes nothing if it is invalid, or a model does not load, and says why", async () => {
    write(service, yamlOf({ more: "circuits: { failures: many }\nsrever: {}\n" }))
    const invalid = await reload(service)
    assert.strictEqual(invalid.status, 400)
    for (const part of ["circuits.failures", "srever", "line", "The configuration in use stays."]) {
      assert.include(invalid.body.error.message, part)
    }
    write(service, yamlOf({ a: "third" }).replace("reply: other answer", "fault: { kind: load }"))
    const failed = await reload(service)
    assert.strictEqual(failed.status, 503, JSON.stringify(failed))
    assert.strictEqual(await ask(service, "fake/a"), "first answer")
    assert.strictEqual(await ask(service, "fake/b"), "other answer")
    rmSync(service.file)
    assert.strictEqual((await reload(service)).status, 400)
    for (const empty of ["", "\n", "# models:\n"]) {
      write(service, empty)
      const { body, status } = await reload(service)
      assert.strictEqual(status, 400, empty)
      assert.include(body.error.message, "is empty")
    }
    assert.strictEqual(await ask(service, "fake/a"), "first answer")
    write(service, yamlOf())
    assert.deepStrictEqual((await reload(service)).body, { applied: false, changes: [] } as never)
  })

  it("is not applied where a query only means to show what changes", async () => {
    write(service, yamlOf({ a: "third" }))
    for (
      const [query, message] of [["?dryRun=yes", "Expected true or false"], ["?dryrun=true", "Did you mean dryRun?"]]
    ) {
      const { body, status } = await reload(service, query)
      assert.strictEqual(status, 400, query)
      assert.include(body.error.message, message!)
    }
    assert.strictEqual(await ask(service, "fake/a"), "first answer")
    write(service, yamlOf())
  })

  it("is read again on SIGHUP, and what needs a restart is named", async () => {
    write(service, yamlOf({ a: "hung up", more: "server: { maxBodyBytes: 1 MiB }\ntroupe: { model: requested }\n" }))
    service.process.child.kill("SIGHUP")
    const log = await until(() => /.*Needs a restart.*/.exec(service.process.output().stderr)?.[0])
    assert.include(log, "server.maxBodyBytes")
    assert.include(log, "troupe.model")
    assert.strictEqual(await ask(service, "fake/a"), "hung up answer")
    write(service, yamlOf())
    await reload(service)
  })

  it("is applied by the command, which prints the differences", async () => {
    write(service, yamlOf({ more: "limits: { all: { requestsPerMinute: 2 } }\n" }))
    const dry = await invoke(["reload", "--dry-run", "--url", service.admin])
    assert.include(dry.stdout, "+ limits.all: {")
    assert.include(dry.stdout, "Nothing was changed (--dry-run).")
    const done = await invoke(["reload", "--url", service.admin])
    assert.include(done.stdout, "Applied.")
    const statuses = await Promise.all([0, 1, 2, 3].map(() =>
      fetch(`${service.url}/v1/chat/completions`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ model: "fake/a", messages: [{ role: "user", content: "Hello" }] })
      }).then(({ status }) => status)
    ))
    assert.deepStrictEqual(statuses.toSorted((one, other) => one - other), [200, 200, 429, 429])
    write(service, yamlOf())
    await invoke(["reload", "--url", service.admin])
    assert.strictEqual(await ask(service, "fake/a"), "first answer")
  })

  it("is asked for at the service that was started with the file, whatever the file says now", async () => {
    const cwd = dirname(service.file)
    write(service, yamlOf({ more: "server: { port: 1, maxBodyBytes: 1 MiB }\n" }))
    const dry = await invoke(["reload", "--dry-run"], { cwd })
    assert.include(dry.stdout, "(needs a restart)", dry.stderr)
    for (const wrong of ["", "models: [\n"]) {
      write(service, wrong)
      const refused = await invoke(["reload"], { cwd })
      assert.include(refused.stderr, "The configuration in use stays.")
    }
    write(service, yamlOf())
  })

  it("changes the input policy, the cache, the names in answers and the circuits", async () => {
    const post = async (content: string) => {
      const response = await fetch(`${service.url}/v1/chat/completions`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ model: "fake/a", messages: [{ role: "user", content }], temperature: 0 })
      })
      return { status: response.status, cache: response.headers.get("x-troupe-cache"), text: await response.text() }
    }
    const injection = "'; DROP TABLE users; --"
    assert.strictEqual((await post(injection)).status, 200)
    write(
      service,
      yamlOf({ more: "guard: { mode: reject }\ncache: {}\ntroupe: { model: requested }\ncircuits: { failures: 1 }\n" })
        .replace("fake/a:", "fake/a:\n    cache: { when: always }")
    )
    const { body } = await reload(service)
    assert.includeMembers([...pathsOf(body)], ["circuits.failures", "troupe.model", "models.fake/a.cache"])
    assert.strictEqual((await post(injection)).status, 400)
    await post("What is the capital of Japan?")
    assert.strictEqual((await post("What is the capital of Japan?")).cache, "hit")
    assert.include((await post("Again")).text, "\"model\":\"fake/a\"")
    write(service, yamlOf())
    await reload(service)
    assert.strictEqual((await post(injection)).status, 200)
    assert.notStrictEqual((await post("What is the capital of Japan?")).cache, "hit")
  })

  it("changes the keys of callers, and asks for one from then on", async () => {
    const own = await startService(yamlOf(), { TEAM_KEY: "team-key-of-sixteen", OTHER_KEY: "other-key-of-sixteen" })
    const status = async (key: string) =>
      (await fetch(`${own.url}/v1/models`, { headers: { authorization: `Bearer ${key}` } })).status
    assert.strictEqual(await status("anything"), 200)
    const withKey = (name: string) => yamlOf({ more: `keys: { team: { key: "\${${name}}", admin: true } }\n` })
    write(own, withKey("TEAM_KEY"))
    const { body } = await reload(own)
    assert.deepStrictEqual(pathsOf(body), ["keys.team"])
    assert.notInclude(JSON.stringify(body), "team-key-of-sixteen")
    assert.deepStrictEqual([await status("team-key-of-sixteen"), await status("other-key-of-sixteen")], [200, 401])
    write(own, withKey("OTHER_KEY"))
    assert.strictEqual((await reload(own)).status, 401)
    own.process.child.kill("SIGHUP")
    await until(async () => await status("other-key-of-sixteen") === 200 || undefined)
    assert.strictEqual(await status("team-key-of-sixteen"), 401)
    assert.notInclude(own.process.output().stderr, "of-sixteen")
    await own.stop()
  })

  it("is not read for a caller who may not administer", async () => {
    const response = await fetch(`${service.url}/admin/reload`, { method: "POST" })
    assert.strictEqual(response.status, 403)
  })
})

describe("a file that changes", () => {
  it("applies: renamed, behind a link as of a ConfigMap, and not while it is invalid", async () => {
    const service = await startService(yamlOf({}, true))
    const folder = dirname(service.file)
    write(service, yamlOf({ a: "renamed" }, true))
    await until(async () => await ask(service, "fake/a") === "renamed answer" || undefined)
    write(service, "models: [")
    await until(() => /The configuration was not reloaded/.test(service.process.output().stderr) || undefined)
    assert.strictEqual(await ask(service, "fake/a"), "renamed answer")
    writeFileSync(join(folder, "..one.yaml"), yamlOf({ a: "linked" }, true))
    symlinkSync("..one.yaml", join(folder, "link"))
    renameSync(join(folder, "link"), service.file)
    await until(async () => await ask(service, "fake/a") === "linked answer" || undefined)
    await service.stop()
  })
})
