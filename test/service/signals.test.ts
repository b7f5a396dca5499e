/** Events around the service's process: the reader of its output ends, its terminal closes. */
import { assert } from "@effect/vitest"
import { describe, it } from "vitest"
import { startService, until } from "../support/Service.ts"

const yaml = `
models:
  fake/slow: { deployments: [{ engine: fake, tokenDelayMs: 20, reply: "${"word ".repeat(40).trim()}" }] }
  fake/error: { deployments: [{ engine: fake, fault: { kind: error } }] }
policies: { default: { retries: 0 } }
`

const ask = (url: string, model: string, stream: boolean) =>
  fetch(`${url}/v1/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ model, stream, messages: [{ role: "user", content: "Hello" }] })
  })

describe("the service", () => {
  it("continues when the readers of its output and log have ended", async () => {
    const service = await startService(yaml)
    service.process.child.stdout!.destroy()
    service.process.child.stderr!.destroy()
    // Each failure is logged: the first writes find the closed pipe.
    for (let count = 0; count < 5; count++) {
      assert.isAtLeast((await ask(service.url, "fake/error", false)).status, 500)
    }
    assert.include(await (await ask(service.url, "fake/slow", true)).text(), "[DONE]")
    assert.strictEqual((await service.stop()).code, 0)
  })

  it("keeps its streams when its terminal closes", async () => {
    const service = await startService(yaml, { NODE_ENV: "production" })
    const stream = await ask(service.url, "fake/slow", true)
    service.process.child.kill("SIGHUP")
    for (const engine of service.engines()) process.kill(engine, "SIGHUP")
    await until(() =>
      /Read the configuration again; nothing changes/.test(service.process.output().stderr) ? true : undefined
    )
    assert.include(await stream.text(), "[DONE]")
    assert.strictEqual((await service.stop()).code, 0)
  })
})
