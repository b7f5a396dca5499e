/**
 * Process entry that tests whether models load: it reads the whole file and computes one token or text.
 *
 * **Details**
 *
 * A bad file can abort the process that loads it, so this process does nothing else. It answers each spec with a
 * `FromInspector`, and ends with its parent.
 *
 * **Gotchas**
 *
 * It must not import `effect`: see `domain/EngineProtocol`.
 */
import { setEnvironmentData } from "node:worker_threads"
import type { EngineSpec, FromInspector } from "./domain/EngineProtocol.ts"
import { engineProcess } from "./domain/EngineProtocol.ts"
import { failureFrom } from "./domain/Job.ts"

/** `workers/<engine>/Inspect.ts` */
interface Inspect {
  readonly inspect: (spec: EngineSpec) => Promise<void>
}

// `tsc` rewrites import paths but not computed ones; the extension is this file's own.
const extension = import.meta.url.slice(-3)

if (process.send === undefined) {
  process.stderr.write("This file is started by Troupe itself. Run `troupe --help`.\n")
  process.exit(64)
}

const load = async (spec: EngineSpec): Promise<FromInspector> => {
  try {
    const { inspect } = await import(`./workers/${spec.engine}/Inspect${extension}`) as Inspect
    await inspect(spec)
    return { type: "passed" }
  } catch (cause) {
    return { type: "failed", failure: failureFrom(cause, "load_failed") }
  }
}

setEnvironmentData(engineProcess, true)

for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => {})
// An ordinary exit in the middle of a load would abort.
process.on("disconnect", () => process.kill(process.pid, "SIGKILL"))
process.on("message", (spec: EngineSpec) => void load(spec).then((result) => process.send?.(result)))
