/** The dashboard in a browser, over a real service with a local model, a fake one, and a provider that fails. */
import { assert } from "@effect/vitest"
import { afterAll, beforeAll, describe, it } from "vitest"
import type { Browser } from "../support/Browser.ts"
import { leftOut, startBrowser, violationsOf } from "../support/Browser.ts"
import type { FaultServer } from "../support/FaultServer.ts"
import { startFaultServer } from "../support/FaultServer.ts"
import type { Service } from "../support/Service.ts"
import { startService, until } from "../support/Service.ts"

const key = "an-admin-key-of-the-dashboard-tests"

const yaml = `
keys:
  operator: { key: "\${OPERATOR_KEY}", admin: true }
limits:
  all: { requestsPerMinute: 1000000 }
models:
  tiny-chat:
    deployments: [{ engine: llama, file: "builtin:tiny-chat", price: { input: 100, output: 400 } }]
  fake/slow:
    deployments: [{ engine: fake, reply: a fake answer that arrives slowly, tokenDelayMs: 20 }]
  remote:
    deployments: [{ provider: openai, baseUrl: "\${PROVIDER}/v1", model: faulty, key: "\${PROVIDER_KEY}" }]
    fallbacks: [tiny-chat]
`

const pages = ["Requests", "Rollouts", "Playground"]

const overloaded = {
  status: 503,
  headers: { "content-type": "application/json" },
  pieces: [JSON.stringify({ error: { message: "The server is overloaded", type: "server_error" } })],
  delayMs: 50
}

const ask = async (service: Service, model: string): Promise<string> => {
  const response = await fetch(`${service.url}/v1/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${key}` },
    body: JSON.stringify({
      model,
      messages: [{ role: "user", content: "What is the capital of Japan?" }],
      temperature: 0
    })
  })
  await response.text()
  return response.headers.get("x-troupe-decision")!
}

describe.skipIf(leftOut !== undefined)(`the dashboard${leftOut === undefined ? "" : `: left out, ${leftOut}`}`, () => {
  let service: Service
  let provider: FaultServer
  let browser: Browser
  beforeAll(async () => {
    provider = await startFaultServer(() => overloaded)
    service = await startService(yaml, { OPERATOR_KEY: key, PROVIDER: provider.url, PROVIDER_KEY: "sk-test" })
    browser = await startBrowser()
  })
  afterAll(async () => {
    await browser.close()
    await service.stop()
    await provider.close()
  })

  const open = async (hash = ""): Promise<void> => {
    // A page with the same address except its fragment would not be loaded again.
    await browser.page.goto("about:blank")
    await browser.page.goto(`${service.url}/ui${hash}`)
  }
  const signIn = async (hash = ""): Promise<void> => {
    await open(hash)
    await browser.page.getByLabel("Admin key").fill(key)
    await browser.page.keyboard.press("Enter")
    await browser.page.getByRole("navigation").waitFor()
  }
  const choose = async (name: string): Promise<void> => {
    await browser.page.getByRole("link", { name, exact: true }).click()
    await browser.page.getByRole("heading", { level: 1, name }).waitFor()
  }

  it("asks for the key, says that another one is rejected, and keeps it out of the URL and of storage", async () => {
    const { page } = browser
    await open()
    await page.getByLabel("Admin key").fill("another-key")
    await page.keyboard.press("Enter")
    await page.getByRole("alert").filter({ hasText: "admin key" }).waitFor()
    await signIn()
    const stored = await page.evaluate(
      "JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie, location.href])"
    )
    assert.notInclude(stored, key)
    assert.deepStrictEqual(await page.context().cookies(), [])
    await page.reload()
    await page.getByLabel("Admin key").waitFor()
    // The browser logs the request with the wrong key.
    assert.deepStrictEqual(browser.problems.filter((one) => !one.includes("401")), [])
  })

  it("shows why a request was slow, and which deployment failed", async () => {
    const { page } = browser
    const id = await ask(service, "remote")
    await signIn("#requests")
    const row = page.getByRole("row").filter({ hasText: "remote" }).first()
    await row.getByRole("link").click()
    const detail = page.getByRole("region", { name: "One request" })
    await detail.getByText("Answered by tiny-chat#0").waitFor()
    assert.include(await detail.innerText(), id)
    assert.include(await detail.innerText(), "remote#0 failed after")
    assert.include(await detail.innerText(), "Most of the time:")
    assert.isAbove(await detail.getByRole("img").count(), 1)
  })

  it("chats with two models side by side, and links to the route of an answer", async () => {
    const { page } = browser
    await signIn("#playground")
    await page.getByLabel("Two side by side").check()
    await page.getByLabel("Model, left").selectOption("tiny-chat")
    await page.getByLabel("Model, right").selectOption("fake/slow")
    await page.getByText("Settings: system prompt").click()
    await page.getByLabel("Temperature").fill("0")
    await page.getByLabel("Message", { exact: true }).fill("What is the capital of Japan?")
    await page.keyboard.press("Enter")
    await page.getByText("The capital of Japan is Tokyo.").waitFor()
    await page.getByText("a fake answer that arrives slowly").waitFor()
    await page.getByRole("link", { name: "Show the route" }).first().click()
    await page.getByText("Answered by tiny-chat#0").waitFor()
  })

  it("can be used with the keyboard alone", async () => {
    const { page } = browser
    await ask(service, "fake/slow")
    await signIn("#playground")
    const tabTo = (name: string) =>
      until(async () => {
        await page.keyboard.press("Tab")
        const text = await page.evaluate(
          "document.activeElement.getAttribute('aria-label') ?? document.activeElement.innerText"
        )
        return String(text) === name ? true : undefined
      })
    await tabTo("Requests")
    await page.keyboard.press("Enter")
    await page.getByRole("heading", { level: 1, name: "Requests" }).waitFor()
    await page.getByRole("table").getByRole("link").first().waitFor()
    await tabTo("Latest requests")
    await page.keyboard.press("ArrowDown")
    await until(async () =>
      await page.evaluate("document.activeElement.closest('[data-index=\"0\"]') !== null") || undefined
    )
    await page.keyboard.press("Enter")
    await page.getByRole("region", { name: "One request" }).waitFor()
  })

  it.each(["light", "dark"] as const)("has no violations that axe finds, on every page, %s", async (colorScheme) => {
    const { page } = browser
    await page.emulateMedia({ colorScheme })
    await open()
    await page.getByLabel("Admin key").waitFor()
    assert.deepStrictEqual(await violationsOf(page), [])
    await signIn()
    for (const name of pages) {
      await choose(name)
      assert.deepStrictEqual(await violationsOf(page), [], name)
    }
  })

  it("fits on a phone", async () => {
    const { page } = browser
    await page.setViewportSize({ width: 375, height: 700 })
    await signIn()
    for (const name of pages) {
      await choose(name)
      assert.isAtMost(await page.evaluate<number>("document.documentElement.scrollWidth"), 375, name)
    }
    await page.setViewportSize({ width: 1_280, height: 800 })
  })

  it("violated its Content-Security-Policy nowhere", () => {
    assert.deepStrictEqual(browser.problems.filter((one) => !one.includes("401")), [])
  })
})
