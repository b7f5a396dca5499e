/** The responses to requests whose stored responses or conversations cannot be used, as OpenAI's API has them. */
import { Effect } from "effect"
import type { HttpServerResponse } from "effect/http"
import * as EncodeError from "../../dialects/openai/EncodeError.ts"
import { InferenceError } from "../../domain/InferenceError.ts"
import * as Text from "../../domain/Text.ts"
import { summaryOf } from "../../services/persistence/StorageError.ts"
import { StateError } from "../../services/responses/Dialogues.ts"
import type { StoreError } from "../../services/responses/Tables.ts"
import { respondError } from "./Dialect.ts"

interface Problem {
  readonly status: number
  readonly code: string | null
  readonly param: string | null
  readonly message: (id: string) => string
}

const missing = (what: string, param: string | null): Problem => ({
  status: 404,
  code: null,
  param,
  message: (id) => `${what} with id '${id}' not found.`
})

const problems: Readonly<Record<StateError["problem"], Problem>> = {
  "conversation-missing": missing("Conversation", "conversation"),
  "item-missing": missing("Item", "input"),
  "response-missing": missing("Response", null),
  "not-in-background": {
    status: 400,
    code: null,
    param: null,
    message: (id) => `Response '${id}' was not created with background: true, and cannot be cancelled.`
  },
  "not-streamed": {
    status: 400,
    code: null,
    param: "stream",
    message: (id) => `Response '${id}' was not created with background: true and stream: true, and cannot be streamed.`
  },
  "previous-missing": {
    status: 400,
    code: "previous_response_not_found",
    param: "previous_response_id",
    message: (id) => `Previous response with id '${id}' not found.`
  },
  "previous-unfinished": {
    status: 400,
    code: null,
    param: "previous_response_id",
    message: (id) => `Previous response '${id}' is still being generated.`
  },
  "too-large": {
    status: 400,
    code: "context_length_exceeded",
    param: "input",
    message: (id) => `The conversation of '${id}' is larger than server.maxBodyBytes. Compact it, or begin another.`
  }
}

const errorOf = (error: StoreError | StateError): EncodeError.OpenAiError => {
  if (!(error instanceof StateError)) {
    return EncodeError.make(`Stored responses cannot be read or written: ${summaryOf(error)}.`, {
      status: 503,
      type: "server_error",
      code: "storage_failed"
    })
  }
  const { message, ...problem } = problems[error.problem]
  return EncodeError.make(message(Text.cutName(error.id)), { type: "invalid_request_error", ...problem })
}

/** Where the service has no database. */
export const noState = EncodeError.make("This service stores no responses and no conversations.", {
  status: 400,
  type: "invalid_request_error",
  code: "not_supported"
})

/**
 * Answers a failure of stored objects; failures of a model stay.
 *
 * @param idHeaders the headers with the id of the request
 */
export const respondState = (idHeaders: Readonly<Record<string, string>>) =>
<R>(
  answered: Effect.Effect<HttpServerResponse.HttpServerResponse, InferenceError | StoreError | StateError, R>
): Effect.Effect<HttpServerResponse.HttpServerResponse, InferenceError, R> =>
  answered.pipe(
    Effect.catch((error) => {
      if (error instanceof InferenceError) return Effect.fail(error)
      const response = respondError(errorOf(error), idHeaders)
      return error instanceof StateError
        ? Effect.succeed(response)
        : Effect.as(Effect.logWarning(`Stored responses cannot be read or written: ${summaryOf(error)}.`), response)
    })
  )
