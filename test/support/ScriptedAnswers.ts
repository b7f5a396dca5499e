/** Runs jobs on a GGUF file whose answers are a script, in the real engine. */
import { join } from "node:path"
import type { GenerateJob, JobEvent } from "../../src/domain/Job.ts"
import { isTerminal } from "../../src/domain/Job.ts"
import { makePoolHost } from "../../src/layers/engines/PoolHost.ts"
import type { LlamaSpec } from "../../src/workers/llama/LlamaLoad.ts"
import { type Script, writeScriptedGguf } from "./ScriptedGguf.ts"
import { temporaryFolder } from "./Service.ts"

/** The answers of a scripted model to jobs, through the real engine. */
export const answersOf = async (
  script: Script,
  jobs: ReadonlyArray<Partial<GenerateJob>>,
  options: Partial<LlamaSpec> = {}
) => {
  using folder = temporaryFolder()
  const file = join(folder.path, "scripted.gguf")
  writeScriptedGguf(file, script)
  const spec = { engine: "llama", file, slots: 1, threads: 1, ...options } as const
  const host = makePoolHost({ spec, replicas: 1, cancelGraceMs: 10_000, closeGraceMs: 10_000 })
  try {
    await host.ready
    const all = []
    for (const job of jobs) {
      const events = await new Promise<ReadonlyArray<JobEvent>>((resolve) => {
        const events: Array<JobEvent> = []
        host.start({
          kind: "generate",
          messages: [{ role: "user", content: "Hi" }],
          sampling: { temperature: 0, topP: 1, seed: 1 },
          stop: [],
          window: 10_000,
          ...job
        }, (some) => {
          events.push(...some)
          if (events.some(isTerminal)) resolve(events)
        })
      })
      const joined = (type: "thoughts" | "tokens") =>
        events.map((event) => event.type === type ? event.text : "").join("")
      const calls: Array<[name: string, args: string]> = []
      for (const event of events) {
        if (event.type !== "tool_call") continue
        if (event.name !== undefined) calls.push([event.name, ""])
        calls.at(-1)![1] += event.arguments
      }
      const last = events.at(-1)!
      if (last.type !== "finished") throw new Error(JSON.stringify(last))
      all.push({
        thoughts: joined("thoughts"),
        text: joined("tokens"),
        calls,
        last
      })
    }
    return all
  } finally {
    await host.close()
  }
}
