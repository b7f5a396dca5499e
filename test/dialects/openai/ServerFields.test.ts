/** Fields of clients of llama.cpp's server and of vLLM. */
import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import { decode as decodeCompletion } from "../../../src/dialects/openai/DecodeCompletion.ts"
import { decode } from "../../../src/dialects/openai/DecodeRequest.ts"
import { refusedBy } from "../../../src/dialects/shared/UnknownFields.ts"
import type { Request } from "../../../src/domain/Inference.ts"
import { request as validated } from "../../../src/domain/Inference.ts"
import { requiredPaths } from "../../../src/domain/Source.ts"

type Body = Readonly<Record<string, unknown>>

const messages = [{ role: "user", content: "Hello" }]

const decoded = (body: Body) => Result.map(decode({ model: "a", messages, ...body }), ({ requests: [first] }) => first)

const requestOf = (body: Body): Request => Result.getOrThrow(decoded(body))

const tools = [{ type: "function", function: { name: "f" } }]

const schema = { type: "object", properties: { a: { type: "integer" } } }

describe("a field of llama.cpp's server or vLLM", () => {
  it.each<[Body, Partial<Request>]>([
    [{ guided_json: schema }, { format: { type: "json_schema", schema } }],
    [{ guided_json: JSON.stringify(schema) }, { format: { type: "json_schema", schema } }],
    [{ json_schema: schema }, { format: { type: "json_schema", schema } }],
    [{ guided_regex: "\\d+" }, { format: { type: "regex", pattern: "\\d+" } }],
    [{ guided_choice: ["a", "b"] }, { format: { type: "choice", choices: ["a", "b"] } }],
    [{ guided_grammar: "root ::= \"a\"" }, { format: { type: "grammar", grammar: "root ::= \"a\"" } }],
    [{ grammar: "root ::= \"a\"" }, { format: { type: "grammar", grammar: "root ::= \"a\"" } }],
    [{ structured_outputs: { json: schema, choice: null } }, { format: { type: "json_schema", schema } }],
    [{ structured_outputs: { regex: "a", disable_fallback: true } }, { format: { type: "regex", pattern: "a" } }],
    [{ grammar: "root ::= \"a\"", response_format: { type: "text" } }, {
      format: { type: "grammar", grammar: "root ::= \"a\"" }
    }],
    [{ repetition_penalty: 1.2, repeat_last_n: 128 }, { repeatPenalty: 1.2, decoding: { penaltyWindow: 128 } }],
    [{ repetition_penalty: 1.2, repeat_penalty: 1.1 }, { repeatPenalty: 1.1 }],
    [{ xtc_probability: 0.5 }, { decoding: { xtc: { probability: 0.5, threshold: 0.1 } } }],
    [{ dry_multiplier: 0.8, dry_penalty_last_n: -1, dry_base: 2 }, {
      decoding: { dry: { multiplier: 0.8, base: 2, allowedLength: 2, sequenceBreakers: ["\n", ":", "\"", "*"] } }
    }],
    [{ min_tokens: 5, stop_token_ids: [1, 2] }, { decoding: { minTokens: 5, stopTokens: [1, 2] } }],
    [{ ignore_eos: true }, { decoding: { minTokens: 1_000_000 } }],
    [{ n_predict: 9 }, { maxTokens: 9 }],
    [{ n_predict: 9, max_tokens: 4 }, { maxTokens: 4 }],
    [{ n_probs: 3 }, { logprobs: 3 }]
  ])("%j is honored", (body, expected) => {
    const request = requestOf(body)
    assert.deepStrictEqual(requiredPaths(request.source), [])
    assert.deepInclude(request, expected)
  })

  it.each<Body>([
    {
      cache_prompt: true,
      id_slot: -1,
      mirostat: 0,
      mirostat_tau: 5,
      mirostat_eta: 0.1,
      typical_p: 1,
      top_n_sigma: -1,
      samplers: ["penalties", "dry", "top_n_sigma", "top_k", "typ_p", "top_p", "min_p", "xtc", "temperature"],
      t_max_predict_ms: -1,
      dry_multiplier: 0,
      xtc_probability: 0,
      n_predict: -1,
      n_probs: 0,
      grammar: null
    },
    {
      use_beam_search: false,
      length_penalty: 1,
      best_of: 1,
      add_generation_prompt: true,
      skip_special_tokens: true,
      ignore_eos: false,
      min_tokens: 0,
      stop_token_ids: [],
      guided_decoding_backend: "xgrammar"
    }
  ])("with its default or a hint changes nothing: %j", (body) => {
    const { source: _, ...request } = requestOf(body)
    assert.deepStrictEqual(requiredPaths(requestOf(body).source), [])
    assert.deepStrictEqual(request, { model: "a", messages: [{ role: "user", content: "Hello" }] })
  })

  it.each<[Body, path: string, expected: string]>([
    [{ mirostat: 2 }, "mirostat", "0"],
    [{ typical_p: 0.9 }, "typical_p", "1"],
    [{ use_beam_search: true }, "use_beam_search", "false"],
    [{ skip_special_tokens: false }, "skip_special_tokens", "true"],
    [{ t_max_predict_ms: 500 }, "t_max_predict_ms", "0 or less, since answers have no limit of time; use `max_tokens`"],
    [{ guided_regex: 5 }, "guided_regex", "a regular expression"],
    [{ guided_choice: [] }, "guided_choice", "1 to 1000 texts of at most 1000 characters"],
    [
      { structured_outputs: { structural_tag: "a" } },
      "structured_outputs",
      "an object with json, regex, choice or grammar"
    ],
    [{ dry_multiplier: -1 }, "dry_multiplier", "a number from 0 to 100"],
    [{ min_tokens: 1.5 }, "min_tokens", "a whole number from 0 to 1000000"]
  ])("with a value that no model on this machine honors is refused by name: %j", (body, path, expected) => {
    const { source, ...request } = requestOf(body)
    assert.deepStrictEqual(refusedBy(source!, "a"), {
      path,
      detail: `No deployment of "a" accepts this value. Expected ${expected}, or remove it.`
    })
    assert.hasAllKeys(request, ["model", "messages"])
  })

  it.each<[Body, path: string, expected: RegExp]>([
    [{ guided_regex: "a", grammar: "root ::= \"a\"" }, "guided_regex", /one format .* grammar has another/],
    [{ structured_outputs: { regex: "a", choice: ["a"] } }, "structured_outputs", /one format/],
    [
      { guided_regex: "a", response_format: { type: "json_object" } },
      "guided_regex",
      /Not allowed with response_format/
    ],
    [{ grammar: "root ::= \"a\"", tools, tool_choice: "required" }, "grammar", /Not allowed with a tool_choice/],
    [{ min_tokens: 3, guided_choice: ["a"] }, "min_tokens", /Not allowed with a format/],
    [{ ignore_eos: true, tools, tool_choice: "required" }, "ignore_eos", /required tool call/],
    [
      {
        grammar: "root ::= \"a\"",
        continue_final_message: true,
        messages: [...messages, { role: "assistant", content: "A" }]
      },
      "grammar",
      /Not allowed with continue_final_message/
    ]
  ])("that contradicts another is refused: %j", (body, path, expected) => {
    const failure = Result.getOrThrow(Result.flip(decoded(body)))
    assert.strictEqual(failure.path, path)
    assert.match(failure.detail, expected)
  })

  const completion = (body: Body) =>
    Result.map(decodeCompletion({ model: "a", prompt: "One", ...body }), ({ choices: [{ request }] }) => request)

  it.each<[Body, Partial<Request>]>([
    [{ response_format: { type: "json_object" } }, { format: { type: "json_object" } }],
    [
      { response_format: { type: "json_schema", json_schema: { name: "x", schema } } },
      { format: { type: "json_schema", schema } }
    ],
    [{ guided_regex: "a+" }, { format: { type: "regex", pattern: "a+" } }],
    [{ json_schema: schema }, { format: { type: "json_schema", schema } }],
    [{ structured_outputs: { choice: ["a"] } }, { format: { type: "choice", choices: ["a"] } }],
    [{ repetition_penalty: 1.2 }, { repeatPenalty: 1.2 }]
  ])("is honored in text completions too: %j", (body, expected) => {
    const request = Result.getOrThrow(completion(body))
    assert.deepStrictEqual(requiredPaths(request.source), [])
    assert.deepInclude(request, expected)
    assert.doesNotThrow(() => validated(request))
  })

  it("that contradicts another is refused in text completions too", () => {
    const failure = Result.getOrThrow(Result.flip(completion({ guided_regex: "a", grammar: "root ::= \"a\"" })))
    assert.strictEqual(failure.path, "guided_regex")
    const both = completion({ guided_regex: "a", response_format: { type: "json_object" } })
    assert.strictEqual(Result.getOrThrow(Result.flip(both)).path, "guided_regex")
  })
})
