/**
 * A model, which is the name a caller asks for, and its deployments, which are concrete ways to serve it. Plain data.
 */
import { ByteSize, Duration, Option, Schema, SchemaTransformation } from "effect"
import { abilities } from "./EngineProtocol.ts"
import * as GoDuration from "./GoDuration.ts"
import type { Routing } from "./Policy.ts"

/** A field with words that editors show: see `SettingsSchema.fileJsonSchema`. */
export const described = <S extends Schema.Top>(description: string, schema: S): S["Rebuild"] =>
  schema.annotate({ description })

/** The same for a field that may be left out. */
export const optional = <S extends Schema.Top>(description: string, schema: S) =>
  Schema.optionalKey(described(description, schema))

const Count = Schema.Int.check(Schema.isGreaterThanOrEqualTo(1))
const Milliseconds = Schema.Finite.check(Schema.isGreaterThanOrEqualTo(0))

const words = /^(\d+(?:\.\d+)?)\s*((?:milli|millisecond|second|minute|hour|day|week)s?)$/
const spaced = /^\d+(?:\.\d+)?\s+(?:ms|[smh])$/
const spanExpected = "a span of time with its unit, as 500 ms, 10 minutes or 1h30m"
const spanText = new RegExp(`${words.source}|${spaced.source}|^(?!-)(?:${GoDuration.pattern.source})`)

const spanOf = (text: string): Duration.Duration => {
  const [, number, unit] = words.exec(text) ?? []
  return unit === undefined
    ? Duration.millis(GoDuration.toMillis(text.replaceAll(/\s/g, "")))
    : Duration.fromInputUnsafe(`${number} ${unit.startsWith("milli") ? "millis" : unit}` as Duration.Input)
}

/**
 * Words for a span of time, as `10 minutes`, or as Go writes it, `1h30m`. Of bare numbers only 0 is taken: others count
 * seconds elsewhere, and milliseconds in programs.
 */
export const Span = Schema.Union([
  Schema.String.check(
    Schema.isMaxLength(100),
    Schema.isPattern(spanText, { message: `Expected ${spanExpected}` })
  ),
  Schema.Literal(0)
]).annotate({ expected: spanExpected }).pipe(
  Schema.decodeTo(
    Schema.Duration,
    SchemaTransformation.transform({
      decode: (given) => given === 0 ? Duration.zero : spanOf(given),
      encode: (span) => `${Duration.toMillis(span)} millis`
    })
  )
)

/** Words for an amount of memory, as `8 GiB`; also a number of bytes. */
export const Bytes = Schema.Union([
  Schema.String.check(
    Schema.makeFilter((text: string) =>
      Option.isSome(ByteSize.fromInput(text as ByteSize.Input))
        ? undefined
        : "Expected an amount of memory, as 8 GiB, or a number of bytes"
    )
  ).pipe(
    Schema.decodeTo(
      Count,
      SchemaTransformation.transform({
        decode: (text) => Number(ByteSize.fromInputUnsafe(text as ByteSize.Input)),
        encode: (bytes) => `${bytes} B`
      })
    )
  ),
  Count
])

const Share = Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 1 }))
const AtLeastNothing = Schema.Finite.check(Schema.isGreaterThanOrEqualTo(0))

/** What the router is told of a deployment, since nothing measures it; what is left out is not known. */
export const traits = {
  price: optional(
    "USD per million tokens; default nothing for what runs here, else what is known of the model.",
    Schema.Struct({
      input: described("Of the prompt, USD per million tokens.", AtLeastNothing),
      output: described("Of the answer, USD per million tokens.", AtLeastNothing)
    })
  ),
  quality: optional("How good its answers are, from 0 to 1; default not known.", Share),
  abilities: optional(
    "All that it can do; default not known, and then nothing is ruled out.",
    Schema.Array(Schema.Literals(abilities))
  ),
  tasks: optional(
    "What it is good at, in words that requests name too; default not known.",
    Schema.Array(Schema.NonEmptyString)
  ),
  weight: optional("Its share of requests beside the others', for weighted and session; default 1.", AtLeastNothing)
}

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
      "else whole pieces of 128; default where model and build can.",
    Schema.Boolean
  ),
  useMmap: optional("Map the file instead of reading it; default true.", Schema.Boolean),
  useMlock: optional("Keep the model from being swapped out; default false.", Schema.Boolean),
  kvCacheType: optional(
    "Type of the KV cache's entries, of which smaller ones save memory and need flashAttention; default f16.",
    Schema.Literals(["f32", "f16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"])
  ),
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

