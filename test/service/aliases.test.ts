/** Aliases of models: every way to name one, and what keys, limits and usage make of it. */
import { assert } from "@effect/vitest"
import OpenAI from "openai"
import { afterAll, beforeAll, describe, it } from "vitest"
import type { Service } from "../support/Service.ts"
import { startService } from "../support/Service.ts"

const secrets = {
  ONE_KEY: "a-key-of-one-model-only",
  ADMIN_KEY: "a-key-of-an-operator",
  ALIAS_KEY: "a-key-of-an-alias"
}

const yaml = `
keys:
  one: { key: "\${ONE_KEY}", models: [fake/a] }
  aliased: { key: "\${ALIAS_KEY}", models: [other] }
  operator: { key: "\${ADMIN_KEY}", admin: true }
limits:
  b: { models: [fake/b], requestsPerDay: 1 }
models:
  fake/a: { aliases: [gpt-4o, "claude:latest"], deployments: [{ engine: fake, reply: from a }] }
  fake/b: { aliases: [other], deployments: [{ engine: fake, reply: from b }] }
  fake/c: { aliases: [kept], cache: { when: always }, deployments: [{ engine: fake, reply: from c }] }
`

let service: Service
let one: OpenAI
let all: OpenAI
let aliased: OpenAI
beforeAll(async () => {
  service = await startService(yaml, secrets)
  const clientOf = (apiKey: string) => new OpenAI({ baseURL: `${service.url}/v1`, apiKey, maxRetries: 0 })
  one = clientOf(secrets.ONE_KEY)
  all = clientOf(secrets.ADMIN_KEY)
  aliased = clientOf(secrets.ALIAS_KEY)
}, 60_000)
afterAll(() => service.stop())

const answerOf = async (client: OpenAI, model: string) => {
  const messages = [{ role: "user" as const, content: "Hi" }]
  const { choices } = await client.chat.completions.create({ model, messages, temperature: 0 })
  return choices[0]!.message.content
}

const statusOf = (answer: Promise<unknown>): Promise<unknown> =>
  answer.then(() => 200, (error: unknown) => (error as { readonly status: number }).status)

const send = (path: string, body: object) =>
  fetch(service.url + path, {
    method: "POST",
    headers: { authorization: `Bearer ${secrets.ONE_KEY}`, "content-type": "application/json" },
    body: JSON.stringify(body)
  })

describe("an alias", () => {
  it("has the cached answers of its model", async () => {
    const cached: Array<string | null> = []
    for (const [index, model] of ["fake/c", "kept", "fake/c"].entries()) {
      const response = await fetch(`${service.url}/v1/chat/completions`, {
        method: "POST",
        headers: { authorization: `Bearer ${secrets.ADMIN_KEY}`, "content-type": "application/json" },
        body: JSON.stringify({ model, messages: [{ role: "user", content: "Cached?" }], stream: index === 2 })
      })
      cached.push(response.headers.get("x-troupe-cache"))
      await response.text()
    }
    assert.deepStrictEqual(cached, ["miss", "hit", "hit"])
  })

  it("selects its model in every dialect", async () => {
    assert.strictEqual(await answerOf(one, "gpt-4o"), "from a")
    assert.strictEqual(
      (await one.completions.create({ model: "gpt-4o", prompt: "Hi", temperature: 0 })).choices[0]?.text,
      "from a"
    )
    assert.strictEqual((await one.embeddings.create({ model: "gpt-4o", input: "Hi" })).data.length, 1)
    const messages = [{ role: "user", content: "Hi" }]
    for (
      const [path, body] of [
        ["/v1/messages", { model: "gpt-4o", messages, max_tokens: 9 }],
        ["/v1/responses", { model: "gpt-4o", input: "Hi" }],
        ["/api/chat", { model: "claude", messages }],
        ["/api/generate", { model: "gpt-4o:latest", prompt: "Hi" }]
      ] as const
    ) assert.strictEqual((await send(path, body)).status, 200, path)
  })

  it("is listed beside its model, and found", async () => {
    const { data } = await one.models.list()
    assert.deepStrictEqual(data.map((model) => [model.id, (model as { readonly alias_of?: string }).alias_of]), [
      ["fake/a", undefined],
      ["gpt-4o", "fake/a"],
      ["claude:latest", "fake/a"]
    ])
    assert.deepInclude(await one.models.retrieve("gpt-4o") as object, { id: "gpt-4o", alias_of: "fake/a" })
  })

  it("is no name that a key can list: the refusal says so", async () => {
    const refused = await aliased.chat.completions.create({
      model: "other",
      messages: [{ role: "user", content: "Hi" }]
    })
      .catch((error: unknown) => error)
    assert.include(
      (refused as Error).message,
      "access to the model \"other\". Its models: other. \"other\" is an alias: a key has to list the model's own name, " +
        "\"fake/b\"."
    )
  })

  it("is allowed as its model is", async () => {
    assert.strictEqual(await statusOf(answerOf(one, "other")), 403)
    assert.strictEqual(await statusOf(one.models.retrieve("other")), 403)
    assert.strictEqual(
      (await send("/v1/chat/completions", {
        model: "gpt-4o",
        messages: [{ role: "user", content: "Hi" }],
        troupe: { fallbacks: ["other"] }
      })).status,
      403
    )
  })

  it("counts in the limits and the usage of its model", async () => {
    assert.strictEqual(await answerOf(all, "other"), "from b")
    assert.strictEqual(await statusOf(answerOf(all, "fake/b")), 429)
    const response = await fetch(`${service.url}/admin/usage?by=model`, {
      headers: { authorization: `Bearer ${secrets.ADMIN_KEY}` }
    })
    const { usage } = await response.json() as { readonly usage: ReadonlyArray<{ readonly model: string }> }
    assert.sameMembers(usage.map(({ model }) => model), ["fake/a", "fake/b", "fake/c"])
  })
})
