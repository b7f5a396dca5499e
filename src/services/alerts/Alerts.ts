/**
 * The alerts of a service: evaluates the rules of the settings in a fiber of the service, and does what they say.
 *
 * **Details**
 *
 * Of several processes, the first one of the generation that leads evaluates the rules, so that an episode is told once. The others
 * send it by how much their counters have grown. Circuits, local models and the memory of the machine it knows itself.
 *
 * States are in memory: after a restart, or `troupe deploy`, a condition that persists is a new episode.
 *
 * **Gotchas**
 *
 * Holds and windows are measured in monotonic time, which a change of the date does not move.
 */
import { Cause, Clock, Context, Effect, Layer, Metric, Option, Random } from "effect"
import * as Time from "../../domain/Time.ts"
import { ofGrant } from "../admission/AdmissionRules.ts"
import { Breaker } from "../health/Breaker.ts"
import { HealthDetails } from "../health/HealthDetails.ts"
import { Readiness } from "../health/Readiness.ts"
import { VirtualKeys } from "../keys/VirtualKeys.ts"
import { Memory } from "../models/Memory.ts"
import { Models } from "../models/Models.ts"
import { configuredDeployment, Registry } from "../models/Registry.ts"
import { OperatorEvents } from "../observability/OperatorEvents.ts"
import type { Member } from "../processes/ProcessGroup.ts"
import { ProcessGroup } from "../processes/ProcessGroup.ts"
import { first } from "../processes/Shares.ts"
import { alertsOf } from "../settings/AlertSettings.ts"
import { Settings } from "../settings/Settings.ts"
import { SettingsChanges } from "../settings/SettingsChanges.ts"
import type { AlertStates, Now, Transition } from "./AlertMachine.ts"
import { step } from "./AlertMachine.ts"
import type { AlertNotice, AlertReport, WebhookStatus } from "./AlertNotice.ts"
import { eventOf, noticeOf, reportOf } from "./AlertNotice.ts"
import type { Facts } from "./AlertReadings.ts"
import { longestWindowMs, readingsOf, tableOf, wordsOf } from "./AlertReadings.ts"
import type { AlertRule } from "./AlertRule.ts"
import type { LimitOf } from "./BudgetLevels.ts"
import { Levels } from "./BudgetLevels.ts"
import * as EmergencyMemory from "./EmergencyMemory.ts"
import { Growth, Windows } from "./Increases.ts"

/** The state of the alerts; default: there are no rules. */
export const Alerts = Context.Reference<{ readonly report: Effect.Effect<AlertReport> }>(
  "troupe/services/alerts/Alerts",
  {
    defaultValue: () => ({ report: Effect.succeed({ rules: [], alerts: [] }) })
  }
)

/** Sends notices to a webhook; default: there is none. */
export const AlertWebhook = Context.Reference<{
  /** At once: it is sent in the background. */
  readonly send: (notice: AlertNotice) => void
  /** Undefined if none is configured. */
  readonly status: () => WebhookStatus | undefined
}>("troupe/services/alerts/Alerts/AlertWebhook", { defaultValue: () => ({ send: () => {}, status: () => undefined }) })

const firing = Metric.gauge("troupe_alerts_firing", { description: "Alerts that fire, by rule" })

/** Whether this process evaluates the rules: one of a service does. */
const makeLeads = (member: Member | undefined): () => boolean => {
  if (member === undefined) return () => true
  let isLeading = !member.isBeside
  member.listen((message) => {
    if (message.type === "lead") ({ isLeading } = message)
  })
  return () => member.index === first && isLeading
}

/** The limits of budgets that are configured now, and of keys. */
const makeLimitOf = Effect.gen(function*() {
  const keys = yield* Effect.serviceOption(VirtualKeys)
  let { admission } = yield* Settings
  ;(yield* SettingsChanges).follow((next) => {
    ;({ admission } = next)
  })
  const list = Option.isNone(keys) ? Effect.succeed([]) : keys.value.list
  return Effect.map(list, (all): LimitOf => ({ counter, measure, rule: name }) => {
    const configured = admission.budgets.find(({ rule }) => rule.name === name)?.rule
    const key = configured === undefined ? all.find(({ id }) => counter === `key ${id}`) : undefined
    const own = key && ofGrant({ keyId: key.id, budgets: key.budgets }).budgets.find((rule) => rule.name === name)
    const found = configured ?? own
    return measure === "usd" ? found?.nano : found?.tokens
  })
})

