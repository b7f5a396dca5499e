/** The failures of a scripted engine's job, by name. */
import type { Reason } from "../../../src/domain/InferenceError.ts"
import * as InferenceError from "../../../src/domain/InferenceError.ts"

const upstream =
  (kind: InferenceError.UpstreamFailed["kind"], more: { status?: number; retryAfterMs?: number } = {}) =>
  (deployment: string) => new InferenceError.UpstreamFailed({ deployment, kind, detail: "Scripted failure.", ...more })

const makers = {
  limited: (deployment) => new InferenceError.RateLimited({ deployment }),
  "limited 300": (deployment) => new InferenceError.RateLimited({ deployment, retryAfterMs: 300 }),
  "limited 20000": (deployment) => new InferenceError.RateLimited({ deployment, retryAfterMs: 20_000 }),
  network: upstream("network"),
  cut: upstream("cut"),
  empty: upstream("empty"),
  malformed: upstream("malformed"),
  "status 400": upstream("status", { status: 400 }),
  "status 401": upstream("status", { status: 401 }),
  "status 404": upstream("status", { status: 404 }),
  "status 429": upstream("status", { status: 429, retryAfterMs: 150 }),
  "status 500": upstream("status", { status: 500 }),
  "status 503": upstream("status", { status: 503 }),
  "status 503, 400": upstream("status", { status: 503, retryAfterMs: 400 }),
  timeout: (deployment) => new InferenceError.UpstreamTimeout({ deployment, phase: "first_token", afterMs: 1 }),
  authentication: (deployment) => new InferenceError.AuthenticationFailed({ deployment }),
  content: (deployment) => new InferenceError.ContentRefused({ deployment, detail: "Scripted failure." }),
  "too long": (deployment) =>
    new InferenceError.ContextLengthExceeded({ model: deployment, promptTokens: 5_000, contextWindow: 4_096 }),
  "no room": (deployment) =>
    new InferenceError.ContextLengthExceeded({ model: deployment, promptTokens: 4_000, contextWindow: 4_096 }),
  unsupported: (deployment) =>
    new InferenceError.NotSupported({ deployment, path: "logprobs", detail: "Scripted failure." }),
  invalid: () => new InferenceError.InvalidRequest({ detail: "Scripted failure." }),
  failed: (deployment) => new InferenceError.EngineFailed({ deployment, detail: "Scripted failure." })
} as const satisfies Record<string, (deployment: string) => Reason>

export type Name = keyof typeof makers

export const names = Object.keys(makers) as ReadonlyArray<Name>

const isName = (name: string): name is Name => name in makers

/** The reason of this name; any other text is an engine failure with this message. */
export const reasonOf = (deployment: string, name: string): Reason =>
  isName(name) ? makers[name](deployment) : new InferenceError.EngineFailed({ deployment, detail: name })
