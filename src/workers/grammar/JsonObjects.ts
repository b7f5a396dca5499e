/**
 * Grammar rules for JSON objects: declared properties in their order, then others whose names patterns and schemas allow.
 *
 * **Details**
 *
 * The names of undeclared properties are divided into classes, so that each name belongs to one: those of each combination of
 * patterns, and all others. Where the number of properties matters, the rules count them. A grammar cannot compare
 * names, so that of undeclared properties only one counts toward `minProperties`.
 */
import type { Budget } from "./Budget.ts"
import type { GrammarBuilder, GrammarSymbol, Sequence } from "./Grammar.ts"
import { text } from "./Grammar.ts"
import type { Located } from "./JsonSchemaKeywords.ts"
import { refuseAt, within } from "./JsonSchemaKeywords.ts"
import { stringOf } from "./JsonStrings.ts"
import { anyString, colon, comma } from "./JsonValues.ts"
import type { MergedSchema, ObjectPart } from "./MergedSchema.ts"
import type { Automaton } from "./TextAutomaton.ts"
import { accepts, complementOf, except, intersect, isEmpty } from "./TextAutomaton.ts"

/** Properties of one object. */
const mostProperties = 500

/** Rules of one object, where its properties are counted. */
const mostCounted = 10_000

/** How an object is written. */
export interface ObjectNotation {
  readonly open: Sequence
  readonly close: (isEmpty: boolean) => Sequence
  readonly separator: Sequence
  readonly member: (name: string, schemas: ReadonlyArray<Located>) => Sequence
  /** A member with one of these names, which are any if left out; undefined if such members cannot be written. */
  readonly other: (names: Automaton | undefined, schemas: ReadonlyArray<Located>) => Sequence | undefined
}

export interface ObjectWriter {
  readonly builder: GrammarBuilder
  readonly notation: ObjectNotation
  /** The names that a schema of names allows. */
  readonly namesOf: (schema: Located) => Automaton
  readonly budget: Budget
}

/** Steps to compare two edges of automata of names, whose states are mostly new. */
const stepsPerEdge = 10

/** Steps to make a state of an automaton of names. */
const stepsPerState = 20

/** Objects in JSON. */
export const jsonObjects = (
  builder: GrammarBuilder,
  valueOf: (schemas: ReadonlyArray<Located>) => GrammarSymbol
): ObjectNotation => ({
  open: [text("{")],
  close: () => [text("}")],
  separator: comma(builder),
  member: (name, schemas) => [text(JSON.stringify(name)), ...colon(builder), valueOf(schemas)],
  other: (names, schemas) => [
    ...(names === undefined ? anyString(builder) : stringOf(builder, names)),
    ...colon(builder),
    valueOf(schemas)
  ]
})

/** Names of undeclared properties, and the schemas of their values. */
interface NameClass {
  readonly names: Automaton
  readonly schemas: ReadonlyArray<Located>
  readonly matched: ReadonlySet<ObjectPart>
}

const isDefined = <A>(value: A | undefined): value is A => value !== undefined

const isFree = ({ additional }: ObjectPart): boolean => additional === undefined || additional.schema === true

/** An object with declared properties has no others unless a schema allows them. */
const isClosed = (part: ObjectPart): boolean =>
  isFree(part) && (part.properties !== undefined || part.required.length > 0 || part.patterns.length > 0)

/** The schemas of a property of this name. */
const schemasOf = (parts: ReadonlyArray<ObjectPart>, name: string): ReadonlyArray<Located> =>
  parts.flatMap((part) => {
    const found = [
      part.properties?.get(name),
      ...part.patterns.filter(({ names }) => accepts(names, name)).map(({ schema }) => schema)
    ].filter(isDefined)
    return found.length > 0 ? found : [part.additional].filter(isDefined)
  })

/** The schemas of a class of names; undefined if there are no such properties. */
const schemasOfClass = (
  parts: ReadonlyArray<ObjectPart>,
  { matched, schemas }: NameClass
): ReadonlyArray<Located> | undefined => {
  const others = parts.filter((part) => !matched.has(part))
  if (matched.size === 0 && others.some(isClosed)) return undefined
  const all = [...schemas, ...others.map(({ additional }) => additional).filter(isDefined)]
  return all.some(({ schema }) => schema === false) ? undefined : all.filter(({ schema }) => schema !== true)
}

class ObjectRules {
  readonly #writer: ObjectWriter
  readonly #parts: ReadonlyArray<ObjectPart>
  readonly #path: string
  readonly #required: ReadonlySet<string>
  readonly #names: ReadonlyArray<string>
  readonly #least: number
  readonly #most: number | undefined
  /** Beginnings of an undeclared property. */
  readonly #entries: ReadonlyArray<Sequence>

