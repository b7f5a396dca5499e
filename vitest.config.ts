import { fileURLToPath } from "node:url"
import { defineConfig } from "vitest/config"
import type { TestSpecification } from "vitest/node"
import { BaseSequencer } from "vitest/node"

// Workers and the processes that tests start share compiled code. Its functions would be counted less exactly.
if (!process.argv.includes("--coverage")) {
  process.env["NODE_COMPILE_CACHE"] ??= fileURLToPath(new URL("node_modules/.cache/compiled", import.meta.url))
}

/** Files with a worker process of their own: they mock modules, or load the llama engine as programs do. */
const isolated = ["test/layers/engines/{ChildEnvironment,Engines}.test.ts", "test/conformance/llamaThread.test.ts"]

/** Files that load models in their worker process. */
const engines = [
  "test/conformance/**/*.test.ts",
  "test/layers/engines/**/*.test.ts",
  "test/workers/*.test.ts",
  "test/workers/{llama,onnx}/**/*.test.ts",
  "test/workers/grammar/JsonGrammarLlama.test.ts"
]

/** The longest of the files that share worker processes. */
const long = /\/test\/(?:service|clients)\/|\/(?:Schedules|docs|examples|readme)\.test\.ts$/

/** Long files first, so that none runs alone at the end. A shared process ends where a file of another project is next. */
const rankOf = ({ moduleId, project }: TestSpecification): number => {
  if (project.name === "engines") return 0
  if (project.config.isolate) return 1
  return long.test(moduleId) ? 2 : 3
}

class LongFirst extends BaseSequencer {
  override async sort(files: Array<TestSpecification>): Promise<Array<TestSpecification>> {
    return (await super.sort(files)).toSorted((one, other) => rankOf(one) - rankOf(other))
  }
}

export default defineConfig({
  test: {
    // Most tests start processes or load models, on machines with two cores: the limit finds what hangs.
    testTimeout: 60_000,
    hookTimeout: 60_000,
    // More than there are cores: most tests wait for a process or a timeout some of the time.
    maxWorkers: 4,
    // Of concurrent tests in a file; most wait for the timeout of a fault.
    maxConcurrency: 20,
    globalSetup: ["test/support/Bundle.ts", "test/support/StoresLeftOut.ts"],
    sequence: { sequencer: LongFirst },
    projects: [
      { extends: true, test: { name: "isolated", include: isolated } },
      // The others share worker processes: importing Effect and the sources takes longer than most of these files.
      {
        extends: true,
        test: {
          name: "engines",
          include: engines,
          exclude: isolated,
          isolate: false,
          setupFiles: "test/support/EngineProcess.ts"
        }
      },
      {
        extends: true,
        test: { name: "shared", include: ["test/**/*.test.ts"], exclude: [...isolated, ...engines], isolate: false }
      }
    ],
    // Of the test processes: code that runs only in engine threads and child processes is not counted.
    coverage: {
      provider: "v8",
      include: ["src/**/*.ts"],
      reporter: ["text-summary", "json-summary", "html"],
      reportsDirectory: "coverage"
    }
  }
})
