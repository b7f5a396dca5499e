/** The disk space of an installation; no time is measured. */
import { execFileSync } from "node:child_process"
import { existsSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import type { Outcome, Row, Scenario } from "./Scenario.ts"

const name = "install"
const root = fileURLToPath(new URL("..", import.meta.url))

/** The part of `package-lock.json` that marks the folders of development dependencies. */
interface Lock {
  readonly packages: Readonly<Record<string, { readonly dev?: boolean }>>
}

/** Folders of packages in a production install. */
const productionFolders = (): ReadonlyArray<string> => {
  const { packages } = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8")) as Lock
  return Object.entries(packages).filter(([folder, { dev }]) => folder !== "" && dev !== true)
    .map(([folder]) => folder).filter((folder) => existsSync(join(root, folder)))
}

/** Total disk space of folders, with shared parts counted once, MB. */
const diskMegabytes = (folders: ReadonlyArray<string>): number => {
  const lines = execFileSync("du", ["-skcH", ...folders], { cwd: root, encoding: "utf8" }).trim().split("\n")
  return Number(lines.at(-1)?.split("\t")[0]) / 1024
}

const run = async (): Promise<Outcome> => {
  const row = (measure: string, folders: ReadonlyArray<string>): Row => ({
    scenario: name,
    measure,
    unit: "MB",
    troupe: diskMegabytes(folders)
  })
  const rows = [
    row("node_modules", ["node_modules"]),
    row("node_modules without development", productionFolders()),
    row("node_modules/@node-llama-cpp", ["node_modules/@node-llama-cpp"])
  ]
  return { rows, notes: [], raw: rows }
}

export const install: Scenario = { name, run }
