/** The handlers of every dialect over a fake `Inference`, without sockets and engines. */
import { Duration, Effect, Layer, Logger, Stream, Tracer } from "effect"
import { HttpRouter, HttpServer } from "effect/http"
import { HttpApiBuilder } from "effect/http-api"
import * as InferenceError from "../../src/domain/InferenceError.ts"
import * as AdminKeys from "../../src/layers/http/AdminKeys.ts"
import * as AdminLive from "../../src/layers/http/AdminLive.ts"
import * as AdminRollouts from "../../src/layers/http/AdminRollouts.ts"
import * as AdminRoutes from "../../src/layers/http/AdminRoutes.ts"
import * as AdminUsage from "../../src/layers/http/AdminUsage.ts"
import * as AnthropicRoutes from "../../src/layers/http/AnthropicRoutes.ts"
import { TypedApi } from "../../src/layers/http/Api.ts"
import * as EarlyRefusals from "../../src/layers/http/EarlyRefusals.ts"
import * as OllamaRoutes from "../../src/layers/http/OllamaRoutes.ts"
import * as OpenAiRoutes from "../../src/layers/http/OpenAiRoutes.ts"
import * as ServiceRoutes from "../../src/layers/http/ServiceRoutes.ts"
import type { Status } from "../../src/services/health/Readiness.ts"
import type { Inference } from "../../src/services/inference/Inference.ts"
import { ByteBudget, RequestBytes } from "../../src/services/limits/RequestLimits.ts"
import { httpServices } from "./HttpServices.ts"

const routing = { routerConfig: ServiceRoutes.routerConfig }

export interface Stand {
  readonly inference: Partial<Inference["Service"]>
  readonly status?: Status
}

/** The log entries and spans. */
const makeWitness = () => {
  const seen: Array<unknown> = []
  const logger = Logger.make((options) => {
    seen.push(options.message, String(options.cause))
  })
  const tracer = Tracer.make({
    span: (options) => {
      const span = new Tracer.NativeSpan(options)
      seen.push(span)
      return span
    }
  })
  return { seen, layer: Layer.mergeAll(Logger.layer([logger]), Layer.succeed(Tracer.Tracer, tracer)) }
}

/** `post` takes paths below `/v1`, and others from a slash on. */
export const withHandler = async <A>(
  { inference, status = "ready" }: Stand,
  use: (
    post: (path: string, body: unknown, headers?: Record<string, string>) => Promise<Response>,
    seen: ReadonlyArray<unknown>
  ) => Promise<A>
): Promise<A> => {
  const witness = makeWitness()
  const server = { maxBodyBytes: 1000, shutdownGrace: Duration.seconds(1) }
  const services = Layer.mergeAll(
    httpServices({ inference, server, status }),
    Layer.sync(RequestBytes, () => new ByteBudget(1e6)),
    HttpServer.layerServices
  )
  const routes = Layer.mergeAll(
    OpenAiRoutes.dialect.layer,
    AnthropicRoutes.dialect.layer,
    OllamaRoutes.dialect.layer,
    HttpApiBuilder.layer(TypedApi).pipe(
      Layer.provide([
        ServiceRoutes.health,
        AdminRoutes.layer,
        AdminKeys.layer,
        AdminUsage.layer,
        AdminRollouts.layer,
        AdminLive.layer
      ])
    )
  ).pipe(
    Layer.provide(Layer.provideMerge(EarlyRefusals.layer, services)),
    Layer.provideMerge(witness.layer)
  )
  const { dispose, handler } = HttpRouter.toWebHandler(
    routes.pipe(Layer.provideMerge(HttpServer.layerServices)),
    routing
  )
  try {
    return await use(
      (path, body, headers = {}) =>
        handler(
          new globalThis.Request(`http://localhost${path.startsWith("/") ? path : `/v1/${path}`}`, {
            method: "POST",
            headers: { "content-type": "application/json", ...headers },
            body: typeof body === "string" ? body : JSON.stringify(body)
          })
        ),
      witness.seen
    )
  } finally {
    await dispose()
  }
}

/** An `Inference` in which every call has this result. */
export const ending = (end: Effect.Effect<never, InferenceError.InferenceError>): Inference["Service"] => ({
  open: () => end,
  deliver: () => end,
  stream: () => Stream.fromEffect(end),
  generate: () => end,
  embed: () => end,
  rerank: () => end,
  classify: () => end,
  tokenize: () => end,
  count: () => end
})

export const failing = (reason: InferenceError.Reason) => ending(Effect.fail(InferenceError.make(reason)))
