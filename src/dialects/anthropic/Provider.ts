/**
 * Anthropic's Messages API.
 *
 * **Details**
 *
 * System messages go together, in their order, wherever they are in the conversation. Neighbouring messages of one role
 * become one, as the API wants results of calls right after the calls. An answer is bound to a schema by
 * `output_config.format`; objects that leave open whether they have other properties are closed, as the API insists on.
 * Thoughts are passed over, and counted. A text so far is the beginning of an answer for models up to 4.5; later ones
 * refuse an assistant's message at the end, and are asked to go on.
 *
 * Sources: Anthropic's pages on messages, streaming messages, errors, tool use and structured outputs.
 *
 * **Gotchas**
 *
 * The API has no seed: the same request may be answered otherwise. An answer whose caller names no limit has at most 4,096 tokens, unless the deployment's `maxTokens` says more.
 */
import { Result } from "effect"
import { malformed } from "../shared/ErrorMapping.ts"
import { countAt } from "../shared/Json.ts"
import type { Dialect } from "../shared/ProviderDialect.ts"
import { events, whole } from "./DecodeAnswer.ts"
import { failure } from "./DecodeError.ts"
import { countRequest, passThrough, request } from "./EncodeRequest.ts"

export const anthropic: Dialect = {
  images: "urls",
  framing: "sse",
  generate: { request, passThrough, events, whole },
  count: {
    request: countRequest,
    answer: (body, _, target) => {
      const tokens = countAt(body, "input_tokens")
      return tokens === undefined
        ? Result.fail(malformed(target, "a body without input_tokens"))
        : Result.succeed(tokens)
    }
  },
  failure
}
