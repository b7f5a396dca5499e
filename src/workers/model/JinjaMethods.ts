/** Methods and filters of Python's Jinja that `@huggingface/jinja` lacks, or runs without a limit. */
import type { Budget, ListValue, MapValue, TextValue, Value } from "./JinjaValues.ts"
import {
  intValue,
  isList,
  isMap,
  isMissing,
  isNone,
  isText,
  itemsOf,
  keysOf,
  keyValue,
  listValue,
  methodValue,
  missing,
  none,
  pythonText,
  textValue
} from "./JinjaValues.ts"

type Args = ReadonlyArray<Value>

const numberAt = (args: Args, at: number): number | undefined => {
  const value = args[at]?.value
  return typeof value === "number" ? value : undefined
}

const textAt = (args: Args, at: number): string | undefined => {
  const value = args[at]
  return value !== undefined && isText(value) ? value.value : undefined
}

/** `range(stop)`, `range(start, stop)` and `range(start, stop, step)`. */
export const boundedRange = (args: Args, budget: Budget): Value => {
  const numbers = args.map((_, at) => numberAt(args, at))
  if (numbers.length === 0 || numbers.includes(undefined)) throw new Error("range() takes integers")
  const [start, stop, step = 1] = (numbers.length === 1 ? [0, ...numbers] : numbers) as [number, number, number?]
  if (step === 0) throw new Error("range() takes no step of 0")
  const length = Math.max(0, Math.ceil((stop - start) / step))
  budget.spend(length)
  return listValue(Array.from({ length }, (_, at) => intValue(start + at * step)))
}

/** The start and the end of the text without these characters at its ends; by default, without white space. */
const stripped = (text: string, characters: string | undefined, start: boolean, end: boolean): string => {
  const isOut = (at: number) => characters === undefined ? text[at]!.trim() === "" : characters.includes(text[at]!)
  let from = 0
  let to = text.length
  while (start && from < to && isOut(from)) from++
  while (end && to > from && isOut(to - 1)) to--
  return text.slice(from, to)
}

const countOf = (text: string, part: string): number => {
  if (part === "") return text.length + 1
  let count = 0
  for (let at = text.indexOf(part); at >= 0; at = text.indexOf(part, at + part.length)) count++
  return count
}

/** Refuses a replacement or a split whose result would be too large, before it is made. */
const checkParts = (text: string, part: string, added: string, budget: Budget): void => {
  const count = countOf(text, part)
  budget.spend(count)
  budget.text(text.length + count * Math.max(0, added.length - part.length))
}

/** A count argument; all if it is absent or negative. */
const limitOf = (value: Value | undefined): number =>
  typeof value?.value === "number" && value.value >= 0 ? value.value : Number.POSITIVE_INFINITY

const replaced = (text: string, [part, other, count]: Args, budget: Budget): Value => {
  if (part === undefined || other === undefined || !isText(part) || !isText(other)) {
    throw new Error("replace() takes two texts")
  }
  checkParts(text, part.value, other.value, budget)
  let left = limitOf(count)
  return textValue(text.replaceAll(part.value, (found) => left-- > 0 ? other.value : found))
}

const partsOf = (text: string, between: string | undefined, budget: Budget): Array<string> => {
  if (between === "") throw new Error("split() takes a separator that is not empty")
  budget.spend(between === undefined ? Math.ceil(text.length / 2) : countOf(text, between))
  return between === undefined ? text.split(/\s+/).filter((one) => one !== "") : text.split(between)
}

const splitText = (text: string, args: Args, budget: Budget): Value => {
  const between = textAt(args, 0)
  const parts = partsOf(text, between, budget)
  const rest = parts.splice(Math.min(limitOf(args[1]), parts.length))
  return listValue([...parts, ...(rest.length === 0 ? [] : [rest.join(between ?? " ")])].map(textValue))
}

