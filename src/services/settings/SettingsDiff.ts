/**
 * What differs between two configurations. Pure.
 *
 * **Details**
 *
 * Settings are compared as they are resolved: with defaults, and with the values of environment variables. Models, policies,
 * keys, limits and budgets are compared by their names, deployments by their ids; other lists as a whole. The order of named
 * things is a change of its own. What the settings have by the names of models, apart from these, is a field of its model.
 *
 * `apply(before, diff(before, after))` equals `after`.
 *
 * **Gotchas**
 *
 * A change has the values, secrets included. `shown` has none: it is what is printed, logged and sent.
 */
import { Duration, Equal, Redacted } from "effect"
import type { Deployment, Model } from "../../domain/Deployment.ts"
import { durationText } from "../../domain/Fields.ts"
import * as Problem from "../../domain/Problem.ts"
import { sourceOf } from "../engines/EngineKinds.ts"
import type { Resolved } from "./Settings.ts"

type Path = ReadonlyArray<string>

/** One difference. A value that is left out does not exist on that side. */
export interface Change {
  /** Fields and names from the root of the settings. */
  readonly path: Path
  readonly before?: unknown
  readonly after?: unknown
}

/** A difference as users see it: without secrets. */
export interface ShownChange {
  /** As in `troupe.yaml`. */
  readonly path: string
  readonly change: "added" | "removed" | "changed"
  readonly before?: string
  readonly after?: string
  /** It applies after a restart only. */
  readonly needsRestart: boolean
}

type Fields = Readonly<Record<string, unknown>>

const isFields = (value: unknown): value is Fields =>
  typeof value === "object" && value !== null && !Array.isArray(value) && !Duration.isDuration(value) &&
  !Redacted.isRedacted(value) && !(value instanceof Map)

/** Sections by the names of models, and the fields that models have for them in the file. */
const fieldOfModel: Readonly<Record<string, string>> = {
  experiments: "experiment",
  rollouts: "rollout",
  shadows: "shadow"
}

type ByModel = ReadonlyMap<string, unknown>

/** The values by the names of models; a section without any is left out of the settings. */
const byModel = (path: Path, value: unknown): ByModel | undefined =>
  path.length === 1 && fieldOfModel[path[0]!] !== undefined ? value as ByModel | undefined ?? new Map() : undefined

const writeByModel = (place: Path, values: ByModel, [model, ...rest]: Path, change: Change): ByModel | undefined => {
  const next = new Map(values)
  const value = write([...place, model!], values.get(model!), rest, change)
  if (value === undefined) next.delete(model!)
  else next.set(model!, value)
  return next.size === 0 ? undefined : next
}

/** Whether the elements of a list have a `name` by which they are compared. */
const isNamedList = ({ length, 0: section = "" }: Path): boolean =>
  length === 1 ? ["keys", "models", "policies"].includes(section) : length === 2 && section === "alerts"

/** The name of an element of a list that is compared by names. */
const nameOf = (path: Path, element: unknown): string | undefined => {
  if (!isFields(element)) return undefined
  const [section, , field] = path
  if (path.length === 3 && section === "models" && field === "deployments") return String(element["id"])
  if (isNamedList(path)) return String(element["name"])
  return path.length === 2 && section === "admission" && isFields(element["rule"])
    ? String(element["rule"]["name"])
    : undefined
}

/** The elements by their names, or undefined for a list that is compared as a whole. */
const named = (path: Path, value: unknown): ReadonlyMap<string, unknown> | undefined => {
  if (!Array.isArray(value)) return undefined
  const names = value.map((element) => nameOf(path, element))
  const all = new Map(value.map((element, index) => [names[index]!, element as unknown]))
  return names.includes(undefined) || all.size !== value.length ? undefined : all
}

/** The field of a change in the order of named things; not a name that a file can have. */
const order = "\n"

/** Functions are derived from the fields beside them. */
const isDerived = (value: unknown): boolean => typeof value === "function"

const orderAfter = (
  before: ReadonlyMap<string, unknown>,
  after: ReadonlyMap<string, unknown>
): ReadonlyArray<string> => [
  ...[...before.keys()].filter((name) => after.has(name)),
  ...[...after.keys()].filter((name) => !before.has(name))
]

const compareNamed = (
  path: Path,
  before: ReadonlyMap<string, unknown>,
  after: ReadonlyMap<string, unknown>
): ReadonlyArray<Change> => {
  const names = [...after.keys()]
  const kept = orderAfter(before, after)
  const changes = [...new Set([...before.keys(), ...names])].flatMap((name) =>
    compare([...path, name], before.get(name), after.get(name))
  )
  return Equal.equals(kept, names)
    ? changes
    : [...changes, { path: [...path, order], before: [...before.keys()], after: names }]
}

