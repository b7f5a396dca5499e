/**
 * Handlers of the models that there are: one path for all families of clients.
 *
 * **Details**
 *
 * Who says which version of Anthropic's API he speaks is answered in its shapes, all others in OpenAI's.
 */
import { Clock, DateTime, Effect } from "effect"
import type { HttpServerRequest } from "effect/http"
import { HttpApiBuilder } from "effect/http-api"
import * as AnthropicError from "../../dialects/anthropic/EncodeError.ts"
import type * as Anthropic from "../../dialects/anthropic/Schema.ts"
import * as OpenAiError from "../../dialects/openai/EncodeError.ts"
import * as OpenAiFields from "../../dialects/openai/FieldNames.ts"
import type * as OpenAi from "../../dialects/openai/Schema.ts"
import type { Model } from "../../domain/Deployment.ts"
import { Registry } from "../../services/models/Registry.ts"
import { TypedApi } from "./Api.ts"

const isAnthropic = ({ headers }: HttpServerRequest.HttpServerRequest): boolean =>
  headers["anthropic-version"] !== undefined

const openAi = (created: number) => ({ name }: Model): typeof OpenAi.Model.Type => ({
  id: name,
  object: "model",
  created,
  owned_by: "troupe"
})

const anthropic = (created_at: string) => ({ name }: Model): Anthropic.Model => ({
  type: "model",
  id: name,
  display_name: name,
  created_at,
  lifecycle: "active",
  capabilities: null,
  deprecated_at: null,
  line: null,
  max_input_tokens: null,
  max_tokens: null,
  retires_at: null
})

export const layer = HttpApiBuilder.group(
  TypedApi,
  "models",
  Effect.fn(function*(handlers) {
    const registry = yield* Registry
    const started = yield* Clock.currentTimeMillis
    const toOpenAi = openAi(Math.floor(started / 1000))
    const toAnthropic = anthropic(DateTime.formatIso(DateTime.makeUnsafe(started)))

    const listOf = (models: ReadonlyArray<Model>) => ({
      data: models.map(toAnthropic),
      has_more: false as const,
      first_id: models[0]?.name ?? null,
      last_id: models.at(-1)?.name ?? null
    })

    return handlers
      .handle("models", ({ request }) =>
        Effect.sync(() => {
          const models = registry.models()
          return isAnthropic(request)
            ? listOf(models)
            : { object: "list" as const, data: models.map(toOpenAi) }
        }))
      .handle("model", ({ params, request }) =>
        Effect.mapBoth(Effect.fromResult(registry.find(params.model)), {
          onSuccess: (model) => isAnthropic(request) ? toAnthropic(model) : toOpenAi(model),
          onFailure: ({ reason }) =>
            isAnthropic(request)
              ? { ...AnthropicError.fromReason(reason, "").body, request_id: null }
              : OpenAiError.fromReason(reason, OpenAiFields.chat).body
        }))
  })
)
