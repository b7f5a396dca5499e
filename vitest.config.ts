import { defineConfig } from "vitest/config"
import type { TestSpecification } from "vitest/node"
import { BaseSequencer } from "vitest/node"

/** Files that start processes, load models or play thousands of worlds: half a minute or more each. */
const long = /\/test\/(?:conformance|service|cli|clients)\/|\/(?:Schedules|Engines|Onnx|cli|readme|examples)\.test\.ts$/

/** Long files first, so that none is left alone at the end. */
class LongFirst extends BaseSequencer {
  override async sort(files: Array<TestSpecification>): Promise<Array<TestSpecification>> {
    const sorted = await super.sort(files)
    const isLong = ({ moduleId }: TestSpecification) => long.test(moduleId)
    return [...sorted.filter(isLong), ...sorted.filter((file) => !isLong(file))]
  }
}

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    // Most tests start processes or load models, on machines with two cores: a limit says "hangs", not "slow".
    testTimeout: 60_000,
    hookTimeout: 60_000,
    maxWorkers: 2,
    sequence: { sequencer: LongFirst },
    // Of this process: code that runs in engine threads and child processes alone is not counted.
    coverage: {
      provider: "v8",
      include: ["src/**/*.ts"],
      reporter: ["text-summary", "json-summary", "html"],
      reportsDirectory: "coverage"
    }
  }
})
