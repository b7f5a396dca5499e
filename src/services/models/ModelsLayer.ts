/**
 * The actors, assembled: one for each deployment that is in use, their engines' lives, and the memory they share.
 *
 * **Details**
 *
 * Whoever borrows enters the actor's mailbox and, where no engine lives, begins a life. A slot goes back when its
 * borrower's scope is closed and the engine has let go of the job. An engine that has been idle for its keep-alive time
 * is drained.
 */
import { Cause, Clock, Duration, Effect, Fiber, Layer, PubSub, Stream } from "effect"
import * as Policies from "../../domain/Defaults.ts"
import type { Deployment } from "../../domain/Deployment.ts"
import type { Engines } from "../engines/Engine.ts"
import { ModelFiles } from "../engines/ModelFiles.ts"
import type { Resolved } from "../settings/Settings.ts"
import { Settings } from "../settings/Settings.ts"
import type { Actor, Life } from "./Actor.ts"
import * as Actors from "./Actor.ts"
import type { House } from "./ActorContext.ts"
import { livesOf, now } from "./ActorContext.ts"
import * as Lives from "./EngineLifecycle.ts"
import * as Borrow from "./Lease.ts"
import * as Choices from "./LoadCandidates.ts"
import { Memory } from "./Memory.ts"
import type { Options as RoomOptions } from "./MemoryScheduler.ts"
import * as Room from "./MemoryScheduler.ts"
import type { ActorEvent, Status } from "./Models.ts"
import { Models } from "./Models.ts"

/** What decides on memory. */
type MemoryOptions = Pick<RoomOptions, "budget" | "choices" | "holdMs"> & Pick<House, "measure">

/** Every model fits. */
const unbounded: MemoryOptions = {
  budget: Effect.succeed(() => Number.POSITIVE_INFINITY),
  choices: (deployment) => Effect.succeed([{ name: deployment.id, bytes: 0, deployment }]),
  measure: () => Effect.void,
  holdMs: Duration.toMillis(Policies.memoryHold)
}

/** What an engine that is loaded takes; one that loads has yet to take what it was granted. */
const takenBytes = (lives: ReadonlyArray<Life>): number =>
  lives.reduce((sum, { bytes, engine }) => engine === undefined ? sum : sum + bytes, 0)

/** What models may use: what was configured, or what they use and what is left, less the reserve. */
export const budgetOf = ({ budgetBytes }: Resolved["memory"], memory: Memory["Service"]): MemoryOptions["budget"] =>
  budgetBytes !== undefined
    ? Effect.succeed(() => budgetBytes)
    : Effect.map(memory.read, ({ availableBytes, totalBytes }) => (lives) =>
      // A mapped file's pages count as used by its engine and as available too.
      (1 - Policies.memoryReserve) * Math.min(totalBytes, availableBytes + takenBytes(lives)))

const eventsKept = 1_024

const statusOf = (id: string, actor: Actor | undefined): Effect.Effect<Status> =>
  Effect.map(actor?.life?.engine?.memoryBytes ?? Effect.succeed(0), (memoryBytes) => ({
    deployment: id,
    state: actor === undefined ? "cold" : Actors.stateOf(actor),
    running: actor === undefined ? 0 : livesOf(actor).reduce((sum, { running }) => sum + running, 0),
    queued: actor?.mailbox.size ?? 0,
    memoryBytes,
    ...(actor?.lastFailure === undefined ? {} : { lastFailure: actor.lastFailure })
  }))

const makeHouse = Effect.fnUntraced(function*(memory: MemoryOptions) {
  const scope = yield* Effect.scope
  const context = yield* Effect.context<Engines>()
  const clock = yield* Clock.Clock
  const events = yield* PubSub.sliding<ActorEvent>(eventsKept)
  const house: House = {
    actors: new Map<string, Actor>(),
    replaced: new Map<string, Deployment>(),
    clock,
    measure: memory.measure,
    room: Room.make({
      ...memory,
      lives: () => [...house.actors.values()].flatMap(livesOf),
      fork: (effect) => house.fork(effect),
      unload: (life) => Effect.asVoid(Fiber.await(house.fork(Lives.drain(house, life)))),
      resume(life) {
        life.paused = false
        Actors.pump(life.actor, now(house))
      }
    }),
    tell: (event) => void PubSub.publishUnsafe(events, { ...event, at: clock.currentTimeMillisUnsafe() }),
    fork: (effect) => Fiber.runIn(Effect.runForkWith(context)(effect), scope)
  }
  return { house, events }
})

