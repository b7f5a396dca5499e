/** What checks of a record are made of. */
import { Cause, Exit, Option } from "effect"
import type { Model } from "../../../src/domain/Deployment.ts"
import type { InferenceError } from "../../../src/domain/InferenceError.ts"
import type { Policy } from "../../../src/domain/RoutingPolicy.ts"
import { defaults } from "../../../src/domain/RoutingPolicy.ts"
import type { Call, Record, Visit } from "./Record.ts"
import { callsOf, endOf } from "./Record.ts"

/** What is wrong with a record; empty where nothing is. */
export type Check = (record: Record) => ReadonlyArray<string>

/** Of each visit, with its calls. */
export const ofVisits =
  (check: (visit: Visit, calls: ReadonlyArray<Call>, record: Record) => ReadonlyArray<string>): Check => (record) =>
    record.visits.flatMap((visit) =>
      check(visit, callsOf(record, visit), record).map((fault) => `${visit.caller.id} ${fault}`)
    )

export const modelOf = ({ world }: Record, { caller }: Visit): Model =>
  world.models.find(({ name }) => name === caller.model)!

export const policyOf = (record: Record, visit: Visit): Policy => modelOf(record, visit).routing?.policy ?? defaults

/** How a request went, for its caller. */
export const fateOf = (visit: Visit): "success" | "failure" | "left" | "pending" => {
  const end = endOf(visit)
  if (end === undefined) return "pending"
  if (Exit.isFailure(end.exit)) return Cause.hasInterrupts(end.exit.cause) ? "left" : "failure"
  return visit.finishes.length > 0 ? "success" : "left"
}

/** Why a request failed. */
export const errorOf = (visit: Visit): InferenceError | undefined => {
  const exit = endOf(visit)?.exit
  return exit === undefined || Exit.isSuccess(exit)
    ? undefined
    : Option.getOrUndefined(Cause.findErrorOption(exit.cause))
}

export const some = (wrong: boolean, fault: string): ReadonlyArray<string> => wrong ? [fault] : []
