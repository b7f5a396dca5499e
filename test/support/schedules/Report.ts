/** A world that breaks something, as small as it still does, for people to read. */
import { Effect, Exit } from "effect"
import { errorOf, fateOf } from "./Checks.ts"
import type { Invariant } from "./Invariants.ts"
import { faultsOf } from "./Invariants.ts"
import type { Call, Record, Visit } from "./Record.ts"
import { endOf } from "./Record.ts"
import { run } from "./Run.ts"
import type { World } from "./World.ts"

interface Line {
  readonly order: number
  readonly at: number
  readonly text: string
}

const linesOfCall = (call: Call): ReadonlyArray<Line> => {
  const { began, cancelled, caller, deployment, ended, fate, firstTold, number, text } = call
  const name = `call ${number}`
  return [
    { ...began, text: `${name} of ${caller} begins at ${deployment}, engine ${call.engine}: ${JSON.stringify(fate)}` },
    ...(firstTold === undefined ? [] : [{ ...firstTold, text: `${name} tells its first` }]),
    ...(cancelled === undefined ? [] : [{ ...cancelled, text: `${name} is cancelled` }]),
    ...(ended === undefined ? [] : [{ ...ended, text: `${name} has ended, with "${text}"` }])
  ]
}

const endWords = (visit: Visit): string => {
  const end = endOf(visit)
  if (end !== undefined && Exit.isFailure(end.exit)) {
    const error = errorOf(visit)
    return error === undefined ? fateOf(visit) : `${error.reason._tag}, ${error.message}`
  }
  return `${fateOf(visit)}, "${visit.text}"`
}

const linesOfVisit = (visit: Visit): ReadonlyArray<Line> => {
  const { began, caller, ends, first } = visit
  return [
    ...(began === undefined ? [] : [{ ...began, text: `${caller.id} asks: ${JSON.stringify(caller)}` }]),
    ...(first === undefined ? [] : [{ ...first, text: `${caller.id} reads his first` }]),
    ...ends.map(({ moment }) => ({ ...moment, text: `${caller.id} ends: ${endWords(visit)}` }))
  ]
}

/** All that happened, a line each, in order. */
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

/** Every world with one caller, one happening or one model less. */
const smaller = (world: World): ReadonlyArray<World> => {
  const without = <A>(all: ReadonlyArray<A>) => all.map((_, index) => all.toSpliced(index, 1))
  return [
    ...without(world.callers).map((callers) => ({ ...world, callers })),
    ...without(world.happenings).map((happenings) => ({ ...world, happenings }))
  ]
}

/** The smallest world on the way that still breaks this. */
export const shrink = Effect.fnUntraced(function*(record: Record, broken: Invariant) {
  let smallest = record
  for (let found: Record | undefined = record; found !== undefined;) {
    found = undefined
    for (const world of smaller(smallest.world)) {
      const tried = yield* run(world)
      if (!faultsOf(tried).some(([name]) => name === broken)) continue
      found = smallest = tried
      break
    }
  }
  return smallest
})

/** What is broken, and all that led to it. */
export const report = ({ world }: Record, smallest: Record): string => {
  const asked = new Set(smallest.calls.map(({ deployment }) => deployment))
  const models = smallest.world.models.map(({ deployments, name, routing }) =>
    `${name} = ${
      deployments.map(({ id, options, queueLimit }) => `${id} ${JSON.stringify({ ...options, queueLimit })}`).join(", ")
    }
    ${JSON.stringify(routing)}`
  )
  return [
    `Seed ${world.seed}; run it alone with SEED=${world.seed}. With ${smallest.world.callers.length} callers of ` +
    `${world.callers.length} this is broken:`,
    ...faultsOf(smallest).map(([name, fault]) => `  ${name}: ${fault}`),
    ...models,
    ...Object.entries(smallest.world.scripts).filter(([id]) => asked.has(id)).map(([id, { loads }]) =>
      `${id} loads: ${JSON.stringify(loads)}`
    ),
    ...smallest.world.happenings.map((one) => `happens: ${JSON.stringify(one)}`),
    `circuits: ${JSON.stringify(smallest.world.breaker)}`,
    ...traceOf(smallest)
  ].join("\n")
}
