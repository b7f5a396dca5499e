/** The settings of a remote deployment: a model that another host serves over HTTP. */
import { Schema } from "effect"
import { MaxConcurrent } from "./AdaptiveConcurrency.ts"
import { adaptiveConcurrency as adaptive } from "./Defaults.ts"
import { engineCapabilities } from "./EngineProtocol.ts"
import { Bytes, Count, described, optional, SpanOrOff, traits } from "./Fields.ts"
import type { ProviderKind } from "./ProviderKind.ts"
import { keyHeader, providerKindOf, providers } from "./ProviderKind.ts"

const Secret = Schema.RedactedFromValue(Schema.NonEmptyString, { disallowEncode: true })

const isPlainUrl = (text: string): boolean => {
  const url = URL.parse(text)
  return url !== null && /^https?:$/.test(url.protocol) && url.username === "" && url.search === "" && url.hash === ""
}

const Timeouts = Schema.Struct({
  connect: optional("Time to connect. Default 10 seconds.", SpanOrOff),
  idle: optional(
    "How long an unused connection stays open, at most as long as the provider announces. Set it below the time after " +
      "which a provider closes connections unannounced. Default 1 minute.",
    SpanOrOff
  ),
  firstByte: optional("From the request to the headers of a streamed answer. Default 1 minute.", SpanOrOff),
  firstToken: optional(
    "From the request to the first content or thought of a streamed answer. Default 2 minutes.",
    SpanOrOff
  ),
  stall: optional("Between two pieces of a body, without the time of a slow reader. Default 1 minute.", SpanOrOff),
  total: optional(
    "From the request to the end of the answer, with the time of a slow reader. Default 10 minutes.",
    SpanOrOff
  )
})

/** Several texts as one, the last after `and`. */
const listed = (texts: ReadonlyArray<string>): string =>
  texts.length < 2 ? texts.join("") : `${texts.slice(0, -1).join(", ")} and ${texts.at(-1)}`

const withField = <Field extends keyof ProviderKind>(field: Field) =>
  providers.flatMap((provider) => {
    const value = providerKindOf(provider)[field]
    return value === undefined ? [] : [{ provider, value }]
  })

const withoutUrl = providers.filter((provider) => providerKindOf(provider).baseUrl === undefined)

const localUrls = withField("baseUrl").filter(({ value }) => value.startsWith("http:"))

const versions = withField("apiVersion")

