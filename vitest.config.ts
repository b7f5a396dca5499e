import { defineConfig } from "vitest/config"

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    // Most tests start processes or load models, on machines with two cores: a limit says "hangs", not "slow".
    testTimeout: 60_000,
    hookTimeout: 60_000,
    maxWorkers: 2,
    // Of this process: code that runs in engine threads and child processes alone is not counted.
    coverage: {
      provider: "v8",
      include: ["src/**/*.ts"],
      reporter: ["text-summary", "json-summary", "html"],
      reportsDirectory: "coverage"
    }
  }
})
