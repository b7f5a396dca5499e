/**
 * The providers: one record each with everything except its codec, which is in `dialects/<provider>` and has one line in
 * `layers/providers/Providers`. Pure data.
 */
import type { Deployment } from "./Deployment.ts"
import type { EngineCapability } from "./EngineProtocol.ts"
import { engineCapabilities } from "./EngineProtocol.ts"

/** Dialects of callers that providers use too. */
export const dialects = ["openai", "anthropic", "ollama"] as const
export type Dialect = typeof dialects[number]

/** What configuration, routing and connections need of a provider. */
export interface ProviderKind {
  /** OpenTelemetry's `gen_ai.provider.name`. */
  readonly name: string
  /** The API's URL unless configured, without a slash at its end; if left out, it must be configured. */
  readonly baseUrl?: string
  /** An example of a URL for messages, if there is no `baseUrl`. */
  readonly exampleUrl?: string
  /** The header for the key, in lower case, and the text before the key. */
  readonly key: { readonly header: string; readonly prefix?: string }
  /** What its API supports, whatever the model. */
  readonly capabilities: ReadonlyArray<EngineCapability>
  /** Whether its API counts a prompt's tokens without returning them. */
  readonly canCountTokens?: boolean
  /** The dialect of callers that its API uses; if left out, it has its own. */
  readonly callerDialect?: Dialect
  /** The path of its Responses API; left out, it has none. */
  readonly responses?: string
  /** The URLs of the provider itself, where other hosts have the same API; left out, it has none of its own. */
  readonly ownUrls?: RegExp
  /** The API's version unless configured; if left out, it has none. */
  readonly apiVersion?: string
  /** The limit of an answer's tokens unless the request has one, for APIs that require it. */
  readonly maxTokens?: number
  /** It signs the reasoning of its answers, and reads it again in the messages of later requests. */
  readonly signsReasoning?: boolean
  /** Models that read an assistant's last message as the beginning of their answer; left out, none. */
  readonly prefixModels?: RegExp
  /** It is another instance of Troupe: it passes unknown fields on, and fetches images itself. */
  readonly isTroupe?: boolean
}

const openAiCapabilities = [
  "generate",
  "complete",
  "tools",
  "format",
  "logprobs",
  "echo",
  "embed",
  "embedTokens",
  "images"
] as const

const ollamaCapabilities = openAiCapabilities.filter((one) => one !== "echo" && one !== "embedTokens")

/** Later models reject an assistant's last message. */
const anthropicPrefixModels = /^claude-(?:2|3|instant|(?:opus|sonnet|haiku)-4(?:-[015])?(?:-20\d{6})?$)/

const allModels = /^/

const bearer = { header: "authorization", prefix: "Bearer " }

export const kinds = {
  openai: {
    name: "openai",
    baseUrl: "https://api.openai.com/v1",
    key: bearer,
    capabilities: openAiCapabilities,
    callerDialect: "openai",
    responses: "/responses",
    // Also those of its regions.
    ownUrls: /^https:\/\/(?:\w+\.)?api\.openai\.com(?:[:/]|$)/i
  },
  "azure-openai": {
    name: "azure.ai.openai",
    exampleUrl: "https://name.openai.azure.com",
    key: { header: "api-key" },
    capabilities: openAiCapabilities,
    callerDialect: "openai",
    responses: "/openai/v1/responses",
    apiVersion: "2024-10-21"
  },
  anthropic: {
    name: "anthropic",
    baseUrl: "https://api.anthropic.com",
    key: { header: "x-api-key" },
    capabilities: ["generate", "tools", "format", "images"],
    canCountTokens: true,
    callerDialect: "anthropic",
    apiVersion: "2023-06-01",
    maxTokens: 4096,
    signsReasoning: true,
    prefixModels: anthropicPrefixModels
  },
  gemini: {
    name: "gcp.gemini",
    baseUrl: "https://generativelanguage.googleapis.com",
    key: { header: "x-goog-api-key" },
    capabilities: ["generate", "tools", "format", "embed", "images"],
    apiVersion: "v1beta"
  },
  ollama: {
    name: "ollama",
    baseUrl: "http://127.0.0.1:11434",
    key: bearer,
    capabilities: ollamaCapabilities,
    callerDialect: "ollama",
    prefixModels: allModels
  },
  troupe: {
    name: "troupe",
    exampleUrl: "http://127.0.0.1:3000/v1",
    key: bearer,
    capabilities: engineCapabilities,
    callerDialect: "openai",
    responses: "/responses",
    prefixModels: allModels,
    isTroupe: true
  }
} as const satisfies Readonly<Record<string, ProviderKind>>

/** A provider's name in a configuration. */
export type Provider = keyof typeof kinds

export const providers = Object.keys(kinds) as ReadonlyArray<Provider>

export const providerKindOf = (provider: Provider): ProviderKind => kinds[provider]

/** The header with the key. */
export const keyHeader = ({ key: { header, prefix = "" } }: ProviderKind, key: string) => ({ [header]: prefix + key })

/**
 * The provider of a deployment: the value of OpenTelemetry's `gen_ai.provider.name` if it has one; `troupe.llama` and the
 * like for local engines.
 *
 * **Gotchas**
 *
 * A `provider` is a dialect: another host with OpenAI's dialect is `openai` here.
 */
export const providerNameOf = ({ options }: Deployment): string =>
  options.provider === undefined ? `troupe.${options.engine}` : kinds[options.provider].name
