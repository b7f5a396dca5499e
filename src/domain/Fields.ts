/** Schemas of durations and amounts of bytes in `troupe.yaml`, and the settings that all deployments share. */
import { ByteSize, Duration, Option, Schema, SchemaTransformation } from "effect"
import { engineCapabilities } from "./EngineProtocol.ts"
import { wholeNumber } from "./Problem.ts"
import * as Time from "./Time.ts"

/** A field with a description that editors show. It describes the encoded side: the value in the file. */
export const described = <S extends Schema.Top>(description: string, schema: S): S["Rebuild"] =>
  Schema.annotateEncoded<S>({ description })(schema)

/** An optional field with a description. */
export const optional = <S extends Schema.Top>(description: string, schema: S) =>
  Schema.optionalKey(described(description, schema))

export const Count = wholeNumber(1)
export const Milliseconds = Schema.Finite.check(Schema.isGreaterThanOrEqualTo(0))

const words = /^(\d+(?:\.\d+)?)\s*((?:milli|millisecond|second|minute|hour|day|week)s?)$/
const spaced = /^\d+(?:\.\d+)?\s+(?:ms|[smh])$/
// The lookahead rejects a duration of 0, which has no other digit.
const spanText = new RegExp(`^(?=.*[1-9])(?:${words.source}|${spaced.source}|^(?!-)(?:${Time.goDuration.source}))`)

const spanOf = (text: string): Duration.Duration => {
  const [, number, unit] = words.exec(text) ?? []
  return unit === undefined
    ? Duration.millis(Time.goDurationMs(text.replaceAll(/\s/g, "")))
    : Duration.fromInputUnsafe(`${number} ${unit.startsWith("milli") ? "millis" : unit}` as Duration.Input)
}

const expectedSpan = "a duration above 0 with its unit, such as 500 ms, 10 minutes or 1h30m"

const expectedSpanOrOff = `${expectedSpan}, or false to turn it off`

const spanTextOf = (expected: string) =>
  Schema.String.check(
    Schema.isMaxLength(100),
    Schema.isPattern(spanText, { message: `Expected ${expected}` })
  )

const units = [["hour", 3_600_000], ["minute", 60_000], ["second", 1_000]] as const

/** Formats a duration for `troupe.yaml`, such as `10 seconds`: in the largest unit that needs no fraction. */
export const durationText = (ms: number): string => {
  const [unit, length] = units.find(([, length]) => ms >= length && ms % length === 0) ?? ["ms", 1]
  const count = ms / length
  return unit === "ms" || count === 1 ? `${count} ${unit}` : `${count} ${unit}s`
}

const sizes = [["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 1024]] as const

/** Formats an amount of bytes for `troupe.yaml`, such as `10 GiB`: in the largest unit that is not above the amount, rounded down. */
export const bytesText = (bytes: number): string => {
  const found = sizes.find(([, size]) => bytes >= size)
  return found === undefined ? `${bytes} bytes` : `${Math.floor(10 * bytes / found[1]) / 10} ${found[0]}`
}

const encodeSpan = (span: Duration.Duration): string => durationText(Duration.toMillis(span))

/**
 * Words for a duration, as `10 minutes`, or as Go writes it, `1h30m`. Numbers are refused: they count seconds elsewhere, and
 * milliseconds in programs. 0 is refused: it would mean "off" for one setting and "at once" for another.
 */
export const Span = Schema.Union([spanTextOf(expectedSpan)]).annotate({ expected: expectedSpan }).pipe(
  Schema.decodeTo(Schema.Duration, SchemaTransformation.transform({ decode: spanOf, encode: encodeSpan }))
)

/** The same, or `false` for a setting that can be turned off. */
export const SpanOrOff = Schema.Union([spanTextOf(expectedSpanOrOff), Schema.Literal(false)])
  .annotate({ expected: expectedSpanOrOff })
  .pipe(
    Schema.decodeTo(
      Schema.Union([Schema.Duration, Schema.Literal(false)]),
      SchemaTransformation.transform({
        decode: (given): Duration.Duration | false => given === false ? false : spanOf(given),
        encode: (span) => span === false ? false : encodeSpan(span)
      })
    )
  )
export type SpanOrOff = Duration.Duration | false

/** A duration that is turned off counts as this one. */
export const orOff = (
  span: SpanOrOff | undefined,
  usual: Duration.Duration,
  off: Duration.Duration
): Duration.Duration => span === false ? off : span ?? usual

const expectedBytes = "an amount of bytes above 0, such as 8 GiB or 1048576"

/** An amount of bytes, as `8 GiB` or a number. Every amount of bytes in `troupe.yaml` is one of these. */
export const Bytes = Schema.Union([
  Schema.String.check(
    Schema.makeFilter((text: string) =>
      Option.isSome(ByteSize.fromInput(text as ByteSize.Input))
        ? undefined
        : `Expected ${expectedBytes}`
    )
  ).pipe(
    Schema.decodeTo(
      Count,
      SchemaTransformation.transform({
        decode: (text) => Number(ByteSize.fromInputUnsafe(text as ByteSize.Input)),
        encode: (bytes) => `${bytes} B`
      })
    )
  ),
  Count
]).annotate({ expected: expectedBytes })

const Share = Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 1 }))
const AtLeastNothing = Schema.Finite.check(Schema.isGreaterThanOrEqualTo(0))

