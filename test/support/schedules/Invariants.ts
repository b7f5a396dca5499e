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
import { Cause, Duration, Exit, Option } from "effect"
import { InferenceError } from "../../../src/services/InferenceError.ts"
import type { Model } from "../../../src/services/Model.ts"
import type { Policy } from "../../../src/services/Policy.ts"
import { defaults, jitter } from "../../../src/services/Policy.ts"
import { classify } from "../../../src/services/Retry.ts"
import { reasonOf } from "./Reasons.ts"
import type { Call, Record, Visit } from "./Record.ts"
import { callsOf, endOf, overOf } from "./Record.ts"

type Check = (record: Record) => ReadonlyArray<string>

/** Of each visit, with its calls. */
const ofVisits =
  (check: (visit: Visit, calls: ReadonlyArray<Call>, record: Record) => ReadonlyArray<string>): Check => (record) =>
    record.visits.flatMap((visit) =>
      check(visit, callsOf(record, visit), record).map((fault) => `${visit.caller.id} ${fault}`)
    )

const modelOf = ({ world }: Record, { caller }: Visit): Model => world.models.find(({ name }) => name === caller.model)!

const policyOf = (record: Record, visit: Visit): Policy => modelOf(record, visit).routing?.policy ?? defaults

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

const some = (wrong: boolean, fault: string): ReadonlyArray<string> => wrong ? [fault] : []

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

/** When the attempt that made the call was let through at the earliest: a hedge waits beside calls that end meanwhile. */
const earliest = (record: Record, visit: Visit, calls: ReadonlyArray<Call>, call: Call): number => {
  const before = policyOf(record, visit).hedge === undefined
    ? calls.flatMap((one) => (overOf(one)?.order ?? Infinity) < call.began.order ? [overOf(one)!.at] : [])
    : []
  return Math.max(visit.began?.at ?? 0, ...before)
}

/** The times, exclusive, in which a circuit was in this phase. One whose time is over is open until somebody calls. */
const during = ({ transitions, world }: Record, deployment: string, phase: "open" | "half-open") => {
  const most = phase === "open" ? Duration.toMillis(world.breaker.openFor) : Number.POSITIVE_INFINITY
  const own = transitions.filter((one) => one.deployment === deployment)
  return own.flatMap(({ at, to }, index) =>
    to === phase ? [{ from: at, to: Math.min(own[index + 1]?.at ?? Number.POSITIVE_INFINITY, at + most) }] : []
  )
}

const openMeansNoCall = ofVisits((_, calls, record) =>
  calls.flatMap((call) =>
    during(record, call.deployment, "open")
      .filter(({ from, to }) => from < call.began.at && call.began.at < to)
      .map(({ from, to }) =>
        `called ${call.deployment} at ${call.began.at}, whose circuit was open from ${from} to ${to}`
      )
  )
)

const oneProbe: Check = (record) =>
  Object.keys(record.world.scripts).flatMap((deployment) =>
    during(record, deployment, "half-open").flatMap(({ from, to }) => {
      const probes = record.visits.flatMap((visit) => {
        const calls = callsOf(record, visit)
        return calls.filter((call) =>
          call.deployment === deployment && call.began.at < to && earliest(record, visit, calls, call) > from
        )
      })
      return probes.flatMap((call) =>
        probes.filter((other) =>
          other.began.order < call.began.order && (overOf(other)?.order ?? Infinity) > call.began.order
        ).map((other) => `${deployment} was half open, and calls ${other.number} and ${call.number} ran together`)
      )
    })
  )

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

const mostAt = (deployments: ReadonlyArray<string>): number =>
  Math.max(0, ...deployments.map((one) => deployments.filter((other) => other === one).length))

const attempts = ofVisits((visit, calls, record) => {
  const { maxAttempts, retries } = policyOf(record, visit)
  const failed = errorOf(visit)?.attempts ?? []
  const most = Math.max(calls.length, failed.length)
  const often = Math.max(mostAt(calls.map((call) => call.deployment)), mostAt(failed.map((one) => one.deployment)))
  return [
    ...some(most > maxAttempts, `was tried ${most} times, of ${maxAttempts}`),
    ...some(often > retries + 1, `was tried ${often} times at one deployment, with ${retries} retries`)
  ]
})

const onlyCandidates = ofVisits((visit, calls, record) => {
  const { deployments, routing } = modelOf(record, visit)
  const { content = [], context = [], ordinary = [] } = routing?.fallbacks ?? {}
  const names = new Set([...ordinary, ...context, ...content])
  const standIns = record.world.models.flatMap((model) => names.has(model.name) ? model.deployments : [])
  const allowed = new Set([...deployments, ...standIns].map(({ id }) => id))
  return calls.filter(({ deployment }) => !allowed.has(deployment)).map(({ deployment }) =>
    `was sent to ${deployment}, who is not for him`
  )
})

