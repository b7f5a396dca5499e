/** A deployment that another host serves, and what a configuration says of it. */
import { Schema } from "effect"
import { abilities } from "./EngineProtocol.ts"
import { Bytes, Count, described, optional, SpanOrOff, traits } from "./Fields.ts"
import type { ProviderKind } from "./ProviderKind.ts"
import { keyHeader, providerKindOf, providers } from "./ProviderKind.ts"

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
        `${listed(localUrls.map(({ provider, value }) => `${value} for ${provider}`))}; ${
          listed(withoutUrl)
        } have none.`,
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
    `The dialect's version, for ${listed(versions.map(({ provider }) => provider))}; ` +
      `default ${listed(versions.map(({ value }) => value))}.`,
    Schema.NonEmptyString
  ),
  contextSize: optional("Tokens that prompt and answer share, as the provider says; default not known.", Count),
  ...traits,
  abilities: optional(
    "What the model can do, of what its provider's API can; requests that need more go elsewhere. Default all of that.",
    Schema.Array(Schema.Literals(abilities))
  ),
  maxTokens: optional(
    "The most tokens of an answer whose caller names no limit; default the provider's own, " +
      `${
        listed(withField("maxTokens").map(({ provider, value }) => `for ${provider} ${value.toLocaleString("en")}`))
      }.`,
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
  return baseUrl === undefined && withoutUrl.includes(provider)
    ? {
      path: ["baseUrl"],
      issue: `Expected the URL of the host, as ${providerKindOf(provider).exampleUrl}: ${provider} has none of its own`
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
