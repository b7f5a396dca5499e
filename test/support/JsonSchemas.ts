/** Schemas with a valid value each, and the JSON layout of the grammars. */
import * as fc from "fast-check"
import type { AnySchema } from "./JsonFits.ts"

export interface Example {
  readonly schema: AnySchema
  readonly value: unknown
}

const example = <A>(schema: (value: A) => AnySchema, values: fc.Arbitrary<A>): fc.Arbitrary<Example> =>
  values.map((value) => ({ schema: schema(value), value }))

const integers = fc.tuple(
  fc.oneof(fc.integer(), fc.maxSafeInteger(), fc.integer({ min: -12, max: 12 })),
  fc.option(fc.nat({ max: 300 })),
  fc.option(fc.nat({ max: 300 })),
  fc.boolean()
).map(([value, below, above, isExclusive]): Example => ({
  value,
  schema: {
    type: "integer",
    ...(below === null ? {} : isExclusive ? { exclusiveMinimum: value - below - 1 } : { minimum: value - below }),
    ...(above === null ? {} : { maximum: value + above })
  }
}))

/** Thousandths, so that sums and differences are exact. */
const decimals = fc.tuple(
  fc.integer({ min: -5_000_000, max: 5_000_000 }),
  fc.option(fc.nat({ max: 3000 })),
  fc.option(fc.nat({ max: 3000 })),
  fc.boolean()
).map(([value, below, above, isExclusive]): Example => ({
  value: value / 1000,
  schema: {
    type: "number",
    ...(below === null ? {} : { minimum: (value - below) / 1000 }),
    ...(above === null
      ? {}
      : isExclusive
      ? { exclusiveMaximum: (value + above + 1) / 1000 }
      : { maximum: (value + above) / 1000 })
  }
}))

const text = fc.string({
  unit: fc.oneof(
    fc.constantFrom("a", "\"", "\\", "\n", "é", "😀"),
    fc.string({ unit: "binary", minLength: 1, maxLength: 1 })
  ),
  maxLength: 8
})

const strings = fc.tuple(text, fc.option(fc.nat({ max: 4 })), fc.option(fc.nat({ max: 4 }))).map(
  ([value, below, above]): Example => {
    const length = Array.from(value).length
    return {
      value: value,
      schema: {
        type: "string",
        ...(below === null ? {} : { minLength: Math.max(0, length - below) }),
        ...(above === null ? {} : { maxLength: length + above })
      }
    }
  }
)

/** Patterns with the same meaning with and without flags. */
export const patterns: ReadonlyArray<string> = [
  "^[a-z]+$",
  "^(?:ab|ba)*$",
  "b",
  "^a|b$",
  "^\\d{3}-\\d{2,4}$",
  "^[^a-y]?z?$",
  "\\w\\s\\w",
  "^(?<year>[12]\\d{3})(-[01]\\d)?$",
  "^x[\\s\\S]*?y$",
  "^\\u0041[\\x42-D]*$",
  "^\\S[\\s\\S]*\\S$|^\\S$|^$",
  "a{2}(b|$)",
  "^[+-]?(?:\\d+(?:\\.\\d+)?|\\.\\d+)(?:[Ee][+-]?\\d+)?$",
  "^[\\w.-]+@[\\w-]+\\.[a-z]{2,3}$"
]

const matching = fc.constantFrom(...patterns).chain((pattern) =>
  example(() => ({ type: "string", pattern }), fc.stringMatching(new RegExp(pattern, "u"), { size: "small" }))
)

const lists = (items: fc.Arbitrary<Example>): fc.Arbitrary<Example> =>
  fc.oneof(
    fc.array(items, { maxLength: 3 }).chain((all) =>
      fc.tuple(fc.nat({ max: 2 }), fc.option(fc.nat({ max: 2 }))).map(([below, above]): Example => ({
        value: all.map(({ value }) => value),
        schema: {
          type: "array",
          items: { anyOf: all.length === 0 ? [true] : all.map(({ schema }) => schema) },
          minItems: Math.max(0, all.length - below),
          ...(above === null ? {} : { maxItems: all.length + above })
        }
      }))
    ),
    fc.array(items, { minLength: 1, maxLength: 3 }).map((all): Example => ({
      value: all.map(({ value }) => value),
      schema: { type: "array", prefixItems: all.map(({ schema }) => schema), items: false, minItems: all.length }
    }))
  )