const unloadIdle = (house: House, idleFor: Duration.Duration): Effect.Effect<number, never, Engines> =>
  Effect.suspend(() => {
    const idle = [...house.actors.values()].filter(Lives.isUnused).flatMap(({ lastUsed, life }) =>
      life.state === "ready" && !life.deployment.pinned && now(house) - lastUsed >= Duration.toMillis(idleFor)
        ? [life]
        : []
    )
    const drainAll = Effect.forEach(idle, (life) => Lives.drain(house, life), { concurrency: "unbounded" })
    return Effect.as(drainAll, idle.length)
  })

/** Ends a life now, whatever runs. */
const stopLife = (house: House, life: Life): Effect.Effect<void> => {
  if (life.engine !== undefined) return life.engine.stop
  const give = Effect.sync(() => Lives.giveUp(house, life, Cause.fail(Lives.stoppedError(life.actor))))
  return Effect.andThen(life.fiber === undefined ? Effect.void : Fiber.interrupt(life.fiber), give)
}

/** Ends every engine now, and everyone's wait for one. */
const stopAll = (house: House): Effect.Effect<void> => {
  for (const actor of house.actors.values()) Actors.failAll(actor, Lives.stoppedError(actor))
  return Effect.forEach([...house.actors.values()].flatMap(livesOf), (life) => stopLife(house, life), {
    concurrency: "unbounded",
    discard: true
  })
}

/** Models whose memory is decided on so. */
const make = Effect.fnUntraced(function*(memory: MemoryOptions) {
  const { events, house } = yield* makeHouse(memory)
  const { actors, fork } = house
  // Engines that are slow to end would add up.
  yield* Effect.addFinalizer(() =>
    Effect.forEach(
      [...actors.values()].flatMap(livesOf),
      ({ fiber }) => fiber === undefined ? Effect.void : Fiber.interrupt(fiber),
      { concurrency: "unbounded", discard: true }
    ).pipe(
      Effect.andThen(Effect.sync(() => {
        for (const actor of actors.values()) Actors.failAll(actor, Lives.stoppedError(actor))
      }))
    )
  )
  return Models.of({
    borrow: (deployment, standing, movedOn) => Borrow.borrow(house, deployment, standing, movedOn),
    load: (deployment) => Borrow.load(house, deployment),
    unload: (deployment) => Borrow.unload(house, deployment),
    replace: (deployment) => Borrow.replace(house, deployment),
    unloadIdle: (idleFor) => Effect.suspend(() => Fiber.join(fork(unloadIdle(house, idleFor)))),
    events: Stream.fromPubSub(events),
    stop: Effect.suspend(() => stopAll(house)),
    status: ({ id }) => Effect.suspend(() => statusOf(id, actors.get(id))),
    statuses: Effect.suspend(() =>
      Effect.andThen(
        Effect.forEach([...actors.values()].flatMap(livesOf), (life) => Lives.measure(house, life), { discard: true }),
        Effect.forEach([...actors], ([id, actor]) => statusOf(id, actor))
      )
    )
  })
})

/** Every model fits, whatever it needs. */
export const layerUnbounded = Layer.effect(Models, make(unbounded))

/** Within the memory that the settings allow or the machine has. */
export const layer = Layer.effect(
  Models,
  Effect.gen(function*() {
    const { engineHost, memory } = yield* Settings
    const budget = budgetOf(memory, yield* Memory)
    const choices = Choices.make(yield* ModelFiles, engineHost)
    return yield* make({ ...choices, budget, holdMs: Duration.toMillis(memory.hold) })
  })
)