const compareFields = (path: Path, before: Fields, after: Fields): ReadonlyArray<Change> =>
  [...new Set([...Object.keys(before), ...Object.keys(after)])].flatMap((field) =>
    compare([...path, field], before[field], after[field])
  )

const isEqual = (before: unknown, after: unknown): boolean =>
  isDerived(before) && isDerived(after) || Equal.equals(before, after)

const compare = (path: Path, before: unknown, after: unknown): ReadonlyArray<Change> => {
  if (isEqual(before, after)) return []
  const [models, others] = [byModel(path, before), byModel(path, after)]
  if (models !== undefined && others !== undefined) {
    return [...new Set([...models.keys(), ...others.keys()])].flatMap((model) =>
      compare([...path, model], models.get(model), others.get(model))
    )
  }
  const [one, other] = [named(path, before), named(path, after)]
  if (one !== undefined && other !== undefined) return compareNamed(path, one, other)
  if (isFields(before) && isFields(after)) return compareFields(path, before, after)
  return [{ path, ...(before === undefined ? {} : { before }), ...(after === undefined ? {} : { after }) }]
}

/** The differences of two configurations, in the order of their sections; none where they are equal. */
export const diff = (before: Resolved, after: Resolved): ReadonlyArray<Change> => compare([], before, after)

const withField = (fields: Fields, field: string, value: unknown): Fields => {
  const { [field]: _, ...rest } = fields
  return value === undefined ? rest : { ...fields, [field]: value }
}

const writeNamed = (
  place: Path,
  list: ReadonlyMap<string, unknown>,
  [name, ...rest]: Path,
  change: Change
): ReadonlyArray<unknown> => {
  if (name === order) return (change.after as ReadonlyArray<string>).map((one) => list.get(one))
  const next = new Map(list)
  const value = write([...place, name!], list.get(name!), rest, change)
  if (value === undefined) next.delete(name!)
  else next.set(name!, value)
  return [...next.values()]
}

const write = (place: Path, value: unknown, path: Path, change: Change): unknown => {
  const [field, ...rest] = path
  if (field === undefined) return change.after
  const values = byModel(place, value)
  if (values !== undefined) return writeByModel(place, values, path, change)
  const list = named(place, value)
  if (list !== undefined) return writeNamed(place, list, path, change)
  const fields = value as Fields
  return withField(fields, field, write([...place, field], fields[field], rest, change))
}

/** The configuration with these changes. */
export const apply = (before: Resolved, changes: ReadonlyArray<Change>): Resolved =>
  changes.reduce<unknown>((settings, change) => write([], settings, change.path, change), before) as Resolved

/** What is read at the start only. */
const atStart: ReadonlyArray<ReadonlyArray<string>> = [
  ["cache"],
  ["decisions"],
  ["embeddingBatches"],
  ["engineHost"],
  ["engineRestarts"],
  ["environment"],
  ["guard", "webhook"],
  ["logFormat"],
  ["logRequests"],
  ["memory"],
  ["prefixFiles"],
  ["redis"],
  ["reload"],
  ["responses"],
  ["sampleEvery"],
  ["server"],
  ["storage"],
  ["store"],
  ["streams"],
  ["telemetry"]
]

/** Whether a change applies after a restart only. */
export const needsRestart = ({ path }: Change): boolean =>
  atStart.some((place) => place.every((field, index) => path[index] === field))

const longestText = 120

const cut = (text: string): string => text.length > longestText ? `${text.slice(0, longestText - 1)}…` : text

/** Durations have their own JSON, which would hide what they are. */
const readable = (value: unknown): unknown => {
  if (Redacted.isRedacted(value)) return "<redacted>"
  if (Duration.isDuration(value)) return Duration.isFinite(value) ? durationText(Duration.toMillis(value)) : false
  if (Array.isArray(value)) return value.map(readable)
  if (!isFields(value)) return value
  return Object.fromEntries(Object.entries(value).map(([field, inner]) => [field, readable(inner)]))
}

/** What serves a whole model or deployment, which has more fields than a line can show. */
const serving = ([section, , field]: Path, value: unknown): string | undefined => {
  if (section !== "models" || !isFields(value)) return undefined
  const { deployments = field === "deployments" ? [value] : undefined } = value as Partial<Model>
  return deployments && (deployments as ReadonlyArray<Deployment>).map(({ options }) => sourceOf(options)).join(", ")
}

