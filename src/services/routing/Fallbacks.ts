/**
 * The fallbacks of a route: deployments of other models, by the kind of failure after which they may answer. Pure.
 *
 * **Details**
 *
 * A model configures names of models for each kind; a request may name those for ordinary failures instead, and end its list
 * with an earlier answer (`CachedResponses`).
 */
import { Result } from "effect"
import type { Deployment, Model } from "../../domain/Deployment.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import type { Routing } from "../../domain/RoutingPolicy.ts"
import * as CachedResponses from "../cache/CachedResponses.ts"
import type { Registry } from "../models/Registry.ts"
import type { Decision } from "./DecisionRecord.ts"
import { cachedResponses } from "./DecisionRecord.ts"
import type { Withheld } from "./FieldPolicy.ts"
import type { Route } from "./Route.ts"
import { invalidOption } from "./Route.ts"

/** What is decided for one model. */
export interface Decided {
  readonly decision: Decision
  /** The eligible deployments, in order. */
  readonly deployments: ReadonlyArray<Deployment>
  /** Those that their circuits alone exclude. */
  readonly held: ReadonlyArray<Deployment>
  /** Set where fields that Troupe does not know exclude the whole model. */
  readonly withheld: Withheld | undefined
}

/** Finds and decides for models by their names. */
export interface FallbackModels {
  readonly find: Registry["Service"]["find"]
  readonly decide: (model: Model, name: string) => Decided
}

/** The fallbacks of a route. */
export interface Fallbacks extends Pick<Route, "fallbacks" | "cached"> {
  /** Of the ordinary fallbacks, those that their circuits alone exclude. */
  readonly held: ReadonlyArray<Deployment>
  /** Of the models for any failure. */
  readonly decisions: ReadonlyArray<Decision>
  /** The first model that fields exclude as a whole. */
  readonly withheld: Withheld | undefined
  /** Of those for any failure, the first with deployments that accept the fields, else the first. */
  readonly refused: Withheld | undefined
}

export const none: Fallbacks = {
  fallbacks: { ordinary: [], context: [], content: [] },
  cached: false,
  held: [],
  decisions: [],
  withheld: undefined,
  refused: undefined
}

/** In the order of the models; the result of a model that does not exist is its error. */
const decideAll = (
  { decide, find }: FallbackModels,
  names: ReadonlyArray<string>
): Result.Result<ReadonlyArray<Decided>, InferenceError> => {
  const decided: Array<Decided> = []
  for (const name of names) {
    const model = find(name)
    if (Result.isFailure(model)) return Result.fail(model.failure)
    decided.push(decide(model.success, name))
  }
  return Result.succeed(decided)
}

/** A fallback of the request's own options that does not exist is the request's mistake. */
const unknownName = ({ find }: FallbackModels, names: ReadonlyArray<string>): InferenceError | undefined => {
  for (const [index, name] of names.entries()) {
    const model = find(name)
    if (Result.isFailure(model)) {
      return invalidOption({ path: `fallbacks[${index}]`, detail: model.failure.reason.message })
    }
  }
  return undefined
}

const deploymentsOf = (decided: ReadonlyArray<Decided>): ReadonlyArray<Deployment> =>
  decided.flatMap(({ deployments }) => deployments)

const withheldIn = (decided: ReadonlyArray<Decided>): ReadonlyArray<Withheld> =>
  decided.flatMap(({ withheld }) => withheld ?? [])

/** Without the models after one that is withheld. */
const beforeWithheld = (decided: ReadonlyArray<Decided>): ReadonlyArray<Decided> => {
  const first = decided.findIndex(({ withheld }) => withheld !== undefined)
  return first < 0 ? decided : decided.slice(0, first)
}

interface Lists {
  readonly ordinary: ReadonlyArray<Decided>
  readonly context: ReadonlyArray<Decided>
  readonly content: ReadonlyArray<Decided>
}

/** Configured models for a prompt that is too long come before the ordinary ones. */
const reachable = (
  { content, context, ordinary }: Lists,
  isRequested: boolean
): Pick<Fallbacks, "fallbacks" | "held"> => {
  const withoutWithheld = withheldIn(context).length === 0 ? beforeWithheld(ordinary) : []
  const reached = isRequested ? ordinary : withoutWithheld
  return {
    fallbacks: {
      ordinary: deploymentsOf(reached),
      context: deploymentsOf(beforeWithheld(context)),
      content: deploymentsOf(beforeWithheld(content))
    },
    held: reached.flatMap(({ held }) => held)
  }
}

/**
 * The fallbacks of these models.
 *
 * @param configured by the model
 * @param requested by the request, for ordinary failures; undefined if it names none
 */
export const of = (
  models: FallbackModels,
  configured: Routing["fallbacks"],
  requested: ReadonlyArray<string> | undefined
): Result.Result<Fallbacks, InferenceError> => {
  const ordinary = requested ?? configured.ordinary
  const misplaced = CachedResponses.misplaced(ordinary)
  if (misplaced >= 0) {
    return Result.fail(invalidOption({ path: `fallbacks[${misplaced}]`, detail: CachedResponses.onlyLast }))
  }
  const cached = ordinary.at(-1) === cachedResponses
  const names = cached ? ordinary.slice(0, -1) : ordinary
  const unknown = requested === undefined ? undefined : unknownName(models, names)
  if (unknown !== undefined) return Result.fail(unknown)
  return Result.map(
    Result.all({
      ordinary: decideAll(models, names),
      context: decideAll(models, configured.context),
      content: decideAll(models, configured.content)
    }),
    (lists) => {
      const withheld = withheldIn(lists.ordinary)
      return {
        cached,
        decisions: lists.ordinary.map(({ decision }) => decision),
        withheld: withheld[0] ?? withheldIn([...lists.context, ...lists.content])[0],
        refused: withheld.find(({ isAccepted }) => isAccepted) ?? withheld[0],
        ...reachable(lists, requested !== undefined)
      }
    }
  )
}
