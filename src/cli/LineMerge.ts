/**
 * Sets values in YAML and TOML, a line each: comments, order and layout of the rest stay.
 *
 * **Details**
 *
 * Values of agents are texts and numbers at the top, tables of them in TOML, and in YAML lists whose items have a name. The
 * result is read again: a file that is written in another way (flow style, dotted keys) is rejected, not damaged.
 */
import { Result } from "effect"
import { Toml, Yaml } from "effect/encoding"
import { isDeepStrictEqual } from "node:util"
import type { Json, JsonObject } from "./AgentSettings.ts"

/** A JSON value is also a value of YAML and, except for objects, of TOML. */
const written = (value: Json): string => JSON.stringify(value)

const isTable = (value: Json): value is JsonObject => typeof value === "object" && !Array.isArray(value)

const isEmpty = (line: string): boolean => line.trim() === ""

/** Sets `name` in the lines from one index to another, and adds what is missing after the last line with content. */
const setLines = (
  lines: ReadonlyArray<string>,
  [from, to]: readonly [number, number],
  values: JsonObject,
  separator: string
): ReadonlyArray<string> => {
  const region = lines.slice(from, to)
  for (const [name, value] of Object.entries(values)) {
    const line = `${name}${separator}${written(value)}`
    const found = region.findIndex((one) => one.startsWith(name) && /^\s*[:=]/.test(one.slice(name.length)))
    if (found === -1) region.splice(region.findLastIndex((one) => !isEmpty(one)) + 1, 0, line)
    else region[found] = line
  }
  return [...lines.slice(0, from), ...region, ...lines.slice(to)]
}

