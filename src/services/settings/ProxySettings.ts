/**
 * Proxies by `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`. Pure.
 *
 * **Details**
 *
 * Names in lower case take precedence, as in curl. `HTTPS_PROXY` applies to https URLs, `HTTP_PROXY` to http URLs.
 * `NO_PROXY` is a list of hosts, suffixes (`.example.com`, `*.example.com`) and IPv4 ranges (`10.0.0.0/8`), each with or
 * without a port; `*` means every host. Loopback addresses never use a proxy.
 */
import type { Problem } from "../../domain/Problem.ts"
import { hostOf } from "../../domain/PublicAddress.ts"

export type Environment = Readonly<Record<string, string | undefined>>

const variables = { "http:": "HTTP_PROXY", "https:": "HTTPS_PROXY" } as const

const schemes = new Set(["http:", "https:", "socks5:", "socks:"])

/** The variable that is set, in lower or upper case, and its value. */
const found = (env: Environment, name: string): readonly [name: string, value: string] | undefined => {
  for (const one of [name.toLowerCase(), name]) {
    const value = env[one]?.trim() ?? ""
    if (value !== "") return [one, value]
  }
  return undefined
}

/** A proxy's URL; a host without a scheme is an HTTP proxy. */
const parse = (value: string): URL | undefined => {
  const url = URL.parse(value.includes("://") ? value : `http://${value}`)
  return url !== null && schemes.has(url.protocol) && url.hostname !== "" ? url : undefined
}

/** Problems of the variables, by name. Never contains a value, which may have a password. */
export const problemsOf = (env: Environment): ReadonlyArray<Problem> =>
  Object.values(variables).flatMap((variable) => {
    const [name, value] = found(env, variable) ?? []
    return name === undefined || value === undefined || parse(value) !== undefined ? [] : [{
      path: name,
      expected: "Expected a proxy URL with the scheme http, https or socks5, such as http://proxy.example:3128"
    }]
  })

/** Whether a host is a loopback address. */
const isLoopback = (host: string): boolean =>
  host === "localhost" || host.endsWith(".localhost") || host === "::1" || /^127\.\d+\.\d+\.\d+$/.test(host)

const ipv4 = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/

const numberOf = (address: string): number | undefined => {
  const parts = ipv4.exec(address)?.slice(1).map(Number)
  return parts === undefined || parts.some((part) => part > 255)
    ? undefined
    : parts.reduce((sum, part) => sum * 256 + part, 0)
}

/** Whether an address is in a range such as `10.0.0.0/8`. */
const isInRange = (host: string, range: string): boolean => {
  const [network = "", bits = ""] = range.split("/")
  const [address, start] = [numberOf(host), numberOf(network)]
  if (address === undefined || start === undefined || !/^\d{1,2}$/.test(bits) || Number(bits) > 32) return false
  const size = 2 ** (32 - Number(bits))
  return Math.floor(address / size) === Math.floor(start / size)
}

/** `host`, `host:port` and `[::1]:port`. */
const split = (entry: string): readonly [host: string, port: string] => {
  const [, bracketed, host, port] = /^(?:\[([^\]]*)\]|([^:]*))(?::(\d+))?$/.exec(entry) ?? []
  return [bracketed ?? host ?? entry, port ?? ""]
}

const excludes = (entry: string, host: string, port: string): boolean => {
  if (entry === "*") return true
  const [name, its] = split(entry.toLowerCase())
  if (its !== "" && its !== port) return false
  if (name.includes("/")) return isInRange(host, name)
  if (name === "*") return true
  const suffix = name.replace(/^\*?\./, "").replace(/\.$/, "")
  return suffix !== "" && ((!name.startsWith("*") && host === suffix) || host.endsWith(`.${suffix}`))
}

/** Whether any proxy is configured. */
export const isUsed = (env: Environment): boolean =>
  Object.values(variables).some((name) => found(env, name) !== undefined)

const ports = { "http:": "80", "https:": "443" } as const

/** Whether `NO_PROXY` lists a host. */
const isListed = (host: string, port: string, env: Environment): boolean => {
  const [, list = ""] = found(env, "NO_PROXY") ?? []
  return list.split(/[\s,]+/).some((entry) => entry !== "" && excludes(entry, host, port))
}

/**
 * The URL of the proxy for a URL; undefined for a direct connection.
 *
 * @param url http or https
 */
export const proxyFor = (url: string, env: Environment): string | undefined => {
  const target = new URL(url)
  if (target.protocol !== "http:" && target.protocol !== "https:") return undefined
  const [, value] = found(env, variables[target.protocol]) ?? []
  const host = hostOf(target)
  if (value === undefined || isLoopback(host)) return undefined
  return isListed(host, target.port || ports[target.protocol], env) ? undefined : parse(value)?.href
}
