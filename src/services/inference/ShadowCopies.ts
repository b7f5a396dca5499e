/**
 * Sends copies of requests to the candidates of their models, when the callers have their answers, and compares both answers.
 *
 * **Details**
 *
 * Copies have a pipeline of their own: the one of callers with another admission (`CopyAdmission`), without cache, and whose
 * requests are in no metric, record or turn of the model. What they share are the candidate's actor, circuit and measurements.
 * Each copy is a fiber of the application, which pressure, another configuration and the end of the application interrupt.
 */
import type { Clock } from "effect"
import { Cause, Context, Effect, Exit, Fiber, Option, Result, Stream, SubscriptionRef } from "effect"
import { HopCount } from "../../domain/Caller.ts"
import * as Defaults from "../../domain/Defaults.ts"
import type { Embeddings, EmbedRequest, Request } from "../../domain/Inference.ts"
import { InferenceError } from "../../domain/InferenceError.ts"
import * as Message from "../../domain/Message.ts"
import * as Source from "../../domain/Source.ts"
import * as Time from "../../domain/Time.ts"
import type { Ticket } from "../admission/Admission.ts"
import { TicketReceiver } from "../admission/Admission.ts"
import { choicesOf } from "../admission/Subject.ts"
import type { Pressure } from "../models/MemoryPressure.ts"
import { sheds } from "../models/MemoryPressure.ts"
import type { Models } from "../models/Models.ts"
import * as Shadow from "../rollout/Shadow.ts"
import type { ShadowRun } from "../rollout/ShadowRun.ts"
import { tenant } from "../rollout/ShadowRun.ts"
import type { ShadowTable } from "../rollout/Shadows.ts"
import type { Router } from "../routing/Router.ts"
import type { Chat } from "./Chat.ts"
import { routingOf } from "./Chat.ts"
import { CollectedAnswer, CollectingSink } from "./CollectedAnswer.ts"
import type { Response } from "./DirectAnswer.ts"

/** Two answers to one request, for a custom comparison. */
export interface ComparedAnswers {
  readonly model: string
  readonly messages: Request["messages"]
  /** The answer that the caller had. */
  readonly primary: Shadow.Compared
  readonly candidate: Shadow.Compared
}

/** A comparison of an embedding program: a number from 0, nothing in common, to 1. */
export type Compare = (answers: ComparedAnswers) => Effect.Effect<number, unknown>

/** The comparison of the program; undefined without one. */
export const CustomComparison = Context.Reference<Compare | undefined>(
  "troupe/services/inference/ShadowCopies/CustomComparison",
  { defaultValue: () => undefined }
)

export interface Parts {
  /** Of copies. */
  readonly chat: Chat
  readonly clock: Clock.Clock
  readonly compare: Compare | undefined
  /** Of copies. */
  readonly embed: (request: EmbedRequest) => Effect.Effect<Embeddings, InferenceError>
  readonly fork: (effect: Effect.Effect<void>) => Fiber.Fiber<void>
  readonly models: Models["Service"]
  readonly pressure: Pressure["Service"]
  readonly router: Router["Service"]
  readonly table: ShadowTable
}

/** A request that is sampled, with its answer. */
export interface Original {
  readonly run: ShadowRun
  readonly request: Request
  readonly answer: CollectedAnswer
  readonly isStreamed: boolean
  /** Instances of Troupe that it has passed through. */
  readonly hops: number
}

/** An original with its complete answer. */
interface Answered extends Original {
  readonly copy: Request
  readonly response: Response
  readonly taken: Shadow.Taken
}

/**
 * Whether a copy means the same to another deployment, and does nothing: tokens are those of one vocabulary, providers run
 * tools that only they have, and several answers to one request must differ.
 */
const isSupported = ({ completion, source }: Request): boolean =>
  completion?.tokens === undefined && Source.capabilityFor(source) === undefined && source?.isChoice !== true &&
  choicesOf({ source }) === 1

/** Whether tenant and routing options let a request go to the candidate: one that must not leave some deployments stays there. */
const isAllowed = ({ route, tenant }: Request, { plan: { candidate, exceptTenants } }: ShadowRun): boolean =>
  (tenant === undefined || !exceptTenants.includes(tenant)) &&
  (route?.deployments?.includes(candidate) ?? true) && route?.except?.includes(candidate) !== true

