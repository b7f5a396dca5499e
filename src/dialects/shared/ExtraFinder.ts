/** Finds the fields of a body that Troupe has no name for. Pure. */
import type { Dialect, Field, PassThrough, Task } from "../../domain/PassThrough.ts"
import type { Body } from "./BodyChecks.ts"

export type Path = Field["path"]

type Hints = Readonly<Record<string, (value: unknown) => boolean>>

/** What is known in one place, and what may be left out there, by its name and value. */
export interface Place {
  readonly known: ReadonlySet<string>
  readonly isHint: (name: string, value: unknown) => boolean
}

/** @param except fields that the schema checks and no request of ours has */
export const placeOf = (
  schema: { readonly fields: object },
  hints: Hints,
  except: ReadonlyArray<string> = []
): Place => ({
  known: new Set(Object.keys(schema.fields).filter((name) => !except.includes(name))),
  isHint: (name, value) => Object.hasOwn(hints, name) && hints[name]!(value)
})

export const always = (): boolean => true

export const isObject = (value: unknown): value is Body =>
  typeof value === "object" && value !== null && !Array.isArray(value)

export const listOf = (value: unknown): ReadonlyArray<unknown> => Array.isArray(value) ? value : []

export const typeOf = (value: unknown): unknown => isObject(value) ? value["type"] : undefined

export interface Finder {
  /** Adds the fields of an object that are not known in its place; null stands for what is left out. */
  readonly look: (value: unknown, place: Place, path: Path) => void
  /** Adds a whole value, of a type that is not known. */
  readonly add: (value: unknown, path: Path, optional?: boolean) => void
  /** What was found; undefined where there is nothing. */
  readonly extra: (dialect: Dialect, task?: Task) => PassThrough | undefined
}

export const make = (): Finder => {
  const fields: Array<Field> = []
  const add = (value: unknown, path: Path, optional = false) => {
    fields.push({ path, value, ...(optional ? { optional } : {}) })
  }
  return {
    add,
    look: (value, { isHint, known }, path) => {
      if (!isObject(value)) return
      for (const name of Object.keys(value)) {
        if (!known.has(name) && value[name] !== null) add(value[name], [...path, name], isHint(name, value[name]))
      }
    },
    extra: (dialect, task) =>
      fields.length === 0 ? undefined : { dialect, ...(task === undefined ? {} : { task }), fields }
  }
}
