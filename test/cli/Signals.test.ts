/** The signals that end the process immediately. */
import { assert } from "@effect/vitest"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { describe, it } from "vitest"
import { endsImmediately } from "../../src/cli/Signals.ts"
import { main, temporaryFolder, until } from "../support/Service.ts"

describe("a signal", () => {
  it.each<[what: string, first: number | undefined, now: number, script: string | undefined, expected: boolean]>([
    ["the first", undefined, 9_000, undefined, false],
    ["the first, under npm start", undefined, 9_000, "start", false],
    ["a second", 1_000, 1_000, undefined, true],
    ["a second, under another script", 1_000, 1_000, "test", true],
    ["the same one, forwarded by npm start", 1_000, 1_100, "start", false],
    ["a second, under npm start", 1_000, 1_500, "start", true],
    ["the same one, forwarded by npm run troupe", 1_000, 1_100, "troupe", false]
  ])("%s ends the process immediately or not", (_, first, now, script, expected) => {
    assert.strictEqual(endsImmediately(first, now, script), expected)
  })
})

describe("a service whose shell ends, as that of npm does at a signal", () => {
  it.each(["start", "troupe"])("stops under npm run %s", async (script) => {
    using folder = temporaryFolder()
    const command = `"$0" "$1" serve --port 0 --admin-port 0 & echo "pid $!"; wait`
    const shell = spawn("sh", ["-c", command, process.execPath, main], {
      cwd: folder.path,
      env: { ...process.env, NODE_ENV: "test", XDG_DATA_HOME: folder.path, npm_lifecycle_event: script },
      stdio: ["ignore", "pipe", "ignore"]
    })
    let output = ""
    shell.stdout.setEncoding("utf8").on("data", (chunk: string) => void (output += chunk))
    const pid = Number(await until(() => /pid (\d+)/.exec(output)?.[1]))
    try {
      await until(() => /http:\/\/\S+:\d+/.exec(output)?.[0])
      // The output ends with the last process that writes it.
      const ended = once(shell.stdout, "end")
      shell.kill("SIGKILL")
      await ended
    } finally {
      try {
        process.kill(pid, "SIGKILL")
      } catch {
        // It has ended.
      }
    }
  })
})
