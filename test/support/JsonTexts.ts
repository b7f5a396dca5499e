/** Texts of JSON as other programs may write them: white space, escapes, numbers of any spelling, and names that repeat. */
import * as fc from "fast-check"
import * as Numbers from "./Numbers.ts"

const space = fc.constantFrom("", "", " ", "\n\t", "\r\n  ")

const escaped = (text: string): string =>
  `"${
    Array.from({ length: text.length }, (_, at) => `\\u${text.charCodeAt(at).toString(16).padStart(4, "0")}`).join("")
  }"`

/** Any string, with or without needless escapes. */
export const string = fc.oneof(
  fc.string({ unit: "binary" }).map((text) => JSON.stringify(text)),
  fc.string().map(escaped),
  fc.constantFrom(
    String.raw`"\\"`,
    String.raw`"\\\""`,
    String.raw`"\"model\":\"x\","`,
    String.raw`"{\"id\":1}"`,
    "\"]}\"",
    "\"\u2028é😀\""
  )
)

const scalar = fc.oneof(
  string,
  Numbers.number.map((number) => JSON.stringify(number)),
  fc.constantFrom("null", "true", "false", "1.0", "-0", "1e400", "9007199254740993", "0.10", "1E+2")
)

const around = (inner: fc.Arbitrary<string>): fc.Arbitrary<string> =>
  fc.tuple(space, inner, space).map((parts) => parts.join(""))

const joined = (begin: string, parts: fc.Arbitrary<ReadonlyArray<string>>, end: string): fc.Arbitrary<string> =>
  fc.tuple(parts, space).map(([all, empty]) => `${begin}${all.length === 0 ? empty : all.join(",")}${end}`)

/** The text of an object with these fields: a name as JSON writes it, and a value. */
export const object = (
  fields: fc.Arbitrary<ReadonlyArray<readonly [name: string, value: string]>>
): fc.Arbitrary<string> =>
  joined(
    "{",
    fields.chain((all) =>
      fc.tuple(...all.map(([name, value]) =>
        around(fc.constant(name)).chain((key) => around(fc.constant(value)).map((one) => `${key}:${one}`))
      ))
    ),
    "}"
  )

const names = ["id", "model", "usage", "stream", "object", "created", "a", "", "__proto__", "toString", "n"]

/** Names of which several may mean the same. */
export const name = fc.oneof(
  { weight: 9, arbitrary: fc.constantFrom(...names).map((text) => JSON.stringify(text)) },
  { weight: 1, arbitrary: fc.constantFrom("id", "model", "a").map(escaped) }
)

/** Any value. */
export const { value } = fc.letrec<{ readonly value: string }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 3 },
    scalar,
    joined("[", fc.array(around(tie("value")), { maxLength: 3 }), "]"),
    object(fc.array(fc.tuple(name, tie("value")), { maxLength: 4 }))
  )
}))

/** An object, in which names may repeat. */
export const anyObject = object(fc.array(fc.tuple(name, value), { maxLength: 6 }))
