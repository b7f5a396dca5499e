import { assert } from "@effect/vitest"
import * as fc from "fast-check"
import { spawn, spawnSync } from "node:child_process"
import { once } from "node:events"
import { readdirSync, readFileSync, statSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { describe, it } from "vitest"
import { makeProgressPrinter } from "../../src/cli/PullProgress.ts"
import type { Progress } from "../../src/services/store/ModelStore.ts"
import { startModelServer } from "../support/ModelServer.ts"
import { temporaryFolder, until } from "../support/Service.ts"
import { makeTerminal } from "../support/Terminal.ts"

const received = (file: string, receivedBytes: number, totalBytes: number | undefined = 3_000_000): Progress => ({
  type: "received",
  file,
  receivedBytes,
  totalBytes
})

const retry: Progress = { type: "retry", file: "a.gguf", attempt: 1, delayMs: 500, detail: "it was cut" }

describe("on a terminal", () => {
  it("shows the name, a bar and the amount in one line", () => {
    const terminal = makeTerminal(80)
    const { end, print } = makeProgressPrinter(terminal, false)
    for (const bytes of [0, 750_000, 1_500_000]) print(received("tiny.gguf", bytes))
    end()
    assert.deepStrictEqual(terminal.lines(), [`tiny.gguf [${"#".repeat(15)}${"-".repeat(15)}] 50 % of 2.9 MiB`, ""])
  })

  it.each([
    [60, "some-model-of-a~me.Q4_K_M.gguf [#####-----] 50 % of 2.9 MiB"],
    [46, "some-mod~_M.gguf [#####-----] 50 % of 2.9 MiB"],
    [38, "some~guf [#####-----] 50 % of 2.9 MiB"],
    [36, "some-mode~_K_M.gguf 50 % of 2.9 MiB"],
    [20, "s~f 50 % of 2.9 MiB"]
  ])("fits into %i columns", (columns, line) => {
    const terminal = makeTerminal(columns)
    makeProgressPrinter(terminal, false).print(received("some-model-of-a-long-and-telling-name.Q4_K_M.gguf", 1_500_000))
    assert.deepStrictEqual(terminal.lines(), [line])
  })

  it("leaves one line per file, for all names, widths and changes of the width", () => {
    const names = fc.constantFrom(
      "a.gguf",
      "a-name-that-is-longer.gguf",
      "\u6a21\u578b\u4e00\u4e8c\u4e09.gguf",
      "e\x1b[2J\n\u{1f600}.gguf"
    )
    const widths = fc.integer({ min: 1, max: 100 })
    const step = fc.tuple(widths, fc.nat({ max: 3_000_000 }), fc.boolean())
    fc.assert(fc.property(names, fc.array(step, { minLength: 1 }), (name, steps) => {
      const terminal = makeTerminal(100)
      const { end, print } = makeProgressPrinter(terminal, false)
      for (const [columns, bytes, isKnown] of steps) {
        // A terminal that becomes narrower may wrap the current line; a program cannot undo that.
        terminal.clear()
        terminal.columns = columns
        print(received(name, bytes, isKnown ? 3_000_000 : undefined))
        assert.strictEqual(terminal.lines().length, 1)
      }
      end()
      assert.strictEqual(terminal.lines().length, 2)
    }))
  })

  it("keeps the bar above a message, and draws it again below", () => {
    const terminal = makeTerminal(60)
    const { end, print } = makeProgressPrinter(terminal, false)
    for (const progress of [received("a.gguf", 30_000), retry, received("a.gguf", 30_000)]) print(progress)
    end()
    const line = `a.gguf [${"-".repeat(30)}] 1 % of 2.9 MiB`
    assert.deepStrictEqual(terminal.lines(), [line, "a.gguf: it was cut; attempt 2 in 0.5 s", line, ""])
  })
})

it.each([{ isTTY: false }, {}, { isTTY: true, isPlain: true }])(
  "prints a line per 10 % without a terminal: %o",
  (place) => {
    const terminal = makeTerminal(40)
    const { end, print } = makeProgressPrinter({ ...place, write: terminal.write }, "isPlain" in place)
    for (let bytes = 0; bytes <= 3_000_000; bytes += 10_000) print(received("a.gguf", bytes))
    end()
    assert.deepStrictEqual(terminal.lines(), [
      ...Array.from({ length: 11 }, (_, tenth) => `a.gguf: ${tenth * 10} % of 2.9 MiB`),
      ""
    ])
  }
)

const main = fileURLToPath(new URL("../../src/main.ts", import.meta.url))
const model = fileURLToPath(new URL("../../models/tiny-chat-q8_0.gguf", import.meta.url))

/** util-linux's `script` runs a program in a terminal; other programs of this name have other options. */
const hasScript = /util-linux/.test(spawnSync("script", ["--version"], { encoding: "utf8" }).stdout ?? "")

/**
 * Runs `troupe` in a terminal with this input until it ends; then prints the terminal's settings. Ctrl-C also reaches the
 * shell, and some shells continue after it only with a trap.
 */
const onTerminal = (columns: number, args: ReadonlyArray<string>, env: Readonly<Record<string, string>>) => {
  const command = [
    "trap : INT; exec 2>&1; stty cols",
    String(columns),
    "rows 24; before=$(stty -g);",
    process.execPath,
    main,
    ...args,
    "; code=$?; test \"$before\" = \"$(stty -g)\" && echo same; echo code $code"
  ].join(" ")
  const child = spawn("script", ["-qec", command, "/dev/null"], {
    stdio: ["pipe", "pipe", "inherit"],
    env: { ...process.env, SHELL: "/bin/sh", TERM: "xterm", NO_COLOR: "1", ...env }
  })
  const kill = () => child.kill("SIGKILL")
  process.once("exit", kill)
  child.once("close", () => process.removeListener("exit", kill))
  let output = ""
  child.stdout.setEncoding("utf8").on("data", (chunk: string) => {
    output += chunk
  })
  return { type: (keys: string) => child.stdin.write(keys), output: () => output, finished: once(child, "close") }
}

describe.skipIf(!hasScript)("on a real terminal, by util-linux's `script`", () => {
  it("restores the terminal on Ctrl-C, and the next pull resumes", async () => {
    using place = temporaryFolder()
    const bytes = new Uint8Array(readFileSync(model))
    const server = await startModelServer(
      { "a-model-of-a-long-name.gguf": bytes },
      (index) => index === 0 ? { stallAfter: 1_000_000 } : undefined
    )
    const args = [
      "models",
      "pull",
      `${server.url}/org/model/resolve/main/a-model-of-a-long-name.gguf`,
      "--name",
      "slow"
    ]
    const first = onTerminal(20, args, { TROUPE_MODELS: place.path })
    const part = join(place.path, "slow", "a-model-of-a-long-name.gguf.part")
    await until(() => statSync(part, { throwIfNoEntry: false })?.size === 1_000_000 || undefined)
    await until(() => first.output().includes("32 %") || undefined)
    first.type("\x03")
    await first.finished
    const screen = makeTerminal(20)
    screen.write(first.output())
    const lines = screen.lines()
    assert.deepStrictEqual(lines.slice(-3), ["same", "code 130", ""])
    assert.deepStrictEqual(lines.filter((line) => line.includes("%")).map((line) => line.replace(/\^C?$/, "")), [
      "a~f 32 % of 2.9 MiB"
    ])
    // No colours, no hidden cursor.
    assert.deepStrictEqual(
      new Set(first.output().split("\x1b").slice(1).map((command) => command.slice(0, 3))),
      new Set(["[2K"])
    )

    const second = onTerminal(80, args, { TROUPE_MODELS: place.path })
    await second.finished
    assert.include(second.output(), "resuming at 1000000 bytes")
    assert.include(second.output(), "code 0")
    assert.strictEqual(server.seen[1]!.headers.range, "bytes=1000000-")
    assert.notInclude(readdirSync(join(place.path, "slow")).join(" "), ".part")
    await server.close()
  })
})
