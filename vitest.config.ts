import { defineConfig } from "vitest/config"

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    // Most tests start processes or load models, on machines with two cores: a limit says "hangs", not "slow".
    testTimeout: 60_000,
    hookTimeout: 60_000,
    maxWorkers: 2
  }
})
