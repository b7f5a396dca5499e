/** Invariants of calls to deployments: circuits, attempts, hedges and timeouts. Pure. */
import { Duration } from "effect"
import { breaker } from "../../../src/domain/Defaults.ts"
import { classify } from "../../../src/domain/FailureClass.ts"
import { jitter } from "../../../src/services/resilience/Backoff.ts"
import type { Check } from "./Checks.ts"
import { errorOf, modelOf, ofVisits, policyOf, some } from "./Checks.ts"
import { reasonOf } from "./Reasons.ts"
import type { Call, Record, Visit } from "./Record.ts"
import { callsOf, endOf, overOf } from "./Record.ts"

/** The earliest time at which the call's attempt was admitted: a hedge waits while other calls end. */
const earliest = (record: Record, visit: Visit, calls: ReadonlyArray<Call>, call: Call): number => {
  const before = policyOf(record, visit).hedge === undefined
    ? calls.flatMap((one) => (overOf(one)?.order ?? Infinity) < call.began.order ? [overOf(one)!.at] : [])
    : []
  return Math.max(visit.began?.at ?? 0, ...before)
}

/** The times, exclusive, in which a circuit was in this phase. After its time, a circuit stays open until the next call. */
const during = ({ transitions, schedule }: Record, deployment: string, phase: "open" | "half-open") => {
  const most = phase === "open" ? Duration.toMillis(schedule.breaker.openFor) : Number.POSITIVE_INFINITY
  const own = transitions.filter((one) => one.deployment === deployment)
  return own.flatMap(({ at, to }, index) =>
    to === phase ? [{ from: at, to: Math.min(own[index + 1]?.at ?? Number.POSITIVE_INFINITY, at + most) }] : []
  )
}

export const openMeansNoCall = ofVisits((_, calls, record) =>
  calls.flatMap((call) =>
    during(record, call.deployment, "open")
      .filter(({ from, to }) => from < call.began.at && call.began.at < to)
      .map(({ from, to }) =>
        `called ${call.deployment} at ${call.began.at}, whose circuit was open from ${from} to ${to}`
      )
  )
)

/** The other deployments that a failure can lead to: those of the same model and of fallbacks. */
const othersOf = (record: Record, visit: Visit, deployment: string): ReadonlyArray<string> => {
  const { deployments, routing } = modelOf(record, visit)
  const names = routing?.fallbacks.ordinary ?? []
  const fallbackDeployments = record.schedule.models.flatMap((model) =>
    names.includes(model.name) ? model.deployments : []
  )
  return [...deployments, ...fallbackDeployments].map(({ id }) => id).filter((id) => id !== deployment)
}

/** Whether the deployment's circuit has never opened up to that time. */
const neverOpened = ({ transitions }: Record, deployment: string, at: number): boolean =>
  !transitions.some((one) => one.deployment === deployment && one.at <= at)

/** Concurrent calls before their first content: one, or `probes` if no other deployment can take the request. */
export const boundedProbes: Check = (record) =>
  Object.keys(record.schedule.scripts).flatMap((deployment) =>
    during(record, deployment, "half-open").flatMap(({ from, to }) => {
      const probes = record.visits.flatMap((visit) => {
        const calls = callsOf(record, visit)
        return calls.filter((call) =>
          call.deployment === deployment && call.began.at < to && earliest(record, visit, calls, call) > from
        ).map((call) => ({ call, visit }))
      })
      return probes.flatMap(({ call, visit }) => {
        const beside = probes.filter(({ call: other }) =>
          other.began.order < call.began.order && (overOf(other)?.order ?? Infinity) > call.began.order &&
          (other.firstSent?.order ?? Infinity) > call.began.order
        )
        const others = othersOf(record, visit, deployment)
        const isAlone = others.every((other) => !neverOpened(record, other, call.began.at))
        const most = isAlone ? breaker.probes : 1
        return some(
          beside.length >= most,
          `${deployment} was half open, and call ${call.number} ran with ${beside.length} others; the limit is ${most}`
        )
      })
    })
  )

const mostAt = (deployments: ReadonlyArray<string>): number =>
  Math.max(0, ...deployments.map((one) => deployments.filter((other) => other === one).length))