const formatted = (text: string, args: Args, budget: Budget): Value => {
  let next = 0
  const result = text.replaceAll(/\{(\d*)\}/g, (_, index: string) => {
    const value = args[index === "" ? next++ : Number(index)]
    if (value === undefined) throw new Error("format() has fewer arguments than placeholders")
    budget.print(value)
    return pythonText(value)
  })
  budget.text(result.length)
  return textValue(result)
}

type MethodOf<A> = (object: A, args: Args, budget: Budget) => Value

const textMethods: Readonly<Record<string, MethodOf<TextValue>>> = {
  strip: ({ value }, args) => textValue(stripped(value, textAt(args, 0), true, true)),
  lstrip: ({ value }, args) => textValue(stripped(value, textAt(args, 0), true, false)),
  rstrip: ({ value }, args) => textValue(stripped(value, textAt(args, 0), false, true)),
  removeprefix: ({ value }, args) => {
    const prefix = textAt(args, 0) ?? ""
    return textValue(value.startsWith(prefix) ? value.slice(prefix.length) : value)
  },
  removesuffix: ({ value }, args) => {
    const suffix = textAt(args, 0) ?? ""
    return textValue(suffix !== "" && value.endsWith(suffix) ? value.slice(0, -suffix.length) : value)
  },
  replace: ({ value }, args, budget) => replaced(value, args, budget),
  split: ({ value }, args, budget) => splitText(value, args, budget),
  find: ({ value }, args) => intValue(value.indexOf(textAt(args, 0) ?? "")),
  rfind: ({ value }, args) => intValue(value.lastIndexOf(textAt(args, 0) ?? "")),
  count: ({ value }, args) => intValue(countOf(value, textAt(args, 0) ?? "")),
  splitlines: ({ value }, _, budget) => {
    checkParts(value, "\n", "", budget)
    const lines = value.split(/\r\n|\r|\n/)
    if (lines.at(-1) === "") lines.pop()
    return listValue(lines.map(textValue))
  },
  join: ({ value }, [list], budget) => {
    if (list === undefined || !isList(list)) throw new Error("join() takes a list")
    return joined(list, value, budget, pythonText)
  },
  format: ({ value }, args, budget) => formatted(value, args, budget)
}

const popped = ({ value }: ListValue, args: Args): Value => {
  const [found] = value.splice(numberAt(args, 0) ?? -1, 1)
  if (found === undefined) throw new Error("pop() of an index that the list does not have")
  return found
}

const listMethods: Readonly<Record<string, MethodOf<ListValue>>> = {
  append: ({ value }, [one], budget) => {
    budget.spend(1)
    if (one !== undefined) value.push(one)
    return none
  },
  pop: popped
}

const mapMethods: Readonly<Record<string, MethodOf<MapValue>>> = {
  items: (map) => listValue(itemsOf(map)),
  keys: (map) => listValue(keysOf(map)),
  get: ({ value }, [key, otherwise = none]) => value.get(key?.value as string) ?? otherwise,
  pop: ({ value }, [key, otherwise]) => {
    const found = value.get(key?.value as string) ?? otherwise
    if (found === undefined) throw new Error("pop() of a key that the map does not have")
    value.delete(key?.value as string)
    return found
  },
  update: ({ value }, [other], budget) => {
    if (other === undefined || !isMap(other)) throw new Error("update() takes a map")
    budget.spend(other.value.size)
    for (const [key, one] of other.value) value.set(key, one)
    return none
  }
}

const own = <A>(table: Readonly<Record<string, A>>, name: string): A | undefined =>
  Object.hasOwn(table, name) ? table[name] : undefined

const boundOf = <A extends Value>(
  table: Readonly<Record<string, MethodOf<A>>>,
  name: string,
  object: A,
  budget: Budget
) => {
  const method = own(table, name)
  return method === undefined ? undefined : methodValue((args) => method(object, args, budget))
}

/** A method by its name; undefined if the package's own method applies. */
export const methodOf = (object: Value, name: string, budget: Budget): Value | undefined => {
  if (isText(object)) return boundOf(textMethods, name, object, budget)
  if (isList(object)) return boundOf(listMethods, name, object, budget)
  return isMap(object) && object.type !== "NamespaceValue" ? boundOf(mapMethods, name, object, budget) : undefined
}

