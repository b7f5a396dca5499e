/** Preloaded by `--import`: counts the modules that a process loads, and writes the number to `BENCH_MODULES` at its end. */
import { writeFileSync } from "node:fs"
import { registerHooks } from "node:module"

let modules = 0
registerHooks({
  load(url, context, next) {
    modules++
    return next(url, context)
  }
})
process.on("exit", () => writeFileSync(process.env["BENCH_MODULES"]!, String(modules)))