/** The schema of a remote deployment. */
export const RemoteDeployment = Schema.Struct({
  engine: described("Not written in a configuration: `provider` implies it.", Schema.Literal("remote")),
  provider: described(
    "The provider's API. openai: OpenAI and compatible hosts. troupe: another Troupe service.",
    Schema.Literals(providers)
  ),
  model: described("Name of the model at the provider; for azure-openai, of the deployment.", Schema.NonEmptyString),
  // The description is inside the check: a schema with a custom check loses its own.
  baseUrl: Schema.optionalKey(
    described(
      `Base URL of the API: with its path, such as /v1, for openai and troupe; without it for anthropic, gemini and ollama. Required for ${
        listed(withoutUrl)
      }. Default the provider's own, ${listed(localUrls.map(({ provider, value }) => `${value} for ${provider}`))}.`,
      Schema.String
    ).check(
      Schema.makeFilter((text: string) =>
        isPlainUrl(text) ? undefined : "Expected an http or https URL without credentials, query and fragment"
      )
    )
  ),
  key: optional("The key, as ${NAME}. Default none.", Secret),
  keys: optional(
    "Several keys instead of one, as [{ key: \"${NAME}\", weight: 2 }]. They are chosen by weight; a rate-limited or " +
      "rejected key is not used for a while. Default none.",
    Schema.NonEmptyArray(Schema.Struct({
      key: described("The key, as ${NAME}.", Secret),
      weight: optional(
        "Weight relative to the other keys. Default 1.",
        Schema.Finite.check(Schema.isGreaterThan(0))
      )
    }))
  ),
  headers: optional(
    "Additional headers of every request. They replace those of the dialect. Default none.",
    Schema.Record(Schema.String.check(Schema.isPattern(/^[\w!#$%&'*+.^`|~-]+$/)), Secret)
  ),
  organization: optional("The organization to bill, for openai. Default that of the key.", Schema.NonEmptyString),
  apiVersion: optional(
    `Version of the API, for ${listed(versions.map(({ provider }) => provider))}. Default ${
      listed(versions.map(({ value }) => value))
    }.`,
    Schema.NonEmptyString
  ),
  contextSize: optional(
    "Context window of prompt and answer, tokens. Default the published one of the model, else unknown.",
    Count
  ),
  ...traits,
  abilities: optional(
    "Capabilities to use. Requests that need another one go to other deployments. Default all that the API has.",
    Schema.Array(Schema.Literals(engineCapabilities))
  ),
  reasoning: optional(
    "Whether the model takes an effort or a budget of reasoning, which callers of other dialects ask for. Default by its " +
      "name, for models known to reason.",
    Schema.Boolean
  ),
  thoughts: optional(
    "For openai and azure-openai: the field of an assistant's message that takes the thoughts of an earlier answer back: " +
      "reasoning_content, reasoning or none. Default by the host: none for OpenAI, Azure, Mistral and Gemini, reasoning for " +
      "Groq, Cerebras and OpenRouter, otherwise reasoning_content.",
    Schema.Literals(["reasoning_content", "reasoning", "none"])
  ),
  responses: optional(
    `Whether the host has an endpoint of the Responses API, for ${
      listed(withField("responses").map(({ provider }) => provider))
    }: requests of that API go there as they are, and are translated for other deployments. Default true for OpenAI's own ` +
      "URL, otherwise false.",
    Schema.Boolean
  ),
  maxTokens: optional(
    `Maximum tokens of an answer when the request has no limit. Default the provider's own, for ${
      listed(withField("maxTokens").map(({ provider, value }) => `${provider} ${value.toLocaleString("en")}`))
    }.`,
    Count
  ),
  maxConcurrent: optional(
    "Maximum number of concurrent requests, or { adaptive: true, min, max, initial } for a limit that follows what is " +
      `measured, from min (default ${adaptive.min}) to max (default ${adaptive.max}), at first initial (default ${adaptive.initial}). ` +
      "Default 64.",
    MaxConcurrent
  ),
  stream: optional(
    "Whether to request streamed answers: true always, false never. Default as the caller requests, and always when " +
      "timeouts has firstByte, firstToken or stall.",
    Schema.Boolean
  ),
  timeouts: optional("Timeouts of an answer and of connections, false for no limit.", Timeouts),
  maxResponseBytes: optional("Maximum size of a response body, as 16 MiB or in bytes. Default 16 MiB.", Bytes)
}).check(Schema.makeFilter(({ baseUrl, key, keys, provider, responses }) => {
  if (key !== undefined && keys !== undefined) return { path: ["keys"], issue: "Expected key or keys, not both" }
  if (responses === true && providerKindOf(provider).responses === undefined) {
    return { path: ["responses"], issue: `Expected none: ${provider} has no Responses API` }
  }
  return baseUrl === undefined && withoutUrl.includes(provider)
    ? {
      path: ["baseUrl"],
      issue: `Expected the URL of the host, such as ${providerKindOf(provider).exampleUrl}: ${provider} has no default`
    }
    : undefined
}))
export type RemoteDeployment = typeof RemoteDeployment.Type

const withoutSlashes = (url: string | undefined): string | undefined => url?.replace(/\/+$/, "")

/** The URL and the key's header of a deployment. */
export const addressOf = ({ baseUrl, provider }: RemoteDeployment) => {
  const kind = providerKindOf(provider)
  return {
    /** Undefined where none is configured and the provider has none of its own. */
    baseUrl: withoutSlashes(baseUrl ?? kind.baseUrl),
    /** The provider's own; undefined where it has none. */
    defaultUrl: kind.baseUrl,
    /** Headers that a key goes into; names in lower case. */
    keyHeaders: Object.keys(keyHeader(kind, ""))
  }
}
