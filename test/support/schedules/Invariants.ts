/**
 * What must hold of every world, by the names that the design gives. Pure: a record goes in, what is wrong with it comes
 * out.
 *
 * **Details**
 *
 * I1 A request that was admitted ends exactly once. I2 An answer holds the text of one deployment, as nobody here asks
 * for continuation. I5 A model in use is never unloaded. I7 An open circuit means no call. I8 Cancellation reaches the
 * engine, and stops retries, the place in the queue and a load that nobody else waits for. I9 What one request can buffer
 * is bounded. I10, that the same seed gives the same decisions, is for whoever runs a world twice. I3, I4 and I6 are of
 * caches, quotas and rollouts, which no world has.
 */
import { Cause, Exit } from "effect"
import { InferenceError } from "../../../src/domain/InferenceError.ts"
import type { Check } from "./Checks.ts"
import { errorOf, fateOf, ofVisits, some } from "./Checks.ts"
import type { Call, Record, Visit } from "./Record.ts"
import { endOf, overOf } from "./Record.ts"
import * as Routing from "./RoutingInvariants.ts"

const endsOnce = ofVisits((visit) => {
  const end = endOf(visit)
  if (end === undefined) return ["never ended"]
  const left = visit.caller.takes !== undefined || fateOf(visit) !== "left"
  const defect = Exit.isFailure(end.exit) && Cause.hasDies(end.exit.cause)
  return [
    ...some(visit.ends.length !== 1, `ended ${visit.ends.length} times`),
    ...some(defect, `ended with a defect: ${String(end.exit)}`),
    ...some(fateOf(visit) === "failure" && !(errorOf(visit) instanceof InferenceError), "failed without a typed error"),
    ...some(Exit.isSuccess(end.exit) && !left, "was answered without an end"),
    ...some(
      fateOf(visit) === "left" && !visit.caller.takes && visit.caller.leavesAfter === undefined,
      "was interrupted"
    ),
    ...some(visit.finishes.length > 1 || visit.eventsAfterFinish > 0, "heard more after the end")
  ]
})

/** What an engine has told to its end is not lost. */
const nothingLost = ofVisits((visit, calls) => {
  const told = calls.find(({ cancelled, finished }) => finished && cancelled === undefined)
  const error = errorOf(visit)
  return some(
    told !== undefined && error !== undefined && error.reason._tag !== "UpstreamTimeout",
    `failed with ${error?.reason._tag}, and call ${told?.number} was answered`
  )
})

/** The metrics tell of each request that begins that it ended, and how. */
const books: Check = (record) =>
  record.world.models.flatMap(({ name }) => {
    const count = (metric: string, ...labels: ReadonlyArray<string>) =>
      record.counts.get([metric, name, ...labels].join(" ")) ?? 0
    const visits = record.visits.filter(({ caller }) => caller.model === name)
    const begun = count("llm_model_usage_total")
    const ended = count("llm_request_duration_seconds")
    const succeeded = count("llm_requests_total", "true")
    const failed = count("llm_requests_total", "false")
    const answered = visits.filter((visit) => fateOf(visit) === "success").length
    // Who leaves as the last word comes, or stops reading before he reads it, may count as either.
    const mayBe = visits.filter((visit) => fateOf(visit) === "left" && visit.first !== undefined).length
    const failures = visits.filter((visit) => fateOf(visit) === "failure")
    const atTheDoor = failures.filter((visit) => errorOf(visit)?.reason._tag === "NoDeployment").length
    return [
      ...some(begun !== ended, `${name}: ${begun} begun, ${ended} ended`),
      ...some(begun > visits.length, `${name}: ${begun} begun of ${visits.length} requests`),
      ...some(
        succeeded < answered || succeeded > answered + mayBe,
        `${name}: ${succeeded} successes counted, ${answered} seen`
      ),
      ...some(
        failed < failures.length - atTheDoor || failed > failures.length,
        `${name}: ${failed} failures counted, ${failures.length} seen`
      )
    ]
  })

/** The call whose text it is. */
const sourceOf = (visit: Visit, calls: ReadonlyArray<Call>): Call | undefined =>
  calls.find(({ number }) => visit.text.startsWith(`${number}:`))

const oneText = ofVisits((visit, calls) => {
  if (visit.first === undefined) return []
  const source = sourceOf(visit, calls)
  if (source === undefined) return [`read what no call of his told: ${visit.text}`]
  const [finish] = visit.finishes
  const whole = finish !== undefined
  return [
    ...some(!source.text.startsWith(visit.text), `read "${visit.text}", and "${source.text}" was told`),
    ...some(
      whole && (!source.finished || source.text !== visit.text),
      `took "${visit.text}" for the whole of "${source.text}"`
    ),
    ...some(whole && finish.usage.promptTokens !== source.number + 1, "was told the usage of another call"),
    ...some(whole && finish.usage.completionTokens !== source.tokens, "was told another count of tokens"),
    ...some(
      visit.deployment !== undefined && visit.deployment !== source.deployment,
      `was told that ${visit.deployment} answered, and it was ${source.deployment}`
    )
  ]
})

