/** Preloaded by `--import`: counts the modules that a process loads, Node's own left out, and writes the number to `BENCH_MODULES` at its end. */
import { writeFileSync } from "node:fs"
import { registerHooks } from "node:module"

const modules = new Set<string>()
registerHooks({
  load(url, context, next) {
    if (!url.startsWith("node:")) modules.add(url)
    return next(url, context)
  }
})
process.on("exit", () => writeFileSync(process.env["BENCH_MODULES"]!, String(modules.size)))
