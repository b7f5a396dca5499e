/** Requests to a provider as they are sent: the address, the headers with a key, and the body; and the heads of responses. */
import type * as Undici from "@effect/platform-node/Undici"
import { Redacted } from "effect"
import { brief, malformed } from "../../dialects/shared/ErrorMapping.ts"
import type { Call, Dialect, Target } from "../../dialects/shared/ProviderDialect.ts"
import * as Caller from "../../domain/Caller.ts"
import { keyHeader, providerKindOf } from "../../domain/ProviderKind.ts"
import * as Text from "../../domain/Text.ts"
import type { Meter } from "../../services/engines/Engine.ts"
import * as Connection from "./Connection.ts"
import * as Decompression from "./Decompression.ts"
import type { DeploymentKeys, Held } from "./DeploymentKeys.ts"

/** The media type of a response. */
export type Media = "json" | Dialect["framing"]

/** The state that one deployment's exchanges share. */
export interface Options {
  readonly target: Target
  readonly dialect: Dialect
  readonly dispatcher: Undici.Dispatcher
  readonly keys: DeploymentKeys
  readonly baseUrl: string
}

export const mediaTypes: Readonly<Record<Media, ReadonlyArray<string>>> = {
  json: ["application/json"],
  sse: ["text/event-stream"],
  ndjson: ["application/x-ndjson", "application/ndjson", "application/jsonl"]
}

/** Remembers the results of a function of a text; texts from configuration only, of which there are few. */
const remembered = <A>(make: (text: string) => A): (text: string) => A => {
  const known = new Map<string, A>()
  return (text) => {
    const found = known.get(text)
    if (found !== undefined) return found
    const made = make(text)
    if (known.size < mostRemembered) known.set(text, made)
    return made
  }
}

const mostRemembered = 64

/** Writes the requests of a deployment. */
export const makeWriter = ({ baseUrl, target }: Options) => {
  const own = Object.entries(target.options.headers ?? {})
    .map(([name, value]) => [name.toLowerCase(), Text.trimValue(Redacted.value(value))] as const)
  const kind = providerKindOf(target.options.provider)
  const placeOf = remembered((path) => {
    const { origin, pathname, search } = new URL(`${baseUrl}${path}`)
    return { origin, path: pathname + search }
  })
  const headersOf = (call: Call, wanted: Media, { key }: Held, hops: number): ReadonlyArray<string> =>
    Object.entries({
      accept: mediaTypes[wanted][0]!,
      "accept-encoding": "identity",
      "user-agent": "troupe",
      ...call.headers,
      ...(key === undefined ? {} : keyHeader(kind, Redacted.value(key))),
      ...(kind.isTroupe === true ? { [Caller.hopHeader]: String(hops + 1) } : {}),
      ...Object.fromEntries(own),
      "content-type": "application/json"
    }).flat()
  /** Of calls without headers of their own, by key and media type. */
  const usual: Array<Partial<Record<Media, ReadonlyArray<string>>>> = []
  const usualHeaders = (call: Call, wanted: Media, held: Held): ReadonlyArray<string> => {
    const ofKey = usual[held.index] ??= {}
    return ofKey[wanted] ??= headersOf(call, wanted, held, 0)
  }
  return (call: Call, wanted: Media, held: Held, hops: number, trace?: Meter["trace"]): Connection.Request => {
    const isUsual = kind.isTroupe !== true && !hasFields(call.headers)
    const headers = isUsual ? usualHeaders(call, wanted, held) : headersOf(call, wanted, held, hops)
    return {
      ...placeOf(call.path),
      headers: trace === undefined ? headers : [...headers, ...trace.headers()],
      body: typeof call.body === "string" ? call.body : JSON.stringify(call.body)
    }
  }
}

const hasFields = (headers: Call["headers"] = {}): boolean => {
  for (const _ in headers) return true
  return false
}

export const isSuccess = ({ status }: Connection.Head): boolean => status >= 200 && status < 300

/** The media type in lower case, without parameters. */
export const mediaTypeOf = (head: Connection.Head): string | undefined => {
  const type = Connection.headerOf(head, "content-type")
  return type === undefined || isUsualType.test(type) ? type : type.split(";")[0]?.trim().toLowerCase()
}

const isUsualType = /^[a-z/-]+$/

export const isJson = (type = ""): boolean => /^(?:application|text)\/(?:[\w.-]+\+)?json$/.test(type)

/** Whether the body is compressed, although `identity` is requested. */
export const isEncoded = (encoding: string | undefined): encoding is string =>
  encoding !== undefined && encoding !== "identity"

/** The problem with the headers of a success; undefined if there is none. */
export const wrongHeaders = (target: Target, head: Connection.Head, wanted: Media, type: string | undefined) => {
  if (type === undefined) return malformed(target, "no content type")
  if (!mediaTypes[wanted].includes(type) && !isJson(type)) {
    return malformed(target, `content type \`${brief(type)}\` instead of \`${mediaTypes[wanted][0]}\``)
  }
  const encoding = Connection.headerOf(head, "content-encoding")
  return isEncoded(encoding) && !Decompression.isKnown(encoding)
    ? malformed(target, `unknown content encoding "${brief(encoding)}"`)
    : undefined
}

/** Whether a receiver can follow the response: a success that is not compressed, of the wanted media type. */
export const isReadable = (head: Connection.Head, wanted: Media): boolean => {
  const type = mediaTypeOf(head)
  if (type === undefined || !isSuccess(head) || isEncoded(Connection.headerOf(head, "content-encoding"))) return false
  return wanted === "json" ? isJson(type) : mediaTypes[wanted].includes(type)
}
