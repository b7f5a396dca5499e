/**
 * A model, which is the name a caller asks for, and its deployments, which are concrete ways to serve it. Plain data.
 */
import { Duration, Schema } from "effect"
import { Bytes, Count, described, Milliseconds, optional, traits } from "./Fields.ts"
import type { Provider } from "./RemoteDeployment.ts"
import { RemoteDeployment } from "./RemoteDeployment.ts"
import type { Routing } from "./RoutingPolicy.ts"

export { Bytes, described, optional, Span, traits } from "./Fields.ts"
export type { Provider } from "./RemoteDeployment.ts"
export { providers, RemoteDeployment } from "./RemoteDeployment.ts"

const shared = {
  ...traits,
  slots: optional("Requests that run side by side in one engine thread; default 4.", Count),
  replicas: optional("Engine threads, each with its own copy of the model's context; default 1.", Count)
}

const contextSize = optional(
  "Tokens that prompt and answer share, per slot; default the model's own window, at most 4,096.",
  Count
)
const threads = optional("Compute threads of each engine thread; default 1.", Count)

const sharePrefixes = optional(
  "Tenants share what was computed of prompts that begin alike. That is faster, and cached_tokens then shows one tenant " +
    "what another sent; default false, where each tenant has its own.",
  Schema.Boolean
)

/** A GGUF file on llama.cpp. */
export const LlamaDeployment = Schema.Struct({
  engine: Schema.Literal("llama"),
  file: described("The GGUF file, relative to the configuration file's folder.", Schema.NonEmptyString),
  variants: optional(
    "The same model in other sizes: GGUF files to take instead when `file` does not fit the memory there is.",
    Schema.Array(Schema.NonEmptyString)
  ),
  contextSize,
  threads,
  gpu: optional(
    "Compute on a GPU: auto takes what there is, the others insist; default the CPU.",
    Schema.Literals(["auto", "metal", "cuda", "vulkan"])
  ),
  gpuLayers: optional(
    "Layers that the GPU computes; default as many as fit.",
    Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))
  ),
  flashAttention: optional(
    "Less memory for long windows, and often faster; false keeps every token of an earlier prompt that begins alike, " +
      "else whole pieces of 64; default where model and build can.",
    Schema.Boolean
  ),
  useMmap: optional("Map the file instead of reading it; default true.", Schema.Boolean),
  useMlock: optional("Keep the model from being swapped out; default false.", Schema.Boolean),
  kvCacheType: optional(
    "Type of the KV cache's entries, of which smaller ones save memory and need flashAttention; default f16.",
    Schema.Literals(["f32", "f16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"])
  ),
  sharePrefixes,
  ...shared
})

/** A folder with an ONNX model, its tokeniser and its configuration. */
export const OnnxDeployment = Schema.Struct({
  engine: Schema.Literal("onnx"),
  folder: described(
    "The folder (config.json, tokenizer.json, onnx/model.onnx), relative to the configuration file's.",
    Schema.NonEmptyString
  ),
  model: optional("The file within onnx/, without .onnx; default model.", Schema.NonEmptyString),
  device: optional(
    "Where to compute: cpu and wasm run everywhere, the others where the machine has one; default cpu, and wasm where " +
      "onnxruntime-node is missing.",
    Schema.Literals(["cpu", "wasm", "webgpu", "cuda"])
  ),
  contextSize,
  threads,
  sharePrefixes,
  ...shared
})

const Fault = Schema.Struct({
  kind: described(
    "error: the request fails. abort: the engine process aborts as native code would. hang: no token comes any more. " +
      "load, load-abort: loading fails, or aborts the process.",
    Schema.Literals(["error", "abort", "hang", "load", "load-abort"])
  ),
  afterTokens: optional("Tokens that come first; default 0.", Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))),
  trigger: optional("Only when the last message holds this text; default always.", Schema.NonEmptyString)
})

/** No weights: deterministic tokens, delays and faults, for tests and benches. */
export const FakeDeployment = Schema.Struct({
  engine: Schema.Literal("fake"),
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
  ...shared
})

/** A language model of `effect/ai` that the embedding program provides: see `services/engines/LanguageModels`. */
export const LanguageModelDeployment = Schema.Struct({
  engine: Schema.Literal("language-model"),
  name: described("The name by which the embedding program provides it.", Schema.NonEmptyString),
  contextSize: optional("Tokens that prompt and answer share, as its provider says; default not known.", Count),
  slots: optional("Requests that it is sent side by side; default 4.", Count),
  ...traits
})
export type LanguageModelDeployment = typeof LanguageModelDeployment.Type

/** How a deployment is served. */
export const DeploymentOptions = Schema.Union([
  LlamaDeployment,
  OnnxDeployment,
  FakeDeployment,
  LanguageModelDeployment,
  RemoteDeployment
])
export type DeploymentOptions = typeof DeploymentOptions.Type

/** One concrete way to serve a model. */
export interface Deployment {
  /** Unique: the model's name and the place in its list, as `tiny-chat#0`. */
  readonly id: string
  readonly model: string
  readonly options: DeploymentOptions
  readonly idleUnload: Duration.Duration
  /** The service loads it at start. */
  readonly preload: boolean
  /** It stays loaded, whoever else needs the memory. */
  readonly pinned: boolean
  /** Callers that may wait for it. */
  readonly queueLimit: number
  /** Its engine counts as hung when it gives no sign for so long. */
  readonly stallAfter: Duration.Duration
  /** A load that takes longer ends, and all that wait for it fail: `timeouts.load` of the model's policy. */
  readonly loadTimeout: Duration.Duration
}

/** A name to ask for, and who can answer. */
export interface Model {
  readonly name: string
  readonly deployments: readonly [Deployment, ...Array<Deployment>]
  /** Left out, by the policy `default` and without fallbacks. */
  readonly routing?: Routing
}

/** A loaded model that nobody uses is unloaded after this. */
export const defaultIdleUnload = Duration.minutes(10)

/** Requests that run side by side in one engine thread, unless configured. */
export const defaultSlots = 4

const providerNames: Readonly<Record<Provider, string>> = {
  openai: "openai",
  "azure-openai": "azure.ai.openai",
  anthropic: "anthropic",
  gemini: "gcp.gemini",
  ollama: "ollama",
  troupe: "troupe"
}

/**
 * Who serves a deployment, by OpenTelemetry's values of `gen_ai.provider.name` where it has one; engines of ours are
 * `troupe.llama` and the like.
 *
 * **Gotchas**
 *
 * A `provider` says which dialect is spoken: a host of its own that speaks OpenAI's is `openai` here.
 */
export const providerNameOf = ({ options }: Deployment): string =>
  options.engine === "remote" ? providerNames[options.provider] : `troupe.${options.engine}`
