/** The formats that a request can require of its answer. */
import { Schema } from "effect"
import { isNestedDeeper, mostLevels } from "./JsonScan.ts"
import { atLeastOne } from "./Problem.ts"

/** An object of at most `mostLevels` levels. */
export const JsonObject = Schema.Record(Schema.String, Schema.Unknown).check(
  Schema.makeFilter((json: unknown) =>
    isNestedDeeper(json, mostLevels)
      ? `Expected JSON of at most ${mostLevels} levels within each other`
      : undefined
  )
)

/** The most texts of a choice. */
export const mostChoices = 1_000

/** The longest text of a choice, in UTF-16 code units. */
export const longestChoice = 1_000

const isWellFormed = Schema.makeFilter((text: string) =>
  text.isWellFormed() ? undefined : "Expected well-formed Unicode: a surrogate has no pair"
)

/** At least one text, and at most `mostChoices`. */
export const Choices = Schema.Array(Schema.String.check(Schema.isMaxLength(longestChoice), isWellFormed)).check(
  atLeastOne,
  Schema.isMaxLength(mostChoices)
)

/** What the answer's text must be. */
export const Format = Schema.Union([
  /** Any JSON object. */
  Schema.Struct({ type: Schema.Literal("json_object") }),
  /** JSON that fits the schema. */
  Schema.Struct({ type: Schema.Literal("json_schema"), schema: JsonObject }),
  /** A text that a regular expression of ECMAScript matches entirely. Models on this machine only. */
  Schema.Struct({ type: Schema.Literal("regex"), pattern: Schema.NonEmptyString }),
  /** One of the texts. Models on this machine only. */
  Schema.Struct({ type: Schema.Literal("choice"), choices: Choices }),
  /** A text of a grammar in llama.cpp's GBNF. Models on this machine only. */
  Schema.Struct({ type: Schema.Literal("grammar"), grammar: Schema.NonEmptyString })
])
