/** Shrinks a schedule that violates an invariant, and prints it. */
import { Effect, Exit } from "effect"
import { errorOf, resultOf } from "./Checks.ts"
import type { Invariant } from "./Invariants.ts"
import { faultsOf } from "./Invariants.ts"
import type { Call, Record, Visit } from "./Record.ts"
import { endOf } from "./Record.ts"
import { run } from "./Run.ts"
import type { Schedule } from "./Schedule.ts"

interface Line {
  readonly order: number
  readonly at: number
  readonly text: string
}

const linesOfCall = (call: Call): ReadonlyArray<Line> => {
  const { began, cancelled, caller, deployment, ended, outcome, firstSent, number, text } = call
  const name = `call ${number}`
  return [
    {
      ...began,
      text: `${name} of ${caller} begins at ${deployment}, engine ${call.engine}: ${JSON.stringify(outcome)}`
    },
    ...(firstSent === undefined ? [] : [{ ...firstSent, text: `${name} sends its first piece` }]),
    ...(cancelled === undefined ? [] : [{ ...cancelled, text: `${name} is cancelled` }]),
    ...(ended === undefined ? [] : [{ ...ended, text: `${name} has ended, with "${text}"` }])
  ]
}

const endWords = (visit: Visit): string => {
  const end = endOf(visit)
  if (end !== undefined && Exit.isFailure(end.exit)) {
    const error = errorOf(visit)
    return error === undefined ? resultOf(visit) : `${error.reason._tag}, ${error.message}`
  }
  return `${resultOf(visit)}, "${visit.text}"`
}

const linesOfVisit = (visit: Visit): ReadonlyArray<Line> => {
  const { began, caller, ends, first } = visit
  return [
    ...(began === undefined ? [] : [{ ...began, text: `${caller.id} asks: ${JSON.stringify(caller)}` }]),
    ...(first === undefined ? [] : [{ ...first, text: `${caller.id} reads the first event` }]),
    ...ends.map(({ moment }) => ({ ...moment, text: `${caller.id} ends: ${endWords(visit)}` }))
  ]
}

/** Every event of a run, one line each, in order. */
export const traceOf = ({ calls, transitions, visits }: Record): ReadonlyArray<string> =>
  [
    ...calls.flatMap(linesOfCall),
    ...visits.flatMap(linesOfVisit),
    ...transitions.map(({ at, deployment, from, to }) => ({
      at,
      order: Number.POSITIVE_INFINITY,
      text: `the circuit of ${deployment} goes from ${from} to ${to}`
    }))
  ].sort((a, b) => a.at - b.at || a.order - b.order).map(({ at, text }) => `${String(at).padStart(8)} ${text}`)

/** Every schedule with one caller or one action less. */
const smaller = (schedule: Schedule): ReadonlyArray<Schedule> => {
  const without = <A>(all: ReadonlyArray<A>) => all.map((_, index) => all.toSpliced(index, 1))
  return [
    ...without(schedule.callers).map((callers) => ({ ...schedule, callers })),
    ...without(schedule.actions).map((actions) => ({ ...schedule, actions }))
  ]
}

/** The smallest found schedule that still violates the invariant. */
export const shrink = Effect.fnUntraced(function*(record: Record, broken: Invariant) {
  let smallest = record
  for (let found: Record | undefined = record; found !== undefined;) {
    found = undefined
    for (const schedule of smaller(smallest.schedule)) {
      const tried = yield* run(schedule)
      if (!faultsOf(tried).some(([name]) => name === broken)) continue
      found = smallest = tried
      break
    }
  }
  return smallest
})

/** The violations, and the events that led to them. */
export const report = ({ schedule }: Record, smallest: Record): string => {
  const asked = new Set(smallest.calls.map(({ deployment }) => deployment))
  const models = smallest.schedule.models.map(({ deployments, name, routing }) =>
    `${name} = ${
      deployments.map(({ id, options, queueLimit }) => `${id} ${JSON.stringify({ ...options, queueLimit })}`).join(", ")
    }
    ${JSON.stringify(routing)}`
  )
  return [
    `Seed ${schedule.seed}; run it alone with SEED=${schedule.seed}. With ${smallest.schedule.callers.length} callers of ` +
    `${schedule.callers.length} these invariants are violated:`,
    ...faultsOf(smallest).map(([name, fault]) => `  ${name}: ${fault}`),
    ...models,
    ...Object.entries(smallest.schedule.scripts).filter(([id]) => asked.has(id)).map(([id, { loads }]) =>
      `${id} loads: ${JSON.stringify(loads)}`
    ),
    ...smallest.schedule.actions.map((one) => `action: ${JSON.stringify(one)}`),
    `circuits: ${JSON.stringify(smallest.schedule.breaker)}`,
    ...traceOf(smallest)
  ].join("\n")
}
