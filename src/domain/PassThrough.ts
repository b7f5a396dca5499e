/**
 * What a request says in its caller's dialect and Troupe has no name for: it reaches a deployment of that dialect as it
 * was, and rules the others out.
 *
 * **Details**
 *
 * Each field has the place where it stood in the body. What may be left out where nobody has words for it, as a hint or
 * a value that asks for nothing, says so; all else is passed on or refused, never dropped.
 *
 * **Example**
 *
 * ```ts
 * const request = Inference.request({
 *   model: "gpt",
 *   messages: [{ role: "user", content: "Hello!" }],
 *   extra: { dialect: "openai", fields: [{ path: ["reasoning_effort"], value: "low" }] }
 * })
 * ```
 */
import { Schema } from "effect"
import { isNestedDeeper, mostLevels } from "./JsonDepth.ts"
import { formatPath } from "./Problem.ts"

/** Dialects that callers speak and providers as well. */
export const dialects = ["openai", "anthropic"] as const
export type Dialect = typeof dialects[number]

/** More than any conversation has: clients send back with it what an assistant said beside its text. */
export const mostFields = 10_000

export const Field = Schema.Struct({
  /** Names and indexes from the body down, as `["messages", 0, "name"]`. */
  path: Schema.Array(Schema.Union([Schema.String, Schema.Int])).check(Schema.isMinLength(1)),
  /** JSON. */
  value: Schema.Unknown.check(
    Schema.makeFilter((value: unknown) =>
      isNestedDeeper(value, mostLevels) ? `Expected JSON of at most ${mostLevels} levels within each other` : undefined
    )
  ),
  /** It may be left out; default false. */
  optional: Schema.optional(Schema.Boolean)
})
export type Field = typeof Field.Type

/** Endpoints of the OpenAI dialect that have fields of their own. */
export const tasks = ["embeddings", "rerank", "classify", "tokenize"] as const
export type Task = typeof tasks[number]

export const PassThrough = Schema.Struct({
  dialect: Schema.Literals(dialects),
  /** The endpoint; left out, one that generates. */
  task: Schema.optional(Schema.Literals(tasks)),
  fields: Schema.Array(Field).check(Schema.isMaxLength(mostFields))
})
export type PassThrough = typeof PassThrough.Type

/** What a deployment must have that a request with such fields needs. */
export type Need = `${Dialect} fields`

export const needs = dialects.map((dialect): Need => `${dialect} fields`)

/** The fields that must not be left out. */
export const requiredFields = ({ fields }: PassThrough): ReadonlyArray<Field> =>
  fields.filter(({ optional }) => optional !== true)

/** Their paths, as `messages[0].audio`. */
export const requiredOf = (extra: PassThrough): ReadonlyArray<string> =>
  requiredFields(extra).map(({ path }) => formatPath(path))

/** Values by the steps to them, so that a body is gone through once however many there are. */
interface Tree {
  readonly steps: Map<string | number, Tree>
  value?: unknown
}

const treeOf = (fields: ReadonlyArray<Field>): Tree => {
  const root: Tree = { steps: new Map() }
  for (const { path, value } of fields) {
    let at = root
    for (const step of path) {
      const next = at.steps.get(step) ?? { steps: new Map() }
      at.steps.set(step, next)
      at = next
    }
    at.value = value
  }
  return root
}

/** Where there is nothing that a value can stand in, it is left out. */
const graft = (target: unknown, { steps, value }: Tree): unknown => {
  if (value !== undefined) return value
  if (typeof target !== "object" || target === null) return target
  if (Array.isArray(target)) {
    return target.map((one: unknown, index) => steps.has(index) ? graft(one, steps.get(index)!) : one)
  }
  const before = target as Readonly<Record<string | number, unknown>>
  const grafted = [...steps].map(([step, tree]) => [step, graft(before[step], tree)] as const)
  return Object.fromEntries([...Object.entries(before), ...grafted.filter(([, value]) => value !== undefined)])
}

/** The body with the fields in their places. */
export const merge = (body: unknown, { fields }: PassThrough): unknown => graft(body, treeOf(fields))
