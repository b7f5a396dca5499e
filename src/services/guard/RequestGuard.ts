/**
 * What the input policy makes of a request before it is looked up, routed and counted: the fields that its dialect does not
 * have, the rules, and the hook `before`.
 */
import { Context, Duration, Effect, Layer, Result } from "effect"
import * as UnknownFields from "../../dialects/shared/UnknownFields.ts"
import * as Defaults from "../../domain/Defaults.ts"
import type { PolicyUse, Rule, RuleModes, UnknownFieldMode } from "../../domain/GuardRule.ts"
import { meanings } from "../../domain/GuardRule.ts"
import type { Identity } from "../../domain/Identity.ts"
import type { Answer, EmbedRequest, Request } from "../../domain/Inference.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import { HookFailed, InvalidRequest, make } from "../../domain/InferenceError.ts"
import { formatPath } from "../../domain/Problem.ts"
import { withoutFields } from "../../domain/Source.ts"
import type { Operation } from "../observability/Metrics.ts"
import type { GuardSettings } from "../settings/GuardSettings.ts"
import { allRules } from "../settings/GuardSettings.ts"
import { Settings } from "../settings/Settings.ts"
import type { GuardedAnswer, GuardedCall, GuardedText, Hooks, Verdict } from "./Hooks.ts"
import { labelOf } from "./Hooks.ts"
import type { Guarded, InputPolicy, Rejection, Subject } from "./InputPolicy.ts"
import { redactValues } from "./InputPolicy.ts"
import type { Redaction } from "./Redaction.ts"
import type { Action, SecurityEvents } from "./SecurityEvents.ts"
import * as TextWalk from "./TextWalk.ts"

/** The policy of an application; without settings it finds and changes nothing. */
export const GuardPolicy = Context.Reference<GuardSettings>("troupe/services/guard/GuardPolicy", {
  defaultValue: () => ({ modes: allRules("off") })
})

/** The policy of the settings. */
export const layerSettings = Layer.effect(GuardPolicy, Effect.map(Settings, ({ guard }) => guard))

/** A request of any operation. */
export interface AnyRequest extends Guarded {
  readonly model: string
  readonly tenant?: string | undefined
  readonly identity?: Identity | undefined
}

/** How an operation is guarded. */
export interface Guarding<R> {
  readonly operation: Operation
  /** The fields that have texts. */
  readonly fields: ReadonlyArray<keyof R & string>
  /** The rules about attacks apply to conversations only. */
  readonly subject: Subject
}

/** A request that may go on. */
export interface Admitted<R> {
  readonly request: R
  /** What was replaced; undefined if nothing was. */
  readonly redaction: Redaction | undefined
  /** Paths of fields that were left out. */
  readonly dropped: ReadonlyArray<string> | undefined
}

/** What was changed, for the caller. */
export const useOf = (
  { dropped, redaction }: Pick<Admitted<unknown>, "dropped" | "redaction">
): PolicyUse | undefined =>
  dropped === undefined && redaction === undefined ? undefined : {
    ...(redaction === undefined ? {} : { redacted: [...redaction.labels].toSorted() }),
    ...(dropped === undefined ? {} : { dropped })
  }

const rejected = ({ inBody, path, rule }: Rejection): InferenceError =>
  make(
    new InvalidRequest({
      path,
      ...(inBody ? { inBody } : {}),
      rule,
      detail: `The input policy of this service rejects this text: it may have ${meanings[rule]} (rule ${rule}). ` +
        "Change the text, or ask the operator of the service."
    })
  )

const byHook = (subject: "request" | "answer", message?: string): InferenceError =>
  make(
    new InvalidRequest({
      rule: "hook",
      detail: message ?? `A hook of this service rejects the ${subject}. Ask the operator of the service.`
    })
  )

/** Whether a request has tokens of a model in place of a text, which no rule and no hook can read. */
const hasTokens = (request: AnyRequest): boolean => {
  const { completion, tokens } = request as AnyRequest & Pick<Request, "completion"> & Pick<EmbedRequest, "tokens">
  return (completion?.tokens ?? tokens) !== undefined
}

