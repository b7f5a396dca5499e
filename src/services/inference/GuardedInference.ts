/**
 * The input policy around the operations: a request is checked before the cache and the router see it, and redacted values
 * are restored in its answer.
 *
 * **Details**
 *
 * Rules of mode `flag` are checked beside the requests. Where no rule, hook or setting changes a request, each operation is
 * called as it is.
 */
import type { Scope } from "effect"
import { Effect, Stream } from "effect"
import type {
  Answer,
  AnsweredBy,
  AnswerSink,
  Classifications,
  ClassifyRequest,
  Count,
  CountRequest,
  Embeddings,
  EmbedRequest,
  Event,
  OpenedAnswer,
  Request,
  Reranking,
  RerankRequest,
  TokenizeRequest,
  Tokens
} from "../../domain/Inference.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import { textOf, thoughtsOf } from "../../domain/Message.ts"
import { eventsOf } from "../cache/CachedAnswer.ts"
import { FlagChecks } from "../guard/FlagChecks.ts"
import { GuardHooks } from "../guard/Hooks.ts"
import { InputPolicy } from "../guard/InputPolicy.ts"
import type { Redaction } from "../guard/Redaction.ts"
import type { Admitted, AnyRequest, Guarding } from "../guard/RequestGuard.ts"
import { GuardPolicy, RequestGuard, useOf } from "../guard/RequestGuard.ts"
import * as SecurityEvents from "../guard/SecurityEvents.ts"
import type { Chat } from "./Chat.ts"
import * as Pipeline from "./Pipeline.ts"
import * as RestoredAnswer from "./RestoredAnswer.ts"
import * as Validation from "./Validation.ts"

type Failing<A, R = never> = Effect.Effect<A, InferenceError, R>

/** The operations beside chat completions. */
export interface TaskOperations {
  readonly embed: (request: EmbedRequest) => Failing<Embeddings>
  readonly rerank: (request: RerankRequest) => Failing<Reranking>
  readonly classify: (request: ClassifyRequest) => Failing<Classifications>
  readonly tokenize: (request: TokenizeRequest) => Failing<Tokens>
  readonly count: (request: CountRequest) => Failing<Count>
}

/** All operations. */
export type Operations = Chat & TaskOperations

const chat: Guarding<Request> = {
  operation: "chat",
  fields: ["messages", "assistantPrefix", "tools", "stop", "format"],
  subject: "conversation"
}

const tasks = {
  embed: { operation: "embeddings", fields: ["inputs"], subject: "data" } as Guarding<EmbedRequest>,
  rerank: { operation: "rerank", fields: ["query", "documents"], subject: "data" } as Guarding<RerankRequest>,
  classify: { operation: "classify", fields: ["inputs"], subject: "data" } as Guarding<ClassifyRequest>,
  tokenize: { operation: "tokenize", fields: ["input"], subject: "data" } as Guarding<TokenizeRequest>,
  count: { operation: "tokenize", fields: ["input"], subject: "data" } as Guarding<CountRequest>
} as const

/** The answer, with what the policy changed in the request. */
const withUse = <A extends AnsweredBy>(answer: A, admitted: Admitted<unknown>): A => {
  const policy = useOf(admitted)
  return policy === undefined ? answer : { ...answer, policy }
}

/** What has to be restored in the answer, if anything. */
const restorable = ({ redaction }: Admitted<unknown>): Redaction | undefined =>
  redaction?.isReversible === true ? redaction : undefined

/** Passes restored events on. */
class RestoringSink implements AnswerSink {
  readonly #sink: AnswerSink
  readonly #admitted: Admitted<Request>
  readonly #restored: RestoredAnswer.RestoredEvents | undefined

  constructor(sink: AnswerSink, admitted: Admitted<Request>) {
    this.#sink = sink
    this.#admitted = admitted
    const redaction = restorable(admitted)
    this.#restored = redaction &&
      new RestoredAnswer.RestoredEvents(redaction, RestoredAnswer.encodeOf(admitted.request))
  }

  begin(by: AnsweredBy): void {
    this.#sink.begin(withUse(by, this.#admitted))
  }

  events(events: ReadonlyArray<Event>): boolean {
    const restored = this.#restored?.push(events) ?? events
    return restored.length === 0 || this.#sink.events(restored)
  }

  whenDrained(callback: () => void): void {
    this.#sink.whenDrained(callback)
  }
}

const restoredStream = (
  events: OpenedAnswer["events"],
  redaction: Redaction,
  request: Request
): OpenedAnswer["events"] => {
  const restored = new RestoredAnswer.RestoredEvents(redaction, RestoredAnswer.encodeOf(request))
  return Stream.flattenIterable(Stream.map(events, (event) => restored.push([event])))
}

