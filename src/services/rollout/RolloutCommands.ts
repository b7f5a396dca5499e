/**
 * Carries out what a rollout's state asks for: checks the candidate, sends probes, waits for the last request of a version,
 * and unloads it.
 *
 * **Details**
 *
 * Each command is one effect, which reports its result as an event. A command that still runs is not begun again.
 * A check or a probe is an ordinary small request that names its deployment, without retries, fallbacks and cache. Its record says
 * what it is (`CheckOf`), and no figure of callers has it.
 */
import { Duration, Effect, Stream } from "effect"
import type { Check } from "../../domain/Caller.ts"
import { CheckOf } from "../../domain/Caller.ts"
import type { Deployment, Model } from "../../domain/Deployment.ts"
import { classify } from "../../domain/FailureClass.ts"
import { durationText } from "../../domain/Fields.ts"
import type { Request } from "../../domain/Inference.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import * as Time from "../../domain/Time.ts"
import { capabilitiesOf } from "../engines/EngineKinds.ts"
import type { Inference } from "../inference/Inference.ts"
import type { Models } from "../models/Models.ts"
import { findKnown } from "./KnownDeployment.ts"
import type { Command, Event } from "./Rollout.ts"
import type { Known, Stored } from "./RolloutStore.ts"
import type { Observe } from "./Split.ts"
import { speedOf } from "./Split.ts"

/** The prompt of a check. */
const checkPrompt = "Answer with OK."

/** Tokens of an answer to a check. */
const checkTokens = 16

/** How often a version with running requests is looked at. */
const drainEvery = Duration.millis(100)

/** A command of one rollout. */
export interface Given {
  readonly command: Command
  readonly model: Model
  readonly stored: Stored
  /** Passes the result on to the rollout. */
  readonly report: (event: Event) => Effect.Effect<void>
  readonly observe: Observe
}

const requestTo = ({ id, model }: Deployment, prompt: string, maxTokens: number): Request => ({
  model,
  messages: [{ role: "user", content: prompt }],
  maxTokens,
  cache: { noStore: true },
  route: { deployments: [id], fallbacks: [], retries: 0 }
})

/** Requests of Troupe itself. */
const sentAs = (check: Check) => <A, E, R>(requests: Effect.Effect<A, E, R>) =>
  Effect.provideService(requests, CheckOf, check)

/** What happens with the candidate, or with the versions that it replaces. */
const versionOf = ({ model, stored: { candidate, rollout, stable } }: Given, id: string): ReadonlyArray<Deployment> => {
  const known: ReadonlyArray<Known> = id === rollout.candidate ? [candidate] : stable
  return known.flatMap((one) => findKnown(model, one) ?? [])
}

export class RolloutCommands {
  readonly #inference: Inference["Service"]
  readonly #models: Models["Service"]
  /** Those that run now. */
  readonly #running = new Set<string>()

  constructor(inference: Inference["Service"], models: Models["Service"]) {
    this.#inference = inference
    this.#models = models
  }

  /** Requests that a deployment has not answered yet. */
  runningAt(id: string): Effect.Effect<number> {
    return Effect.map(
      this.#models.statuses,
      (statuses) => statuses.find(({ deployment }) => deployment === id)?.running ?? 0
    )
  }

