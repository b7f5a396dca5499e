import { assert, describe, it } from "@effect/vitest"
import type { Header } from "../../src/domain/LoraAdapter.ts"
import { problemOf } from "../../src/domain/LoraAdapter.ts"

const header = (
  metadata: Readonly<Record<string, unknown>>,
  tensors: Readonly<Record<string, ReadonlyArray<number>>>
): Header => ({
  metadata: (key) => metadata[key],
  tensors: Object.entries(tensors).map(([name, dimensions]) => ({ name, dimensions }))
})

const model = header({ "general.architecture": "llama" }, {
  "token_embd.weight": [192, 1024],
  "blk.0.attn_norm.weight": [192],
  "blk.0.ffn_up.weight": [192, 512]
})

const lora = { "general.type": "adapter", "adapter.type": "lora", "general.architecture": "llama" }
const pair = (name: string, a: ReadonlyArray<number>, b: ReadonlyArray<number>) => ({
  [`${name}.lora_a`]: a,
  [`${name}.lora_b`]: b
})
const good = pair("blk.0.ffn_up.weight", [192, 8], [8, 512])

describe("a LoRA adapter", () => {
  it.each<[what: string, tensors: Readonly<Record<string, ReadonlyArray<number>>>]>([
    ["the pair of a weight", good],
    ["the swapped pair of the token embedding", pair("token_embd.weight", [8, 1024], [8, 192])]
  ])("with %s can be applied", (_, tensors) => {
    assert.isUndefined(problemOf(header(lora, tensors), model))
  })

  it.each<[what: string, adapter: Header, problem: RegExp]>([
    ["is a model", model, /^It is not an adapter: .*convert_lora_to_gguf\.py writes it$/],
    ["is another kind of adapter", header({ ...lora, "adapter.type": "dora" }, good), /^Its adapter\.type is dora\./],
    [
      "has another architecture",
      header({ ...lora, "general.architecture": "qwen2" }, good),
      /^It is for models of the architecture qwen2, not llama\. Use an adapter that was trained on this model$/
    ],
    ["has no tensors", header(lora, {}), /^It has no tensors\./],
    ["has half a pair", header(lora, { "blk.0.ffn_up.weight.lora_a": [192, 8] }), /are not a pair\. Convert .* again$/],
    ["has another layer", header(lora, pair("blk.9.ffn_up.weight", [192, 8], [8, 512])), /changes blk\.9\.ffn_up/],
    ["has other inputs", header(lora, pair("blk.0.ffn_up.weight", [256, 8], [8, 512])), /do not fit the model's\./],
    ["has other outputs", header(lora, pair("blk.0.ffn_up.weight", [192, 8], [8, 192])), /do not fit the model's\./],
    ["has two ranks", header(lora, pair("blk.0.ffn_up.weight", [192, 8], [4, 512])), /do not fit the model's\./],
    ["changes a norm", header(lora, pair("blk.0.attn_norm.weight", [1, 8], [8, 192])), /do not fit the model's\./]
  ])("that %s cannot", (_, adapter, problem) => {
    assert.match(problemOf(adapter, model) ?? "", problem)
  })
})
