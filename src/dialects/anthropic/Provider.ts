/**
 * Anthropic's Messages API.
 *
 * **Details**
 *
 * System messages are joined, in their order, wherever they are in the conversation. Consecutive messages of one role become
 * one, because the API requires tool results right after the calls. `output_config.format` binds an answer to a schema;
 * objects without `additionalProperties` are closed, as the API requires. Models up to 4.5 continue an assistant's last
 * message; later models reject one, and get a message that requests the continuation.
 *
 * Sources: Anthropic's pages on messages, streaming messages, errors, tool use and structured outputs.
 *
 * **Gotchas**
 *
 * The API has no seed. It requires a limit: without one from the caller or the deployment's `maxTokens`, an answer has at
 * most 4,096 tokens.
 */
import { Result } from "effect"
import { malformed } from "../shared/ErrorMapping.ts"
import { countAt } from "../shared/Json.ts"
import type { Dialect } from "../shared/ProviderDialect.ts"
import { buffered, errorIn, events, failure, usageIn } from "./DecodeAnswer.ts"
import { countRequest, passThrough, request } from "./EncodeRequest.ts"

/** For Anthropic, and for other hosts of its dialect. */
export const anthropic: Dialect = {
  images: "urls",
  framing: "sse",
  generate: { request, passThrough, events, buffered, usageIn },
  count: {
    request: countRequest,
    answer: (body, _, target) => {
      const tokens = countAt(body, "input_tokens")
      return tokens === undefined
        ? Result.fail(malformed(target, "no `input_tokens`"))
        : Result.succeed(tokens)
    }
  },
  failure,
  errorIn
}
