/** Which rows of the ledger are summed and how, as an operator writes it: the query of `GET /admin/usage`. Pure. */
import { Result, Schema } from "effect"
import { nearestName } from "../../domain/NearestName.ts"
import type * as Problem from "../../domain/Problem.ts"
import type { Group, UsageQuery } from "./Usage.ts"
import { groups } from "./Usage.ts"

const Text = Schema.optionalKey(Schema.String)

export const UsageSelection = Schema.Struct({
  by: Schema.optionalKey(Schema.String.annotate({
    description: `What sums are grouped by: some of ${groups.join(", ")}, with commas between. Default day,model.`
  })),
  from: Schema.optionalKey(Schema.String.annotate({
    description: "A day, such as 2027-01-31, in UTC, or a time, such as 2027-01-31T12:00:00Z."
  })),
  to: Schema.optionalKey(Schema.String.annotate({ description: "A day, included; or a time, not included." })),
  key: Schema.optionalKey(Schema.String.annotate({ description: "The name or the id of a key." })),
  user: Text,
  tenant: Text,
  model: Text,
  deployment: Text,
  endpoint: Text
})
export type UsageSelection = typeof UsageSelection.Type

const defaultBy = "day,model"

const dayMs = 86_400_000

const dayPattern = /^\d{4}-\d\d-\d\d$/

/** ISO 8601 with an offset: without one, the time would depend on the machine. */
const timePattern = /^\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:\d\d)$/

/** ms since 1970; NaN if the text is neither a day nor a time, or there is no such day. */
const timeOf = (text: string): number => {
  if (!dayPattern.test(text)) return timePattern.test(text) ? Date.parse(text) : Number.NaN
  const ms = Date.parse(text)
  // Some days that do not exist become days of the next month.
  return Number.isNaN(ms) || new Date(ms).toISOString().slice(0, 10) !== text ? Number.NaN : ms
}

const expectedTime = "Expected a day such as 2027-01-31, or a time such as 2027-01-31T12:00:00Z"

const isGroup = (name: string): name is Group => (groups as ReadonlyArray<string>).includes(name)

const unknownGroup = (name: string): string => {
  const nearest = nearestName(name, groups)
  return `Expected some of ${groups.join(", ")}, with commas between.${
    nearest === undefined ? "" : ` Did you mean ${nearest}?`
  }`
}

/** The groups, each once; an empty text is one sum of all rows. */
const groupsOf = (text: string): Result.Result<ReadonlyArray<Group>, Problem.Problem> => {
  const names = [...new Set(text.split(",").map((name) => name.trim()))].filter((name) => name !== "")
  const unknown = names.find((name) => !isGroup(name))
  return unknown === undefined
    ? Result.succeed(names.filter(isGroup))
    : Result.fail({ path: "by", expected: unknownGroup(unknown) })
}

const endOf = (text: string): number => timeOf(text) + (dayPattern.test(text) ? dayMs : 0)

/** The query, or the field that is invalid. */
export const queryOf = (
  { by = defaultBy, from, to, ...where }: UsageSelection
): Result.Result<UsageQuery, Problem.Problem> => {
  const begin = from === undefined ? undefined : timeOf(from)
  if (Number.isNaN(begin)) return Result.fail({ path: "from", expected: expectedTime })
  const end = to === undefined ? undefined : endOf(to)
  if (Number.isNaN(end)) return Result.fail({ path: "to", expected: expectedTime })
  if (begin !== undefined && end !== undefined && begin >= end) {
    return Result.fail({ path: "from", expected: "Expected a time before `to`" })
  }
  return Result.map(groupsOf(by), (by) => ({ by, from: begin, to: end, where }))
}
