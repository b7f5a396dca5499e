/** Random numbers of JSON that doubles do not hold, and JSON texts compared by the texts of their numbers. */
import * as fc from "fast-check"

type Fields = Readonly<Record<string, unknown>>

const json = JSON as unknown as {
  readonly parse: (
    text: string,
    reviver: (key: string, value: unknown, context: { readonly source?: string }) => unknown
  ) => unknown
  readonly rawJSON: (text: string) => object
}

/** A number that `JSON.stringify` writes as this text. */
export const rawNumber = (text: string): unknown => json.rawJSON(text)

/** The JSON of a text, with the text of every number in place of the number. */
export const exactly = (text: string): unknown =>
  json.parse(text, (_, value, { source }) => typeof value === "number" ? `number ${source!}` : value)

/** The same of a value. */
export const exactlyOf = (value: unknown): unknown => exactly(JSON.stringify(value))

export const int64 = fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }).map(String)

const digits = fc.stringMatching(/^[0-9]{17,25}[1-9]$/)

/** Texts of numbers that `JSON.stringify` writes as they are, or that a double does not hold. */
export const text = fc.oneof(
  int64,
  fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }).map(String),
  fc.tuple(fc.constantFrom("0.", "-0.", "1.", "-123."), digits).map(([begin, end]) => begin + end.replace(/^./, "7")),
  fc.constantFrom("9007199254740993", "18446744073709551615", "-0", "-0.0", "1e400", "-1E+400", "1e-400", "0", "7")
)

export const number = text.map(rawNumber)

/** A value with such numbers in it. */
export const value = fc.oneof(number, fc.record({ deep: fc.array(number, { maxLength: 3 }), n: number }))

const listOf = (value: unknown): ReadonlyArray<Fields> => Array.isArray(value) ? value as ReadonlyArray<Fields> : []

/** A field with its objects changed, if the body has it. */
const each = (body: Fields, name: string, change: (item: Fields) => Fields): Fields =>
  Array.isArray(body[name]) ? { ...body, [name]: listOf(body[name]).map(change) } : body

/** With a number in a schema. */
const limited = (schema: unknown, number: unknown): Fields => ({
  ...schema as Fields,
  properties: { ...(schema as Fields)["properties"] as Fields, n: { type: "integer", maximum: number } }
})

/** With a number among the arguments of its call. */
const used = (block: Fields, number: unknown): Fields =>
  block["type"] === "tool_use" ? { ...block, input: { ...block["input"] as Fields, n: number } } : block

const withMore = (bodies: fc.Arbitrary<Fields>): fc.Arbitrary<readonly [Fields, ReadonlyArray<unknown>, string]> =>
  fc.tuple(
    fc.tuple(bodies, value).map(([body, value]) => ({ ...body, x_numbers: value })),
    fc.array(number, { minLength: 2, maxLength: 2 }),
    int64
  )

/** Bodies of chat completions with numbers in the metadata, in schemas of tools, in an unknown field, and as the seed. */
export const inChats = (bodies: fc.Arbitrary<Fields>): fc.Arbitrary<Fields> =>
  withMore(bodies).map(([body, [one, two], seed]) => ({
    ...each(body, "tools", (tool) => {
      const made = tool["function"] as Fields
      return { ...tool, function: { ...made, parameters: limited(made["parameters"], one) } }
    }),
    metadata: { ...body["metadata"] as Fields | undefined, n: two },
    seed: rawNumber(seed)
  }))

/** Bodies of messages with numbers in schemas of tools, in arguments of calls, and in an unknown field. */
export const inMessages = (bodies: fc.Arbitrary<Fields>): fc.Arbitrary<Fields> =>
  withMore(bodies).map(([body, [one, two]]) =>
    each(
      each(body, "tools", (tool) =>
        tool["input_schema"] === undefined ? tool : { ...tool, input_schema: limited(tool["input_schema"], one) }),
      "messages",
      (message) =>
        each(message, "content", (block) =>
          used(block, two))
    )
  )

/** Chat completions with numbers in the message, in the usage, and in an unknown field. */
export const inCompletions = (answers: fc.Arbitrary<Fields>): fc.Arbitrary<Fields> =>
  withMore(answers).map(([answer, [one, two]]) => ({
    ...each(answer, "choices", (choice) => ({ ...choice, message: { ...choice["message"] as Fields, x_n: one } })),
    usage: { ...answer["usage"] as Fields, x_n: two }
  }))

/** Anthropic's messages with numbers in arguments of calls, in the usage, and in an unknown field. */
export const inAnswers = (answers: fc.Arbitrary<Fields>): fc.Arbitrary<Fields> =>
  withMore(answers).map(([answer, [one, two]]) => ({
    ...each(answer, "content", (block) => used(block, one)),
    usage: { ...answer["usage"] as Fields, x_n: two }
  }))
