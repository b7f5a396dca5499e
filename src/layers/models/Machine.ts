/**
 * Reads how busy processors and GPUs are: of the machine, and of the control groups that limit this process.
 *
 * **Details**
 *
 * Sources: `cpu.max` and `cpu.stat` of Linux's `Documentation/admin-guide/cgroup-v2.rst`; `cpu.cfs_quota_us` of
 * `scheduler/sched-bwc.rst` and `cpuacct.usage` of `cgroup-v1/cpuacct.rst`; `gpu_busy_percent` of `gpu/amdgpu/thermal.rst`;
 * `utilization.gpu` of `nvidia-smi --help-query-gpu`. Other GPUs are not read.
 */
import { Effect } from "effect"
import { execFile } from "node:child_process"
import { existsSync } from "node:fs"
import { readdir } from "node:fs/promises"
import { cpus } from "node:os"
import type { Machine, ProcessorPool } from "../../services/scaling/Machine.ts"
import { foldersOf, numberIn, ownGroupFile, readText, root } from "./ControlGroups.ts"

const whole = (): ProcessorPool => {
  const all = cpus()
  const usedMs = all.reduce((sum, { times: { irq, nice, sys, user } }) => sum + user + nice + sys + irq, 0)
  return { name: "machine", usedMs, cores: all.length }
}

const poolOf = (
  name: string,
  quota: number | undefined,
  period: number | undefined,
  usedMs: number | undefined
): ReadonlyArray<ProcessorPool> =>
  quota === undefined || quota <= 0 || period === undefined || usedMs === undefined
    ? []
    : [{ name, usedMs, cores: quota / period }]

/** A group of version 2, if it has a limit. */
const group2 = async (folder: string): Promise<ReadonlyArray<ProcessorPool>> => {
  const [limit, stat] = await Promise.all([readText(`${folder}/cpu.max`), readText(`${folder}/cpu.stat`)])
  const usedMicros = numberIn(stat, /^usage_usec (\d+)$/m)
  return poolOf(
    folder,
    numberIn(limit, /^(\d+) /),
    numberIn(limit, / (\d+)/),
    usedMicros === undefined ? undefined : usedMicros / 1e3
  )
}

/** The group of version 1, if it has a limit. */
const group1 = async (mounted: string): Promise<ReadonlyArray<ProcessorPool>> => {
  const [quota, period, usage] = await Promise.all(
    ["cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us", "cpuacct/cpuacct.usage"].map((name) =>
      readText(`${mounted}/${name}`)
    )
  )
  const number = /^(-?\d+)/
  const usedNanos = numberIn(usage!, number)
  return poolOf(
    mounted,
    numberIn(quota!, number),
    numberIn(period!, number),
    usedNanos === undefined ? undefined : usedNanos / 1e6
  )
}

/**
 * @param mounted the folder of the control groups
 * @param own the file that names this process's group
 */
export const readProcessors = async (
  mounted: string = root,
  own: string = ownGroupFile
): Promise<ReadonlyArray<ProcessorPool>> => {
  const folders = foldersOf(mounted, await readText(own))
  const groups = await Promise.all([...folders.map(group2), group1(mounted)])
  return [whole(), ...groups.flat()]
}

const percents = (text: string): ReadonlyArray<number> =>
  text.split("\n").flatMap((line) => /^\s*\d+\s*$/.test(line) ? [Number(line)] : [])

/** Cards whose driver has the file `gpu_busy_percent`. */
const ofDrivers = async (cards: string): Promise<ReadonlyArray<number>> => {
  const names = await readdir(cards).catch(() => [])
  const texts = await Promise.all(
    names.filter((name) => /^card\d+$/.test(name)).map((name) => readText(`${cards}/${name}/device/gpu_busy_percent`))
  )
  return texts.flatMap(percents)
}

/** ms; a driver that hangs must not stop the scaling. */
const commandLimit = 2_000

const ofCommand = (command: string): Promise<ReadonlyArray<number>> =>
  new Promise((resolve) => {
    const query = ["--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    execFile(command, query, { timeout: commandLimit }, (error, stdout) =>
      resolve(error === null ? percents(stdout) : []))
  })

/**
 * The share of time in which the busiest GPU computes.
 *
 * @param cards the folder of the graphics cards
 * @param command as `nvidia-smi`; undefined for none
 */
export const readGpu = async (
  cards = "/sys/class/drm",
  command = existsSync("/proc/driver/nvidia/version") ? "nvidia-smi" : undefined
): Promise<number | undefined> => {
  const all = [...await ofDrivers(cards), ...command === undefined ? [] : await ofCommand(command)]
  return all.length === 0 ? undefined : Math.min(1, Math.max(...all) / 100)
}

/** This machine. */
export const machine: Machine["Service"] = {
  processors: Effect.promise(() => readProcessors()),
  gpu: Effect.promise(() => readGpu())
}
