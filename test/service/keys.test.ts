/** Provider keys in a cooldown: how operators see and reset them. */
import { assert } from "@effect/vitest"
import { once } from "node:events"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { afterAll, beforeAll, describe, it } from "vitest"
import { invoke } from "../support/CommandLine.ts"
import type { Service } from "../support/Service.ts"
import { startService } from "../support/Service.ts"

const answer = {
  id: "x",
  object: "chat.completion",
  created: 1,
  model: "m",
  choices: [{ index: 0, message: { role: "assistant", content: "ok" }, finish_reason: "stop" }],
  usage: { prompt_tokens: 1, completion_tokens: 1, total_tokens: 2 }
}

/** The provider's next answer: this status, or a success. */
let status = 200
let calls = 0
const provider = createServer((request, response) => {
  request.resume()
  calls++
  if (request.headers.authorization === "Bearer limited-key") {
    response.writeHead(429, { "retry-after": "3600" }).end()
    return
  }
  response.writeHead(status, { "content-type": "application/json", "retry-after": "3600" })
  response.end(JSON.stringify(status === 200 ? answer : { error: { message: "no" } }))
})

let service: Service
beforeAll(async () => {
  provider.listen(0, "127.0.0.1")
  await once(provider, "listening")
  service = await startService(
    `models:
  m: { deployments: [{ provider: openai, model: m, key: "\${KEY}", baseUrl: "http://127.0.0.1:${
      (provider.address() as AddressInfo).port
    }" }] }
  two:
    deployments:
      - { provider: openai, model: m, baseUrl: "http://127.0.0.1:${(provider.address() as AddressInfo).port}",
          keys: [{ key: "\${LIMITED}", weight: 1000000000 }, { key: "\${KEY}" }] }
policies: { default: { retries: 0, maxWait: false } }
keyCooldowns: { rejected: 1 hour, rejectedMax: 1 hour }
`,
    { KEY: "test-key", LIMITED: "limited-key" }
  )
})
afterAll(async () => {
  await service.stop()
  provider.close()
})

const ask = async (model = "m") => {
  const response = await fetch(`${service.url}/v1/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ model, messages: [{ role: "user", content: "Hello" }] })
  })
  await response.arrayBuffer()
  return response.status
}

/** The provider limits or rejects the key once, and accepts it afterwards. */
const refuse = async (refusal: number) => {
  status = refusal
  assert.isAtLeast(await ask(), 400)
  status = 200
  const before = calls
  assert.isAtLeast(await ask(), 400)
  assert.strictEqual(calls, before, "the provider is not called meanwhile")
}

describe("a key that is not used for an hour", () => {
  it("is counted by ps beside a key that is used", async () => {
    assert.strictEqual(await ask("two"), 200)
    const shown = await invoke(["ps", "--url", service.url])
    assert.match(shown.stdout, /two#0 .*the provider limited or rejected 1 of its 2 keys; retry in 3\d{3} s/)
  })

  for (const refusal of [429, 401]) {
    for (const command of [["circuits", "reset", "m#0"], ["reload", "m"], ["load", "m"]]) {
      it(`because of a ${refusal}, is shown by ps and used again after ${command.join(" ")}`, async () => {
        await refuse(refusal)
        const shown = await invoke(["ps", "--url", service.url])
        assert.match(shown.stdout, /m#0 .*the provider limited or rejected its keys; retry in 3\d{3} s/)
        assert.strictEqual((await invoke([...command, "--url", service.admin])).code, 0)
        assert.notInclude((await invoke(["ps", "--url", service.url])).stdout, "rejected its keys")
        assert.strictEqual(await ask(), 200)
      })
    }
  }
})