const unreadable = make(
  new InvalidRequest({ detail: "The input policy of this service cannot read tokens. Send the text instead." })
)

const acceptsNone = "This service accepts no fields that the dialect does not have (guard.unknownFields)."

type Known<R> = Result.Result<Pick<Admitted<R>, "dropped" | "request">, InferenceError>

/** The request without fields that its dialect does not have, or why it is refused. */
const withKnownFields = <R extends AnyRequest>(mode: UnknownFieldMode, request: R): Known<R> => {
  const { source } = request
  const unknown = mode === "pass" ? [] : UnknownFields.foreignFields(source)
  if (unknown.length === 0) return Result.succeed({ request, dropped: undefined })
  if (mode === "refuse") {
    const refused = UnknownFields.refused(source!, () => acceptsNone, unknown)
    return Result.fail(make(new InvalidRequest({ ...refused, inBody: true })))
  }
  return Result.succeed({
    request: { ...request, source: withoutFields(source!, unknown) },
    dropped: unknown.map(({ path }) => formatPath(path))
  })
}

/** Who asks for what, with the texts of the request. */
export const callOf = <R extends AnyRequest>(request: R, { fields, operation }: Guarding<R>): GuardedCall => {
  const texts: Array<GuardedText> = []
  const messages = (request as { readonly messages?: ReadonlyArray<{ readonly role: string }> }).messages
  TextWalk.changeRequest(request, fields, (text, _, path) => {
    const last = path.at(-1)
    const role = path[0] === "messages" ? messages?.[path[1] as number]?.role : undefined
    if (isText(path, last)) texts.push(role === undefined ? { text } : { role, text })
    return text
  })
  const { identity, model, tenant } = request
  return {
    operation,
    model,
    ...(identity === undefined ? {} : { keyId: identity.keyId }),
    ...(tenant === undefined ? {} : { tenant }),
    ...(identity?.user === undefined ? {} : { user: identity.user }),
    texts
  }
}

/** Fields of a message that have no text for a model. */
const withoutText = new Set<unknown>(["role", "id", "toolCallId", "type", "mediaType", "detail", "url", "maker"])

/** Names of fields are in the walk as well; their path ends with the name of the object. */
const isText = (path: TextWalk.Path, last: string | number | undefined): boolean =>
  path.length > 0 && !withoutText.has(last) && (path[0] !== "messages" || path.length > 2)

/** What of an answer is text that its model has generated. */
type GivenAnswer = Pick<Answer, "deployment" | "text" | "thoughts" | "toolCalls">

const seenOf = (
  { deployment, text, thoughts, toolCalls }: GivenAnswer
): Omit<GuardedAnswer, keyof GuardedCall> => ({
  deployment,
  answer: text,
  ...(thoughts === undefined ? {} : { thoughts }),
  ...(toolCalls.length === 0
    ? {}
    : { toolCalls: toolCalls.map((call) => ({ name: call.name, arguments: call.arguments })) })
})

/** Guards the requests of an application. */
export class RequestGuard {
  readonly #settings: GuardSettings
  readonly #policy: InputPolicy
  readonly #hooks: Hooks
  readonly #events: SecurityEvents

  constructor(settings: GuardSettings, policy: InputPolicy, hooks: Hooks, events: SecurityEvents) {
    this.#settings = settings
    this.#policy = policy
    this.#hooks = hooks
    this.#events = events
  }