  constructor(writer: ObjectWriter, { objects, path, properties }: MergedSchema) {
    this.#writer = writer
    this.#parts = objects
    this.#path = path
    this.#required = new Set(objects.flatMap((part) => part.required))
    const named = objects.map(({ names }) => names).filter(isDefined).map(writer.namesOf)
    const declared = new Set([...objects.flatMap((part) => [...part.properties?.keys() ?? []]), ...this.#required])
    this.#names = [...declared].filter((name) => named.every((names) => accepts(names, name)))
    if (declared.size > mostProperties) refuseAt(path, `has more than ${mostProperties} properties, which is the limit`)
    this.#entries = this.#hasNone(named) ? [] : this.#entriesOf([...declared], named)
    this.#least = properties.least <= this.#required.size ? 0 : properties.least
    const isAlwaysFewer = this.#entries.length === 0 && (properties.most ?? Infinity) >= this.#names.length
    this.#most = isAlwaysFewer ? undefined : properties.most
    if ([...this.#required].some((name) => !this.#names.includes(name))) this.#least = Infinity
    this.#check()
  }

  #check(): void {
    const { least, most } = { least: this.#least, most: this.#most ?? 0 }
    if (
      least !== Infinity && least > this.#names.length + Math.min(1, this.#entries.length) && this.#entries.length > 0
    ) {
      refuseAt(
        within(this.#path, "minProperties"),
        "is above the number of declared properties, and a grammar cannot compare the names of others; omit it"
      )
    }
    if (Math.max(most, least === Infinity ? 0 : least) * (this.#names.length + 1) > mostCounted) {
      refuseAt(this.#path, "counts too many properties; omit minProperties and maxProperties")
    }
  }

  #hasNone(named: ReadonlyArray<Automaton>): boolean {
    return this.#parts.every(({ patterns }) => patterns.length === 0) && named.length === 0 &&
      schemasOfClass(this.#parts, { names: [], schemas: [], matched: new Set() }) === undefined
  }

  #common(a: Automaton, b: Automaton): Automaton {
    const { budget } = this.#writer
    const found = intersect(a, b, (steps) => budget.spend(steps * stepsPerEdge, this.#path)) ??
      refuseAt(this.#path, "has too many patterns of names; use fewer")
    budget.spend(found.length * stepsPerState, this.#path)
    return found
  }

  /** Divides each class by the names that a pattern accepts. */
  #split(classes: ReadonlyArray<NameClass>, part: ObjectPart): ReadonlyArray<NameClass> {
    return part.patterns.reduce((before, { names, schema }) => {
      const others = complementOf(names)
      return before.flatMap((one) => [
        {
          names: this.#common(one.names, names),
          schemas: [...one.schemas, schema],
          matched: new Set([...one.matched, part])
        },
        { ...one, names: this.#common(one.names, others) }
      ]).filter((one) => !isEmpty(one.names))
    }, classes)
  }

  #entriesOf(declared: ReadonlyArray<string>, named: ReadonlyArray<Automaton>): ReadonlyArray<Sequence> {
    const { notation } = this.#writer
    const isAny = declared.length === 0 && named.length === 0 &&
      this.#parts.every(({ patterns }) => patterns.length === 0)
    const undeclared = named.reduce((before, names) => this.#common(before, names), except(declared))
    const first: ReadonlyArray<NameClass> = [{ names: undeclared, schemas: [], matched: new Set() }]
    return this.#parts.reduce((classes, part) => this.#split(classes, part), first).flatMap((one) => {
      const schemas = schemasOfClass(this.#parts, one)
      if (schemas === undefined || isEmpty(one.names)) return []
      const entry = notation.other(isAny ? undefined : one.names, schemas)
      return entry === undefined ? [] : [entry]
    })
  }

  /** The end of an object with this many properties. */
  #end(count: number): ReadonlyArray<Sequence> {
    return count >= this.#least ? [this.#writer.notation.close(count === 0)] : []
  }

  /** More undeclared properties after the first one, and the end if it is allowed. */
  #moreOthers(count: number, end: ReadonlyArray<Sequence>, known: Map<number, GrammarSymbol>): GrammarSymbol {
    const { builder, notation } = this.#writer
    const most = this.#most
    const key = most === undefined ? 0 : count
    const found = known.get(key)
    if (found !== undefined) return found
    const { define, symbol } = builder.declare("others")
    known.set(key, symbol)
    const isFull = most !== undefined && count >= most
    const next = (
      entry: Sequence
    ): Sequence => [...notation.separator, ...entry, this.#moreOthers(count + 1, end, known)]
    define([...(isFull ? [] : this.#entries.map(next)), ...end])
    return symbol
  }

  /** What can follow the last declared property, after this many properties. */
  #tail(count: number): GrammarSymbol {
    const { builder, notation } = this.#writer
    const isFull = this.#most !== undefined && count >= this.#most
    if (this.#entries.length === 0 || isFull) return builder.rule("end", this.#end(count))
    const more = this.#moreOthers(count + 1, this.#end(count + 1), new Map())
    const separator = count === 0 ? [] : notation.separator
    return builder.rule("others", [
      ...this.#entries.map((entry) => [...separator, ...entry, more]),
      ...this.#end(count)
    ])
  }

  write(): Sequence {
    const { builder, notation } = this.#writer
    // Without limits, only the first property differs from the others.
    const top = Math.max(1, this.#least === Infinity ? 0 : this.#least, this.#most ?? 0)
    let after = Array.from({ length: top + 1 }, (_, count) => this.#tail(count))
    // From the last to the first, since each part needs the one that follows it.
    for (const name of this.#names.toReversed()) {
      const member = notation.member(name, schemasOf(this.#parts, name))
      after = after.map((rest, count) => {
        const isFull = this.#most !== undefined && count >= this.#most
        const separator = count === 0 ? [] : notation.separator
        const next = after[Math.min(count + 1, top)]!
        const skip: ReadonlyArray<Sequence> = this.#required.has(name) ? [] : [[rest]]
        return builder.rule("members", [...(isFull ? [] : [[...separator, ...member, next]]), ...skip])
      })
    }
    return [...notation.open, after[0]!]
  }
}

/** Objects that a schema allows. */
export const objectsOf = (writer: ObjectWriter, shape: MergedSchema): Sequence => new ObjectRules(writer, shape).write()
