/**
 * The invariants of every schedule, by their names in the design. Pure: a record in, its violations out.
 *
 * **Details**
 *
 * I1 An admitted request ends exactly once. I2 An answer contains the text of one deployment, as no request here enables
 * continuation. I5 A model in use is never unloaded. I7 An open circuit means no call. I8 Cancellation reaches the
 * engine, and ends retries, the queue slot and a load without other waiting requests. I9 The buffer of one request is
 * bounded. I10, equal decisions for equal seeds, requires two runs of a schedule and is checked by the test. I3, I4 and
 * I6 concern caches, quotas and rollouts, which no schedule has.
 */
import { Cause, Exit } from "effect"
import { InferenceError } from "../../../src/domain/InferenceError.ts"
import type { Check } from "./Checks.ts"
import { errorOf, ofVisits, resultOf, some } from "./Checks.ts"
import type { Call, Record, Visit } from "./Record.ts"
import { endOf, overOf } from "./Record.ts"
import * as RoutingInvariants from "./RoutingInvariants.ts"

const endsOnce = ofVisits((visit) => {
  const end = endOf(visit)
  if (end === undefined) return ["never ended"]
  const isComplete = visit.caller.takes !== undefined || resultOf(visit) !== "cancelled"
  const defect = Exit.isFailure(end.exit) && Cause.hasDies(end.exit.cause)
  return [
    ...some(visit.ends.length !== 1, `ended ${visit.ends.length} times`),
    ...some(defect, `ended with a defect: ${String(end.exit)}`),
    ...some(
      resultOf(visit) === "failure" && !(errorOf(visit) instanceof InferenceError),
      "failed without a typed error"
    ),
    ...some(Exit.isSuccess(end.exit) && !isComplete, "was answered without an end"),
    ...some(
      resultOf(visit) === "cancelled" && !visit.caller.takes && visit.caller.cancelsAfter === undefined,
      "was interrupted"
    ),
    ...some(visit.finishes.length > 1 || visit.eventsAfterFinish > 0, "received events after the end")
  ]
})

/** A complete answer of an engine is not lost. */
const nothingLost = ofVisits((visit, calls) => {
  const complete = calls.find(({ cancelled, finished }) => finished && cancelled === undefined)
  const error = errorOf(visit)
  return some(
    complete !== undefined && error !== undefined && error.reason._tag !== "UpstreamTimeout",
    `failed with ${error?.reason._tag}, and call ${complete?.number} was answered`
  )
})

/** The metrics count the end and the outcome of each started request. */
const accounting: Check = (record) =>
  record.schedule.models.flatMap(({ name }) => {
    const count = (metric: string, ...labels: ReadonlyArray<string>) =>
      record.counts.get([metric, name, ...labels].join(" ")) ?? 0
    const visits = record.visits.filter(({ caller }) => caller.model === name)
    const begun = count("llm_model_usage_total")
    const ended = count("llm_request_duration_seconds")
    const succeeded = count("llm_requests_total", "true")
    const failed = count("llm_requests_total", "false")
    const answered = visits.filter((visit) => resultOf(visit) === "success").length
    // A request that is cancelled at its last event, or read only in part, may count as either.
    const mayBe = visits.filter((visit) => resultOf(visit) === "cancelled" && visit.first !== undefined).length
    const failures = visits.filter((visit) => resultOf(visit) === "failure")
    const withoutDeployment = failures.filter((visit) => errorOf(visit)?.reason._tag === "NoDeployment").length
    return [
      ...some(begun !== ended, `${name}: ${begun} begun, ${ended} ended`),
      ...some(begun > visits.length, `${name}: ${begun} begun of ${visits.length} requests`),
      ...some(
        succeeded < answered || succeeded > answered + mayBe,
        `${name}: ${succeeded} successes counted, ${answered} seen`
      ),
      ...some(
        failed < failures.length - withoutDeployment || failed > failures.length,
        `${name}: ${failed} failures counted, ${failures.length} seen`
      )
    ]
  })

/** The call that produced the text. */
const sourceOf = (visit: Visit, calls: ReadonlyArray<Call>): Call | undefined =>
  calls.find(({ number }) => visit.text.startsWith(`${number}:`))

const oneText = ofVisits((visit, calls) => {
  if (visit.first === undefined) return []
  const source = sourceOf(visit, calls)
  if (source === undefined) return [`read text of none of its calls: ${visit.text}`]
  const [finish] = visit.finishes
  const whole = finish !== undefined
  return [
    ...some(!source.text.startsWith(visit.text), `read "${visit.text}", but the call sent "${source.text}"`),
    ...some(
      whole && (!source.finished || source.text !== visit.text),
      `ended with "${visit.text}" instead of "${source.text}"`
    ),
    ...some(whole && finish.usage.promptTokens !== source.number + 1, "got the usage of another call"),
    ...some(whole && finish.usage.completionTokens !== source.tokens, "got a wrong number of tokens"),
    ...some(
      visit.deployment !== undefined && visit.deployment !== source.deployment,
      `got ${visit.deployment} as its deployment instead of ${source.deployment}`
    )
  ]
})