const joined = (list: ListValue, between: string, budget: Budget, print: (value: Value) => string): Value => {
  const texts = list.value.map(print)
  budget.text(texts.reduce((sum, text) => sum + text.length + between.length, 0))
  return textValue(texts.join(between))
}

const leastOf = ({ value }: ListValue, sign: 1 | -1): Value =>
  value.reduce((least, one) => {
    const [a, b] = [least.value, one.value] as [number, number]
    return sign * (b < a ? -1 : b > a ? 1 : 0) < 0 ? one : least
  }, value[0] ?? missing)

/** Filters that print their value. */
const textFilters = new Set(["string", "trim", "lower", "upper", "title", "capitalize", "replace", "indent", "safe"])
/** Filters that accept an undefined value as an empty list. */
const selections = new Set(["map", "select", "reject", "selectattr", "rejectattr"])
const listFilters = new Set(["list", "items", "sort", "reverse", "unique", ...selections])

/** The result for an undefined name, which is an empty text and an empty list. */
const ofMissing = (name: string): Value | undefined => {
  if (name === "length" || name === "count") return intValue(0)
  if (name === "join" || textFilters.has(name)) return textValue("")
  return listFilters.has(name) ? listValue([]) : undefined
}

/** The widest indentation, spaces. */
const widestIndent = 100

const checkIndent = (args: Args, named: ReadonlyMap<string, Value>): undefined => {
  const wide = [...args, ...named.values()].some(({ value }) => typeof value === "number" && value > widestIndent)
  if (wide) throw new Error(`an indentation is wider than ${widestIndent}`)
}

const ofList = (name: string, list: ListValue, args: Args, budget: Budget, print: (value: Value) => string) => {
  switch (name) {
    case "min":
      return leastOf(list, 1)
    case "max":
      return leastOf(list, -1)
    case "first":
      return list.value[0] ?? missing
    case "last":
      return list.value.at(-1) ?? missing
    case "join":
      return joined(list, textAt(args, 0) ?? "", budget, print)
    default:
      return undefined
  }
}

/** Orders numbers by value, and texts without regard to case. */
const compareKeys = ([a]: readonly [string | number, Value], [b]: readonly [string | number, Value]): number => {
  const [first, second] = [a, b].map((key) => typeof key === "number" ? key : key.toLowerCase()) as [number, number]
  return first < second ? -1 : first > second ? 1 : 0
}

const ofMap = (name: string, map: MapValue, plain: boolean): Value | undefined => {
  if (name === "items") return listValue(itemsOf(map))
  if (name === "dictsort" && plain) {
    return listValue([...map.value].sort(compareKeys).map(([key, one]) => listValue([keyValue(key), one])))
  }
  return name === "list" ? listValue(keysOf(map)) : undefined
}

/** An application of a filter: its name, its arguments, and the printer of values. */
export interface Use {
  readonly name: string
  readonly args: Args
  readonly named: ReadonlyMap<string, Value>
  readonly budget: Budget
  readonly print: (value: Value) => string
}

const ofKind = (operand: Value, { args, budget, name, named, print }: Use): Value | undefined => {
  if (isList(operand)) return named.has("attribute") ? undefined : ofList(name, operand, args, budget, print)
  if (isMap(operand)) return ofMap(name, operand, args.length + named.size === 0)
  return isText(operand) && name === "replace" ? replaced(operand.value, args, budget) : undefined
}

/** The result of a filter; undefined if the package's own filter applies. */
export const filtered = (operand: Value, use: Use): Value | undefined => {
  const { args, name, named } = use
  if (name === "string") return textValue(pythonText(operand))
  if (name === "indent" || name === "tojson") checkIndent(args, named)
  if (isMissing(operand)) return ofMissing(name)
  if (isNone(operand) && selections.has(name)) return listValue([])
  return ofKind(operand, use)
}
