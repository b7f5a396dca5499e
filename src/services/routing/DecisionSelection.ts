/** Which decision records are listed: by model, deployment, caller, outcome and time, page after page. Pure. */
import type { Record } from "./DecisionRecord.ts"
import * as RequestStatus from "./RequestStatus.ts"

export interface Selection {
  readonly model?: string | undefined
  /** That answered, or that was tried. */
  readonly deployment?: string | undefined
  /** See `RequestStatus`. */
  readonly status?: string | undefined
  readonly tenant?: string | undefined
  readonly key?: string | undefined
  /** At or after this time, ms since 1970. */
  readonly since?: number | undefined
  /** The `next` of the page before. */
  readonly cursor?: string | undefined
  readonly limit: number
}

/** Records, the latest first. */
export interface Page {
  readonly decisions: ReadonlyArray<Record>
  /** The cursor of the next page; left out on the last one. */
  readonly next?: string
}

/** What is wrong with a selection; undefined: nothing. */
export const problemOf = (
  { cursor, status }: Selection
): { readonly path: string; readonly expected: string } | undefined => {
  if (status !== undefined && RequestStatus.matcher(status) === undefined) {
    return { path: "status", expected: RequestStatus.expected(status, RequestStatus.names) }
  }
  return cursor === undefined || /^\d+-\S+$/.test(cursor)
    ? undefined
    : { path: "cursor", expected: "Expected the `next` of an earlier answer" }
}

const cursorOf = ({ at, id }: Record): string => `${at}-${id}`

/** The latest first; of the same time in the order of their ids, which processes do not share. */
const compare = (one: Pick<Record, "at" | "id">, other: Pick<Record, "at" | "id">): number =>
  other.at - one.at || other.id.length - one.id.length || (one.id < other.id ? 1 : one.id > other.id ? -1 : 0)

const positionOf = (cursor: string): Pick<Record, "at" | "id"> => {
  const end = cursor.indexOf("-")
  return { at: Number(cursor.slice(0, end)), id: cursor.slice(end + 1) }
}

const matches = (wanted: string | undefined, value: string | undefined): boolean =>
  wanted === undefined || wanted === value

/** Whether a deployment answered, or was tried. */
const involves = ({ answeredBy, attempts }: Record, deployment: string): boolean =>
  answeredBy === deployment || attempts.some((attempt) => attempt.deployment === deployment)

const endOf = ({ end, error, refused }: Record): RequestStatus.Ended => ({ status: end ?? "running", error, refused })

const isSelected = ({ cursor, deployment, key, model, since = 0, status, tenant }: Selection) => {
  const hasStatus = status === undefined ? () => true : RequestStatus.matcher(status)!
  const before = cursor === undefined ? undefined : positionOf(cursor)
  return (record: Record): boolean =>
    record.at >= since &&
    matches(model, record.model) &&
    hasStatus(endOf(record)) &&
    matches(tenant, record.tenant) &&
    matches(key, record.key) &&
    (deployment === undefined || involves(record, deployment)) &&
    (before === undefined || compare(before, record) < 0)
}

/** One page of what is selected. */
export const select = (records: ReadonlyArray<Record>, selection: Selection): Page => {
  const found = records.filter(isSelected(selection)).toSorted(compare)
  const decisions = found.slice(0, selection.limit)
  return found.length > decisions.length ? { decisions, next: cursorOf(decisions.at(-1)!) } : { decisions }
}

/** The pages of several processes as one. */
export const merge = (pages: ReadonlyArray<Page>, limit: number): Page => {
  const found = pages.flatMap(({ decisions }) => decisions).toSorted(compare)
  const decisions = found.slice(0, limit)
  const hasMore = found.length > decisions.length || pages.some(({ next }) => next !== undefined)
  return hasMore && decisions.length > 0 ? { decisions, next: cursorOf(decisions.at(-1)!) } : { decisions }
}