  /** The work of a command; undefined: there is none, or it is being done. */
  workOf(given: Given): Effect.Effect<void> | undefined {
    const { command, stored: { rollout: { id } } } = given
    const work = this.#workOf(given)
    const key = `${command._tag} ${id}`
    if (work === undefined || this.#running.has(key)) return undefined
    this.#running.add(key)
    return Effect.ensuring(work, Effect.sync(() => this.#running.delete(key)))
  }

  #workOf(given: Given): Effect.Effect<void> | undefined {
    const { command, report } = given
    switch (command._tag) {
      // The table of the router follows from the state.
      case "SetWeights":
        return undefined
      case "CheckHealth":
        return Effect.matchEffect(
          Effect.forEach(
            versionOf(given, command.deployment),
            (one) => sentAs("health")(this.#check(one, given.stored.rollout.plan.health.timeoutMs))
          ),
          {
            onSuccess: () => report({ _tag: "Healthy" }),
            onFailure: ({ message }) => report({ _tag: "Unhealthy", problem: message })
          }
        )
      case "Probe":
        return Effect.forEach(
          command.deployments.flatMap((id) => versionOf(given, id).slice(0, 1)),
          (deployment) => sentAs("probe")(this.#probe(given, deployment, command.prompts)),
          { concurrency: "unbounded", discard: true }
        )
      case "Drain":
        return Effect.andThen(
          this.#idle(versionOf(given, command.deployment)),
          report({ _tag: "Drained", deployment: command.deployment })
        )
      case "Unload":
        return Effect.andThen(
          Effect.forEach(versionOf(given, command.deployment), (one) => this.#models.unload(one), { discard: true }),
          report({ _tag: "Unloaded", deployment: command.deployment })
        )
    }
  }

  /** Loads the deployment and sends it a small request. */
  #check(deployment: Deployment, timeoutMs: number): Effect.Effect<void, { readonly message: string }> {
    const answered = Effect.timeoutOrElse(this.#ask(deployment), {
      duration: timeoutMs,
      orElse: () => Effect.fail({ message: `It did not answer within ${durationText(timeoutMs)}.` })
    })
    return Effect.andThen(
      Effect.mapError(this.#models.load(deployment), ({ reason }) => ({ message: reason.message })),
      answered
    )
  }

  #ask(deployment: Deployment): Effect.Effect<void, { readonly message: string }> {
    const capabilities = capabilitiesOf(deployment.options)
    const { model, route } = requestTo(deployment, "", 1)
    const asked: Effect.Effect<unknown, InferenceError> | undefined = capabilities.includes("generate")
      ? this.#inference.generate(requestTo(deployment, checkPrompt, checkTokens))
      : capabilities.includes("embed")
      ? this.#inference.embed({ model, inputs: [checkPrompt], route })
      : undefined
    return asked === undefined
      ? Effect.void
      : Effect.asVoid(Effect.mapError(asked, ({ reason }) => ({ message: reason.message })))
  }

  #probe({ observe, stored: { rollout } }: Given, deployment: Deployment, prompts: ReadonlyArray<string>) {
    const version = deployment.id === rollout.candidate ? deployment.id : undefined
    return Effect.forEach(
      prompts,
      (prompt) =>
        this.#measure(
          requestTo(deployment, prompt, rollout.plan.probeTokens),
          (seen) => observe(version, seen, undefined)
        ),
      { discard: true }
    )
  }

  /** Streams an answer and reports how it went. */
  #measure(request: Request, observe: (seen: Parameters<Observe>[1]) => void): Effect.Effect<void> {
    const inference = this.#inference
    return Effect.gen(function*() {
      const begun = yield* Time.now
      let firstTokenMs: number | undefined
      let tokens = 0
      let finish: string | undefined
      yield* Stream.runForEach(
        inference.stream(request),
        (event) =>
          Effect.map(Time.now, (now) => {
            if (event.type === "finish") {
              finish = event.reason
              tokens = event.usage.completionTokens
            } else firstTokenMs ??= now - begun
          })
      )
      const tookMs = (yield* Time.now) - begun
      observe({
        failed: false,
        refused: finish === "content_filter",
        firstTokenMs,
        tokensPerSecond: speedOf(tokens, tookMs, firstTokenMs)
      })
    }).pipe(
      Effect.catch(({ reason }) =>
        Effect.sync(() => {
          if (reason._tag === "ContentRefused") observe({ failed: false, refused: true })
          else if (classify(reason).countsAgainstCircuit) observe({ failed: true, refused: false })
        })
      )
    )
  }

  /** Ends when none of the deployments has a request. */
  #idle(deployments: ReadonlyArray<Deployment>): Effect.Effect<void> {
    const models = this.#models
    return Effect.gen(function*() {
      for (;;) {
        const statuses = yield* Effect.forEach(deployments, (one) => models.status(one))
        if (statuses.every(({ queued, running }) => queued + running === 0)) return
        yield* Effect.sleep(drainEvery)
      }
    })
  }
}