  get #unknownFields(): UnknownFieldMode {
    return this.#settings.unknownFields ?? "pass"
  }

  /** Whether a request may change or fail. */
  get changes(): boolean {
    const { after, before } = this.#hooks
    return this.#policy.enforces || this.#unknownFields !== "pass" || before !== undefined ||
      after !== undefined
  }

  /** The request as it may go on. It has been validated. */
  admit<R extends AnyRequest>(request: R, guarding: Guarding<R>): Effect.Effect<Admitted<R>, InferenceError> {
    return Effect.suspend(() => {
      const { before } = this.#hooks
      if ((before !== undefined || this.#policy.enforces) && hasTokens(request)) return Effect.fail(unreadable)
      const ruled = this.#ruled(request, guarding)
      if (before === undefined || Result.isFailure(ruled)) return Effect.fromResult(ruled)
      const admitted = ruled.success
      const call = callOf(admitted.request, guarding)
      return Effect.flatMap(
        this.#ask(call, before(call), "request"),
        (verdict) => this.#hooked(admitted, guarding, verdict)
      )
    })
  }

  /** Fails if the hook `after` does not allow an answer. */
  allow<R extends AnyRequest>(
    request: R,
    guarding: Guarding<R>,
    answer: GivenAnswer
  ): Effect.Effect<void, InferenceError> {
    const { after } = this.#hooks
    if (after === undefined) return Effect.void
    return Effect.suspend(() => {
      const call = callOf(request, guarding)
      return Effect.flatMap(this.#ask(call, after({ ...call, ...seenOf(answer) }), "answer"), (verdict) => {
        const { action } = verdict
        if (action === "allow") return Effect.void
        this.#events.record("hook", action === "flag" ? "flag" : "reject", request)
        return action === "flag"
          ? Effect.void
          : Effect.fail(byHook("answer", action === "reject" ? verdict.message : undefined))
      })
    })
  }

  #ruled<R extends AnyRequest>(given: R, { fields, subject }: Guarding<R>): Result.Result<Admitted<R>, InferenceError> {
    const known = withKnownFields(this.#unknownFields, given)
    if (Result.isFailure(known)) return Result.fail(known.failure)
    const { dropped, request } = known.success
    if (!this.#policy.enforces) return Result.succeed({ request, dropped, redaction: undefined })
    const applied = this.#policy.apply(request, fields, subject)
    for (const rule of applied.found) this.#events.record(rule, actionOf(this.#settings.modes, rule), given)
    return applied.rejection === undefined
      ? Result.succeed({ request: applied.request, dropped, redaction: applied.redaction })
      : Result.fail(rejected(applied.rejection))
  }

  /** The verdict of a hook within its limit. Its failure is no verdict about the request. */
  #ask(
    call: GuardedCall,
    verdict: Effect.Effect<Verdict, unknown>,
    subject: "request" | "answer"
  ): Effect.Effect<Verdict, InferenceError> {
    const { onFailure = "reject" } = this.#hooks
    return Effect.catchCause(
      Effect.timeoutOrElse(verdict, {
        duration: Defaults.callbackLimit,
        orElse: () => Effect.fail(`It did not end within ${Duration.format(Defaults.callbackLimit)}.`)
      }),
      (cause) =>
        Effect.andThen(
          Effect.logError(`A hook of the input policy failed; the request is ${onFailure}ed (${call.model}).`, cause),
          onFailure === "allow"
            ? Effect.succeed({ action: "allow" } as const)
            : Effect.fail(make(new HookFailed({ subject })))
        )
    )
  }

  #hooked<R extends AnyRequest>(
    admitted: Admitted<R>,
    { fields }: Guarding<R>,
    verdict: Verdict
  ): Effect.Effect<Admitted<R>, InferenceError> {
    const { action } = verdict
    if (action === "allow") return Effect.succeed(admitted)
    this.#events.record("hook", action, admitted.request)
    if (action === "flag") return Effect.succeed(admitted)
    if (action === "reject") return Effect.fail(byHook("request", verdict.message))
    const values = verdict.values.map(({ label, value }) => [value, labelOf(label)] as const)
    return Effect.succeed({ ...admitted, ...redactValues(admitted.request, fields, values, admitted.redaction) })
  }
}

const actionOf = (modes: RuleModes, rule: Rule): Action => modes[rule] === "reject" ? "reject" : "redact"
