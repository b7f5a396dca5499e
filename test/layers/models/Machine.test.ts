import { assert, describe, it } from "@effect/vitest"
import { chmodSync, mkdirSync, writeFileSync } from "node:fs"
import { cpus } from "node:os"
import { dirname, join } from "node:path"
import { readGpu, readProcessors } from "../../../src/layers/models/Machine.ts"
import type { ProcessorPool } from "../../../src/services/scaling/Machine.ts"
import { usedBetween } from "../../../src/services/scaling/Machine.ts"
import { temporaryFolder } from "../../support/Service.ts"

type Files = Readonly<Record<string, string>>

const write = (folder: string, files: Files) => {
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true })
    writeFileSync(join(folder, name), text)
  }
}

/** The pools besides the machine, by their folder in that of the control groups. */
const groupsFrom = async (files: Files, own = "0::/\n") => {
  using folder = temporaryFolder()
  write(folder.path, { ...files, own })
  const [machine, ...groups] = await readProcessors(folder.path, join(folder.path, "own"))
  assert.deepInclude(machine, { name: "machine", cores: cpus().length })
  return groups.map(({ name, ...pool }) => ({ name: name.slice(folder.path.length + 1), ...pool }))
}

describe("readProcessors", () => {
  it("reads the limits of the process's group of cgroup v2 and of its parents", async () => {
    const files = {
      "system.slice/cpu.max": "400000 100000\n",
      "system.slice/cpu.stat": "usage_usec 9000000\nuser_usec 1\n",
      "system.slice/troupe.service/cpu.max": "150000 100000\n",
      "system.slice/troupe.service/cpu.stat": "usage_usec 3000000\n"
    }
    const own = "0::/system.slice/troupe.service\n"
    assert.deepStrictEqual(await groupsFrom(files, own), [
      { name: "system.slice/troupe.service", usedMs: 3_000, cores: 1.5 },
      { name: "system.slice", usedMs: 9_000, cores: 4 }
    ])
    const unlimited = { ...files, "system.slice/cpu.max": "max 100000\n" }
    assert.deepStrictEqual((await groupsFrom(unlimited, own)).map(({ cores }) => cores), [1.5])
  })

  it("reads a limit of cgroup v1", async () => {
    const files = (quota: string) => ({
      "cpu/cpu.cfs_quota_us": quota,
      "cpu/cpu.cfs_period_us": "100000\n",
      "cpuacct/cpuacct.usage": "2000000000\n"
    })
    assert.deepStrictEqual(await groupsFrom(files("200000\n")), [{ name: "", usedMs: 2_000, cores: 2 }])
    assert.deepStrictEqual(await groupsFrom(files("-1\n")), [])
  })

  it("reads the machine alone where nothing limits the process", async () => {
    assert.deepStrictEqual(await groupsFrom({}), [])
  })
})

describe("the share of the processor in use", () => {
  const pool = (name: string, usedMs: number, cores: number): ProcessorPool => ({ name, usedMs, cores })
  const before = { at: 1_000, pools: [pool("machine", 500, 4), pool("group", 100, 1)] }

  it("is that of the pool that is used most", () => {
    const after = { at: 2_000, pools: [pool("machine", 1_500, 4), pool("group", 900, 1)] }
    assert.closeTo(usedBetween(before, after)!, 0.8, 1e-9)
    const others = { at: 2_000, pools: [pool("machine", 4_300, 4), pool("group", 900, 1)] }
    assert.closeTo(usedBetween(before, others)!, 0.95, 1e-9)
  })

  it("is between 0 and 1, and unknown without two readings", () => {
    assert.strictEqual(usedBetween(before, { at: 1_001, pools: [pool("machine", 9_999, 4)] }), 1)
    assert.strictEqual(usedBetween(before, { at: 2_000, pools: [pool("machine", 0, 4)] }), 0)
    assert.isUndefined(usedBetween(before, { at: 2_000, pools: [pool("another", 1, 1)] }))
    assert.isUndefined(usedBetween(before, before))
  })
})

describe("readGpu", () => {
  it("is the busiest of the GPUs whose driver has a file", async () => {
    using folder = temporaryFolder()
    write(folder.path, {
      "card0/device/gpu_busy_percent": "12\n",
      "card1/device/gpu_busy_percent": "87\n",
      "card1-DP-1/device/gpu_busy_percent": "99\n",
      "card2/device/vendor": "0x8086\n"
    })
    assert.strictEqual(await readGpu(folder.path, undefined), 0.87)
    assert.isUndefined(await readGpu(join(folder.path, "none"), undefined))
  })

  it("is that of nvidia-smi, and unknown if that fails", async () => {
    using folder = temporaryFolder()
    const command = join(folder.path, "nvidia-smi")
    writeFileSync(command, "#!/bin/sh\nprintf '7\\n41\\n[N/A]\\n'\n")
    chmodSync(command, 0o755)
    assert.strictEqual(await readGpu(folder.path, command), 0.41)
    writeFileSync(command, "#!/bin/sh\nprintf '7\\n'\nexit 9\n")
    assert.isUndefined(await readGpu(folder.path, command))
    assert.isUndefined(await readGpu(folder.path, join(folder.path, "none")))
  })
})
