/**
 * llama.cpp's own bench programs, if `LLAMA_BENCH` names one: `llama-batched-bench`, or `llama-bench`, which supports one
 * stream only. With `LLAMA_BENCH=build`, `llama-batched-bench` is built for the libraries that the engine uses: see
 * `NativeBuild`.
 *
 * **Details**
 *
 * The same file, threads, batch and numbers of tokens; its figure is generated tokens over the total time of prompts and
 * answers, as in the scenario.
 */
import { execFile } from "node:child_process"
import { basename } from "node:path"
import { promisify } from "node:util"
import * as NativeBuild from "./NativeBuild.ts"
import type { Native } from "./Streams.ts"

/** The work of one answer. */
export interface Work {
  readonly file: string
  readonly contextSize: number
  readonly slots: number
  readonly threads: number
  readonly promptTokens: number
  readonly maxTokens: number
  readonly streamCounts: ReadonlyArray<number>
}

export const unavailable = "llama.cpp's own bench is not compared: LLAMA_BENCH is not \"build\", and names no " +
  "llama-batched-bench or llama-bench."

const targetRatio = 0.9
const execute = promisify(execFile)

/** Limit of one run, ms. */
const timeout = 120_000

/** The JSON objects in a program's output: lines or one list, among other text. */
const objectsIn = (printed: string): ReadonlyArray<Readonly<Record<string, unknown>>> =>
  [...printed.matchAll(/\{[^{}]*\}/g)].flatMap(([text]) => {
    try {
      return [JSON.parse(text) as Readonly<Record<string, unknown>>]
    } catch {
      return []
    }
  })

const run = async (program: string, args: ReadonlyArray<string>, rateOf: RateOf): Promise<number> => {
  const { stdout } = await execute(program, args, { timeout, maxBuffer: 2 ** 24 })
  const rate = objectsIn(stdout).map(rateOf).find((found) => found !== undefined && Number.isFinite(found) && found > 0)
  if (rate !== undefined) return rate
  throw new Error(`${basename(program)} printed no known result: ${stdout.slice(0, 300)}`)
}

/** Tokens per second from one printed object; undefined if the object has another content. */
type RateOf = (found: Readonly<Record<string, unknown>>) => number | undefined

/** For several streams: `t` is seconds for prompts and answers. */
const batched = (program: string, work: Work): Native => ({
  streamCounts: work.streamCounts,
  ratio: targetRatio,
  run: (streams) =>
    run(
      program,
      [
        ["-m", work.file, "-c", String(work.contextSize * work.slots), "-b", "512", "-ngl", "0"],
        ["-t", String(work.threads), "-tb", String(work.threads), "-npl", String(streams)],
        ["-npp", String(work.promptTokens), "-ntg", String(work.maxTokens), "--output-format", "jsonl"]
      ].flat(),
      ({ pl, t, tg }) => Number(pl) === streams ? streams * Number(tg) / Number(t) : undefined
    )
})

/** For one stream: `avg_ns` is for prompt and answer. */
const single = (program: string, work: Work): Native => ({
  streamCounts: [1],
  ratio: targetRatio,
  run: () =>
    run(
      program,
      [
        ["-m", work.file, "-b", "512", "-ngl", "0", "-t", String(work.threads), "-r", "2", "-o", "json"],
        ["-p", "0", "-n", "0", "-pg", `${work.promptTokens},${work.maxTokens}`]
      ].flat(),
      ({ avg_ns, n_gen }) => Number(n_gen) > 0 ? Number(n_gen) / (Number(avg_ns) / 1e9) : undefined
    )
})

/** The program of the environment, configured for this work. */
export const find = async (work: Work): Promise<Native | undefined> => {
  const named = process.env["LLAMA_BENCH"] ?? ""
  if (named === "") return undefined
  const program = named === "build" ? await NativeBuild.build() : named
  return basename(program).includes("batched") ? batched(program, work) : single(program, work)
}