/** Chat completions whose requests are admitted first. */
const guardedChat = (guard: RequestGuard, own: Chat, holdsAnswers: boolean): Chat => {
  const admit = (input: Request) =>
    Effect.flatMap(Pipeline.validated(input, Validation.chat), (request) => guard.admit(request, chat))

  const generate = (admitted: Admitted<Request>): Failing<Answer> =>
    Effect.flatMap(own.generate(admitted.request), (answer) => {
      const redaction = restorable(admitted)
      const restored = redaction === undefined
        ? answer
        : RestoredAnswer.restoreAnswer(answer, redaction, RestoredAnswer.encodeOf(admitted.request))
      return Effect.as(guard.allow(admitted.request, chat, answer), withUse(restored, admitted))
    })

  /** A whole answer as it is opened: the hook must allow all of it. */
  const openWhole = (admitted: Admitted<Request>): Failing<OpenedAnswer> =>
    Effect.map(generate(admitted), (answer) => {
      const { attempts, cache, decision, deployment, policy } = answer
      return {
        attempts,
        decision,
        deployment,
        ...(cache === undefined ? {} : { cache }),
        ...(policy === undefined ? {} : { policy }),
        events: Stream.fromIterable(eventsOf(answer))
      }
    })

  const open = (admitted: Admitted<Request>): Failing<OpenedAnswer, Scope.Scope> => {
    if (holdsAnswers) return openWhole(admitted)
    const redaction = restorable(admitted)
    return Effect.map(own.open(admitted.request), (opened) =>
      withUse(
        redaction === undefined
          ? opened
          : { ...opened, events: restoredStream(opened.events, redaction, admitted.request) },
        admitted
      ))
  }

  const deliver = (admitted: Admitted<Request>, sink: AnswerSink): Failing<void> => {
    if (!holdsAnswers) return own.deliver(admitted.request, new RestoringSink(sink, admitted))
    return Effect.map(generate(admitted), (answer) => {
      sink.begin(answer)
      sink.events(eventsOf(answer))
    })
  }

  return {
    generate: (input) => Effect.flatMap(admit(input), generate),
    open: (input) => Effect.flatMap(admit(input), open),
    deliver: (input, sink) => Effect.flatMap(admit(input), (admitted) => deliver(admitted, sink))
  }
}

/** The other operations whose requests are admitted first. */
const guardedTasks = (guard: RequestGuard, own: TaskOperations): TaskOperations => {
  const guarded = <R extends AnyRequest, A extends AnsweredBy>(
    guarding: Guarding<R>,
    validate: (request: R) => Failing<R>,
    operation: (request: R) => Failing<A>
  ) =>
  (input: R): Failing<A> =>
    Effect.flatMap(
      Pipeline.validated(input, validate),
      (request) =>
        Effect.flatMap(guard.admit(request, guarding), (admitted) =>
          Effect.map(operation(admitted.request), (answer) => withUse(answer, admitted)))
    )
  return {
    embed: guarded(tasks.embed, Validation.embeddings, own.embed),
    rerank: guarded(tasks.rerank, Validation.rerank, own.rerank),
    classify: guarded(tasks.classify, Validation.classify, own.classify),
    tokenize: guarded(tasks.tokenize, Validation.tokenize, own.tokenize),
    count: guarded(tasks.count, Validation.count, own.count)
  }
}

/** The other operations whose requests are checked beside them. */
const flaggedTasks = (checks: FlagChecks, own: TaskOperations): TaskOperations => {
  const flagged =
    <R extends AnyRequest, A>(textsOf: (request: R) => ReadonlyArray<string>, operation: (request: R) => Failing<A>) =>
    (request: R): Failing<A> =>
      Effect.suspend(() => {
        checks.noteData(() => textsOf(request), request)
        return operation(request)
      })
  const inputText = ({ input }: CountRequest | TokenizeRequest) =>
    typeof input === "string"
      ? [input]
      : input.messages.flatMap((message) => [textOf(message.content), thoughtsOf(message) ?? ""])
  return {
    embed: flagged(({ inputs }) => inputs, own.embed),
    rerank: flagged(({ documents, query }) => [query, ...documents], own.rerank),
    classify: flagged(({ inputs }) => inputs, own.classify),
    tokenize: flagged(inputText, own.tokenize),
    count: flagged(inputText, own.count)
  }
}

/** Adds the input policy to the operations. */
export const make = Effect.fnUntraced(function*(own: Operations) {
  const settings = yield* GuardPolicy
  const hooks = yield* GuardHooks
  const policy = new InputPolicy(settings.modes)
  const events = yield* SecurityEvents.make
  const guard = new RequestGuard(settings, policy, hooks, events)
  const guarded: Operations = guard.changes
    ? { ...guardedChat(guard, own, hooks.after !== undefined), ...guardedTasks(guard, own) }
    : own
  if (policy.flagged.length === 0) return guarded
  const scope = yield* Effect.scope
  const fork = Effect.runForkWith(yield* Effect.context())
  const checks = new FlagChecks(policy.flagged, events, (checking) => {
    fork(Effect.forkIn(checking, scope))
  })
  return { ...checks.beside(guarded), ...flaggedTasks(checks, guarded) }
})
