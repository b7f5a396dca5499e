// Runs llmprobe (npm, a conformance suite for engines with OpenAI's and Anthropic's APIs) against the service with the
// embedded models, and compares its report with `llmprobe.json`: `node .ci/llmprobe.mjs [--update]`. `tiny-chat` has its LoRA
// adapter, without which it does not recall what the caller said, and a limit, whose headers are checked.
//
// It fails if a MUST assertion fails that is not in `known`, or if a test no longer passes that is in `passes`. Nothing is
// uploaded, and nothing is written outside a temporary folder.
import { spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("..", import.meta.url))
const baselineFile = join(root, ".ci", "llmprobe.json")
const probe = join(root, "node_modules", "llmprobe", "bin", "dist", "llmprobe.mjs")
const folder = mkdtempSync(join(tmpdir(), "troupe-llmprobe-"))
const report = join(folder, "report.json")
writeFileSync(
  join(folder, "troupe.yaml"),
  `models:
  tiny-chat:
    deployments: [{ engine: llama, file: "builtin:tiny-chat", lora: "builtin:tiny-chat-recall", slots: 8 }]
  tiny-embed:
    preload: false
    deployments: [{ engine: onnx, folder: "builtin:tiny-embed" }]
limits:
  all: { requestsPerMinute: 100000 }
`
)

const start = (args) => {
  const child = spawn(process.execPath, args, {
    cwd: folder,
    env: { ...process.env, HOME: folder, TROUPE_DATA: folder, XDG_DATA_HOME: folder },
    stdio: ["ignore", "pipe", "pipe"]
  })
  let output = ""
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text) => {
      output += text
    })
  }
  return { child, closed: once(child, "close"), output: () => output }
}

const urlOf = async (service) => {
  for (let left = 600; left > 0 && service.child.exitCode === null; left--) {
    const found = /listens on (http:\S+)/.exec(service.output())
    if (found !== null) return found[1]
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  throw new Error(`The service does not start: ${service.output()}`)
}

const service = start([join(root, "start.mjs"), "serve", "--port", "0", "--admin-port", "0"])
let results
try {
  const run = start([probe, `${await urlOf(service)}/v1`, "-m", "tiny-chat", "--full", "--no-bench", "--no-save", "--save", report])
  await run.closed
  try {
    results = JSON.parse(readFileSync(report, "utf8")).conformance.results
  } catch {
    throw new Error(`llmprobe wrote no report: ${run.output()}`)
  }
} finally {
  service.child.kill("SIGTERM")
  await service.closed
  rmSync(folder, { recursive: true, force: true })
}

const baseline = JSON.parse(readFileSync(baselineFile, "utf8"))
const passes = results.filter(({ outcome }) => outcome === "pass").map(({ id }) => id)
if (process.argv.includes("--update")) {
  writeFileSync(baselineFile, `${JSON.stringify({ ...baseline, passes }, null, 2)}\n`)
}
const failures = results.flatMap(({ failures, id: test }) =>
  failures.filter(({ id, severity }) => severity === "MUST" && baseline.known[id] === undefined).map(({ id, message }) =>
    `${test}: ${id}: ${message}`
  )
)
const lost = baseline.passes.filter((id) => !passes.includes(id)).map((id) => {
  const now = results.find((one) => one.id === id)
  return `${id} no longer passes: ${now?.outcome ?? "not run"} ${now?.reason ?? now?.failures[0]?.message ?? ""}`
})
const summary =
  `${passes.length} of llmprobe's tests pass, ${failures.length} unknown failures, ${lost.length} regressions`
process.stdout.write([...new Set([...failures, ...lost]), summary, ""].join("\n"))
if (failures.length + lost.length > 0) process.exitCode = 1