export const attempts = ofVisits((visit, calls, record) => {
  const { maxAttempts, retries } = policyOf(record, visit)
  const failed = errorOf(visit)?.attempts ?? []
  const most = Math.max(calls.length, failed.length)
  const often = Math.max(mostAt(calls.map((call) => call.deployment)), mostAt(failed.map((one) => one.deployment)))
  return [
    ...some(most > maxAttempts, `had ${most} attempts; the limit is ${maxAttempts}`),
    ...some(often > retries + 1, `had ${often} attempts at one deployment, with ${retries} retries`)
  ]
})

export const onlyCandidates = ofVisits((visit, calls, record) => {
  const { deployments, routing } = modelOf(record, visit)
  const { content = [], context = [], ordinary = [] } = routing?.fallbacks ?? {}
  const names = new Set([...ordinary, ...context, ...content])
  const fallbackDeployments = record.schedule.models.flatMap((model) => names.has(model.name) ? model.deployments : [])
  const allowed = new Set([...deployments, ...fallbackDeployments].map(({ id }) => id))
  return calls.filter(({ deployment }) => !allowed.has(deployment)).map(({ deployment }) =>
    `was sent to ${deployment}, which is not on its route`
  )
})

/** The delay between two calls to one deployment respects the policy's backoff and the deployment's Retry-After. */
export const pauses = ofVisits((visit, calls, record) => {
  const { backoff } = policyOf(record, visit)
  return calls.flatMap((call, index) => {
    const before = calls.slice(0, index).findLast(({ deployment }) => deployment === call.deployment)
    const ended = before?.ended?.at
    if (before === undefined || ended === undefined || before.cancelled !== undefined) return []
    const verdict = classify(reasonOf(call.deployment, before.outcomeReached ? before.outcome.end : ""))
    const least = verdict.adjust === "shorter" ? 0 : Math.max(
      Math.floor(Math.min(backoff.capMs, backoff.initialMs) * jitter.least),
      verdict.retryAfterMs ?? 0
    )
    return some(
      call.began.at < ended + least,
      `called ${call.deployment} again after ${call.began.at - ended} ms instead of ${least}`
    )
  })
})

export const finalIsFinal = ofVisits((_, calls) =>
  calls.flatMap((call) => {
    const { cancelled, ended, outcome: { end }, outcomeReached, number } = call
    const wrong = outcomeReached && (end === "status 400" || end === "invalid")
    if (!wrong || ended === undefined || cancelled !== undefined) return []
    return calls.filter(({ began }) => began.order > ended.order).map((other) =>
      `was invalid by call ${number}, but call ${other.number} began`
    )
  })
)

export const hedges: Check = (record) => {
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
  return [...faults, ...some(spent > earned + 1e-6, `${spent} hedges; the limit is ${earned}`)]
}

export const totalTimeout = ofVisits((visit, calls, record) => {
  const { timeouts: { totalMs } } = policyOf(record, visit)
  const end = endOf(visit)
  if (totalMs === undefined || end === undefined || visit.began === undefined) return []
  const due = visit.began.at + totalMs
  return [
    // The time of a slow reader does not count.
    ...some(
      visit.caller.readMs === 0 && end.moment.at > due,
      `ended ${end.moment.at - due} ms after the total timeout`
    ),
    ...calls.filter((call) => earliest(record, visit, calls, call) >= due).map((call) =>
      `had its timeout at ${due} before call ${call.number} began`
    )
  ]
})

export const firstTokenTimeout = ofVisits((visit, calls, record) => {
  const { timeouts: { firstTokenMs } } = policyOf(record, visit)
  if (firstTokenMs === undefined) return []
  return calls.flatMap((call) => {
    const came = call.firstSent?.at ?? overOf(call)?.at ?? Number.POSITIVE_INFINITY
    const late = came - call.began.at - firstTokenMs
    return some(late > 0, `waited ${late} ms too long for the first of call ${call.number}`)
  })
})

export const stallTimeout = ofVisits((visit, calls, record) => {
  const { caller: { readMs, streams } } = visit
  const { timeouts: { stallMs } } = policyOf(record, visit)
  // A slow reader does not wait while it reads.
  if (stallMs === undefined || (streams && readMs > 0)) return []
  return calls.flatMap((call) => {
    const over = overOf(call)?.at ?? Number.POSITIVE_INFINITY
    const gap = call.firstSent === undefined ? 0 : Math.max(call.longestGap, over - call.lastSent)
    return some(gap > stallMs, `waited ${gap} ms between two pieces of call ${call.number}; the limit is ${stallMs}`)
  })
})