const textOf = (path: Path, value: unknown): string => {
  if (path.at(-1) === "evaluateMs") return durationText(value as number)
  const served = path.length === 2 || path.length === 4 ? serving(path, value) : undefined
  if (served !== undefined) return cut(served)
  const shown = readable(value)
  return cut(typeof shown === "string" ? shown : JSON.stringify(shown) ?? "")
}

/** Fields of the settings that the file has elsewhere. */
const sectionOf: Readonly<Record<string, ReadonlyArray<string>>> = {
  answerModel: ["troupe", "model"],
  engineHost: ["engines", "host"],
  engineRestarts: ["engines", "restarts"],
  environment: ["NODE_ENV"],
  prefixFiles: ["engines", "prefixFiles"],
  sampleEvery: ["engines", "sampleEvery"],
  streams: ["engines", "streams"]
}

/** Fields that the file names otherwise, by section. */
const fieldsOf: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  circuits: { opensAfter: "failures", closesAfter: "successes" },
  keyCooldowns: {
    limited: "rateLimited",
    longest: "rateLimitedMax",
    refused: "rejected",
    longestRefused: "rejectedMax"
  },
  keys: { secret: "key", expiresAt: "expires" },
  memory: { budgetBytes: "budget" },
  streams: { delayMs: "delay", slowAfterMs: "slowAfter" }
}

/** Fields of deployments that the file has for the whole model. */
const ofModel = new Set(["idleUnload", "pinned", "preload", "queueLimit", "stallAfter"])

const placeInDeployment = (path: Path): Path => {
  const [, name, , , own] = path
  if (ofModel.has(own!)) return ["models", name!, own!]
  return [...path.slice(0, 4), ...path.slice(own === "options" ? 5 : 4)]
}

const placeInModel = (path: Path): Path => {
  const [, name, field, id, own] = path
  if (field === "routing") return ["models", name!, ...path.slice(id === "policy" ? 4 : 3)]
  return field === "deployments" && own !== undefined ? placeInDeployment(path) : path
}

/** The path in the file, or one that is close to it. */
const placeOf = (path: Path): Path => {
  const [section] = path
  if (path.at(-1) === order) return [...placeOf(path.slice(0, -1)), "order"]
  if (section === "models") return placeInModel(path)
  const field = fieldOfModel[section!]
  if (field !== undefined) {
    const own = path.slice(2).map((part) => part === "evaluateMs" ? "evaluateEvery" : part)
    return ["models", path[1]!, field, ...own]
  }
  if (section === "admission") return path.slice(1).filter((part) => part !== "rule" && part !== "scope")
  const fields = fieldsOf[section!] ?? {}
  const inSection = path.slice(1).filter((part) => part !== "selection").map((part) => fields[part] ?? part)
  return [...sectionOf[section!] ?? [section!], ...inSection]
}

const kindOf = ({ after, before }: Change): ShownChange["change"] => {
  if (before === undefined) return "added"
  return after === undefined ? "removed" : "changed"
}

/** Whether a change of a policy says the same: models have their policy with everything that it inherits. */
const isInherited = ({ path }: Change, changes: ReadonlyArray<Change>): boolean =>
  path[0] === "models" &&
  (path[4] === "loadTimeout" ||
    path[3] === "policy" &&
      changes.some((other) => other.path[0] === "policies" && Equal.equals(other.path.slice(2), path.slice(4))))

/** The changes as they are printed and logged, each path once. Secrets are `<redacted>`. */
export const shown = (changes: ReadonlyArray<Change>): ReadonlyArray<ShownChange> => {
  const all = changes.filter((change) => !isInherited(change, changes)).map((change): ShownChange => ({
    path: Problem.formatPath(placeOf(change.path)),
    change: kindOf(change),
    ...(change.before === undefined ? {} : { before: textOf(change.path, change.before) }),
    ...(change.after === undefined ? {} : { after: textOf(change.path, change.after) }),
    needsRestart: needsRestart(change)
  }))
  return [...new Map(all.map((change) => [change.path, change])).values()]
}

const signs = { added: "+", removed: "-", changed: "~" } as const

const valuesOf = ({ after, before, change }: ShownChange): string =>
  change === "changed" ? `${before} -> ${after}` : `${after ?? before}`

/** A line for a change, such as `~ models.chat.queueLimit: 512 -> 64`. */
export const line = (change: ShownChange): string =>
  `${signs[change.change]} ${change.path}: ${valuesOf(change)}${change.needsRestart ? " (needs a restart)" : ""}`