const member = (values: fc.Arbitrary<Example>) =>
  fc.record({
    name: fc.oneof(fc.constantFrom("a", "b", "name", "a b", "\"", "__proto__", "é😀"), fc.string({ maxLength: 8 })),
    isRequired: fc.boolean(),
    isThere: fc.boolean(),
    example: values
  })

const objects = (values: fc.Arbitrary<Example>): fc.Arbitrary<Example> =>
  fc.tuple(
    fc.uniqueArray(member(values), { maxLength: 4, selector: ({ name }) => name }),
    fc.constantFrom(undefined, true, false),
    fc.option(fc.tuple(values, fc.string({ minLength: 9, maxLength: 12 })))
  ).map(([members, additional, other]): Example => {
    const present = members.filter(({ isRequired, isThere }) => isRequired || isThere)
    const isOpen = other !== null && additional === undefined
    // Not with literals: `__proto__` must be an ordinary name.
    return {
      value: Object.fromEntries([
        ...present.map(({ example, name }) => [name, example.value] as const),
        ...(isOpen ? [[`other ${other[1]}`, other[0].value] as const] : [])
      ]),
      schema: {
        type: "object",
        properties: Object.fromEntries(members.map(({ example, name }) => [name, example.schema])),
        required: members.filter(({ isRequired }) => isRequired).map(({ name }) => name),
        ...(isOpen
          ? { additionalProperties: other[0].schema }
          : additional === undefined
          ? {}
          : { additionalProperties: additional })
      }
    }
  }).filter(({ value, schema }) => {
    // A JavaScript object orders integer-like names first, regardless of their insertion.
    const order = Object.keys((schema as { readonly properties: object }).properties)
    const written = Object.keys(value as object).filter((name) => order.includes(name))
    return order.every((name) => !/^\d+$/.test(name)) &&
      written.every((name, index) => index === 0 || order.indexOf(written[index - 1]!) < order.indexOf(name))
  })

const json = fc.jsonValue({ maxDepth: 2 }).map((value): unknown => JSON.parse(JSON.stringify(value)))

const given: fc.Arbitrary<Example> = fc.oneof(
  example((value) => ({ const: value }), json),
  fc.tuple(json, fc.array(json, { maxLength: 3 })).map(([value, others]): Example => ({
    value,
    schema: { enum: [...others, value] }
  }))
)

const combined = (values: fc.Arbitrary<Example>): fc.Arbitrary<Example> =>
  fc.oneof(
    fc.tuple(values, fc.array(values, { maxLength: 2 })).map(([one, others]): Example => ({
      value: one.value,
      schema: { anyOf: [...others.map(({ schema }) => schema), one.schema] }
    })),
    values.map(({ schema, value }): Example => ({ value, schema: { allOf: [schema, true] } }))
  )

const scalars = fc.oneof(
  integers,
  decimals,
  strings,
  matching,
  given,
  example(() => ({ type: ["string", "null"] }), fc.option(text)),
  example(() => ({ type: "boolean" }), fc.boolean())
)

/** Schemas of every kind, each with a valid value. */
export const examples: fc.Arbitrary<Example> = fc.letrec<{ any: Example }>((tie) => ({
  any: fc.oneof(
    { maxDepth: 3, withCrossShrink: true },
    scalars,
    objects(tie("any")),
    lists(tie("any")),
    combined(tie("any"))
  )
})).any

/** JSON with or without a space after each colon and comma, by the list. */
export const layOut = (value: unknown, spaces: ReadonlyArray<boolean>): string => {
  let count = 0
  const gap = () => spaces[count++ % spaces.length] === true ? " " : ""
  const write = (value: unknown): string => {
    if (Array.isArray(value)) {
      return `[${value.map((one, index) => (index === 0 ? "" : `,${gap()}`) + write(one)).join("")}]`
    }
    if (typeof value !== "object" || value === null) return JSON.stringify(value)
    const entries = Object.entries(value).map(([key, one], index) =>
      `${index === 0 ? "" : `,${gap()}`}${JSON.stringify(key)}:${gap()}${write(one)}`
    )
    return `{${entries.join("")}}`
  }
  return write(value)
}
