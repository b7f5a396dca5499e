/**
 * Hooks of the input policy: effects of the embedding program, or of a webhook, that see each request before it is routed
 * and each answer before it is given.
 *
 * **Details**
 *
 * `before` sees a request after the rules, so that it never sees what they redact. `after` sees an answer before
 * redacted values are restored. A hook that fails, dies or takes longer than `Defaults.callbackLimit` rejects the request,
 * unless `onFailure` is `allow`.
 *
 * **Gotchas**
 *
 * With an `after` hook no answer is streamed as it is generated: a stream begins when the hook has allowed the whole answer.
 *
 * **Example**
 *
 * ```ts
 * const names = App.hooks({
 *   before: ({ texts }) =>
 *     Effect.succeed(texts.some(({ text }) => text.includes("Project X"))
 *       ? { action: "redact", values: [{ value: "Project X", label: "PROJECT" }] }
 *       : { action: "allow" })
 * })
 * const app = App.layer().pipe(Layer.provide(names))
 * ```
 */
import type { Effect } from "effect"
import { Context } from "effect"
import type { Answer } from "../../domain/Inference.ts"
import type { Operation } from "../observability/Metrics.ts"

/** A text of a request. */
export interface GuardedText {
  /** Of a message; left out for texts that are in none. */
  readonly role?: string
  readonly text: string
}

/** A request that a hook sees. */
export interface GuardedCall {
  readonly operation: Operation
  readonly model: string
  /** Of the caller's virtual key, if it has one. */
  readonly keyId?: string
  readonly tenant?: string
  readonly user?: string
  readonly texts: ReadonlyArray<GuardedText>
}

/** An answer that a hook sees, with its request. */
export interface GuardedAnswer extends GuardedCall {
  readonly deployment: string
  /** The text. */
  readonly answer: string
  /** The model's reasoning; left out where there is none. */
  readonly thoughts?: string
  /** Left out where there are none. */
  readonly toolCalls?: ReadonlyArray<Pick<Answer["toolCalls"][number], "arguments" | "name">>
}

/** What a hook decides. */
export type Verdict =
  | { readonly action: "allow" }
  /** The request goes on, and counts as a security event. */
  | { readonly action: "flag" }
  /** @property message what the caller is told; default only that a hook rejects it */
  | { readonly action: "reject"; readonly message?: string }
  /** Placeholders replace the values, which are restored in the answer. Labels are capital letters; default `VALUE`. */
  | {
    readonly action: "redact"
    readonly values: ReadonlyArray<{ readonly value: string; readonly label?: string }>
  }

/** The hooks of an application. */
export interface Hooks {
  readonly before?: (call: GuardedCall) => Effect.Effect<Verdict, unknown>
  /** Its answer is given or rejected: `redact` counts as `reject`. */
  readonly after?: (answer: GuardedAnswer) => Effect.Effect<Verdict, unknown>
  /** What happens to a request whose hook fails; default `reject`. */
  readonly onFailure?: "allow" | "reject"
}

/** The hooks that the application has; default none. */
export const GuardHooks = Context.Reference<Hooks>("troupe/services/guard/Hooks", { defaultValue: () => ({}) })

const label = /^[A-Z][A-Z_]{0,22}$/

/** A label as placeholders have it. */
export const labelOf = (given: string | undefined): string => given !== undefined && label.test(given) ? given : "VALUE"
