/**
 * Renders the Jinja templates of model files like Python's Jinja, within a work budget.
 *
 * **Details**
 *
 * `@huggingface/jinja` parses and evaluates. This module adds the features that published templates need and the package
 * lacks:
 * - a map or list joined to a text is printed as JSON, since templates that join a call's arguments expect JSON text;
 *   the filter `string` prints it as Python's `str`
 * - an undefined name is an empty list in a loop, and an empty text in a join
 * - integer keys of maps, tuples to unpack, `==` of lists and maps, and some methods and filters (`JinjaMethods`)
 *
 * A model file is untrusted input, so each evaluated node and each element that an operation copies counts as a step,
 * and no text or list may exceed a fixed size. These two limits bound time and memory.
 *
 * **Gotchas**
 *
 * The overridden methods of the interpreter are private: they match only the version that package.json pins.
 */
import { Environment, Interpreter, parse, tokenize } from "@huggingface/jinja"
import { boundedRange, filtered, methodOf } from "./JinjaMethods.ts"
import {
  boolValue,
  Budget,
  isEqual,
  isList,
  isMap,
  isMissing,
  isNone,
  isText,
  keysOf,
  listValue,
  methodValue,
  missing,
  OverBudget,
  pythonText,
  textValue
} from "./JinjaValues.ts"
import type { MapValue, Scope, Value } from "./JinjaValues.ts"

/** Limit of a template's length, characters. */
const longestTemplate = 1_000_000

interface Node {
  readonly type: string
}
interface Held extends Node {
  readonly held: Value
}
interface Named extends Node {
  readonly value: string
}
/** A filter: a name, or a call with arguments. */
type Filter = Named | (Node & { readonly callee: Named; readonly args: ReadonlyArray<Node> })
interface Binary extends Node {
  readonly operator: { readonly value: string }
  readonly left: Node
  readonly right: Node
}
interface Loop extends Node {
  readonly iterable: Node & { readonly lhs?: Node }
}
interface Member extends Node {
  readonly object: Node
  readonly property: Named
  readonly computed: boolean
}
interface MapLiteral extends Node {
  readonly value: ReadonlyMap<Node, Node>
}

interface Evaluator {
  evaluate(node: Node | undefined, scope: Scope): Value
  evaluateBlock(nodes: ReadonlyArray<Node>, scope: Scope): Value
  evaluateBinaryExpression(node: Binary, scope: Scope): Value
  evaluateFor(node: Loop, scope: Scope): Value
  evaluateMemberExpression(node: Member, scope: Scope): Value
  evaluateArguments(nodes: ReadonlyArray<Node>, scope: Scope): [Array<Value>, ReadonlyMap<string, Value>]
  applyFilter(operand: Value, filter: Filter, scope: Scope): Value
}

const Base = Interpreter as unknown as new(scope: Scope) => Evaluator

/** A node with an evaluated value, so that no operand is evaluated twice. */
const holding = (held: Value): Held => ({ type: "Held", held })

const toJson: Named = { type: "Identifier", value: "tojson" }

class BoundedInterpreter extends Base {
  private readonly budget: Budget

  constructor(scope: Scope, budget: Budget) {
    super(scope)
    this.budget = budget
  }

  override evaluate(node: Node | undefined, scope: Scope): Value {
    this.budget.spend(1)
    if (node?.type === "Held") return (node as Held).held
    const value = node?.type === "ObjectLiteral" ? this.mapOf(node as MapLiteral, scope) : super.evaluate(node, scope)
    if (isText(value)) this.budget.text(value.value.length)
    return value
  }

  override evaluateBlock(nodes: ReadonlyArray<Node>, scope: Scope): Value {
    let text = ""
    for (const node of nodes) {
      const value = this.evaluate(node, scope)
      if (isNone(value) || isMissing(value)) continue
      text += this.printed(value)
      this.budget.text(text.length)
    }
    return textValue(text)
  }

  override evaluateBinaryExpression(node: Binary, scope: Scope): Value {
    const { left, operator: { value: operator }, right } = node
    if (operator === "and" || operator === "or") return super.evaluateBinaryExpression(node, scope)
    const values = [this.evaluate(left, scope), this.evaluate(right, scope)] as const
    return this.combined(operator, ...values) ??
      super.evaluateBinaryExpression({ ...node, left: holding(values[0]), right: holding(values[1]) }, scope)
  }

  override evaluateFor(node: Loop, scope: Scope): Value {
    const { iterable } = node
    const select = iterable.type === "SelectExpression"
    const values = this.listOf(this.evaluate(select ? iterable.lhs : iterable, scope))
    const held = holding(values)
    return super.evaluateFor({ ...node, iterable: select ? { ...iterable, lhs: held } : held }, scope)
  }

  override evaluateMemberExpression(node: Member, scope: Scope): Value {
    const object = this.evaluate(node.object, scope)
    const own = this.memberOf(object, node, scope)
    return own ?? super.evaluateMemberExpression({ ...node, object: holding(object) }, scope)
  }

  override applyFilter(operand: Value, filter: Filter, scope: Scope): Value {
    const [name, nodes] = "callee" in filter ? [filter.callee.value, filter.args] : [filter.value, []]
    this.budget.print(operand)
    const [args, named] = nodes.length === 0 ? [[], new Map<string, Value>()] : this.evaluateArguments(nodes, scope)
    const use = { name, args, named, budget: this.budget, print: (value: Value) => this.printed(value) }
    return filtered(operand, use) ?? super.applyFilter(operand, filter, scope)
  }