const noOtherCalls = ofVisits((visit, calls) => {
  const { first } = visit
  if (first === undefined) return []
  const source = sourceOf(visit, calls)
  return calls.flatMap((call) =>
    call === source ? [] : [
      ...some(call.began.order > first.order, `had content before call ${call.number} began`),
      ...some(
        (overOf(call)?.order ?? Number.POSITIVE_INFINITY) > first.order,
        `had content while call ${call.number} continued`
      )
    ]
  )
})

const neverUnloadedInUse: Check = ({ closedInUse }) =>
  closedInUse.map(({ engine, moment }) => `engine ${engine} was ended at ${moment.at} while its jobs ran`)

const cancellationReachesEngines = ofVisits((visit, calls) => {
  const end = endOf(visit)
  if (end === undefined) return []
  return calls.flatMap((call) => [
    ...some(call.began.order > end.moment.order, `had ended before call ${call.number} began`),
    ...some(
      (overOf(call)?.order ?? Number.POSITIVE_INFINITY) > end.moment.order,
      `had ended, and call ${call.number} was not cancelled`
    ),
    ...some(call.ended === undefined, `had call ${call.number}, which never ended`)
  ])
})

const cancellationFreesSlots: Check = ({ snapshots }) =>
  snapshots.flatMap(({ callers, jobs, moment, queued, running, unaskedLoads }) => [
    ...some(callers === 0 && queued > 0, `at ${moment.at} ${queued} wait without a caller`),
    ...some(queued > 2 * callers, `at ${moment.at} ${queued} wait, of ${callers} callers`),
    ...some(callers === 0 && running !== jobs, `at ${moment.at} ${running} slots are taken, and ${jobs} jobs run`),
    ...some(running < jobs, `at ${moment.at} ${jobs} jobs run in ${running} slots`),
    ...unaskedLoads.map((deployment) => `at ${moment.at} ${deployment} loads without a waiting request`)
  ])

const bounded: Check = ({ calls }) =>
  calls.flatMap(({ mostAhead, number, outcome, window }) =>
    some(
      mostAhead >= window + outcome.tokens || window > 256,
      `call ${number} was ${mostAhead} tokens ahead of its reader`
    )
  )

const neverMoreThanSlots: Check = ({ calls }) =>
  calls.flatMap((call) => {
    const running = calls.filter(({ began, ended, engine }) =>
      engine === call.engine && began.order <= call.began.order && (ended?.order ?? Infinity) > call.began.order
    )
    return some(running.length > call.slots, `${running.length} jobs in ${call.slots} slots of ${call.deployment}`)
  })

const nothingLeaks: Check = ({ enginesLeft, fibers: { after, before, emptied, idle }, snapshots }) => {
  const last = snapshots.at(-1)!
  return [
    ...some(emptied !== idle, `${emptied - idle} fibers more than before the first request`),
    ...some(after !== before, `${after - before} fibers are left`),
    ...some(enginesLeft > 0, `${enginesLeft} engines are left`),
    ...some(last.running + last.queued + last.jobs + last.callers > 0, `something is left: ${JSON.stringify(last)}`)
  ]
}

export const invariants = {
  "I1: a request ends exactly once, with an answer, a typed error or an interruption": endsOnce,
  "I1: a complete answer is not lost": nothingLost,
  "I1: the metrics count the start and the end of every request": accounting,
  "I2: a caller reads the text of one call, completely for a success": oneText,
  "I2: after the first content no other call begins, and other calls are cancelled": noOtherCalls,
  "I5: a model in use is never unloaded": neverUnloadedInUse,
  "I7: an open circuit means no call": RoutingInvariants.openMeansNoCall,
  "I7: a half-open circuit lets one call wait for content at a time, or several where no other deployment can take it":
    RoutingInvariants.boundedProbes,
  "I8: a cancelled request has no running calls": cancellationReachesEngines,
  "I8: a cancelled request releases its queue slot, its engine slot and its own load": cancellationFreesSlots,
  "I9: an engine is ahead of its reader by less than a window and a piece": bounded,
  "no more jobs run than there are slots": neverMoreThanSlots,
  "the number of attempts is within the policy": RoutingInvariants.attempts,
  "only the route's deployments are called": RoutingInvariants.onlyCandidates,
  "a deployment is not called during its Retry-After and the policy's backoff": RoutingInvariants.pauses,
  "an invalid request is not retried": RoutingInvariants.finalIsFinal,
  "hedges stay within their share, at most one per request": RoutingInvariants.hedges,
  "the total timeout is respected": RoutingInvariants.totalTimeout,
  "the timeout of the first token is respected": RoutingInvariants.firstTokenTimeout,
  "the timeout between two pieces is respected": RoutingInvariants.stallTimeout,
  "nothing leaks": nothingLeaks
} as const satisfies { readonly [name: string]: Check }

export type Invariant = keyof typeof invariants

/** The violated invariants, with details. */
export const faultsOf = (record: Record): ReadonlyArray<readonly [Invariant, string]> =>
  (Object.keys(invariants) as ReadonlyArray<Invariant>).flatMap((name) =>
    invariants[name](record).map((fault) => [name, fault] as const)
  )
