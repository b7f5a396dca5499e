/** Maps reasons to the errors of `effect/ai`. */
import { Duration, Schema } from "effect"
import { AiError } from "effect/ai"
import type { InferenceError } from "../../domain/InferenceError.ts"
import { Reason } from "../../domain/InferenceError.ts"

export const failWith = (method: string, reason: AiError.AiErrorReason): AiError.AiError =>
  AiError.make({ module: "Troupe", method, reason })

/** The caller's mistake. */
export const invalid = (method: string, description: string): AiError.AiError =>
  failWith(method, new AiError.InvalidUserInputError({ description }))

export const unsupported = (method: string, what: string): AiError.AiError =>
  invalid(method, `${what} is not supported by Troupe's engines.`)

/** What can resolve a failure: another request, a later attempt, or the operator. */
const kinds: Readonly<Record<Reason["_tag"], "invalid" | "busy" | "internal">> = {
  InvalidRequest: "invalid",
  ModelNotFound: "invalid",
  ContextLengthExceeded: "invalid",
  QueueFull: "busy",
  Overloaded: "busy",
  DeploymentDown: "internal",
  InsufficientMemory: "internal",
  EngineHung: "internal",
  ModelLoadFailed: "internal",
  EngineMissing: "internal",
  EngineCrashed: "internal",
  EngineStopped: "internal",
  EngineFailed: "internal",
  UpstreamFailed: "internal",
  UpstreamTimeout: "internal",
  RateLimited: "busy",
  Unauthenticated: "invalid",
  Forbidden: "invalid",
  LimitExceeded: "busy",
  BudgetExceeded: "invalid",
  AuthenticationFailed: "internal",
  ContentRefused: "invalid",
  HookFailed: "internal",
  NotSupported: "invalid",
  CircuitOpen: "internal",
  NoDeployment: "internal"
}

const encodeReason = Schema.encodeSync(Reason)

/** The metadata has the reason, for programs that use Troupe's types and for `layers/engines/LanguageModelEngine`. */
const metadataOf = (reason: Reason): AiError.ProviderMetadata => ({
  troupe: encodeReason(reason) as unknown as Record<string, string | number | boolean>
})

const reasonOf = (reason: Reason): AiError.AiErrorReason => {
  const metadata = metadataOf(reason)
  switch (kinds[reason._tag]) {
    case "invalid":
      return new AiError.InvalidRequestError({ description: reason.message, metadata })
    case "busy":
      return new AiError.RateLimitError({
        metadata,
        ...("retryAfterMs" in reason ? { retryAfter: Duration.millis(reason.retryAfterMs) } : {})
      })
    case "internal":
      return new AiError.InternalProviderError({ description: reason.message, metadata })
  }
}

/** The failure as a retryable error, if a later attempt may succeed. */
export const fromInferenceError = (method: string) => ({ reason }: InferenceError): AiError.AiError =>
  failWith(method, reasonOf(reason))
