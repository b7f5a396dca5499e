/** What bounds all requests together on their way in: bytes, turns of the event loop, and turns of their callers. */
import { Context, Duration, Effect, Layer, Option } from "effect"
import { HttpServerRequest } from "effect/http"
import * as CallerAddress from "../../domain/CallerAddress.ts"
import * as Policies from "../../domain/Defaults.ts"
import { ArrivalPacer } from "../../services/limits/ArrivalPacer.ts"
import { RequestBytes } from "../../services/limits/ByteBudget.ts"
import { Settings } from "../../services/settings/Settings.ts"
import type * as RequestBody from "./RequestBody.ts"

export const make = Effect.gen(function*() {
  const { server } = yield* Settings
  const budget = yield* RequestBytes
  const limits: RequestBody.Limits = {
    maxBytes: Math.min(server.maxBodyBytes, budget.limit),
    idleMs: Duration.toMillis(server.bodyTimeout),
    budget
  }
  return limits
})

/** Bodies of more values are parsed and decoded in turns, ... */
const manyValues = 5_000

/** ... or of more text. */
const longText = 2 ** 20

/** Whether a body is parsed and decoded in turns. */
export const isLarge = ({ text, values }: RequestBody.Text): boolean => values > manyValues || text.length > longText

/** Of this process, which has one event loop. */
const turns = new ArrivalPacer({
  ...Policies.turns.largeBodies,
  now: () => performance.now(),
  nextTurn: (run) => setImmediate(run)
})

/** Waits until this turn of the event loop has time for a large body. */
export const nextTurn = Effect.callback<void>((resume) => {
  turns.offer(() => resume(Effect.void))
})

/** By which callers take turns. */
export const layerCallerAddress = Layer.effect(
  CallerAddress.CallerAddress,
  Effect.map(Settings, ({ server }) => {
    const trustedProxies = new Set(server.trustedProxies)
    return (context: Context.Context<never>) => {
      const request = Context.getOption(context, HttpServerRequest.HttpServerRequest)
      if (Option.isNone(request)) return ""
      const { headers, remoteAddress } = request.value
      return CallerAddress.of(Option.getOrElse(remoteAddress, () => ""), headers["x-forwarded-for"], trustedProxies)
    }
  })
)