/** Why a request has no copy; undefined if nothing is against it. */
export const obstacleOf = (request: Request, run: ShadowRun): Shadow.SkipReason | undefined => {
  if (!isAllowed(request, run)) return "excluded"
  return isSupported(request) ? undefined : "unsupported"
}

/** What a provider is asked to store, it would store twice. */
const notStored = (source: Source.Source): Source.Source => {
  if (!Object.hasOwn(source.body, "store")) return source
  const { store: _, ...body } = source.body
  const { unknownFields = [], ...others } = Source.withBody(source, body)
  const kept = unknownFields.filter(({ path }) => path[0] !== "store")
  return kept.length === 0 ? others : { ...others, unknownFields: kept }
}

/** The request for the candidate alone, for which the caller does not pay. */
export const copyOf = (
  { cache: _, keepAlive: __, source, ...request }: Request,
  { identity, plan: { candidate } }: Pick<ShadowRun, "identity" | "plan">
): Request => ({
  ...request,
  tenant,
  identity,
  priority: "low",
  route: { deployments: [candidate], fallbacks: [], retries: 0, continue: false },
  ...(source === undefined ? {} : { source: notStored(source) })
})

/** Why a failed copy has never reached the candidate. */
const skips: { readonly [Tag in InferenceError["reason"]["_tag"]]?: Shadow.SkipReason } = {
  BudgetExceeded: "budget",
  CircuitOpen: "unavailable",
  NoDeployment: "unavailable",
  Overloaded: "pressure",
  QueueFull: "queue"
}

const promptOf = ({ messages }: Request): string => Message.textOf(messages.at(-1)!.content)

export class ShadowCopies {
  readonly #parts: Parts
  /** Models whose comparison has failed, which is logged once. */
  readonly #logged = new Set<ShadowRun>()

  constructor(parts: Parts) {
    this.#parts = parts
  }

  /** Sends a copy if the original is complete and nothing is against it. */
  send(original: Original): void {
    const { answer, run } = original
    const { response } = answer
    if (response === undefined) return answer.isTooLong ? run.skipped("unsupported") : run.unanswered()
    const copy = copyOf(original.request, run)
    const obstacle = answer.deployment === run.plan.candidate ? "excluded" : this.#obstacle(run, copy)
    if (obstacle !== undefined) return run.skipped(obstacle)
    const taken = answer.taken(response, this.#now())
    run.begin(this.#parts.fork(this.#copy({ ...original, copy, response, taken })))
  }

  #now(): number {
    return Time.nowOf(this.#parts.clock)
  }

  #obstacle(run: ShadowRun, copy: Request): Shadow.SkipReason | undefined {
    const { models, pressure, router } = this.#parts
    if (sheds[SubscriptionRef.getUnsafe(pressure)].refuseLowPriority) return "pressure"
    if (!run.isFree) return "concurrency"
    if (models.snapshot(run.plan.candidate).queued > 0) return "queue"
    const route = router.preview(routingOf(copy))
    return Result.isSuccess(route) && route.success.deployments.length > 0 ? undefined : "unavailable"
  }

  #copy(original: Answered): Effect.Effect<void> {
    const { hops, run } = original
    const tickets: Array<Ticket> = []
    return Effect.flatMap(this.#answered(original), (answer) => this.#compared(original, answer)).pipe(
      Effect.provideService(HopCount, hops),
      Effect.provideService(TicketReceiver, (ticket) => void tickets.push(ticket)),
      Effect.onExit((exit) =>
        Effect.sync(() => {
          if (Exit.hasInterrupts(exit)) run.cancelled()
          for (const { cost } of tickets) run.spent(cost)
        })
      )
    )
  }

