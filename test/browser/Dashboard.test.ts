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
  failing:
    deployments: [{ provider: openai, baseUrl: "\${PROVIDER}/v1", model: faulty, key: "\${PROVIDER_KEY}" }]
`

const pages = ["Overview", "Requests", "Models", "Costs and limits", "Cache", "Rollouts", "Playground", "Alerts"]

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
    await browser.page.getByRole("navigation").getByRole("link", { name: new RegExp(`^${name}`) }).click()
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
    const bars = await detail.getByRole("img").evaluateAll((all) => all.map((one) => one.ariaLabel))
    assert.match(bars[0], /^remote#0: .*failed after/)
    assert.match(bars.at(-1), /^tiny-chat#0: .*answered after /)
    assert.isTrue(await detail.getByRole("button", { name: "Replay this request" }).isDisabled())
    await detail.getByText("Set decisions.keepBodies in the configuration").waitFor()
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
    assert.match(page.url(), /#requests\/dec-/)
  })

  it("shows why an answer failed and its route, and what another one cost", async () => {
    const { page } = browser
    await page.setViewportSize({ width: 1_440, height: 900 })
    await signIn("#playground")
    const model = page.getByRole("combobox", { name: /^Model/ })
    const message = page.getByLabel("Message", { exact: true })
    await model.selectOption("failing")
    await message.fill("What is the capital of Japan?")
    const button = await page.getByRole("button", { name: "Send", exact: true }).boundingBox()
    assert.isAtMost(button!.y + button!.height, 900)
    await page.keyboard.press("Enter")
    await page.getByText("failed after").waitFor()
    assert.strictEqual(await page.getByText("first token").count(), 0)
    assert.strictEqual(await page.getByRole("link", { name: "Show the route" }).count(), 1)
    await page.getByRole("button", { name: "Clear", exact: true }).click()
    await model.selectOption("tiny-chat")
    await message.fill("What is the capital of Japan?")
    await page.keyboard.press("Enter")
    await page.getByText("cost $0.0").waitFor()
    await page.setViewportSize({ width: 1_280, height: 800 })
  })

  it("shows on every page how many alerts fire, and names them on Overview", async () => {
    const { page } = browser
    const alert = {
      alert: "error_rate/remote",
      rule: "error_rate",
      metric: "error_rate",
      target: "remote",
      severity: "critical",
      state: "firing",
      value: 0.5,
      since: 1_800_000_000_000
    }
    await page.route("**/admin/alerts", async (route) => {
      const response = await route.fetch()
      await route.fulfill({ response, json: { ...await response.json() as object, alerts: [alert] } })
    })
    await signIn()
    await page.getByText("1 alert fires: error_rate of remote").waitFor()
    await choose("Models")
    const link = page.getByRole("navigation").getByRole("link", { name: "Alerts 1 firing" })
    await link.waitFor()
    assert.strictEqual(await link.getAttribute("href"), "#alerts")
    await page.unroute("**/admin/alerts")
  })

  it("says on the page of costs since when a store is lost, and what is not stored meanwhile", async () => {
    const { page } = browser
    const response = await fetch(`${service.url}/admin/overview`, { headers: { authorization: `Bearer ${key}` } })
    const snapshot = await response.json() as { readonly at: number; readonly service: object }
    const lost = {
      store: "database",
      available: false,
      needed: false,
      problem: "The database is lost: requests are answered without it.",
      since: snapshot.at - 120_000
    }
    const data = JSON.stringify({ ...snapshot, service: { ...snapshot.service, stores: [lost] } })
    await page.route(
      "**/admin/live",
      (route) => route.fulfill({ contentType: "text/event-stream", body: `event: overview\ndata: ${data}\n\n` })
    )
    await signIn("#costs")
    const notice = page.getByRole("alert").filter({ hasText: lost.problem })
    await notice.waitFor()
    assert.match(await notice.innerText(), /Lost since .* \(2 min ago\)\. Usage and cost since then are not stored/)
    await choose("Overview")
    assert.match(await notice.innerText(), /\(2 min ago\)\.$/)
    await page.unroute("**/admin/live")
  })

  it("shows the actors live, and unloads and loads one", async () => {
    const { page } = browser
    await signIn()
    const row = page.getByRole("row").filter({ hasText: "fake/slow#0" })
    await row.getByText("ready").waitFor()
    await page.getByRole("button", { name: "Unload fake/slow#0" }).click()
    await page.getByRole("dialog").getByRole("button", { name: "Unload" }).click()
    await row.getByText("cold").waitFor()
    await page.getByText("Unloaded fake/slow#0.").waitFor()
    await page.getByRole("button", { name: "Load fake/slow#0", exact: true }).click()
    await row.getByText("ready").waitFor()
    assert.strictEqual(await page.getByText("Live", { exact: true }).count(), 1)
    await page.getByText("Loaded fake/slow#0.").waitFor()
    await choose("Models")
    assert.strictEqual(await page.getByText("Loaded fake/slow#0.").count(), 0)
  })

  it("shows requests that end while the list is open, and their cost by model", async () => {
    const { page } = browser
    await signIn("#requests")
    await page.getByText("Live", { exact: true }).waitFor()
    const id = await ask(service, "tiny-chat")
    await page.locator(`a[href="#requests/${id}"]`).waitFor()
    await choose("Costs and limits")
    const row = page.getByRole("region", { name: "What was used" }).getByRole("row").filter({ hasText: "tiny-chat" })
    await row.getByText("$").waitFor()
    assert.include(await row.innerText(), "$0.0")
  })

  it("asks the service for what the filter selects, and says what was searched", async () => {
    const { page } = browser
    const id = await ask(service, "remote")
    const plain = await ask(service, "tiny-chat")
    // As where others have ended since.
    await page.route("**/admin/requests?limit=200", (route) => route.fulfill({ json: { requests: [] } }))
    await signIn("#requests")
    await page.getByText("No requests yet").waitFor()
    const filter = page.getByRole("searchbox")
    await filter.fill("remote#0")
    const found = page.locator(`a[href="#requests/${id}"]`)
    await found.waitFor()
    await filter.fill("no-such-model")
    await page.getByText("which are all that the service keeps").waitFor()
    await filter.fill("")
    await page.unroute("**/admin/requests?limit=200")
    await page.locator(`a[href="#requests/${plain}"]`).waitFor()
    const cells = await page.evaluate<Array<string>>(
      `[...document.querySelectorAll(".list .row")].map((row) =>
        [...row.children].map((cell) => Math.round(cell.getBoundingClientRect().left)).join(" "))`
    )
    assert.isAbove(cells.length, 2)
    assert.deepStrictEqual([...new Set(cells)], [cells[0]!])
  })

  it("jumps through 10,000 requests with few rows in the document and no long task", async () => {
    const { page } = browser
    const one = (index: number) => ({
      id: `dec-${index}`,
      at: 1_800_000_000_000 + index,
      operation: "chat",
      model: `model-${index % 7}`,
      deployment: `model-${index % 7}#0`,
      status: index % 50 === 0 ? "failure" : "success",
      tookMs: index,
      attempts: 1,
      failed: []
    })
    const events = Array.from(
      { length: 10_000 },
      (_, index) => `event: request\ndata: ${JSON.stringify(one(index))}\n\n`
    )
    // Once: the page asks again when the stream ends, and waits.
    let isSent = false
    await page.route("**/admin/live", async (route) => {
      if (!isSent) await route.fulfill({ contentType: "text/event-stream", body: events.join("") })
      isSent = true
    })
    await signIn("#requests")
    await page.getByText("of the last 10,000").waitFor()
    const session = await page.context().newCDPSession(page)
    await session.send("Performance.enable", { timeDomain: "threadTicks" })
    const cpuSeconds = async (): Promise<number> =>
      (await session.send("Performance.getMetrics")).metrics.find(({ name }) => name === "TaskDuration")!.value
    const before = await cpuSeconds()
    const steps = 100
    const most = await page.evaluate<number>(`(async () => {
      const list = document.querySelector(".list")
      let most = 0
      for (let step = 1; step <= ${steps}; step++) {
        list.scrollTop = (list.scrollHeight - list.clientHeight) * step / ${steps}
        await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)))
        most = Math.max(most, list.querySelectorAll("[data-index]").length)
      }
      return most
    })()`)
    const each = (await cpuSeconds() - before) / steps * 1_000
    await page.locator("[data-index=\"9999\"]").waitFor()
    await page.unroute("**/admin/live")
    assert.isBelow(most, 100)
    // Each step shows other rows only. A task is long from 50 ms on (W3C Long Tasks).
    assert.isBelow(each, 50, "ms of CPU time of the page's thread for a step")
    process.stdout.write(`10,000 requests: ${each.toFixed(1)} ms of CPU time for each jump to other rows\n`)
  })

  it("says that the connection is lost, and shows the requests that it missed after it is back", async () => {
    const { page } = browser
    await signIn("#requests")
    await page.getByText("Live", { exact: true }).waitFor()
    await page.route("**/admin/live", (route) => route.abort())
    await page.reload()
    await page.getByLabel("Admin key").fill(key)
    await page.keyboard.press("Enter")
    await page.getByRole("alert").filter({ hasText: "does not answer" }).waitFor()
    const id = await ask(service, "fake/slow")
    await page.unroute("**/admin/live")
    await page.locator(`a[href="#requests/${id}"]`).waitFor()
    assert.strictEqual(await page.getByText("Live", { exact: true }).count(), 1)
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
    const isFocused = (selector: string) =>
      until(async () => await page.evaluate(`document.activeElement.matches(${JSON.stringify(selector)})`) || undefined)
    await isFocused(".detail h2")
    await page.keyboard.press("Escape")
    await page.getByRole("region", { name: "One request" }).waitFor({ state: "detached" })
    await isFocused("[data-index=\"0\"] a")
    await page.keyboard.press("Tab")
    assert.isFalse(await page.evaluate("document.activeElement.closest('.list') !== null"))
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
      const link = await page.getByRole("navigation").getByRole("link", { name: /^Alerts/ }).boundingBox()
      assert.isAtMost(link!.x + link!.width, 375, name)
    }
    await page.setViewportSize({ width: 1_280, height: 800 })
  })

  it("violated its Content-Security-Policy nowhere", () => {
    // The browser logs the requests that failed, as they should: with the wrong key, to the model that fails, and the aborted one.
    const expected = [
      / 401 .*\/admin\/deployments$/,
      / 502 .*\/v1\/chat\/completions$/,
      /ERR_FAILED .*\/admin\/live$/
    ]
    assert.deepStrictEqual(browser.problems.filter((one) => !expected.some((allowed) => allowed.test(one))), [])
    for (const allowed of expected) assert.isAbove(browser.problems.filter((one) => allowed.test(one)).length, 0)
    assert.strictEqual(browser.problems.filter((one) => / 502 /.test(one)).length, 1)
  })
})