  /** A value as text in the output. */
  private printed(value: Value): string {
    if (isText(value)) return value.value
    if (!isList(value) && !isMap(value)) return isNone(value) ? "None" : pythonText(value)
    return super.applyFilter(this.checked(value), toJson, new Environment()).value as string
  }

  private checked(value: Value): Value {
    this.budget.print(value)
    return value
  }

  /** Operators that the package lacks, or evaluates differently from Python. */
  private combined(operator: string, left: Value, right: Value): Value | undefined {
    switch (operator) {
      case "==":
      case "!=":
        return boolValue(isEqual(this.checked(left), this.checked(right)) === (operator === "=="))
      case "~":
        return this.joined(left, right)
      case "+":
        return this.added(left, right)
      case "in":
      case "not in":
        return this.holds(left, right, operator === "in")
      default:
        return undefined
    }
  }

  private added(left: Value, right: Value): Value | undefined {
    if (isList(left) && isList(right)) this.budget.spend(left.value.length + right.value.length)
    const isJoined = (isText(left) && !isNone(right)) || (isText(right) && !isNone(left))
    return isJoined ? this.joined(left, right) : undefined
  }

  private joined(left: Value, right: Value): Value {
    const [first, second] = [this.printed(left), this.printed(right)]
    this.budget.text(first.length + second.length)
    return textValue(first + second)
  }

  private holds(left: Value, right: Value, wanted: boolean): Value | undefined {
    if (isMap(right)) return boolValue(right.value.has(left.value as string) === wanted)
    if (!isList(right)) return undefined
    return boolValue(right.value.some((one) => isEqual(this.checked(one), left)) === wanted)
  }

  private listOf(value: Value): Value {
    if (isMissing(value)) return listValue([])
    const values = isText(value)
      ? Array.from(value.value, textValue)
      : isMap(value)
      ? keysOf(value)
      : isList(value)
      ? value.value.map((one) => isList(one) ? listValue(one.value) : one)
      : undefined
    if (values === undefined) return value
    this.budget.spend(values.length)
    return listValue(values)
  }

  private memberOf(object: Value, { computed, property }: Member, scope: Scope): Value | undefined {
    if (!computed) {
      return property.type === "Identifier" && !(isMap(object) && object.value.has(property.value))
        ? methodOf(object, property.value, this.budget)
        : undefined
    }
    // A number as the key of a map.
    if (!isMap(object) || property.type === "SliceExpression") return undefined
    const key = this.evaluate(property, scope)
    return typeof key.value === "number" ? object.value.get(key.value) ?? missing : undefined
  }

  private mapOf({ value }: MapLiteral, scope: Scope): Value {
    const map = emptyMap()
    for (const [key, one] of value) {
      const { type, value: name } = this.evaluate(key, scope)
      if (typeof name !== "string" && typeof name !== "number") throw new Error(`${type} cannot be a map's key`)
      map.value.set(name, this.evaluate(one, scope))
    }
    return map
  }
}

const emptyMap = (): MapValue => new Environment().set("map", {})

/** A parsed template. */
export interface Jinja {
  /** Throws what the template raises, and `OverBudget`. */
  readonly render: (variables: Readonly<Record<string, unknown>>) => string
}

const constants = { false: false, true: true, none: null, False: false, True: true, None: null }

const raise = (message?: unknown): never => {
  throw new Error(typeof message === "string" ? message : "The template raises an exception without a message")
}

const pad = (number: number): string => String(number).padStart(2, "0")

const months = [
  "January",
  "February",
  "March",
  "April",
  "May",
  "June",
  "July",
  "August",
  "September",
  "October",
  "November",
  "December"
]
const days = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"]

const short = (name: string): string => name.slice(0, 3)

const codes: Readonly<Record<string, (now: Date) => string>> = {
  Y: (now) => String(now.getFullYear()),
  m: (now) => pad(now.getMonth() + 1),
  d: (now) => pad(now.getDate()),
  b: (now) => short(months[now.getMonth()]!),
  B: (now) => months[now.getMonth()]!,
  a: (now) => short(days[now.getDay()]!),
  A: (now) => days[now.getDay()]!,
  H: (now) => pad(now.getHours()),
  M: (now) => pad(now.getMinutes()),
  S: (now) => pad(now.getSeconds()),
  "%": () => "%"
}

/** A time in Python's format codes; unknown codes stay unchanged. */
const dateText = (format: string, now: Date): string =>
  format.replaceAll(/%([A-Za-z%])/g, (written, code: string) => codes[code]?.(now) ?? written)

/** Parses a template; throws for invalid syntax. */
export const parseJinja = (source: string): Jinja => {
  if (source.length > longestTemplate) throw new OverBudget(`it has more than ${longestTemplate} characters`)
  const program = parse(tokenize(source, { lstrip_blocks: true, trim_blocks: true }))
  return {
    render(variables) {
      const budget = new Budget()
      const scope = new Environment()
      const now = new Date()
      for (const [name, value] of Object.entries({ ...constants, ...variables })) scope.set(name, value)
      scope.set("datetime", dateText("%b %d %Y", now))
      scope.set("raise_exception", raise)
      scope.set("strftime_now", (format: unknown) => dateText(String(format), now))
      scope.setVariable("range", methodValue((args) => boundedRange(args, budget)))
      return new BoundedInterpreter(scope, budget).evaluate(program as Node, scope).value as string
    }
  }
}
