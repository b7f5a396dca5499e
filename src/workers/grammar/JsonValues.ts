/**
 * JSON as a grammar: strings, numbers, any value, in the one layout that a model may write.
 *
 * **Details**
 *
 * The layout is that of `{"a": 1, "b": [2, 3]}`: one space or none after a colon and a comma, and no other white space,
 * so that a model cannot write it without end. Numbers have a bounded number of digits for the same reason. A string may
 * contain every escape of JSON; a surrogate is allowed only as half of a pair.
 */
import type { CodeRange, GrammarBuilder, GrammarSymbol, Sequence } from "./Grammar.ts"
import { chars, text } from "./Grammar.ts"

/** Every code point that a text can have. */
export const anyCode: ReadonlyArray<CodeRange> = [[0, 0xd7ff], [0xe000, 0x10ffff]]

/** Characters that need no escape in a JSON string. */
export const plainCodes: ReadonlyArray<CodeRange> = [
  [0x20, 0x21],
  [0x23, 0x5b],
  [0x5d, 0xd7ff],
  [0xe000, 0x10ffff]
]

const digit: CodeRange = [0x30, 0x39]
const upperHex: CodeRange = [0x41, 0x46]
const lowerHex: CodeRange = [0x61, 0x66]
const hexDigit = chars(digit, upperHex, lowerHex)

/** As many digits as `JSON.stringify` writes for a double. */
const integerDigits = 21
const fractionDigits = 23

const optionalSpace = (builder: GrammarBuilder): GrammarSymbol => builder.shared("space", () => [[text(" ")], []])

/** Between a key and its value. */
export const colon = (builder: GrammarBuilder): Sequence => [text(":"), optionalSpace(builder)]

/** Between two entries of a list. */
export const comma = (builder: GrammarBuilder): Sequence => [text(","), optionalSpace(builder)]

/** From `least` to `most` digits; empty if `most` is 0. */
export const digits = (builder: GrammarBuilder, least: number, most: number): Sequence => {
  if (most === 0) return []
  const rest = digits(builder, Math.max(least - 1, 0), most - 1)
  return [builder.shared(`digits-${least}-${most}`, () => [[chars(digit), ...rest], ...(least === 0 ? [[]] : [])])]
}

/** `\u` and four digits of a character, or two such escapes of a surrogate pair. */
const unicodeEscape = (builder: GrammarBuilder): GrammarSymbol =>
  builder.shared("unicode", () => {
    const d = chars([0x44, 0x44], [0x64, 0x64])
    return [
      [chars(digit, [0x41, 0x43], [0x45, 0x46], [0x61, 0x63], [0x65, 0x66]), hexDigit, hexDigit, hexDigit],
      [d, chars([0x30, 0x37]), hexDigit, hexDigit],
      [
        d,
        chars([0x38, 0x39], [0x41, 0x42], [0x61, 0x62]),
        hexDigit,
        hexDigit,
        text("\\u"),
        d,
        chars([0x43, 0x46], [0x63, 0x66]),
        hexDigit,
        hexDigit
      ]
    ]
  })

/** Any one character within a string. */
export const anyCharacter = (builder: GrammarBuilder): GrammarSymbol =>
  builder.shared("char", () => [
    [chars(...plainCodes)],
    [text("\\"), chars(...Array.from("\"\\/bfnrt", (char): CodeRange => [char.charCodeAt(0), char.charCodeAt(0)]))],
    [text("\\u"), unicodeEscape(builder)]
  ])

/** The rest of a string, with its closing quote. */
const stringRest = (builder: GrammarBuilder): GrammarSymbol =>
  builder.shared("string-rest", (self) => [[anyCharacter(builder), self], [text("\"")]])

export const anyString = (builder: GrammarBuilder): Sequence => [text("\""), stringRest(builder)]

const fraction = (builder: GrammarBuilder): GrammarSymbol =>
  builder.shared("fraction", () => [[text("."), ...digits(builder, 1, fractionDigits)], []])

/** An exponent from -307 to 307 without 0: one digit comes before it, so the number is finite and not 0. */
const exponent = (builder: GrammarBuilder): GrammarSymbol =>
  builder.shared("exponent", () => {
    const begin = [chars([0x45, 0x45], [0x65, 0x65]), builder.shared("sign", () => [[text("+")], [text("-")], []])]
    return [
      [...begin, chars([0x31, 0x39]), ...digits(builder, 0, 1)],
      [...begin, chars([0x31, 0x32]), ...digits(builder, 2, 2)],
      [...begin, text("30"), chars([0x30, 0x37])]
    ]
  })

export const anyNumber = (builder: GrammarBuilder): Sequence => [
  builder.shared("number", () => {
    const minus = builder.shared("minus", () => [[text("-")], []])
    return [
      [minus, text("0"), fraction(builder)],
      [minus, chars([0x31, 0x39]), ...digits(builder, 0, integerDigits - 1), fraction(builder)],
      [minus, chars([0x31, 0x39]), fraction(builder), exponent(builder)]
    ]
  })
]

export const anyObject = (builder: GrammarBuilder): Sequence => [
  builder.shared("object", () => {
    const entry = [...anyString(builder), ...colon(builder), anyValue(builder)]
    const rest = builder.shared("object-rest", (self) => [[...comma(builder), ...entry, self], [text("}")]])
    return [[text("{"), ...entry, rest], [text("{}")]]
  })
]

const anyArray = (builder: GrammarBuilder): Sequence => [
  builder.shared("array", () => {
    const rest = builder.shared(
      "array-rest",
      (self) => [[...comma(builder), anyValue(builder), self], [text("]")]]
    )
    return [[text("["), anyValue(builder), rest], [text("[]")]]
  })
]

export const anyValue = (builder: GrammarBuilder): GrammarSymbol =>
  builder.shared("value", () => [
    anyObject(builder),
    anyArray(builder),
    anyString(builder),
    anyNumber(builder),
    [text("true")],
    [text("false")],
    [text("null")]
  ])
