/**
 * Decoders of what comes with every request: compiled to a function at their first use, which takes half the time of the
 * interpreter. Where a program may make no functions of text, they are interpreted.
 */
import type { Result } from "effect"
import { Schema } from "effect"
import * as SchemaJITCompiler from "effect/schema/SchemaJITCompiler"

/** Finds everything that is wrong, not the first alone. */
export const make = <S extends Schema.ConstraintDecoder<unknown>>(
  schema: S
): (input: unknown) => Result.Result<S["Type"], Schema.SchemaError> => {
  SchemaJITCompiler.enable(schema.ast)
  return Schema.decodeUnknownResult(schema, { errors: "all" })
}
