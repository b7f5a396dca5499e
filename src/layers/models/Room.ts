/**
 * Memory for lives: each is granted its room before it loads, and others make room where `MemoryFit` says so.
 *
 * **Details**
 *
 * One life at a time is planned for, in the order of asking. Who must wait for models in use stops them from taking new
 * jobs once their hold time is over, so that they become idle; whether he gets the room or gives up, they go on after.
 */
import { Deferred, Effect, Semaphore } from "effect"
import type { Scope } from "effect"
import type { InferenceError } from "../../services/InferenceError.ts"
import { InsufficientMemory, make as makeError } from "../../services/InferenceError.ts"
import type { Candidate, Plan, Resident, Snapshot } from "../../services/MemoryFit.ts"
import * as MemoryFit from "../../services/MemoryFit.ts"
import type { Deployment } from "../../services/Model.ts"
import * as Monotonic from "../../services/Monotonic.ts"
import type { Life } from "./Actor.ts"

/** A deployment, or a variant of it, and what it needs. */
export interface Choice extends Candidate {
  readonly deployment: Deployment
}

export interface Room {
  /** The deployment or the variant of it that there is room for; the room is given back at the scope's end. */
  readonly reserve: (life: Life) => Effect.Effect<Deployment, InferenceError, Scope.Scope>
  /** Something may have become free. */
  readonly changed: () => void
}

export interface Options {
  readonly lives: () => ReadonlyArray<Life>
  /** Unloads a life that is idle. */
  readonly unload: (life: Life) => Effect.Effect<void>
  /** Lets it take jobs again. */
  readonly resume: (life: Life) => void
  readonly choices: (deployment: Deployment) => Effect.Effect<readonly [Choice, ...Array<Choice>]>
  /** Bytes that models may use now, given those that are loaded and what they use. */
  readonly budget: Effect.Effect<(lives: ReadonlyArray<Life>) => number>
  readonly holdMs: number
}

const keyOf = ({ actor, version }: Life): string => `${actor.id}@${version}`

const residentOf = (now: number) => (life: Life): Resident => ({
  key: keyOf(life),
  bytes: life.bytes,
  pinned: life.deployment.pinned,
  inUse: life.running > 0 || life.state !== "ready",
  idleMs: Math.max(0, now - Math.max(life.actor.lastUsed, life.readyAt ?? 0)),
  heldMs: life.state === "ready" ? now - (life.readyAt ?? now) : 0,
  reloadMs: life.loadMs,
  demand: life.actor.served + life.actor.mailbox.size
})

const refused = ({ actor }: Life, { availableBytes, neededBytes }: Extract<Plan, { type: "refuse" }>): InferenceError =>
  makeError(new InsufficientMemory({ deployment: actor.id, neededBytes, availableBytes }))

/** Something that happens now and then, and can be waited for. */
const makeChange = () => {
  let next = Deferred.makeUnsafe<void>()
  return {
    next: () => Deferred.await(next),
    tell() {
      const waiting = next
      next = Deferred.makeUnsafe()
      Deferred.doneUnsafe(waiting, Effect.void)
    }
  }
}

/** Plans for what is now. */
const makePlanner = ({ budget, holdMs, lives }: Options) =>
  Effect.fnUntraced(function*(candidates: ReadonlyArray<Choice>) {
    // First what takes time.
    const budgetOf = yield* budget
    const now = yield* Monotonic.now
    const granted = lives().filter(({ bytes }) => bytes > 0)
    const snapshot: Snapshot = { residents: granted.map(residentOf(now)), holdMs, budgetBytes: budgetOf(granted) }
    return MemoryFit.fit(candidates, snapshot)
  })

/** Stops them from taking jobs, but for those that load: they serve who waits for them first, or nobody would be. */
const pause = (lives: ReadonlyArray<Life>, paused: Set<Life>): void => {
  for (const life of lives) {
    if (life.state !== "ready") continue
    life.paused = true
    paused.add(life)
  }
}

export const make = (options: Options): Room => {
  const { choices, lives, resume, unload } = options
  const turn = Semaphore.makeUnsafe(1)
  const change = makeChange()
  const planFor = makePlanner(options)

  const byKeys = (keys: ReadonlyArray<string>) => lives().filter((life) => keys.includes(keyOf(life)))

  /** What can never fit need not wait for its turn. */
  const refuseImpossible = Effect.fnUntraced(function*(life: Life, candidates: ReadonlyArray<Choice>) {
    const plan = yield* planFor(candidates)
    if (plan.type === "refuse") return yield* refused(life, plan)
  })

  const makeRoom = Effect.fnUntraced(function*(life: Life, candidates: ReadonlyArray<Choice>, paused: Set<Life>) {
    for (;;) {
      const next = change.next()
      const plan = yield* planFor(candidates)
      if (plan.type === "refuse") return yield* refused(life, plan)
      if (plan.type === "load") {
        const choice = candidates.find(({ name }) => name === plan.candidate.name)!
        yield* Effect.forEach(byKeys(plan.evict), unload, { concurrency: "unbounded", discard: true })
        life.bytes = choice.bytes
        life.granted = choice.deployment
        return choice.deployment
      }
      pause(byKeys(plan.drain), paused)
      const time = Number.isFinite(plan.atMostMs) ? Effect.sleep(plan.atMostMs) : Effect.never
      yield* Effect.raceFirst(next, time)
    }
  })

  return {
    reserve: (life) =>
      Effect.acquireRelease(
        Effect.suspend(() => {
          const paused = new Set<Life>()
          const goOn = Effect.sync(() => paused.forEach(resume))
          return Effect.interruptible(Effect.flatMap(choices(life.deployment), (candidates) =>
            Effect.andThen(
              refuseImpossible(life, candidates),
              turn.withPermit(Effect.ensuring(makeRoom(life, candidates, paused), goOn))
            )))
        }),
        () =>
          Effect.sync(() => {
            life.bytes = 0
            change.tell()
          })
      ),
    changed: () => change.tell()
  }
}