/** Properties of a deployment that the router cannot measure. */
export const traits = {
  price: optional(
    "Price. Default 0 for a model that runs on this machine, else the published price of the model.",
    Schema.Struct({
      input: described("USD per million tokens of the prompt.", AtLeastNothing),
      output: described("USD per million tokens of the answer.", AtLeastNothing),
      cachedInput: optional("USD per million prompt tokens from the provider's cache. Default input.", AtLeastNothing),
      cacheWrite: optional("USD per million prompt tokens that its cache stores. Default input.", AtLeastNothing),
      cacheWriteHour: optional(
        "USD per million prompt tokens that its cache stores for an hour. Default cacheWrite.",
        AtLeastNothing
      ),
      reasoning: optional("USD per million reasoning tokens. Default output.", AtLeastNothing),
      asOf: optional(
        "Month or day on which the source had these prices, as 2026-06. Lists of models show it. Default unknown.",
        Schema.String.check(
          Schema.isPattern(/^\d{4}-(?:0[1-9]|1[0-2])(?:-(?:0[1-9]|[12]\d|3[01]))?$/, {
            message: "Expected a month or a day, such as 2026-06 or 2026-06-30"
          })
        )
      ),
      source: optional(
        "Where the prices come from, such as a URL. Lists of models show it. Default unknown.",
        Schema.NonEmptyString
      )
    })
  ),
  quality: optional("Quality of its answers, from 0 to 1. Default unknown.", Share),
  abilities: optional(
    "Capabilities to use. Requests that need another one go to other deployments. Default all that the engine has.",
    Schema.Array(Schema.Literals(engineCapabilities))
  ),
  tasks: optional(
    "Tasks that it is good at. Requests can name a task. Default unknown.",
    Schema.Array(Schema.NonEmptyString)
  ),
  weight: optional(
    "Weight relative to the other deployments, for the strategies weighted and session. Default 1.",
    AtLeastNothing
  ),
  batches: optional(
    "Which of its requests share a job, instead of embeddingBatches. With a section here, requests in the provider's own dialect " +
      "share requests too, if they have no other fields than model, input and encoding_format. Default embeddingBatches.",
    Schema.Struct({
      size: optional(
        "Requests for embeddings, rankings or classifications in one job; 1: none shares one. Default embeddingBatches.size.",
        Count
      ),
      wait: optional(
        "How long they are collected while the engine works, at most. Default embeddingBatches.wait.",
        Span
      ),
      waitIdle: optional(
        "Whether they are collected as long while the engine is idle. Default embeddingBatches.waitIdle.",
        Schema.Boolean
      )
    })
  ),
  rollout: optional(
    "With candidate, it takes no requests until a rollout gives it some. Default it takes requests from the start.",
    // A literal would tell apart the kinds of deployments, as their `engine` does.
    Schema.String.check(Schema.isPattern(/^candidate$/, { message: "Expected candidate" }))
  )
}
