/**
 * The settings of stored responses: the section `responses`.
 *
 * **Details**
 *
 * `POST /v1/responses` stores responses unless the request says `store: false`, and `/v1/conversations` stores conversations.
 * Both are in the database of `storage`.
 */
import { Duration, Schema } from "effect"
import { Bytes, durationText, optional, Span } from "../../domain/Fields.ts"

const defaults = { ttl: Duration.days(30), maxBytes: 2 ** 30 }

/** The longest time, days. */
const longestDays = 3_650

/** The section `responses`. */
export const ResponseSettings = Schema.Struct({
  ttl: optional(
    "How long responses and conversations are stored after their last use, in the database of storage. Default " +
      `${durationText(Duration.toMillis(defaults.ttl))}.`,
    Span.check(
      Schema.makeFilter((span: Duration.Duration) =>
        Duration.toDays(span) <= longestDays ? undefined : `Expected at most ${longestDays} days`
      )
    )
  ),
  maxBytes: optional(
    "Size of all stored responses and conversations, as 1 GiB or in bytes, above which those that end first are deleted. " +
      "Default 1 GiB.",
    Bytes
  )
})

/** How long and how much is stored. */
export interface ResponseLimits {
  readonly ttl: Duration.Duration
  readonly maxBytes: number
}

/** The resolved section `responses`. */
export const responsesOf = ({ maxBytes, ttl }: typeof ResponseSettings.Type = {}): ResponseLimits => ({
  ttl: ttl ?? defaults.ttl,
  maxBytes: maxBytes ?? defaults.maxBytes
})
