/**
 * Process entry: prints the CPU time of a token's sampling by the size of the vocabulary, without that of the model.
 *
 * **Details**
 *
 * Each row compares two ways of the same work in turns, in one process. The models are written for it (`PositionGguf`): their
 * logits have a normal distribution, and a flat one is the worst case of sorting.
 */
import type { Llama, LlamaContext, LlamaModel, Token } from "node-llama-cpp"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { Sample, Sampler } from "../src/workers/llama/LlamaProbabilities.ts"
import { makeReadProbabilities } from "../src/workers/llama/LlamaProbabilities.ts"
import { likelihoods, makeRandom, makeSampler } from "../src/workers/model/Sampler.ts"
import * as PositionGguf from "./PositionGguf.ts"
import { median } from "./Statistics.ts"
import * as Vocabularies from "./Vocabularies.ts"

process.env["UV_THREADPOOL_SIZE"] = "1"

const sizes = [32_000, 151_000]
const tokens = 16
const rounds = 5

interface Row {
  readonly what: string
  readonly one: () => unknown
  readonly other: () => unknown
}

const cpuOf = async (work: () => unknown): Promise<number> => {
  const began = process.cpuUsage()
  await work()
  const { system, user } = process.cpuUsage(began)
  return (system + user) / 1_000 / tokens
}

const print = async ({ one, other, what }: Row): Promise<void> => {
  await one()
  await other()
  const pairs: Array<readonly [number, number]> = []
  for (let round = 0; round < rounds; round++) pairs.push([await cpuOf(one), await cpuOf(other)])
  const [left, right] = [median(pairs.map(([first]) => first)), median(pairs.map(([, second]) => second))]
  console.log(`${what.padEnd(68)} ${left.toFixed(2).padStart(8)} ${right.toFixed(2).padStart(8)} ms/token`)
}

/** Numbers of a normal distribution (Box and Muller, 1958). */
const normal = (random: () => number): number =>
  Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random())

const writeModel = (file: string, size: number, spread: number): void => {
  const random = makeRandom(size)
  const vocabulary = [...Vocabularies.make(size - 1, random), "<|end|>"]
  PositionGguf.write(file, {
    tokens: vocabulary,
    isControl: (id) => id === size - 1,
    end: size - 1,
    template: "{{ messages[0].content }}",
    signs: PositionGguf.signsOf(size, random),
    byPosition: Float32Array.from({ length: PositionGguf.positions * PositionGguf.width }, () => normal(random)),
    spread
  })
}

interface Native {
  readonly initBatch: (size: number) => void
  readonly addToBatch: (id: number, first: number, tokens: Uint32Array, logits: Uint32Array) => Uint32Array
  readonly decodeBatch: () => Promise<void>
  readonly sampleToken: Sample
}

/** The logits of `tokens` places, and samplers. */
const open = async (llama: Llama, model: LlamaModel, context: LlamaContext) => {
  const inside = { llama, model, context } as unknown as {
    readonly llama: { readonly _bindings: { readonly AddonSampler: new(model: unknown) => Sampler } }
    readonly model: { readonly _model: unknown }
    readonly context: { readonly _ctx: Native }
  }
  const native = inside.context._ctx
  const all = Uint32Array.from({ length: tokens }, (_, at) => at)
  native.initBatch(tokens)
  const places = native.addToBatch(0, 0, all, all)
  await native.decodeBatch()
  const makeSampler = () => new inside.llama._bindings.AddonSampler(inside.model._model)
  return { places, makeSampler, sample: ((...given) => native.sampleToken(...given)) satisfies Sample }
}

const llamaRows = ({ makeSampler, places, sample }: Awaited<ReturnType<typeof open>>, what: string): Array<Row> => {
  const each = (config: object, ...wanted: [boolean?, boolean?]) => {
    const sampler = makeSampler()
    sampler.applyConfig(config)
    return async () => {
      for (const place of places) await sample(place, sampler, ...wanted)
    }
  }
  const read = makeReadProbabilities(sample, makeSampler)
  const options = (topP: number) => ({ temperature: 1, topP, minP: 0, seed: 1 })
  return [
    { what: `${what}, temperature 1: top_k 0 | none`, one: each({ ...options(1), topK: 0 }), other: each(options(1)) },
    { what: `${what}, top_p 0.9: top_k 0 | none`, one: each({ ...options(0.9), topK: 0 }), other: each(options(0.9)) },
    {
      what: `${what}, log-probabilities: all | some read`,
      one: each({ temperature: 0 }, true, true),
      other: async () => {
        for (const place of places) await read(place, place as Token)
      }
    }
  ]
}

/** The `onnx` engine's own sampler. */
const printOnnx = async (what: string, size: number, spread: number): Promise<void> => {
  const random = makeRandom(size)
  const logits = Float32Array.from({ length: size }, () => spread * normal(random))
  const each = (work: () => unknown) => () => {
    for (let token = 0; token < tokens; token++) work()
  }
  const sampling = (topP: number) => {
    const sampler = makeSampler({ temperature: 1, topP, seed: 1 }, size)
    return each(() => sampler.choose(logits))
  }
  await print({ what: `${what}: temperature 1 | with top_p 0.9`, one: sampling(1), other: sampling(0.9) })
  await print({
    what: `${what}: log-probabilities | of the chosen token only`,
    one: each(() => likelihoods(logits, 7, 20)),
    other: each(() => likelihoods(logits, 7, 0))
  })
}

const folder = mkdtempSync(join(tmpdir(), "troupe-sampling-"))
const { getLlama, LlamaLogLevel } = await import("node-llama-cpp")
const llama = await getLlama({ gpu: false, build: "never", logLevel: LlamaLogLevel.error })
for (const size of sizes) {
  for (const [name, spread] of [["flat", 2.5], ["peaked", 5]] as const) {
    const file = join(folder, "model.gguf")
    writeModel(file, size, spread)
    const model = await llama.loadModel({ modelPath: file, gpuLayers: 0 })
    const context = await model.createContext({ contextSize: PositionGguf.positions, sequences: 1, threads: 1 })
    for (const row of llamaRows(await open(llama, model, context), `llama, ${size} tokens, ${name}`)) await print(row)
    await model.dispose()
    await printOnnx(`onnx, ${size} tokens, ${name}`, size, spread)
  }
}
await llama.dispose()
rmSync(folder, { recursive: true })