const readFacts = Effect.gen(function*() {
  const registry = yield* Registry
  const models = yield* Models
  const breaker = yield* Breaker
  const memory = yield* Memory
  const health = yield* Effect.serviceOption(HealthDetails)
  const levels = yield* Levels
  const limitOf = yield* makeLimitOf
  return Effect.gen(function*() {
    const configured = registry.models()
    const deployments = configured.flatMap(({ deployments }) => deployments.map(({ id }) => id))
    const { availableBytes, totalBytes } = yield* memory.read
    const facts: Facts = {
      models: configured.map(({ name }) => name),
      deployments,
      openCircuits: new Set(
        (yield* breaker.states).flatMap(({ deployment, phase }) =>
          phase === "closed" ? [] : [configuredDeployment(registry, deployment)]
        )
      ),
      failed: new Set(deployments.filter((id) => models.snapshot(id).state === "failed")),
      budgets: levels.read(yield* Clock.currentTimeMillis, yield* limitOf),
      stores: new Map(
        (Option.isNone(health) ? [] : health.value.stores()).map(({ problem, store }) => [store, problem])
      ),
      memoryUsed: totalBytes > 0 ? 1 - availableBytes / totalBytes : undefined
    }
    return facts
  })
})

/** Writes an alert to the log. */
const log = ({ alert, episode, message, severity, status, value }: AlertNotice): Effect.Effect<void> => {
  const write = status === "resolved" || severity === "info"
    ? Effect.logInfo
    : severity === "critical"
    ? Effect.logError
    : Effect.logWarning
  return Effect.annotateLogs(write(message), { event: `alert_${status}`, alert, episode, value })
}

/** Sets the gauge of each rule, and removes those of rules that no longer exist. */
const makeGauges = () => {
  let known: ReadonlyArray<string> = []
  return (rules: ReadonlyArray<AlertRule>, states: AlertStates): Effect.Effect<void> => {
    const names = rules.map(({ name }) => name)
    const gone = known.filter((name) => !names.includes(name))
    known = names
    const gauge = (alert: string) => Metric.withAttributes(firing, { alert })
    const all = [...states.values()].filter(({ phase }) => phase === "firing")
    return Effect.andThen(
      Effect.forEach(gone, (name) => Metric.remove(gauge(name)), { discard: true }),
      Effect.forEach(names, (name) => Metric.update(gauge(name), all.filter(({ rule }) => rule === name).length), {
        discard: true
      })
    )
  }
}

/** Logs a failure once until it succeeds again. */
const loggedOnce = (message: string, what: Effect.Effect<void>): Effect.Effect<void> => {
  let isFailing = false
  return Effect.matchCauseEffect(what, {
    onSuccess: () =>
      Effect.sync(() => {
        isFailing = false
      }),
    onFailure: (cause) => {
      if (Cause.hasInterrupts(cause)) return Effect.interrupt
      const entry = isFailing ? Effect.void : Effect.logError(message, cause)
      isFailing = true
      return entry
    }
  })
}

/** Frees memory in the background, once at a time; in the other processes of the service, too. */
const makeEmergency = Effect.fnUntraced(function*(member: Member | undefined) {
  const scope = yield* Effect.scope
  const services = yield* Effect.context()
  const free = loggedOnce("Memory could not be freed:", Effect.asVoid(yield* EmergencyMemory.make))
  let isFreeing = false
  const here = (): void => {
    if (isFreeing) return
    isFreeing = true
    const freed = Effect.ensuring(
      free,
      Effect.sync(() => {
        isFreeing = false
      })
    )
    Effect.runForkWith(services)(Effect.forkIn(freed, scope))
  }
  member?.listen((message) => {
    if (message.type === "news" && message.news.type === "emergency") here()
  })
  return (): void => {
    member?.send({ type: "news", news: { type: "emergency" } })
    here()
  }
})

