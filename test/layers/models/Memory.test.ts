import { assert, describe, it } from "@effect/vitest"
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir, totalmem } from "node:os"
import { dirname, join } from "node:path"
import { readMemory } from "../../../src/layers/models/Memory.ts"

const MiB = 2 ** 20

/** Reads memory where the control group's files are these. */
const readFrom = async (files: Readonly<Record<string, string>>, own = "0::/\n") => {
  const folder = mkdtempSync(join(tmpdir(), "troupe-memory-"))
  try {
    for (const [name, text] of Object.entries(files)) {
      mkdirSync(dirname(join(folder, name)), { recursive: true })
      writeFileSync(join(folder, name), text)
    }
    writeFileSync(join(folder, "own"), own)
    return await readMemory(folder, join(folder, "own"))
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

const isMachine = ({ availableBytes, totalBytes }: Awaited<ReturnType<typeof readMemory>>): boolean =>
  totalBytes === totalmem() && availableBytes > 0 && availableBytes <= totalBytes

describe("readMemory", () => {
  it("reads a limit of cgroup v2, minus the memory in use", async () => {
    assert.deepStrictEqual(
      await readFrom({ "memory.max": `${64 * MiB}\n`, "memory.current": `${48 * MiB}\n` }),
      { totalBytes: 64 * MiB, availableBytes: 16 * MiB }
    )
  })

  it("reads the process's group of cgroup v2 and its parents, and uses the smallest", async () => {
    const own = "1:name=systemd:/else\n0::/system.slice/troupe.service\n"
    const unit = "system.slice/troupe.service"
    const files = {
      "system.slice/memory.max": `${60 * MiB}\n`,
      "system.slice/memory.current": `${20 * MiB}\n`,
      [`${unit}/memory.max`]: `${32 * MiB}\n`,
      [`${unit}/memory.current`]: `${8 * MiB}\n`
    }
    assert.deepStrictEqual(await readFrom(files, own), { totalBytes: 32 * MiB, availableBytes: 24 * MiB })
    const crowded = { ...files, "system.slice/memory.current": `${59 * MiB}\n` }
    assert.deepStrictEqual(await readFrom(crowded, own), { totalBytes: 60 * MiB, availableBytes: MiB })
    const unlimited = { ...files, [`${unit}/memory.max`]: "max\n" }
    assert.deepStrictEqual(await readFrom(unlimited, own), { totalBytes: 60 * MiB, availableBytes: 40 * MiB })
  })

  it("reads the mounted group if the process's group is not within it", async () => {
    const files = { "memory.max": `${64 * MiB}\n`, "memory.current": `${48 * MiB}\n` }
    for (const own of ["0::/../../other\n", "0::/docker/abc\n", ""]) {
      assert.deepStrictEqual(await readFrom(files, own), { totalBytes: 64 * MiB, availableBytes: 16 * MiB })
    }
  })

  it("counts pages of files that are not in use as available", async () => {
    assert.deepStrictEqual(
      await readFrom({
        "memory.max": `${64 * MiB}\n`,
        "memory.current": `${48 * MiB}\n`,
        "memory.stat": `anon 1\nfile 2\nactive_file ${20 * MiB}\ninactive_file ${8 * MiB}\n`
      }),
      { totalBytes: 64 * MiB, availableBytes: 24 * MiB }
    )
  })

  it("reads a limit of cgroup v1, and the page cache of the whole tree", async () => {
    assert.deepStrictEqual(
      await readFrom({
        "memory/memory.limit_in_bytes": `${64 * MiB}\n`,
        "memory/memory.usage_in_bytes": `${40 * MiB}\n`,
        "memory/memory.stat": `inactive_file ${MiB}\nactive_file 1\ntotal_inactive_file ${4 * MiB}\n`
      }),
      { totalBytes: 64 * MiB, availableBytes: 28 * MiB }
    )
  })

  it("never counts more than the limit as available, nor less than nothing", async () => {
    assert.deepStrictEqual(
      await readFrom({
        "memory.max": `${64 * MiB}\n`,
        "memory.current": `${10 * MiB}\n`,
        "memory.stat": `inactive_file ${999 * MiB}\n`
      }),
      { totalBytes: 64 * MiB, availableBytes: 64 * MiB }
    )
    assert.deepStrictEqual(
      await readFrom({ "memory.max": `${64 * MiB}\n`, "memory.current": `${70 * MiB}\n` }),
      { totalBytes: 64 * MiB, availableBytes: 0 }
    )
  })

  it("reads the machine's memory if the group has no limit", async () => {
    assert.isTrue(isMachine(await readFrom({ "memory.max": "max\n", "memory.current": "1000\n" })))
    // What v1 says for no limit: the largest page-aligned number.
    const unlimited = "9223372036854771712\n"
    const files = { "memory/memory.limit_in_bytes": unlimited, "memory/memory.usage_in_bytes": "1000\n" }
    assert.isTrue(isMachine(await readFrom(files)))
  })

  it("reads the machine's memory if the group's files are missing or invalid", async () => {
    assert.isTrue(isMachine(await readFrom({})))
    assert.isTrue(isMachine(await readFrom({ "memory.max": `${64 * MiB}\n` })))
    assert.isTrue(isMachine(await readFrom({ "memory.max": "a lot\n", "memory.current": "some\n" })))
    assert.isTrue(isMachine(await readFrom({ "memory.max/not-a-file": "", "memory.current": "1000\n" })))
  })
})
