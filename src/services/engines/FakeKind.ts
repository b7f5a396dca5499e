/** The engine kind `fake`: no weights, but deterministic tokens, delays and faults, for tests and benches. */
import { Effect, Schema } from "effect"
import { defaultSlots } from "../../domain/Deployment.ts"
import { Bytes, Count, described, Milliseconds, optional } from "../../domain/Fields.ts"
import type { EngineKind } from "./EngineKind.ts"
import { noMemory, threadOptions } from "./EngineKind.ts"

const name = "fake"

const Fault = Schema.Struct({
  kind: described(
    "error: the request fails. abort: the engine process aborts as native code would. hang: no token comes any more. " +
      "load, load-abort: loading fails, or aborts the process.",
    Schema.Literals(["error", "abort", "hang", "load", "load-abort"])
  ),
  afterTokens: optional("Tokens that come first; default 0.", Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))),
  trigger: optional("Only when the last message holds this text; default always.", Schema.NonEmptyString)
})

const FakeOptions = Schema.Struct({
  engine: Schema.Literal(name),
  reply: optional(
    "What it answers, its words shuffled by the seed unless temperature is 0; default the word fake and the last message.",
    Schema.String
  ),
  contextSize: optional("Tokens (of three bytes) that prompt and answer share; default 4,096.", Count),
  loadDelayMs: optional("How long loading takes, ms; default 0.", Milliseconds),
  promptDelayMs: optional("How long the first token takes, ms; default 0.", Milliseconds),
  tokenDelayMs: optional("How long each token takes, ms; default 0.", Milliseconds),
  fault: optional("What goes wrong; default nothing.", Fault),
  memory: optional("Memory that it pretends to need, as 1 GiB or in bytes; default none.", Bytes),
  ...threadOptions
})
type FakeOptions = typeof FakeOptions.Type

export const fake = {
  name,
  options: FakeOptions,
  capabilities: ["generate", "tools", "format", "logprobs", "embed", "rerank", "classify", "tokenize"],
  modelPrefix: `${name}/`,
  isNative: false,
  isElsewhere: false,
  source: () => "(no model file)",
  describe: ({ memory = 0 }) => Effect.succeed({ ...noMemory, computeBytes: memory, totalBytes: memory }),
  spec: ({ fault, memory: _, replicas: __, ...options }) => ({
    contextSize: 4096,
    loadDelayMs: 0,
    promptDelayMs: 0,
    tokenDelayMs: 0,
    ...options,
    slots: options.slots ?? defaultSlots,
    fault: fault === undefined ? undefined : { afterTokens: 0, ...fault }
  })
} as const satisfies EngineKind<FakeOptions>
