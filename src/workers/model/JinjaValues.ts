/**
 * Values of the Jinja interpreter `@huggingface/jinja`, and their text in Python's format.
 *
 * **Gotchas**
 *
 * The package does not export its value classes. They are taken from values that it creates.
 */
import { Environment } from "@huggingface/jinja"

/** A value of the interpreter. */
export interface Value {
  readonly type: string
  readonly value: unknown
  readonly toString: () => string
}

export type Scope = Environment

type Make<A> = new(value: A) => Value & { readonly value: A }
type Method = (args: ReadonlyArray<Value>, scope: Scope) => Value

const scope = new Environment()
const classOf = <A>(example: unknown): Make<A> => scope.set(`example${scope.variables.size}`, example).constructor

const Text = classOf<string>("")
const Int = classOf<number>(1)
const Bool = classOf<boolean>(true)
const List = classOf<Array<Value>>([])
const None = classOf<null>(null)
const Missing = classOf<undefined>(undefined)
const Call = classOf<Method>(() => null)

export const textValue = (text: string): Value => new Text(text)
export const intValue = (number: number): Value => new Int(number)
export const boolValue = (boolean: boolean): Value => new Bool(boolean)
export const listValue = (values: Array<Value>): Value => new List(values)
export const missing: Value = new Missing(undefined)
export const none: Value = new None(null)
export const methodValue = (run: Method): Value => new Call(run)

export type TextValue = Value & { readonly value: string }
export type ListValue = Value & { readonly value: Array<Value> }
/** Keys are texts, or numbers from a literal of the template. */
export type MapValue = Value & { readonly value: Map<string | number, Value> }

export const isText = (value: Value): value is TextValue => value.type === "StringValue"
/** Lists and tuples. */
export const isList = (value: Value): value is ListValue => Array.isArray(value.value)
export const isMap = (value: Value): value is MapValue => value.value instanceof Map
export const isMissing = (value: Value): boolean => value.type === "UndefinedValue"
export const isNone = (value: Value): boolean => value.type === "NullValue"

export const keyValue = (key: string | number): Value => typeof key === "number" ? intValue(key) : textValue(key)

export const keysOf = ({ value }: MapValue): Array<Value> => [...value.keys()].map(keyValue)
export const itemsOf = ({ value }: MapValue): Array<Value> =>
  [...value].map(([key, one]) => listValue([keyValue(key), one]))

const escapes: Readonly<Record<string, string>> = { "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t" }

/** A text in the format of Python's `repr`. */
const quoted = (text: string): string => {
  const quote = text.includes("'") && !text.includes("\"") ? "\"" : "'"
  const inner = text.replaceAll(/[\\\n\r\t]/g, (found) => escapes[found]!)
  return `${quote}${quote === "'" ? inner.replaceAll("'", String.raw`\'`) : inner}${quote}`
}

const reprOf = (value: Value): string => isText(value) ? quoted(value.value) : pythonText(value)

const listText = ({ type, value }: ListValue): string => {
  const inner = value.map(reprOf).join(", ")
  if (type !== "TupleValue") return `[${inner}]`
  return value.length === 1 ? `(${inner},)` : `(${inner})`
}

/** A value in the format of Python's `str`. */
export const pythonText = (value: Value): string => {
  if (isText(value)) return value.value
  if (isList(value)) return listText(value)
  if (isMap(value)) {
    return `{${[...value.value].map(([key, one]) => `${reprOf(keyValue(key))}: ${reprOf(one)}`).join(", ")}}`
  }
  if (isMissing(value)) return ""
  if (isNone(value)) return "None"
  if (typeof value.value === "boolean") return value.value ? "True" : "False"
  return value.toString()
}

const areMapsEqual = ({ value: left }: MapValue, { value: right }: MapValue): boolean =>
  left.size === right.size && [...left].every(([key, one]) => right.has(key) && isEqual(one, right.get(key)!))

/** Whether Python's `==` holds for two values. */
export const isEqual = (left: Value, right: Value): boolean => {
  if (isList(left) && isList(right)) {
    return left.value.length === right.value.length && left.value.every((one, at) => isEqual(one, right.value[at]!))
  }
  if (isMap(left) && isMap(right)) return areMapsEqual(left, right)
  if (isNone(left) || isMissing(left) || isNone(right) || isMissing(right)) return left.type === right.type
  return numberOf(left) === numberOf(right)
}

/** Python's booleans are the numbers 0 and 1. */
const numberOf = ({ value }: Value): unknown => typeof value === "boolean" ? Number(value) : value

/** Evaluated nodes and copied elements of one rendering. Published templates need up to 170 per message. */
const mostSteps = 3_000_000
/** Limit of every text that a template creates, including the prompt, characters. */
const mostCharacters = 16_000_000
/** A template exceeded its work budget. */
export class OverBudget extends Error {}

/** Counts the work of one rendering. */
export class Budget {
  private steps = 0

  spend(steps: number): void {
    this.steps += steps
    if (this.steps > mostSteps) throw new OverBudget(`it takes more than ${mostSteps} steps`)
  }

  /** Checks the length of a text before it is created. */
  text(characters: number): void {
    if (characters > mostCharacters) throw new OverBudget(`it makes a text of more than ${mostCharacters} characters`)
    this.spend(Math.ceil(characters / 1000))
  }

  /** Counts the work to print a value, which may contain the same list many times. */
  print(value: Value): void {
    this.spend(1)
    if (isText(value)) this.text(value.value.length)
    else if (isList(value)) { for (const one of value.value) this.print(one) }
    else if (isMap(value)) { for (const one of value.value.values()) this.print(one) }
  }
}
