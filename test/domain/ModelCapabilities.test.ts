/** Capabilities of local models by the metadata of their files. */
import { assert, describe, it } from "@effect/vitest"
import type { GgufTraits, OnnxGraph } from "../../src/domain/ModelCapabilities.ts"
import { ofGguf, ofOnnx, taskOf, templatesIn } from "../../src/domain/ModelCapabilities.ts"

const chat: GgufTraits = {
  architecture: "qwen3",
  causal: undefined,
  pooling: undefined,
  ranks: false,
  supportsTools: true
}

const graph = (fields: Partial<OnnxGraph>): OnnxGraph => ({
  inputs: ["input_ids"],
  outputs: [],
  logits: undefined,
  ...fields
})

describe("ModelCapabilities", () => {
  it("tells GGUF models that generate from encoders, embedding models and rerankers", () => {
    const generating = ["generate", "complete", "format", "logprobs"] as const
    assert.deepStrictEqual(ofGguf(chat), [...generating, "tools", "echo", "embed", "embedTokens", "tokenize"])
    assert.deepStrictEqual(ofGguf({ ...chat, supportsTools: false }), [
      ...generating,
      "echo",
      "embed",
      "embedTokens",
      "tokenize"
    ])
    assert.deepStrictEqual(ofGguf({ ...chat, pooling: 0 }), ofGguf(chat))
    assert.deepStrictEqual(ofGguf({ ...chat, pooling: 3 }), ["embed", "embedTokens", "tokenize"])
    assert.deepStrictEqual(ofGguf({ ...chat, architecture: "bert", causal: false }), [
      "embed",
      "embedTokens",
      "tokenize"
    ])
    assert.deepStrictEqual(ofGguf({ ...chat, architecture: "t5encoder" }), ["embed", "embedTokens", "tokenize"])
    assert.deepStrictEqual(ofGguf({ ...chat, architecture: "t5" }), [...generating, "tools", "echo", "tokenize"])
    assert.deepStrictEqual(ofGguf({ ...chat, ranks: true, pooling: 4 }), ["rerank", "tokenize"])
  })

  it("tells the tasks of ONNX graphs apart", () => {
    const classifier = { architectures: ["BertForSequenceClassification"] }
    const logits = { outputs: ["logits"] }
    assert.strictEqual(taskOf(graph({ ...logits, inputs: ["input_ids", "past_key_values.0.key"] }), {}), "generate")
    assert.strictEqual(taskOf(graph({ outputs: ["last_hidden_state"] }), {}), "embed")
    assert.strictEqual(taskOf(graph({ ...logits, logits: 1 }), classifier), "rerank")
    assert.strictEqual(taskOf(graph(logits), { ...classifier, id2label: { 0: "a" } }), "rerank")
    assert.strictEqual(taskOf(graph(logits), classifier), "classify")
    assert.strictEqual(taskOf(graph({ ...logits, logits: 2 }), { model_type: "bert" }), "classify")
    assert.isUndefined(taskOf(graph(logits), { architectures: ["LlamaForCausalLM"] }))
    assert.isUndefined(taskOf(graph({ outputs: ["boxes"] }), {}))
    assert.deepStrictEqual(ofOnnx("rerank", true), ["rerank", "tokenize"])
  })

  it("finds the chat templates of a folder", () => {
    assert.deepStrictEqual(templatesIn({ default: "a" }, { chat_template: "b" }), { source: "a" })
    assert.deepStrictEqual(templatesIn({}, { chat_template: "b" }), { source: "b" })
    const named = [{ name: "rag", template: "c" }, { name: "default", template: "d" }]
    assert.deepStrictEqual(templatesIn({}, { chat_template: named }), { source: "d" })
    const withTools = { chat_template: [...named, { name: "tool_use", template: "e" }] }
    assert.deepStrictEqual(templatesIn({}, withTools), { source: "d", toolUse: "e" })
    assert.deepStrictEqual(templatesIn({ default: "a" }, withTools), { source: "a" })
    assert.deepStrictEqual(templatesIn({ default: "a", toolUse: "f" }, withTools), { source: "a", toolUse: "f" })
    assert.deepStrictEqual(templatesIn({}, {}), { source: "" })
  })
})
