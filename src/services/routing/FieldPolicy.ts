/**
 * Whether fields that Troupe does not know may choose the hosts of a request. Pure.
 *
 * **Details**
 *
 * Only providers of the same dialect accept such fields: without this rule, a field would send to another machine a prompt that
 * a deployment on this machine would take without the field. A request is refused if its fields exclude such a deployment of
 * its model. A fallback model with deployments on this machine is not used, nor are the configured fallbacks after it. A
 * request may list remote deployments of its model, and name fallback models that have no others.
 */
import { Result } from "effect"
import * as UnknownFields from "../../dialects/shared/UnknownFields.ts"
import type { Model } from "../../domain/Deployment.ts"
import type { CandidateTable } from "../../domain/DeploymentFacts.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import { InvalidRequest, make as makeError } from "../../domain/InferenceError.ts"
import type { RoutingRequest } from "../../domain/RoutingRequest.ts"
import type { Options } from "../../domain/SelectionOptions.ts"
import type { Capability } from "../../domain/Source.ts"
import type { Decision } from "./DecisionRecord.ts"
import * as Selection from "./Selection.ts"

/** A model's selected deployments in view of the fields. */
export interface Reach {
  /** Some accept them. */
  readonly isAccepted: boolean
  /** Some do not. */
  readonly excludes: boolean
  /** Some on this machine do not. */
  readonly excludesLocal: boolean
  /** One on this machine does not, and could take the request without them. */
  readonly misleads: boolean
}

/** A fallback model that the fields exclude as a whole. */
export interface Withheld extends Pick<Reach, "isAccepted"> {
  readonly model: string
}

/** @param table of the model */
export const reachOf = (
  { deployments }: Model,
  table: CandidateTable,
  fields: Capability,
  request: RoutingRequest,
  options: Options
): Reach => {
  const selected = Selection.selected(table, fields, request, options)
  const without = selected.filter(({ has }) => !has)
  const local = without.filter(({ index }) => deployments[index]!.options.engine !== "remote")
  return {
    isAccepted: without.length < selected.length,
    excludes: without.length > 0,
    excludesLocal: local.length > 0,
    misleads: local.some(({ takesOthers }) => takesOthers)
  }
}

const leavesMachine = (model: string, how: string): UnknownFields.Why => (what) =>
  `The deployments of "${model}" on this machine do not accept this ${what}, and it must not send the prompt to another one. ` +
  `To send it there, ${how}.`

const refusal = (problem: UnknownFields.Unknown): InferenceError =>
  makeError(new InvalidRequest({ ...problem, inBody: true }))

/** A field that is probably misspelt is refused where it excludes some of the possible deployments. */
const problemOf = (
  { isAccepted, misleads }: Reach,
  { model, route, source }: RoutingRequest,
  passesFields: boolean
): UnknownFields.Unknown | undefined => {
  if (isAccepted && !passesFields && misleads) {
    return UnknownFields.refused(source!, leavesMachine(model, "list deployments in troupe.deployments"))
  }
  return isAccepted || route?.fallbacks !== undefined ? UnknownFields.misspelt(source!) : undefined
}

/**
 * Whether configured fallbacks may be used: not where the fields exclude all of the model's own deployments, or one on this
 * machine.
 *
 * @param reach of the requested model
 * @param passesFields the operator lets such fields send prompts off this machine
 */
export const mayUseConfigured = (
  reach: Reach,
  request: RoutingRequest,
  passesFields: boolean
): Result.Result<boolean, InferenceError> => {
  if (!reach.excludes) return Result.succeed(true)
  const problem = problemOf(reach, request, passesFields)
  return problem === undefined
    ? Result.succeed(reach.isAccepted && !reach.excludesLocal)
    : Result.fail(refusal(problem))
}

/** The decision for a fallback model that the fields exclude as a whole. */
export const withhold = (decision: Decision, fields: Capability): Decision => ({
  ...decision,
  candidates: [],
  eligible: 0,
  excluded: [
    ...decision.excluded,
    ...decision.candidates.map(({ deployment }) => ({
      deployment,
      reason: "unknown request fields must not send the prompt to another machine"
    }))
  ],
  missing: [fields]
})

/** Why fallbacks are not used. */
export const unused = ({ model }: Withheld): string =>
  `deployments of "${model}" on this machine do not accept fields of the request that Troupe does not know`

/** Why no deployment can take the request, where the fields exclude this fallback model. */
export const noneLeft = ({ source }: RoutingRequest, { isAccepted, model }: Withheld): InferenceError =>
  refusal(
    isAccepted
      ? UnknownFields.refused(
        source!,
        leavesMachine(model, `request "${model}" itself, with deployments in troupe.deployments`)
      )
      : UnknownFields.refusedBy(source!, model)
  )
