/**
 * Debian's Chromium, for the tests of the dashboard. They run as a step of `.ci/run`; `npm test` leaves them out, since they
 * take longer than the time that is left for it.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import { createRequire } from "node:module"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { BrowserContext, Page } from "playwright-core"
import { chromium } from "playwright-core"

const executablePath = process.env["TROUPE_TEST_CHROMIUM"] ?? "/usr/bin/chromium"

const isWanted = process.env["TROUPE_TEST_BROWSER"] === "all"

/** Why the tests with a browser do not run; undefined if they do. */
export const leftOut = isWanted
  ? existsSync(executablePath) ? undefined : `there is no ${executablePath}`
  : "TROUPE_TEST_BROWSER is not \"all\""

if (isWanted && leftOut !== undefined) throw new Error(`The browser tests cannot run: ${leftOut}. Install chromium.`)

const flags = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync"
]

export interface Browser {
  readonly page: Page
  /** Violations of the Content-Security-Policy, errors that nothing caught, and messages of the console that are errors. */
  readonly problems: ReadonlyArray<string>
  readonly close: () => Promise<void>
}

/** A browser with a new profile. */
export const startBrowser = async (): Promise<Browser> => {
  const profile = mkdtempSync(join(tmpdir(), "troupe-browser-"))
  const context: BrowserContext = await chromium.launchPersistentContext(profile, {
    executablePath,
    args: flags,
    viewport: { width: 1_280, height: 800 }
  })
  const page = context.pages()[0] ?? await context.newPage()
  const problems: Array<string> = []
  page.on("pageerror", (error) => problems.push(error.message))
  page.on("console", (message) => {
    if (message.type() === "error") problems.push(`${message.text()} ${message.location().url}`)
  })
  return {
    page,
    problems,
    close: async () => {
      await context.close()
      rmSync(profile, { recursive: true, force: true })
    }
  }
}

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8")

interface Violation {
  readonly id: string
  readonly nodes: ReadonlyArray<{ readonly html: string; readonly failureSummary?: string }>
}

/** What axe finds in the page as it is. Its code is evaluated by the debugger: the page's policy does not permit it as a script. */
export const violationsOf = async (page: Page): Promise<ReadonlyArray<string>> => {
  await page.evaluate(axe)
  const violations = await page.evaluate<Array<Violation>>(
    "axe.run(document).then(({ violations }) => violations)"
  )
  return violations.flatMap(({ id, nodes }) =>
    nodes.map(({ failureSummary = "", html }) => `${id}: ${html.slice(0, 200)}: ${failureSummary}`)
  )
}