/** Whether an alert that fires asks for memory now. */
const isEmergency = (rules: ReadonlyArray<AlertRule>, states: AlertStates): boolean =>
  [...states.values()].some(({ phase, rule: name, value }) => {
    const rule = rules.find((one) => one.name === name)
    return phase === "firing" && rule !== undefined && rule.actions.includes("emergency_memory") &&
      value >= rule.threshold
  })

/** Tells what has changed. */
const makeTell = Effect.gen(function*() {
  const events = yield* OperatorEvents
  const webhook = yield* AlertWebhook
  return (transition: Transition, now: Now, facts: Facts): Effect.Effect<void> => {
    const { metric, target } = transition.state
    const notice = noticeOf(transition, now, wordsOf(metric, target, facts))
    if (notice === undefined) return Effect.void
    events.publish(eventOf(notice))
    // A rule that was removed is told as by default.
    const actions = transition.rule?.actions ?? ["log", "webhook"]
    if (actions.includes("webhook")) webhook.send(notice)
    return actions.includes("log") ? log(notice) : Effect.void
  }
})

const now: Effect.Effect<Now> = Effect.zipWith(Time.now, Clock.currentTimeMillis, (monotonic, date) => ({
  monotonic,
  date
}))

/** The increases of this process go to the process that evaluates. */
const makeCollect = Effect.fnUntraced(function*(member: Member | undefined) {
  const clock = yield* Clock.Clock
  const registry = yield* Registry
  const growth = new Growth()
  const windows = new Windows()
  let longestMs = 0
  const add = (report: ReadonlyMap<string, ReadonlyArray<number>>) => windows.add(report, Time.nowOf(clock), longestMs)
  member?.listen((message) => {
    if (message.type === "news" && message.news.type === "increases") add(new Map(message.news.increases))
  })
  const collect = (rules: ReadonlyArray<AlertRule>) =>
    Effect.map(Metric.snapshot, (snapshots) => {
      longestMs = longestWindowMs(rules)
      const report = growth.since(tableOf(snapshots, registry))
      add(report)
      if (member !== undefined && member.index !== first && report.size > 0) {
        member.send({ type: "news", news: { type: "increases", increases: [...report] } })
      }
    })
  return { collect, windows }
})

const make = Effect.gen(function*() {
  const member = yield* ProcessGroup
  const changes = yield* SettingsChanges
  const webhook = yield* AlertWebhook
  let settings = (yield* Settings).alerts ?? alertsOf()
  changes.follow(({ alerts = alertsOf() }) => {
    settings = alerts
  })
  const leads = makeLeads(member)
  const { collect, windows } = yield* makeCollect(member)
  const facts = yield* readFacts
  const emergency = yield* makeEmergency(member)
  const tell = yield* makeTell
  const readiness = yield* Readiness
  const gauges = makeGauges()
  const run = (yield* Random.nextIntBetween(0, Number.MAX_SAFE_INTEGER)).toString(36)
  let episodes = 0
  let states: AlertStates = new Map()

  const evaluate = Effect.gen(function*() {
    const { rules } = settings
    yield* collect(rules)
    // A load that the stop ends has failed, and is no incident.
    if (!leads() || readiness.status === "stopping") return
    const at = yield* now
    const known = yield* facts
    const readings = readingsOf(rules, windows, known, at.monotonic)
    const next = step(rules, states, readings, at, () => `alert-${run}-${++episodes}`)
    ;({ states } = next)
    if (isEmergency(rules, states)) emergency()
    yield* gauges(rules, states)
    yield* Effect.forEach(next.transitions, (transition) => tell(transition, at, known), { discard: true })
  })

  const once = loggedOnce("The rules of alerts could not be evaluated:", evaluate)
  yield* Effect.forkScoped(
    Effect.forever(Effect.andThen(once, Effect.suspend(() => Effect.sleep(settings.every))))
  )
  return {
    report: Effect.sync(() => {
      const status = webhook.status()
      return { ...reportOf(settings.rules, states), ...(status === undefined ? {} : { webhook: status }) }
    })
  }
})

/** Evaluates the rules until the scope ends. */
export const layer = Layer.effect(Alerts, make)
