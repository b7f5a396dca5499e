/** Helpers for the checks of a record. */
import { Cause, Exit, Option } from "effect"
import type { Model } from "../../../src/domain/Deployment.ts"
import type { InferenceError } from "../../../src/domain/InferenceError.ts"
import type { Policy } from "../../../src/domain/RoutingPolicy.ts"
import { defaults } from "../../../src/domain/RoutingPolicy.ts"
import type { Call, Record, Visit } from "./Record.ts"
import { callsOf, endOf } from "./Record.ts"

/** The violations in a record; empty if there are none. */
export type Check = (record: Record) => ReadonlyArray<string>

/** A check of each visit, with its calls. */
export const ofVisits =
  (check: (visit: Visit, calls: ReadonlyArray<Call>, record: Record) => ReadonlyArray<string>): Check => (record) =>
    record.visits.flatMap((visit) =>
      check(visit, callsOf(record, visit), record).map((fault) => `${visit.caller.id} ${fault}`)
    )

export const modelOf = ({ schedule }: Record, { caller }: Visit): Model =>
  schedule.models.find(({ name }) => name === caller.model)!

export const policyOf = (record: Record, visit: Visit): Policy => modelOf(record, visit).routing?.policy ?? defaults

/** The result of a request for its caller. */
export const resultOf = (visit: Visit): "success" | "failure" | "cancelled" | "pending" => {
  const end = endOf(visit)
  if (end === undefined) return "pending"
  if (Exit.isFailure(end.exit)) return Cause.hasInterrupts(end.exit.cause) ? "cancelled" : "failure"
  return visit.finishes.length > 0 ? "success" : "cancelled"
}

/** The error of a failed request. */
export const errorOf = (visit: Visit): InferenceError | undefined => {
  const exit = endOf(visit)?.exit
  return exit === undefined || Exit.isSuccess(exit)
    ? undefined
    : Option.getOrUndefined(Cause.findErrorOption(exit.cause))
}

export const some = (wrong: boolean, fault: string): ReadonlyArray<string> => wrong ? [fault] : []
