/** The output of commands: tables, JSON, sizes, durations and typeable commands, without control sequences. */
import { Console, Effect } from "effect"
import { basename, isAbsolute, join, relative } from "node:path"
import type { Deployment } from "../domain/Deployment.ts"
import { plainText } from "../domain/Text.ts"
import type { Version } from "../domain/Version.ts"
import { reasonTexts } from "../domain/Version.ts"
import { adaptersOf, sourceOf } from "../services/engines/EngineKinds.ts"
import type { Resolved } from "../services/settings/Settings.ts"

const cleaned = (values: ReadonlyArray<unknown>): ReadonlyArray<unknown> =>
  values.map((value) => typeof value === "string" ? plainText(value) : value)

/** A console that removes control characters and writes to another console. */
export const plainConsole = (to: Console.Console): Console.Console =>
  Object.assign(Object.create(to) as Console.Console, {
    log: (...values: ReadonlyArray<unknown>) => to.log(...cleaned(values)),
    info: (...values: ReadonlyArray<unknown>) => to.info(...cleaned(values)),
    warn: (...values: ReadonlyArray<unknown>) => to.warn(...cleaned(values)),
    error: (...values: ReadonlyArray<unknown>) => to.error(...cleaned(values)),
    debug: (...values: ReadonlyArray<unknown>) => to.debug(...cleaned(values))
  })

export const printJson = (value: unknown) => Console.log(JSON.stringify(value, null, 2))

/** CSV, written past the console, which escapes the carriage return at the end of its lines. */
export const printCsv = (csv: string): Effect.Effect<void> =>
  Effect.callback((resume) => {
    const text = csv.split("\r\n").map(plainText).join("\r\n")
    process.stdout.write(text, () => resume(Effect.void))
  })

/** Rows in columns as wide as the widest cell; the first row is the heading. */
export const table = (rows: ReadonlyArray<ReadonlyArray<string>>): string => {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]!.length)))
  return rows.map((row) => row.map((cell, column) => cell.padEnd(widths[column]!)).join("  ").trimEnd()).join("\n")
}

/** A share of requests, such as `30 %`. */
export const percent = (share: number): string => `${Number((share * 100).toPrecision(3))} %`

/** Shares whose sum is 1, to 0.1 %, with the sum 100.0 %: what rounding leaves goes to those that it took most from. */
export const percents = (shares: ReadonlyArray<number>): ReadonlyArray<string> => {
  const tenths = shares.map((share) => Math.floor(share * 1000))
  const left = Math.round(shares.reduce((sum, share) => sum + share, 0) * 1000) -
    tenths.reduce((sum, count) => sum + count, 0)
  const byRest = shares.map((share, index) => ({ index, rest: share * 1000 - tenths[index]! }))
    .toSorted((one, other) => other.rest - one.rest)
  const raised = new Set(byRest.slice(0, left).map(({ index }) => index))
  return tenths.map((count, index) => percent((count + (raised.has(index) ? 1 : 0)) / 1000))
}

/** The place of a deployment in a rollout or an A/B test, such as `candidate 10 %` or `withheld: rolled back`. */
export const versionText = ({ reason, role, weight }: Omit<Version, "deployment">): string =>
  reason === undefined ? `${role} ${percent(weight)}` : `${role}: ${reasonTexts[reason]}`

/** What the configuration says about the shares of a model's deployments; empty where it says nothing. */
const configuredVersion = (
  model: string,
  { id, options }: Deployment,
  { experiments, shadows }: Pick<Resolved, "experiments" | "shadows">
): string => {
  const shadow = shadows?.get(model)
  if (shadow?.candidate === id) return versionText({ role: "shadow", weight: shadow.percent / 100 })
  const plan = experiments?.get(model)
  const variant = plan?.variants.find(({ deployment }) => deployment === id)
  if (plan !== undefined && variant !== undefined) {
    const total = plan.variants.reduce((sum, { weight }) => sum + weight, 0)
    return versionText({ role: "variant", weight: variant.weight / total })
  }
  return options.rollout === "candidate" ? "candidate" : ""
}