/** Pauses between two calls at one deployment are as long as the policy and the deployment say. */
const pauses = ofVisits((visit, calls, record) => {
  const { backoff } = policyOf(record, visit)
  return calls.flatMap((call, index) => {
    const before = calls.slice(0, index).findLast(({ deployment }) => deployment === call.deployment)
    const ended = before?.ended?.at
    if (before === undefined || ended === undefined || before.cancelled !== undefined) return []
    const verdict = classify(reasonOf(call.deployment, before.fateCame ? before.fate.end : ""))
    const least = verdict.adjust === "shorter" ? 0 : Math.max(
      Math.floor(Math.min(backoff.capMs, backoff.initialMs) * jitter.least),
      verdict.retryAfterMs ?? 0
    )
    return some(
      call.began.at < ended + least,
      `came back to ${call.deployment} after ${call.began.at - ended} ms, of ${least}`
    )
  })
})

const finalIsFinal = ofVisits((_, calls) =>
  calls.flatMap((call) => {
    const { cancelled, ended, fate: { end }, fateCame, number } = call
    const wrong = fateCame && (end === "status 400" || end === "invalid")
    if (!wrong || ended === undefined || cancelled !== undefined) return []
    return calls.filter(({ began }) => began.order > ended.order).map((other) =>
      `was wrong by call ${number}, and call ${other.number} began`
    )
  })
)

const hedges: Check = (record) => {
  let earned = 0
  let spent = 0
  const faults = record.visits.flatMap((visit) => {
    const { hedge } = policyOf(record, visit)
    earned += hedge?.share ?? 0
    return callsOf(record, visit).flatMap((call, _, calls) => {
      const beside = calls.filter((one) =>
        one.began.order < call.began.order && (overOf(one)?.order ?? Infinity) > call.began.order
      ).length
      spent += beside > 0 ? 1 : 0
      return some(beside > (hedge === undefined ? 0 : 1), `${visit.caller.id} had ${beside + 1} calls at once`)
    })
  })
  return [...faults, ...some(spent > earned + 1e-6, `${spent} hedges, and ${earned} were earned`)]
}

const totalTimeout = ofVisits((visit, calls, record) => {
  const { timeouts: { totalMs } } = policyOf(record, visit)
  const end = endOf(visit)
  if (totalMs === undefined || end === undefined || visit.began === undefined) return []
  const due = visit.began.at + totalMs
  return [
    // A reader's own time does not count.
    ...some(
      visit.caller.readMs === 0 && end.moment.at > due,
      `ended ${end.moment.at - due} ms after the total time-out`
    ),
    ...calls.filter((call) => earliest(record, visit, calls, call) >= due).map((call) =>
      `was due at ${due}, and call ${call.number} began`
    )
  ]
})

const firstTokenTimeout = ofVisits((visit, calls, record) => {
  const { timeouts: { firstTokenMs } } = policyOf(record, visit)
  if (firstTokenMs === undefined) return []
  return calls.flatMap((call) => {
    const came = call.firstTold?.at ?? overOf(call)?.at ?? Number.POSITIVE_INFINITY
    const late = came - call.began.at - firstTokenMs
    return some(late > 0, `waited ${late} ms too long for the first of call ${call.number}`)
  })
})

const stallTimeout = ofVisits((visit, calls, record) => {
  const { caller: { readMs, streams } } = visit
  const { timeouts: { stallMs } } = policyOf(record, visit)
  // A slow reader waits for nothing while he reads.
  if (stallMs === undefined || (streams && readMs > 0)) return []
  return calls.flatMap((call) => {
    const over = overOf(call)?.at ?? Number.POSITIVE_INFINITY
    const gap = call.firstTold === undefined ? 0 : Math.max(call.longestGap, over - call.lastTold)
    return some(gap > stallMs, `waited ${gap} ms between two pieces of call ${call.number}, of ${stallMs}`)
  })
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
  "I7: an open circuit means no call": openMeansNoCall,
  "I7: a half-open circuit lets one call through at a time": oneProbe,
  "I8: who leaves is not worked for any more": leavingReachesEngines,
  "I8: who leaves gives up his place, his slot and a load of his own": leavingFreesPlaces,
  "I9: an engine is ahead of its reader by a window at most": bounded,
  "no more jobs run than there are slots": neverMoreThanSlots,
  "attempts are as many as the policy allows": attempts,
  "only the route's deployments are asked": onlyCandidates,
  "a deployment is left alone for as long as it says, and the policy": pauses,
  "a request that is wrong is tried nowhere else": finalIsFinal,
  "hedges stay within their share, one beside the first": hedges,
  "the total time-out holds": totalTimeout,
  "the time-out of a first token holds": firstTokenTimeout,
  "the time-out between two pieces holds": stallTimeout,
  "nothing leaks": nothingLeaks
} as const satisfies { readonly [name: string]: Check }

export type Invariant = keyof typeof invariants

/** What is broken, and how. */
export const faultsOf = (record: Record): ReadonlyArray<readonly [Invariant, string]> =>
  (Object.keys(invariants) as ReadonlyArray<Invariant>).flatMap((name) =>
    invariants[name](record).map((fault) => [name, fault] as const)
  )
