/** The reasons of exchanges that fail on the network. */
import { malformed } from "../../dialects/shared/ErrorMapping.ts"
import type { Target } from "../../dialects/shared/ProviderDialect.ts"
import * as InferenceError from "../../domain/InferenceError.ts"
import { Undecodable } from "./Decompression.ts"

const codeOf = (error: NodeJS.ErrnoException & { readonly errors?: unknown }): string => {
  // A host with several addresses has an error for each.
  const inner = Array.isArray(error.errors) ? error.errors[0] as NodeJS.ErrnoException : error
  return inner.code ?? inner.name
}

/** The code of the operating system; codes of the HTTP client mean nothing to callers. */
const shown = (code: string): string => code.startsWith("UND_ERR_") ? "" : ` (${code})`

/** Why the connection could not be established. */
const unconnected = (error: NodeJS.ErrnoException & { readonly hostname?: string }, code: string): string => {
  const status = /^Proxy response \((\d+)\)|^Proxy Authentication Required \((407)\)/.exec(error.message)
  if (status !== null) {
    return `the proxy refused the connection (${status[1] ?? status[2]}). Check HTTPS_PROXY, HTTP_PROXY and NO_PROXY.`
  }
  if (code === "ENOTFOUND" || code === "EAI_AGAIN") {
    return `could not resolve host \`${error.hostname ?? ""}\` (${code}). Check the name and the network.`
  }
  return code === "ECONNREFUSED"
    ? `the connection was refused (${code}). Check that the provider runs at \`baseUrl\`.`
    : `the connection failed${shown(code)}.`
}

/**
 * The reason of a network error.
 *
 * @param connectMs the limit for a connection
 * @param begun whether the response has begun
 */
export const broken = (
  target: Target,
  connectMs: number,
  error: Error,
  begun: boolean
): InferenceError.Reason => {
  if (error instanceof Undecodable) return malformed(target, error.message)
  const { deployment } = target
  const code = codeOf(error)
  if (code === "UND_ERR_CONNECT_TIMEOUT") {
    return new InferenceError.UpstreamTimeout({ deployment, phase: "connect", afterMs: connectMs })
  }
  if (code === "UND_ERR_HEADERS_OVERFLOW") {
    return new InferenceError.UpstreamFailed({
      deployment,
      kind: "too_large",
      detail: "its response headers are too large."
    })
  }
  if (code.startsWith("HPE_")) {
    return new InferenceError.UpstreamFailed({
      deployment,
      kind: "malformed",
      detail: `it did not answer with HTTP (${code}). Check \`baseUrl\`.`
    })
  }
  return begun
    ? new InferenceError.UpstreamFailed({
      deployment,
      kind: "cut",
      detail: `the connection closed during the response${shown(code)}.`
    })
    : new InferenceError.UpstreamFailed({ deployment, kind: "network", detail: unconnected(error, code) })
}

export const tooLarge = ({ deployment }: Target, bytes: number): InferenceError.InferenceError =>
  InferenceError.make(
    new InferenceError.UpstreamFailed({
      deployment,
      kind: "too_large",
      detail: `the response exceeds ${bytes} bytes (\`maxResponseBytes\`).`
    })
  )