/** The name of a file without its folders. */
export const fileName = (path: string): string =>
  path.slice(Math.max(path.lastIndexOf("/"), path.lastIndexOf("\\")) + 1)

/** A LoRA adapter, such as `+ recall.gguf x 0.5`. */
export const adapterText = ({ path, scale }: { readonly path: string; readonly scale: number }): string =>
  `+ ${fileName(path)}${scale === 1 ? "" : ` x ${scale}`}`

/** The table of the configured models. Candidates of rollouts, variants of A/B tests and deployments that get copies are marked. */
export const modelTable = (settings: Pick<Resolved, "experiments" | "models" | "shadows">): string => {
  const rows = settings.models.flatMap(({ deployments, name }) =>
    deployments.map((deployment) => {
      const { options } = deployment
      const engine = [options.engine, ...adaptersOf(options).map(adapterText)].join(" ")
      const row = [name, engine, sourceOf(options)]
      return { row, version: configuredVersion(name, deployment, settings) }
    })
  )
  const isMarked = rows.some(({ version }) => version !== "")
  return table([
    ["MODEL", "ENGINE", "SOURCE", ...(isMarked ? ["ROLLOUT"] : [])],
    ...rows.map(({ row, version }) => isMarked ? [...row, version] : row)
  ])
}

/** Whole seconds, rounded up, for "retry in ...". */
export const secondsText = (ms: number): string => `${Math.ceil(ms / 1_000)} s`

/** A duration in a readable unit, such as `850 ms`, `2.5 s` or `3h 5m`. */
export const spanText = (ms: number): string => {
  if (ms < 1_000) return `${Math.round(ms)} ms`
  if (ms < 60_000) return `${Number((ms / 1_000).toPrecision(3))} s`
  const minutes = Math.floor(ms / 60_000)
  const hours = Math.floor(minutes / 60)
  if (hours >= 24) return `${Math.floor(hours / 24)}d ${hours % 24}h`
  return hours > 0 ? `${hours}h ${minutes % 60}m` : `${minutes}m ${Math.floor(ms % 60_000 / 1_000)}s`
}

/** An amount in USD with at least two significant digits, such as `$0.0012`. */
export const moneyText = (usd: number): string =>
  usd === 0 ? "$0" : usd >= 1 ? `$${usd.toFixed(2)}` : `$${Number(usd.toPrecision(2)).toFixed(10).replace(/0+$/, "")}`

export const bytesText = (bytes: number): string =>
  bytes < 2 ** 20
    ? `${bytes} bytes`
    : bytes < 2 ** 30
    ? `${(bytes / 2 ** 20).toFixed(1)} MiB`
    : `${(bytes / 2 ** 30).toFixed(1)} GiB`

const quoted = (path: string): string => /\s/.test(path) ? `"${path}"` : path

/**
 * The command that runs this program: in a clone, `troupe` is not on the `PATH`.
 *
 * @param entry the file that Node runs, absolute, with links unresolved
 * @param folder the current folder, absolute
 */
export const invocation = (entry: string, folder: string): string => {
  if ([join("src", "main.ts"), "start.mjs"].some((path) => entry === join(folder, path))) return "npm run troupe --"
  // A package's link, or on Windows the file that the link runs.
  if (/[/\\]node_modules[/\\]/.test(entry)) return "npx troupe"
  if (!/^(?:main\.[jt]s|start\.mjs)$/.test(basename(entry))) return "troupe"
  const path = relative(folder, entry)
  return `node ${quoted(path.startsWith("..") || isAbsolute(path) ? entry : path)}`
}

const command =
  /(?<![\w/\\.-])troupe (?=serve|deploy|run|launch|models|ps|load|unload|reload|circuits|cache|keys|usage|budgets|rollout|route|decisions|top|logs|status|policy|placement|config|[<[-])/g

/** A text whose `troupe` commands can be typed in this folder. */
export const asInvoked = (text: string, by = invocation(process.argv[1] ?? "", process.cwd())): string =>
  text.replaceAll(command, () => `${by} `)
