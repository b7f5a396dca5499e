/**
 * The providers: one record each with everything but its codec, which is in `dialects/<provider>` and has one line in
 * `layers/providers/Providers`. Pure data.
 */
import type { Ability } from "./EngineProtocol.ts"

/** Dialects of callers that providers have as well. */
export const dialects = ["openai", "anthropic"] as const
export type Dialect = typeof dialects[number]

/** What a configuration, the router and the connections need to know of a provider. */
export interface ProviderKind {
  /** OpenTelemetry's `gen_ai.provider.name`. */
  readonly name: string
  /** Where the API is unless configured, without a slash at its end; left out, it must be configured. */
  readonly baseUrl?: string
  /** A URL of such a host, for messages, where there is no `baseUrl`. */
  readonly exampleUrl?: string
  /** The header that a key goes into, in lower case, and what comes before the key. */
  readonly key: { readonly header: string; readonly prefix?: string }
  /** What its API has, whatever the model. */
  readonly capabilities: ReadonlyArray<Ability>
  /** Whether its API counts a prompt's tokens without giving them. */
  readonly counts?: boolean
  /** The dialect that callers speak as well; left out, it has one of its own. */
  readonly callerDialect?: Dialect
  /** The API's version unless configured; left out, it has none. */
  readonly apiVersion?: string
  /** Tokens of an answer whose limit nobody names, where the API needs one. */
  readonly maxTokens?: number
  /** It is another instance of this service: it passes fields on in its turn, and fetches images itself. */
  readonly isTroupe?: boolean
}

const openAiCapabilities = ["generate", "tools", "format", "logprobs", "embed", "images"] as const

const bearer = { header: "authorization", prefix: "Bearer " }

export const kinds = {
  openai: {
    name: "openai",
    baseUrl: "https://api.openai.com/v1",
    key: bearer,
    capabilities: openAiCapabilities,
    callerDialect: "openai"
  },
  "azure-openai": {
    name: "azure.ai.openai",
    exampleUrl: "https://name.openai.azure.com",
    key: { header: "api-key" },
    capabilities: openAiCapabilities,
    callerDialect: "openai",
    apiVersion: "2024-10-21"
  },
  anthropic: {
    name: "anthropic",
    baseUrl: "https://api.anthropic.com",
    key: { header: "x-api-key" },
    capabilities: ["generate", "tools", "format", "images"],
    counts: true,
    callerDialect: "anthropic",
    apiVersion: "2023-06-01",
    maxTokens: 4096
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
    capabilities: ["generate", "tools", "format", "embed", "images"]
  },
  troupe: {
    name: "troupe",
    exampleUrl: "http://127.0.0.1:3000/v1",
    key: bearer,
    capabilities: ["generate", "tools", "format", "logprobs", "embed", "rerank", "classify", "tokenize", "images"],
    callerDialect: "openai",
    isTroupe: true
  }
} as const satisfies Readonly<Record<string, ProviderKind>>

/** A provider's name in a configuration. */
export type Provider = keyof typeof kinds

export const providers = Object.keys(kinds) as ReadonlyArray<Provider>

export const providerKindOf = (provider: Provider): ProviderKind => kinds[provider]

/** The header with the key. */
export const keyHeader = ({ key: { header, prefix = "" } }: ProviderKind, key: string) => ({ [header]: prefix + key })