  /** The candidate's answer; undefined if it has none, which is counted. */
  #answered(original: Answered): Effect.Effect<CollectedAnswer | undefined> {
    const { chat, clock } = this.#parts
    const { copy, isStreamed, run } = original
    return Effect.suspend(() => {
      const answer = new CollectedAnswer(clock)
      const asked = isStreamed
        ? chat.deliver(copy, new CollectingSink(answer))
        : Effect.map(chat.generate(copy), (whole) => answer.whole(whole))
      return Effect.matchEffect(Effect.timeoutOption(asked, run.plan.timeoutMs), {
        onSuccess: (ended) => {
          if (Option.isSome(ended)) return Effect.succeed(answer)
          run.timedOut()
          return Effect.undefined
        },
        onFailure: ({ reason }) => {
          const skipped = skips[reason._tag]
          if (skipped === undefined) run.failed(reason._tag)
          else run.skipped(skipped)
          return Effect.undefined
        }
      })
    }).pipe(Effect.catchDefect((defect) => {
      run.failed("Defect")
      return Effect.as(Effect.logError(`A copy for ${run.plan.candidate} failed.`, defect), undefined)
    }))
  }

  #compared(original: Answered, answer: CollectedAnswer | undefined): Effect.Effect<void> {
    const { request, run, response: primary, taken } = original
    const candidate = answer?.response
    if (answer === undefined) return Effect.void
    if (candidate === undefined) return Effect.sync(() => run.skipped("unsupported"))
    const candidateTaken = answer.taken(candidate, this.#now())
    const texts = [Shadow.textOf(primary), Shadow.textOf(candidate)] as const
    const isExact = texts[0] === texts[1]
    return Effect.map(this.#agreement(original, candidate, texts), (agreement) => {
      run.answered({ primary: taken, candidate: candidateTaken, isExact, agreement })
      if (isExact) return
      const at = this.#parts.clock.currentTimeMillisUnsafe()
      run.keep({ at, prompt: promptOf(request), primary: texts[0], candidate: texts[1], agreement: agreement ?? null })
    })
  }

  /** How much two answers agree, from 0 to 1; undefined if the comparison fails. */
  #agreement(
    { request: { messages }, response: primary, run }: Answered,
    candidate: Response,
    [one, other]: readonly [string, string]
  ): Effect.Effect<number | undefined> {
    const { compare } = this.#parts
    const { model, plan } = run
    if (plan.compare === "custom") {
      const asked = compare === undefined
        ? Effect.fail("The application has no comparison: App.shadowComparison adds one.")
        : Effect.suspend(() => compare({ model, messages, primary, candidate }))
      return this.#guarded(run, Effect.timeout(asked, Defaults.callbackLimit))
    }
    if (one === other) return Effect.succeed(1)
    if (plan.compare === "exact" || one === "" || other === "") return Effect.succeed(0)
    const pieces = Shadow.piecesOf(one)
    const embedded = this.#parts.embed({
      model: plan.embeddings,
      inputs: [...pieces, ...Shadow.piecesOf(other)],
      tenant,
      identity: run.identity,
      priority: "low"
    })
    return this.#guarded(
      run,
      Effect.map(
        Effect.timeout(embedded, plan.timeoutMs),
        ({ vectors }) =>
          Shadow.similarity(
            Shadow.meanVector(vectors.slice(0, pieces.length)),
            Shadow.meanVector(vectors.slice(pieces.length))
          )
      )
    )
  }

  /** The number of a comparison, which may fail: the first failure is logged. */
  #guarded(run: ShadowRun, comparison: Effect.Effect<number, unknown>): Effect.Effect<number | undefined> {
    return Effect.matchCauseEffect(comparison, {
      onSuccess: (value) =>
        value >= 0 && value <= 1
          ? Effect.succeed(value)
          : this.#failed(run, Cause.fail(`It returned ${value} instead of a number from 0 to 1.`)),
      onFailure: (cause) => Cause.hasInterrupts(cause) ? Effect.interrupt : this.#failed(run, cause)
    })
  }

  #failed(run: ShadowRun, cause: Cause.Cause<unknown>): Effect.Effect<undefined> {
    run.incomparable(problemOf(Cause.squash(cause)))
    if (this.#logged.has(run)) return Effect.undefined
    this.#logged.add(run)
    return Effect.as(
      Effect.logWarning(
        `The comparison of copies of ${run.model} failed. The pair counts as incomparable; later failures are not logged.`,
        cause
      ),
      undefined
    )
  }
}

/** Why a comparison has failed. */
const problemOf = (error: unknown): string => {
  if (error instanceof InferenceError) return error.reason.message
  return error instanceof Error ? error.message : String(error)
}

/** Ends the copies that run while memory pressure lasts, and with the application. */
export const makeGuarded = Effect.fnUntraced(function*(parts: Parts) {
  const { pressure, table } = parts
  yield* Effect.addFinalizer(() => Effect.suspend(() => Fiber.interruptAll(table.running)))
  const levels = SubscriptionRef.changes(pressure)
  yield* Effect.forkScoped(Stream.runForEach(levels, (level) =>
    Effect.sync(() => {
      if (sheds[level].refuseLowPriority) table.interrupt()
    })))
  return new ShadowCopies(parts)
})