/** A language model of `effect/ai` that the embedding program provides: see `services/LanguageModels`. */
export const LanguageModelDeployment = Schema.Struct({
  engine: Schema.Literal("language-model"),
  name: described("The name by which the embedding program provides it.", Schema.NonEmptyString),
  contextSize: optional("Tokens that prompt and answer share, as its provider says; default not known.", Count),
  slots: optional("Requests that it is sent side by side; default 4.", Count),
  ...traits
})
export type LanguageModelDeployment = typeof LanguageModelDeployment.Type

/** The dialects that remote deployments speak. */
export const providers = ["openai", "azure-openai", "anthropic", "gemini", "ollama", "troupe"] as const
export type Provider = typeof providers[number]

const Secret = Schema.RedactedFromValue(Schema.NonEmptyString, { disallowEncode: true })

const isPlainUrl = (text: string): boolean => {
  const url = URL.parse(text)
  return url !== null && /^https?:$/.test(url.protocol) && url.username === "" && url.search === "" && url.hash === ""
}

const Timeouts = Schema.Struct({
  connect: optional("Until the connection stands; default 10 seconds.", Span),
  firstByte: optional("From the request to the headers of an answer that is streamed; default 1 minute.", Span),
  firstToken: optional(
    "From the request to the first content of an answer that is streamed; thoughts are no content; default 2 minutes.",
    Span
  ),
  stall: optional("Between two pieces of a body, while somebody waits for the next; default 1 minute.", Span),
  total: optional("From the request to the answer's end, slow readers and all; default 10 minutes.", Span)
})

/** How the URLs look of providers that have none of their own. */
const baseUrls = { "azure-openai": "as https://name.openai.azure.com", troupe: "as http://127.0.0.1:3000/v1" }

/** A model that another host serves, over HTTP. */
export const RemoteDeployment = Schema.Struct({
  engine: described("Left out in a configuration file, where `provider` says it.", Schema.Literal("remote")),
  provider: described(
    "The dialect that is spoken. openai: that host, and all that speak its chat completions. troupe: another instance " +
      "of this one.",
    Schema.Literals(providers)
  ),
  model: described("The model's name there; for azure-openai the deployment's.", Schema.NonEmptyString),
  baseUrl: optional(
    "Where it is, with the path that all of its paths begin with; default the provider's own, " +
      "http://127.0.0.1:11434 for ollama; azure-openai and troupe have none.",
    Schema.String.check(
      Schema.makeFilter((text: string) =>
        isPlainUrl(text) ? undefined : "Expected an http or https URL without credentials, query and fragment"
      )
    )
  ),
  key: optional("The key, as ${NAME}; default none.", Secret),
  keys: optional(
    "Several keys in the place of one: chosen by weight, rotated when one is limited or refused.",
    Schema.NonEmptyArray(Schema.Struct({
      key: described("The key, as ${NAME}.", Secret),
      weight: optional(
        "Its share beside the others' weights; default 1.",
        Schema.Finite.check(Schema.isGreaterThan(0))
      )
    }))
  ),
  headers: optional(
    "More headers of every request, over those of the dialect; default none.",
    Schema.Record(Schema.String.check(Schema.isPattern(/^[\w!#$%&'*+.^`|~-]+$/)), Secret)
  ),
  organization: optional("The organisation that pays, for openai; default the key's own.", Schema.NonEmptyString),
  apiVersion: optional(
    "The dialect's version, for azure-openai, anthropic and gemini; default 2024-10-21, 2023-06-01 and v1beta.",
    Schema.NonEmptyString
  ),
  contextSize: optional("Tokens that prompt and answer share, as the provider says; default not known.", Count),
  ...traits,
  abilities: optional(
    "What the model can do; default all that the dialect has words for.",
    Schema.Array(Schema.Literals(abilities))
  ),
  maxTokens: optional(
    "The most tokens of an answer whose caller names no limit; default the provider's own, for anthropic 4,096.",
    Count
  ),
  maxConcurrent: optional("Requests that it is sent side by side; default 64.", Count),
  stream: optional(
    "Whether to have answers streamed; false for a host that cannot, whose answers then come as one piece; default true.",
    Schema.Boolean
  ),
  timeouts: optional("How long the parts of an answer may take.", Timeouts),
  maxResponseBytes: optional("The largest body that is taken, as 16 MiB or in bytes; default 16 MiB.", Bytes)
}).check(Schema.makeFilter(({ baseUrl, key, keys, provider }) => {
  if (key !== undefined && keys !== undefined) return { path: ["keys"], issue: "Expected key or keys, not both" }
  return baseUrl === undefined && (provider === "azure-openai" || provider === "troupe")
    ? {
      path: ["baseUrl"],
      issue: `Expected the URL of the host, ${baseUrls[provider]}: ${provider} has none of its own`
    }
    : undefined
}))
export type RemoteDeployment = typeof RemoteDeployment.Type

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
