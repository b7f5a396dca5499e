/** The engine kind `fake`: no weights, but deterministic tokens, delays and faults, for tests and benches. */
import { Effect, Schema } from "effect"
import { defaultSlots } from "../../domain/Deployment.ts"
import { Bytes, Count, described, Milliseconds, optional } from "../../domain/Fields.ts"
import { wholeNumber } from "../../domain/Problem.ts"
import type { EngineKind } from "./EngineKind.ts"
import { noMemory, threadOptions } from "./EngineKind.ts"

const name = "fake"

const Fault = Schema.Struct({
  kind: described(
    "error: the request fails. abort: the engine process aborts as native code would. hang: it sends no further token. " +
      "load, load-abort: loading fails, or aborts the process.",
    Schema.Literals(["error", "abort", "hang", "load", "load-abort"])
  ),
  afterTokens: optional("Tokens before the fault. Default 0.", wholeNumber(0)),
  trigger: optional(
    "Text that the last message must contain for the fault to happen. Default any.",
    Schema.NonEmptyString
  )
})

const FakeOptions = Schema.Struct({
  engine: Schema.Literal(name),
  reply: optional(
    "The answer. Its words are shuffled by the seed unless temperature is 0. Default the word fake and the last message.",
    Schema.String
  ),
  contextSize: optional("Context window of prompt and answer, tokens of three bytes. Default 4,096.", Count),
  loadDelayMs: optional("Duration of a load, ms. Default 0.", Milliseconds),
  promptDelayMs: optional("Time to the first token, ms. Default 0.", Milliseconds),
  tokenDelayMs: optional("Time for each token, ms. Default 0.", Milliseconds),
  fault: optional("Fault to simulate. Default none.", Fault),
  memory: optional("Memory that it pretends to need, as 1 GiB or in bytes. Default none.", Bytes),
  ...threadOptions
})
type FakeOptions = typeof FakeOptions.Type

export const fake = {
  name,
  options: FakeOptions,
  capabilities: [
    "generate",
    "complete",
    "tools",
    "format",
    "logprobs",
    "embed",
    "embedTokens",
    "rerank",
    "classify",
    "tokenize"
  ],
  modelPrefix: `${name}/`,
  isNative: false,
  isExternal: false,
  source: () => "(no model file)",
  describe: ({ memory = 0 }) => Effect.succeed({ ...noMemory, computeBytes: memory, totalBytes: memory }),
  spec: ({ fault, memory: _, maxReplicas: ___, replicas: __, ...options }) => ({
    contextSize: 4096,
    loadDelayMs: 0,
    promptDelayMs: 0,
    tokenDelayMs: 0,
    ...options,
    slots: options.slots ?? defaultSlots,
    fault: fault === undefined ? undefined : { afterTokens: 0, ...fault }
  })
} as const satisfies EngineKind<FakeOptions>
