/** What sources mean, and which of a repository's files are taken. */
import { assert } from "@effect/vitest"
import { Result } from "effect"
import * as fc from "fast-check"
import { describe, it } from "vitest"
import type { RepositoryFile } from "../../../src/services/store/ModelSource.ts"
import * as ModelSource from "../../../src/services/store/ModelSource.ts"

const file = (path: string, bytes = 1): RepositoryFile => ({ path, bytes, sha256: undefined })

const choose = (source: string, files: ReadonlyArray<RepositoryFile>): string => {
  const parsed = Result.getOrThrow(ModelSource.parse(source))
  assert(parsed.type === "huggingface")
  return Result.match(ModelSource.choose(parsed, files), {
    onFailure: (problem) => problem,
    onSuccess: ({ files }) => files.map(({ path }) => path).join()
  })
}

describe("parse", () => {
  it("takes repositories, URLs and paths", () => {
    const parse = (text: string) => Result.getOrThrow(ModelSource.parse(text))
    const hub = { type: "huggingface", repository: "org/repo.1" }
    assert.deepStrictEqual<unknown>(parse("hf:org/repo.1"), { ...hub, quantization: undefined, file: undefined })
    assert.deepStrictEqual<unknown>(parse("hf:org/repo.1:Q4_K_M"), { ...hub, quantization: "Q4_K_M", file: undefined })
    assert.deepStrictEqual<unknown>(parse("hf:org/repo.1/a/b.gguf"), {
      ...hub,
      quantization: undefined,
      file: "a/b.gguf"
    })
    assert.strictEqual(parse("https://example.com/a.gguf").type, "url")
    assert.strictEqual(parse("http://127.0.0.1:8000/a.gguf").type, "url")
    assert.strictEqual(parse("./a.gguf").type, "path")
  })

  it("refuses plain http from other hosts, passwords, and paths outside the folder", () => {
    for (
      const text of [
        "http://example.com/a",
        "https://me:hush@example.com/a",
        "ftp://a/b",
        "hf:org/repo/../../a",
        "hf:",
        ""
      ]
    ) assert.isTrue(Result.isFailure(ModelSource.parse(text)), text)
  })

  it.each([
    ["https://huggingface.co/org/repo", "hf:org/repo"],
    ["https://huggingface.co/org/repo/tree/main", "hf:org/repo"],
    ["https://huggingface.co/org/repo/blob/main/a/b.gguf", "hf:org/repo/a/b.gguf"],
    ["https://huggingface.co/org/repo/blob/main/a.gguf?download=true", "hf:org/repo/a.gguf"],
    ["https://huggingface.co/org/repo/resolve/main/a.gguf", undefined],
    ["hf.co/org/repo:Q4_K_M", "hf:org/repo:Q4_K_M"]
  ])("names the model of the page %s: %s", (page, source) => {
    const parsed = ModelSource.parse(page)
    const name = Result.isFailure(parsed) ? parsed.failure.replace(/^.* /, "") : undefined
    assert.strictEqual(name, source)
  })

  it("accepts or refuses any text, and an accepted name is valid for a folder", () => {
    fc.assert(fc.property(fc.string(), (text) => {
      ModelSource.parse(text)
      const name = ModelSource.nameOf(text)
      assert.isTrue(name === "" || ModelSource.isName(name))
    }))
  })
})