const header = (line: string): boolean => /^\s*\[/.test(line)

const nextHeader = (lines: ReadonlyArray<string>, from: number): number => {
  const found = lines.findIndex((line, index) => index >= from && header(line))
  return found === -1 ? lines.length : found
}

const toml = (source: string, values: JsonObject): string => {
  let lines: ReadonlyArray<string> = source.trim() === "" ? [] : source.trimEnd().split("\n")
  const root = Object.fromEntries(Object.entries(values).filter(([, value]) => !isTable(value)))
  lines = setLines(lines, [0, nextHeader(lines, 0)], root, " = ")
  for (const [name, table] of Object.entries(values)) {
    if (!isTable(table)) continue
    const title = `[${name}]`
    let at = lines.findIndex((line) => line.trim() === title)
    if (at === -1) {
      lines = [...lines, "", title]
      at = lines.length - 1
    }
    lines = setLines(lines, [at + 1, nextHeader(lines, at + 1)], table, " = ")
  }
  return `${lines.join("\n")}\n`
}

const itemLines = (item: JsonObject, indent: string): ReadonlyArray<string> =>
  Object.entries(item).map(([name, value], index) => `${indent}${index === 0 ? "- " : "  "}${name}: ${written(value)}`)

/** The indentation of a list's items, and the index of the first line after the list. */
const listAt = (lines: ReadonlyArray<string>, start: number) => {
  const first = lines.slice(start + 1).find((line) => /^\s*-/.test(line))
  const indent = /^\s*/.exec(first ?? "  ")![0]
  const isOver = (line: string) => !isEmpty(line) && !/^(?:\s|-|#)/.test(line)
  const end = lines.findIndex((line, index) => index > start && isOver(line))
  return { indent, end: end === -1 ? lines.length : end }
}

/** The name of an item, if this is its line. */
const itemName = (line: string): string | undefined => {
  const value = /^\s*(?:-\s+)?name:\s*(.*?)\s*$/.exec(line)?.[1]
  return value?.replace(/^(["'])(.*)\1$/, "$2")
}

/** Replaces the items of a list that have the same name, and adds the others. */
const setItems = (lines: ReadonlyArray<string>, name: string, items: ReadonlyArray<JsonObject>) => {
  const start = lines.findIndex((line) =>
    /^\s*(?:#.*)?$/.test(line.slice(name.length + 1)) && line.startsWith(`${name}:`)
  )
  if (start === -1) return [...lines, `${name}:`, ...items.flatMap((item) => itemLines(item, "  "))]
  const result = [...lines]
  for (const item of items) {
    const { end, indent } = listAt(result, start)
    const isStart = (line: string) => line.startsWith(`${indent}-`)
    const title = result.findIndex((line, index) => index > start && index < end && itemName(line) === item["name"])
    const first = title === -1 ? -1 : result.findLastIndex((line, index) => index <= title && isStart(line))
    const after = result.findIndex((line, index) => index > first && index < end && isStart(line))
    const last = result.findLastIndex((line, index) => index < end && !isEmpty(line)) + 1
    if (first === -1) result.splice(last, 0, ...itemLines(item, indent))
    else result.splice(first, (after === -1 ? last : after) - first, ...itemLines(item, indent))
  }
  return result
}

const yaml = (source: string, values: JsonObject): string => {
  let lines: ReadonlyArray<string> = source.trim() === "" ? [] : source.trimEnd().split("\n")
  for (const [name, value] of Object.entries(values)) {
    lines = Array.isArray(value)
      ? setItems(lines, name, value as ReadonlyArray<JsonObject>)
      : setLines(lines, [0, lines.length], { [name]: value }, ": ")
  }
  return `${lines.join("\n")}\n`
}

const nameOf = (item: unknown): unknown => (item as { readonly name?: unknown }).name

/** What a list has to contain after the change: other items, then or in their place those with a name. */
const mergedList = (before: unknown, items: ReadonlyArray<Json>): ReadonlyArray<unknown> => {
  const list: Array<unknown> = Array.isArray(before) ? [...before as ReadonlyArray<unknown>] : []
  for (const item of items) {
    const found = list.findIndex((one) => nameOf(one) === nameOf(item))
    list.splice(found === -1 ? list.length : found, found === -1 ? 0 : 1, item)
  }
  return list
}

const mergedValue = (before: unknown, value: Json): unknown => {
  if (Array.isArray(value)) return mergedList(before, value as ReadonlyArray<Json>)
  return isTable(value) ? { ...before as object | undefined, ...value } : value
}

/** The values that the file has to contain after the change. */
const merged = (before: unknown, values: JsonObject): unknown => {
  const result: Record<string, unknown> = { ...before as object | undefined }
  for (const [name, value] of Object.entries(values)) {
    const path = isTable(value) ? name.split(".") : [name]
    let place = result
    for (const part of path.slice(0, -1)) {
      place = place[part] = { ...place[part] as Record<string, unknown> | undefined }
    }
    place[path.at(-1)!] = mergedValue(place[path.at(-1)!], value)
  }
  return result
}

const formats = {
  toml: { write: toml, read: (text: string): unknown => Result.getOrThrowWith(Toml.parse(text), (error) => error) },
  yaml: { write: yaml, read: (text: string): unknown => text.trim() === "" ? {} : Yaml.parse(text) }
}

/**
 * The text with these values.
 *
 * @param set texts and numbers, in YAML also lists of objects with a `name`, in TOML also tables by their dotted name
 * @param defaults those that a text without them gets
 * @throws if the text is invalid, or is written in a way that this merge does not change
 */
export const merge = (
  format: keyof typeof formats,
  source: string,
  set: JsonObject,
  defaults: JsonObject = {}
): string => {
  const { read, write } = formats[format]
  const before = read(source) as JsonObject | null
  const missing = Object.entries(defaults).filter(([name]) => before?.[name] === undefined)
  const values = { ...Object.fromEntries(missing), ...set }
  const expected = merged(before, values)
  const text = write(source, values)
  // Without the prototypes that parsers give.
  const plain = (value: unknown): unknown => JSON.parse(JSON.stringify(value))
  if (!isDeepStrictEqual(plain(read(text)), plain(expected))) {
    throw new SyntaxError("it is written in a style that cannot be merged")
  }
  return text
}
