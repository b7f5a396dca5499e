/** Errors in the OpenAI dialect: which status and body each reason has. Pure. */
import type { Reason } from "../../services/InferenceError.ts"
import type { ErrorBody } from "../../services/OpenAi.ts"

/** An error ready to be sent. */
export interface OpenAiError {
  readonly status: number
  readonly body: ErrorBody
  readonly headers: Readonly<Record<string, string>>
}

interface Options {
  readonly status: number
  readonly type: "invalid_request_error" | "server_error"
  readonly code: string | null
  readonly param?: string | null
  readonly headers?: Readonly<Record<string, string>>
}

/** @param message for people: what was wrong, the limit and what to do */
export const make = (message: string, { code, headers = {}, param = null, status, type }: Options): OpenAiError => ({
  status,
  headers,
  body: { error: { message, type, param, code } }
})

const invalid = (code: string | null, param: string | null, status = 400): Options => ({
  status,
  type: "invalid_request_error",
  code,
  param
})

const server = (status: number, code: string, headers: Readonly<Record<string, string>> = {}): Options => ({
  status,
  type: "server_error",
  code,
  headers
})

const optionsOf = (reason: Reason): Options => {
  switch (reason._tag) {
    case "InvalidRequest":
      return invalid(null, reason.path ?? null)
    case "ModelNotFound":
      return invalid("model_not_found", "model", 404)
    case "ContextLengthExceeded":
      return invalid("context_length_exceeded", "messages")
    case "QueueFull":
      return {
        status: 429,
        type: "server_error",
        code: "queue_full",
        headers: { "retry-after": String(Math.ceil(reason.retryAfterMs / 1000)) }
      }
    case "DeploymentDown":
      return server(503, "deployment_down", { "retry-after": String(Math.ceil(reason.retryAfterMs / 1000)) })
    case "InsufficientMemory":
      return server(503, "insufficient_memory")
    case "EngineHung":
      return server(503, "engine_hung", { "retry-after": "1" })
    case "ModelLoadFailed":
      return server(503, "model_load_failed")
    case "EngineMissing":
      return server(503, "engine_missing")
    case "EngineCrashed":
      return server(503, "engine_crashed", { "retry-after": "1" })
    case "EngineStopped":
      return server(503, "engine_stopped", { "retry-after": "1" })
    case "EngineFailed":
      return server(500, "engine_failed")
  }
}

/** The error for a reason. */
export const fromReason = (reason: Reason): OpenAiError => make(reason.message, optionsOf(reason))
