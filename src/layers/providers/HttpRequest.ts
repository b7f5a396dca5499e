/** Requests to a provider as they are sent: the address, the headers with a key, and the body. */
import type * as Undici from "@effect/platform-node/Undici"
import { Redacted } from "effect"
import type { Call, Dialect, Target } from "../../dialects/shared/ProviderDialect.ts"
import * as Caller from "../../domain/Caller.ts"
import { keyHeader, providerKindOf } from "../../domain/ProviderKind.ts"
import * as Text from "../../domain/Text.ts"
import type * as Connection from "./Connection.ts"
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
  return (call: Call, wanted: Media, held: Held, hops: number): Connection.Request => {
    const isUsual = kind.isTroupe !== true && !hasFields(call.headers)
    return {
      ...placeOf(call.path),
      headers: isUsual ? usualHeaders(call, wanted, held) : headersOf(call, wanted, held, hops),
      body: JSON.stringify(call.body)
    }
  }
}

const hasFields = (headers: Call["headers"] = {}): boolean => {
  for (const _ in headers) return true
  return false
}
