/** Damaged weights: a load computes once, and rejects invalid output. */
import { assert } from "@effect/vitest"
import { cpSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { describe, it } from "vitest"
import type { EngineSpec } from "../../src/domain/EngineProtocol.ts"
import type { EngineFailure } from "../../src/domain/Job.ts"
import { makePoolHost } from "../../src/layers/engines/PoolHost.ts"
import { outputProblem } from "../../src/workers/model/ModelCheck.ts"
import { readGguf, withNumbers, withTensor, writeGguf } from "../support/GgufCopy.ts"
import { logitGraph, vectorGraph, writeModel } from "../support/OnnxModels.ts"
import type { Graph } from "../support/OnnxWriter.ts"
import { temporaryFolder } from "../support/Service.ts"

const models = fileURLToPath(new URL("../../models/", import.meta.url))

const load = async (spec: EngineSpec): Promise<string> => {
  const host = makePoolHost({ spec, replicas: 1, cancelGraceMs: 10_000, closeGraceMs: 10_000 })
  const outcome = await host.ready.then(
    () => "loads",
    (failure: EngineFailure) => failure.kind === "load_failed" ? failure.message : failure.kind
  )
  await host.close()
  return outcome
}

const notNumbers = "The model file is damaged: its output is not a number."
const constant = "The model file is damaged: its output is the same for every token."

describe("a load of damaged weights", () => {
  const tiny = readGguf(join(models, "tiny-chat-q8_0.gguf"))
  const ggufs: ReadonlyArray<readonly [what: string, tensor: string, byte: number, outcome: string]> = [
    ["numbers that are none", "output_norm.weight", 0xff, notNumbers],
    ["zeros", "output_norm.weight", 0, constant],
    ["numbers that are none, of one block", "blk.3.ffn_norm.weight", 0xff, notNumbers],
    ["zeros of a vocabulary", "token_embd.weight", 0, constant]
  ]
  for (const [what, tensor, byte, outcome] of ggufs) {
    it(`is refused by llama for ${what} in ${tensor}`, async () => {
      using folder = temporaryFolder()
      const file = join(folder.path, "damaged.gguf")
      writeGguf(file, withTensor(tiny, tensor, (bytes) => bytes.fill(byte)))
      assert.strictEqual(await load({ engine: "llama", file, slots: 2, threads: 1 }), outcome)
    })
  }

  for (const [byte, outcome] of [[0xff, notNumbers], [0, "loads"]] as const) {
    it(`of ONNX weights with bytes of ${byte} in their middle ends as: ${outcome}`, async () => {
      using folder = temporaryFolder()
      cpSync(join(models, "tiny-chat-onnx"), folder.path, { recursive: true })
      const file = join(folder.path, "onnx", "model.onnx")
      const bytes = readFileSync(file)
      const middle = bytes.length >> 1
      writeFileSync(file, bytes.fill(byte, middle, middle + 4096))
      assert.strictEqual(
        await load({ engine: "onnx", folder: folder.path, model: "model", slots: 1, threads: 1 }),
        outcome
      )
    })
  }
})

describe("a load of sound weights whose likeliest first token ends the answer", () => {
  const tiny = readGguf(join(models, "tiny-chat-q8_0.gguf"))
  // After the token that begins a text, <|im_start|> has a probability of 0.996.
  const likeliest = 1
  for (const key of ["eos_token_id", "eot_token_id"]) {
    it(`succeeds on every try by llama: ${key}`, async () => {
      using folder = temporaryFolder()
      const file = join(folder.path, "sound.gguf")
      writeGguf(file, withNumbers(tiny, { [`tokenizer.ggml.${key}`]: likeliest }))
      for (let tries = 0; tries < 3; tries++) {
        assert.strictEqual(await load({ engine: "llama", file, slots: 1, threads: 1 }), "loads")
      }
    })
  }

  it("succeeds by onnx, whatever token ends an answer", async () => {
    using folder = temporaryFolder()
    cpSync(join(models, "tiny-chat-onnx"), folder.path, { recursive: true })
    const { vocab_size: size } = JSON.parse(readFileSync(join(folder.path, "config.json"), "utf8"))
    const everyToken = Array.from({ length: size }, (_, token) => token)
    writeFileSync(join(folder.path, "generation_config.json"), JSON.stringify({ eos_token_id: everyToken }))
    const spec = { engine: "onnx", folder: folder.path, model: "model", slots: 1, threads: 1 } as const
    assert.strictEqual(await load(spec), "loads")
  })
})

describe("a load of an encoder", () => {
  const numbers = (graph: Graph, value: number): Graph => ({
    ...graph,
    constants: graph.constants.map((constant) =>
      constant.name === "E" && constant.values instanceof Float32Array
        ? { ...constant, values: constant.values.map(() => value) }
        : constant
    )
  })
  const ranking = { architectures: ["BertForSequenceClassification"] }
  const direction = "The model computed a vector without a direction; its file may be damaged."
  const score = "The model computed a score that is not a number; its file may be damaged."
  const cases: ReadonlyArray<readonly [what: string, graph: Graph, config: Record<string, unknown>, outcome: string]> =
    [
      ["vectors of no numbers", numbers(vectorGraph(6, "last_hidden_state"), Number.NaN), {}, direction],
      ["vectors of zeros", numbers(vectorGraph(6, "last_hidden_state"), 0), {}, direction],
      ["vectors of one number", numbers(vectorGraph(6, "last_hidden_state"), 0.5), {}, direction],
      ["scores of no numbers", numbers(logitGraph(1), Number.NaN), ranking, score],
      ["labels of no numbers", numbers(logitGraph(3), Number.NaN), ranking, score],
      ["good vectors", vectorGraph(6, "last_hidden_state"), {}, "loads"]
    ]
  for (const [what, graph, config, outcome] of cases) {
    it(`ends for ${what} as: ${outcome}`, async () => {
      using folder = temporaryFolder()
      const spec = {
        engine: "onnx",
        folder: writeModel(folder.path, config, graph),
        model: "model",
        slots: 1,
        threads: 1
      }
      assert.strictEqual(await load(spec as EngineSpec), outcome)
    })
  }
})

describe("outputProblem", () => {
  it("detects invalid output, and accepts masked tokens", () => {
    const cases: ReadonlyArray<readonly [numbers: ReadonlyArray<number>, problem: RegExp | undefined]> = [
      [[1, 2], undefined],
      [[-Infinity, 1, 2], undefined],
      [[0.5], undefined],
      [[], /no output/],
      [[1, Number.NaN], /not a number/],
      [[1, Infinity], /not a number/],
      [[-Infinity, -Infinity], /not a number/],
      [[0, 0, 0], /same for every token/]
    ]
    for (const [numbers, problem] of cases) {
      const found = outputProblem(Float32Array.from(numbers))
      if (problem === undefined) assert.isUndefined(found)
      else assert.match(found ?? "", problem)
    }
  })
})
