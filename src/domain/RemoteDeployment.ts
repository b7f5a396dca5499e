/** A deployment that another host serves, and what a configuration says of it. */
import { Schema } from "effect"
import { abilities } from "./EngineProtocol.ts"
import { Bytes, Count, described, optional, SpanOrOff, traits } from "./Fields.ts"

/** The dialects that remote deployments speak. */
export const providers = ["openai", "azure-openai", "anthropic", "gemini", "ollama", "troupe"] as const
export type Provider = typeof providers[number]

const Secret = Schema.RedactedFromValue(Schema.NonEmptyString, { disallowEncode: true })

const isPlainUrl = (text: string): boolean => {
  const url = URL.parse(text)
  return url !== null && /^https?:$/.test(url.protocol) && url.username === "" && url.search === "" && url.hash === ""
}

const Timeouts = Schema.Struct({
  connect: optional("Until the connection stands; default 10 seconds.", SpanOrOff),
  firstByte: optional("From the request to the headers of an answer that is streamed; default 1 minute.", SpanOrOff),
  firstToken: optional(
    "From the request to the first content, or thought, of an answer that is streamed; default 2 minutes.",
    SpanOrOff
  ),
  stall: optional("Between two pieces of a body, while somebody waits for the next; default 1 minute.", SpanOrOff),
  total: optional("From the request to the answer's end, slow readers and all; default 10 minutes.", SpanOrOff)
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
  // Words of what is checked by a function of ours would be lost: they stand before it.
  baseUrl: Schema.optionalKey(
    described(
      "Where it is, with the path that all of its paths begin with; default the provider's own, " +
        "http://127.0.0.1:11434 for ollama; azure-openai and troupe have none.",
      Schema.String
    ).check(
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
    "What the model can do, of what its provider's API can; requests that need more go elsewhere. Default all of that.",
    Schema.Array(Schema.Literals(abilities))
  ),
  maxTokens: optional(
    "The most tokens of an answer whose caller names no limit; default the provider's own, for anthropic 4,096.",
    Count
  ),
  maxConcurrent: optional("Requests that it is sent side by side; default 64.", Count),
  stream: optional(
    "Whether to have answers streamed: true always, false never, for a host that cannot; default as the caller has them, " +
      "or always where timeouts has firstByte, firstToken or stall.",
    Schema.Boolean
  ),
  timeouts: optional("How long the parts of an answer may take, false for no limit.", Timeouts),
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