const nobodyElse = ofVisits((visit, calls) => {
  const { first } = visit
  if (first === undefined) return []
  const source = sourceOf(visit, calls)
  return calls.flatMap((call) =>
    call === source ? [] : [
      ...some(call.began.order > first.order, `had content, and call ${call.number} began after it`),
      ...some(
        (overOf(call)?.order ?? Number.POSITIVE_INFINITY) > first.order,
        `had content, and call ${call.number} went on`
      )
    ]
  )
})

const neverUnloadedInUse: Check = ({ closedInUse }) =>
  closedInUse.map(({ engine, moment }) => `engine ${engine} was ended at ${moment.at} while its jobs ran`)

const leavingReachesEngines = ofVisits((visit, calls) => {
  const end = endOf(visit)
  if (end === undefined) return []
  return calls.flatMap((call) => [
    ...some(call.began.order > end.moment.order, `was gone, and call ${call.number} began`),
    ...some(
      (overOf(call)?.order ?? Number.POSITIVE_INFINITY) > end.moment.order,
      `was gone, and call ${call.number} was not told`
    ),
    ...some(call.ended === undefined, `left call ${call.number}, which never ended`)
  ])
})

const leavingFreesPlaces: Check = ({ glances }) =>
  glances.flatMap(({ callers, jobs, moment, queued, running, unaskedLoads }) => [
    ...some(callers === 0 && queued > 0, `at ${moment.at} ${queued} wait, and nobody is there`),
    ...some(queued > 2 * callers, `at ${moment.at} ${queued} wait, of ${callers} callers`),
    ...some(callers === 0 && running !== jobs, `at ${moment.at} ${running} slots are taken, and ${jobs} jobs run`),
    ...some(running < jobs, `at ${moment.at} ${jobs} jobs run in ${running} slots`),
    ...unaskedLoads.map((deployment) => `at ${moment.at} ${deployment} loads, and nobody waits for it`)
  ])

const bounded: Check = ({ calls }) =>
  calls.flatMap(({ mostAhead, number, window }) =>
    some(mostAhead > window || window > 256, `call ${number} was ${mostAhead} tokens ahead of its reader`)
  )

const neverMoreThanSlots: Check = ({ calls }) =>
  calls.flatMap((call) => {
    const running = calls.filter(({ began, ended, engine }) =>
      engine === call.engine && began.order <= call.began.order && (ended?.order ?? Infinity) > call.began.order
    )
    return some(running.length > call.slots, `${running.length} jobs in ${call.slots} slots of ${call.deployment}`)
  })

const nothingLeaks: Check = ({ enginesLeft, fibers: { after, before, emptied, idle }, glances }) => {
  const last = glances.at(-1)!
  return [
    ...some(emptied !== idle, `${emptied - idle} fibers more than before anyone came`),
    ...some(after !== before, `${after - before} fibers are left`),
    ...some(enginesLeft > 0, `${enginesLeft} engines are left`),
    ...some(last.running + last.queued + last.jobs + last.callers > 0, `something is left: ${JSON.stringify(last)}`)
  ]
}

export const invariants = {
  "I1: a request ends exactly once, with an answer, a typed error or an interruption": endsOnce,
  "I1: what was answered is not lost": nothingLost,
  "I1: the books tell of every request that it began and ended": books,
  "I2: a caller reads the text of one call, whole where it is a success": oneText,
  "I2: once there is content nobody else is asked, and whoever else was is cancelled": nobodyElse,
  "I5: a model in use is never unloaded": neverUnloadedInUse,
  "I7: an open circuit means no call": Routing.openMeansNoCall,
  "I7: a half-open circuit lets one call wait for content at a time, or several where no other deployment can take it":
    Routing.boundedProbes,
  "I8: who leaves is not worked for any more": leavingReachesEngines,
  "I8: who leaves gives up his place, his slot and a load of his own": leavingFreesPlaces,
  "I9: an engine is ahead of its reader by a window at most": bounded,
  "no more jobs run than there are slots": neverMoreThanSlots,
  "attempts are as many as the policy allows": Routing.attempts,
  "only the route's deployments are asked": Routing.onlyCandidates,
  "a deployment is left alone for as long as it says, and the policy": Routing.pauses,
  "a request that is wrong is tried nowhere else": Routing.finalIsFinal,
  "hedges stay within their share, one beside the first": Routing.hedges,
  "the total time-out holds": Routing.totalTimeout,
  "the time-out of a first token holds": Routing.firstTokenTimeout,
  "the time-out between two pieces holds": Routing.stallTimeout,
  "nothing leaks": nothingLeaks
} as const satisfies { readonly [name: string]: Check }

export type Invariant = keyof typeof invariants

/** What is broken, and how. */
export const faultsOf = (record: Record): ReadonlyArray<readonly [Invariant, string]> =>
  (Object.keys(invariants) as ReadonlyArray<Invariant>).flatMap((name) =>
    invariants[name](record).map((fault) => [name, fault] as const)
  )
