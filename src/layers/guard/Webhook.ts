/**
 * Hooks of the input policy over HTTP: each request, and each answer if configured, is sent to a URL, which answers with a
 * verdict.
 *
 * **Details**
 *
 * The body of the POST is a `GuardedCall`, or a `GuardedAnswer`, with `stage`: `before` or `after`. The answer is a
 * `Verdict`, such as `{ "action": "allow" }`, with status 200; everything else is a failure of the hook.
 */
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import { Duration, Effect, Layer, Redacted, Schema } from "effect"
import { HttpClient, HttpClientRequest } from "effect/http"
import * as Defaults from "../../domain/Defaults.ts"
import type { GuardedAnswer, GuardedCall, Hooks, Verdict } from "../../services/guard/Hooks.ts"
import { GuardHooks } from "../../services/guard/Hooks.ts"
import type { WebhookSettings } from "../../services/settings/GuardSettings.ts"
import { Settings } from "../../services/settings/Settings.ts"

/** A verdict as JSON. */
const VerdictJson = Schema.Union([
  Schema.Struct({ action: Schema.Literals(["allow", "flag"]) }),
  Schema.Struct({ action: Schema.Literal("reject"), message: Schema.optionalKey(Schema.String) }),
  Schema.Struct({
    action: Schema.Literal("redact"),
    values: Schema.Array(Schema.Struct({ value: Schema.String, label: Schema.optionalKey(Schema.String) }))
  })
])

const decode = Schema.decodeUnknownEffect(VerdictJson)

/** Not with what the URL answered, which may quote the request. */
const failed = (detail: string) => new Error(`The webhook of the input policy failed: ${detail}`)

/** Sends a request or an answer. The scope's end closes the connections. */
const makeAsk = Effect.fnUntraced(function*({ key, url }: WebhookSettings) {
  const dispatcher = yield* NodeHttpClient.makeDispatcherOptions({
    connect: { timeout: Duration.toMillis(Defaults.callbackLimit) },
    allowH2: false
  })
  const client = yield* Effect.provideService(NodeHttpClient.makeUndici, NodeHttpClient.Dispatcher, dispatcher)
  // A span of the client would have the URL, which may contain a secret.
  const untraced = HttpClient.transform(client, Effect.provideService(HttpClient.TracerDisabledWhen, () => true))
  const headers = {
    accept: "application/json",
    "user-agent": "troupe",
    ...(key === undefined ? {} : { authorization: `Bearer ${Redacted.value(key)}` })
  }
  return (stage: "before" | "after", call: GuardedCall | GuardedAnswer): Effect.Effect<Verdict, Error> =>
    HttpClientRequest.post(Redacted.value(url), { headers }).pipe(
      HttpClientRequest.bodyJsonUnsafe({ stage, ...call }),
      untraced.execute,
      Effect.mapError(() => failed("it cannot be reached")),
      Effect.filterOrFail(({ status }) => status === 200, ({ status }) => failed(`it answered with status ${status}`)),
      Effect.flatMap((response) => Effect.mapError(response.json, () => failed("its answer is not JSON"))),
      Effect.flatMap((json) => Effect.mapError(decode(json), () => failed("its answer is not a verdict"))),
      Effect.scoped
    )
})

/** The hooks of the program, and those of the settings where it has none. */
export const layer = Layer.effect(
  GuardHooks,
  Effect.gen(function*() {
    const own = yield* GuardHooks
    const { guard: { webhook } } = yield* Settings
    if (webhook === undefined) return own
    const ask = yield* makeAsk(webhook)
    const hooks: Hooks = {
      onFailure: webhook.onFailure,
      ...(webhook.stages.includes("before") ? { before: (call) => ask("before", call) } : {}),
      ...(webhook.stages.includes("after") ? { after: (answer) => ask("after", answer) } : {})
    }
    return { ...hooks, ...own }
  })
)