describe("choose", () => {
  const files = [
    file("README.md"),
    file("m-F16.gguf"),
    file("m-Q4_K_M.gguf"),
    file("m-Q8_0.gguf"),
    file("mmproj-m-F16.gguf")
  ]

  it("takes Q8_0 of a small model, and Q4_K_M of a large one", () => {
    assert.strictEqual(choose("hf:o/m", files), "m-Q8_0.gguf")
    const large = [...files.slice(0, 3), file("m-Q8_0.gguf", ModelSource.smallModelBytes + 1)]
    assert.strictEqual(choose("hf:o/m", large), "m-Q4_K_M.gguf")
    assert.strictEqual(choose("hf:o/m", [file("strange.gguf")]), "strange.gguf")
  })

  it("selects exactly the named quantization or file", () => {
    assert.strictEqual(choose("hf:o/m:f16", files), "m-F16.gguf")
    assert.strictEqual(choose("hf:o/m/m-Q4_K_M.gguf", files), "m-Q4_K_M.gguf")
    assert.include(choose("hf:o/m:Q4_K", files), "No file has the quantization Q4_K. Available files: m-F16.gguf")
    assert.include(choose("hf:o/m/none.gguf", files), "The repository has no file none.gguf")
  })

  it("takes names of quantizations whole, and a bare name where only one with a prefix fits", () => {
    const dynamic = ["Q4_K_M", "UD-Q4_K_XL", "UD-Q4_K_M", "UD-IQ2_XXS"].map((name) =>
      file(`Qwen3-8B-${name}.gguf`, 2 ** 31)
    )
    assert.strictEqual(choose("hf:o/m", dynamic), "Qwen3-8B-Q4_K_M.gguf")
    assert.strictEqual(choose("hf:o/m:Q4_K_M", dynamic), "Qwen3-8B-Q4_K_M.gguf")
    assert.strictEqual(choose("hf:o/m:ud-q4_k_m", dynamic), "Qwen3-8B-UD-Q4_K_M.gguf")
    assert.strictEqual(choose("hf:o/m:UD-Q4_K_XL", dynamic), "Qwen3-8B-UD-Q4_K_XL.gguf")
    assert.strictEqual(choose("hf:o/m:IQ2_XXS", dynamic), "Qwen3-8B-UD-IQ2_XXS.gguf")
    assert.strictEqual(choose("hf:o/m:Q4_K_M", [file("m.i1-Q4_K_M.gguf"), file("m.i1-IQ1_S.gguf")]), "m.i1-Q4_K_M.gguf")
    const parts = ["00001", "00002"].map((part) => file(`UD-Q2_K_XL/m-UD-Q2_K_XL-${part}-of-00002.gguf`))
    assert.strictEqual(choose("hf:o/m:UD-Q2_K_XL", parts), parts.map(({ path }) => path).join())
    assert.strictEqual(choose(`hf:o/m/${parts[1]!.path}`, parts), parts.map(({ path }) => path).join())
  })

  it("never takes an image projector", () => {
    const named = ["m-Q6_K.gguf", "mmproj-m-F16.gguf", "m-mmproj-F16.gguf", "m.mmproj-Q8_0.gguf", "mmproj.gguf"].map((
      one
    ) => file(one))
    assert.strictEqual(choose("hf:o/m", named), "m-Q6_K.gguf")
    assert.include(choose("hf:o/m:F16", named), "No file has the quantization F16. Available files: m-Q6_K.gguf")
    assert.include(
      choose("hf:o/m/m-mmproj-F16.gguf", named),
      "is an image projector, not a model. Available files: m-Q6_K.gguf"
    )
  })

  it("requires a choice if several fit", () => {
    assert.include(choose("hf:o/m:Q8_0", [file("a-Q8_0.gguf"), file("b.Q8_0.gguf")]), "a-Q8_0.gguf, b.Q8_0.gguf")
  })

  it("takes every part of a split file, in order, or names the one that is missing", () => {
    const parts = ["00001", "00002", "00003"].map((part) => file(`d/m-Q6_K-${part}-of-00003.gguf`))
    assert.strictEqual(choose("hf:o/m:Q6_K", parts.toReversed()), parts.map(({ path }) => path).join())
    assert.include(choose("hf:o/m", parts.slice(0, 2)), "The repository has no file d/m-Q6_K-00003-of-00003.gguf")
  })

  it("selects an ONNX model with the files that it needs", () => {
    const onnx = [
      "config.json",
      "tokenizer.json",
      "onnx/model.onnx",
      "onnx/model.onnx_data",
      "onnx/model_q4.onnx",
      "x.bin"
    ]
      .map((path) => file(path))
    assert.strictEqual(choose("hf:o/m", onnx), "onnx/model.onnx,onnx/model.onnx_data,config.json,tokenizer.json")
    assert.strictEqual(choose("hf:o/m:q4", onnx), "onnx/model_q4.onnx,config.json,tokenizer.json")
    assert.include(choose("hf:o/m:q2", onnx), "The repository has no file onnx/model_q2.onnx")
    assert.include(choose("hf:o/m", [file("README.md")]), "neither")
  })
})
