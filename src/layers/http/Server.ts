/**
 * The HTTP server: all routes, at the configured address.
 *
 * **Details**
 *
 * On shutdown the server stops accepting requests and waits for those in flight, and for responses that are generated in the
 * background, up to `server.shutdownGrace`. Then it fails those that still run, so that each of them gets a response.
 */
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import { ByteSize, Deferred, Duration, Effect, Fiber, Layer, Option, Schedule, Stream } from "effect"
import { HttpIncomingMessage, HttpRouter, HttpServer, UrlParams } from "effect/http"
import { HttpApiBuilder } from "effect/http-api"
import { rmSync } from "node:fs"
import type { IncomingMessage, ServerResponse } from "node:http"
import { dirname } from "node:path"
import { getHeapStatistics } from "node:v8"
import * as Defaults from "../../domain/Defaults.ts"
import { Readiness } from "../../services/health/Readiness.ts"
import { ByteBudget, RequestBytes } from "../../services/limits/RequestLimits.ts"
import { Models } from "../../services/models/Models.ts"
import { ProcessGroup } from "../../services/processes/ProcessGroup.ts"
import { ResponseState } from "../../services/responses/Responses.ts"
import { DecisionLog } from "../../services/routing/DecisionLog.ts"
import type { Resolved } from "../../services/settings/Settings.ts"
import { AdminAddress, Settings } from "../../services/settings/Settings.ts"
import { SettingsChanges } from "../../services/settings/SettingsChanges.ts"
import * as AdminKeys from "./AdminKeys.ts"
import * as AdminListener from "./AdminListener.ts"
import * as AdminLive from "./AdminLive.ts"
import * as AdminRollouts from "./AdminRollouts.ts"
import * as AdminRoutes from "./AdminRoutes.ts"
import * as AdminUsage from "./AdminUsage.ts"
import * as AnthropicRoutes from "./AnthropicRoutes.ts"
import { TypedApi } from "./Api.ts"
import * as Authentication from "./Authentication.ts"
import * as Binding from "./Binding.ts"
import * as CallerAddress from "./CallerAddress.ts"
import * as CohereRoutes from "./CohereRoutes.ts"
import type { Dialects } from "./Dialect.ts"
import { DirectRoutes } from "./DirectRoutes.ts"
import * as EarlyRefusals from "./EarlyRefusals.ts"
import * as Endpoint from "./Endpoint.ts"
import * as Handover from "./Handover.ts"
import type { DirectRoute } from "./NodeServer.ts"
import { layerRequestId, NodeServer } from "./NodeServer.ts"
import * as OllamaRoutes from "./OllamaRoutes.ts"
import * as OpenAiRoutes from "./OpenAiRoutes.ts"
import { PeerProcesses, Peers } from "./Peers.ts"
import * as Replays from "./Replays.ts"
import * as RequestIds from "./RequestIds.ts"
import * as ResponsesRoutes from "./ResponsesRoutes.ts"
import { KeptStreams } from "./ServerSentEvents.ts"
import * as ServiceRoutes from "./ServiceRoutes.ts"

/** A dialect that is added here has routes, a description, its own errors and its own model list. */
export const dialects: Dialects = [
  OpenAiRoutes.dialect,
  AnthropicRoutes.dialect,
  ResponsesRoutes.dialect,
  OllamaRoutes.dialect,
  CohereRoutes.dialect
]

/** All routes of these dialects and of the service. */
export const routesOf = ([first, ...others]: Dialects, serviceRoutes: ReturnType<typeof ServiceRoutes.make>["layer"]) =>
  Layer.mergeAll(
    first.layer,
    ...others.map(({ layer }) => layer),
    serviceRoutes,
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
  )

/** The limits of one body and of the bodies of all requests. */
export const layerLimits = (server: Resolved["server"]) =>
  Layer.merge(
    Layer.succeed(HttpIncomingMessage.MaxBodySize, ByteSize.bytes(server.maxBodyBytes)),
    Layer.sync(
      RequestBytes,
      () => new ByteBudget(server.maxRequestMemory ?? Math.floor(getHeapStatistics().heap_size_limit / 4))
    )
  )

/** Every name: spans have no values of queries. */
export const noQueryValues = Layer.succeed(UrlParams.CurrentRedactedNames, [/^/])

/** An access log costs 56 µs a request, more than the request itself; failures are logged where they happen. */
const serving = { routerConfig: ServiceRoutes.routerConfig, disableLogger: true, disableListenLog: true }

/** How long the responses to requests that fail on shutdown may take, ms: engines end first, which is slow on a busy machine. */
const lastResponsesMs = 5_000

/** How much later than that the connections close, ms. */
const closeMarginMs = 1_000

/** Who may call; fails where that would be everyone who reaches the address. */
const authenticated = Effect.gen(function*() {
  const authentication = yield* Authentication.make
  yield* Effect.fromResult(Binding.check(yield* Settings, authentication.isRequired))
  return authentication
})

/** The other processes, which learn of this one's deployments from now on; undefined where there are none. */
const makePeers = Effect.gen(function*() {
  const member = yield* ProcessGroup
  if (member === undefined) return undefined
  const peers = new Peers(member, yield* Settings)
  const changes = yield* SettingsChanges
  changes.follow((settings) => peers.follow(settings))
  yield* Effect.addFinalizer(() => Effect.sync(() => peers.close()))
  const { events } = yield* Models
  yield* Effect.forkScoped(Stream.runForEach(events, (event) => Effect.sync(() => peers.emit(event))))
  const decisions = yield* Effect.serviceOption(DecisionLog)
  const report = Effect.sync(() => peers.reportRunning(Option.getOrUndefined(decisions)?.running?.() ?? 0))
  yield* Effect.forkScoped(Effect.repeat(report, Schedule.spaced(Defaults.runningReports)))
  return peers
})

type Handle = (request: IncomingMessage, response: ServerResponse) => void

const listenerOptions = (settings: Resolved["server"], handle: Handle) =>
  Effect.map(
    HttpServer.HttpServer,
    ({ address }) => ({ settings, port: "port" in address ? address.port : settings.port, handle })
  )

/** Where the service has several processes, the first one listens for administration. */
const listenForAdmin = Effect.fnUntraced(
  function*(settings: Resolved["server"], peers: Peers | undefined, handle: Handle) {
    const options = yield* listenerOptions(settings, handle)
    if (peers === undefined) return yield* AdminListener.listening(options)
    return peers.isFirst
      ? AdminAddress.of(yield* Handover.administration(peers.member, AdminListener.listening(options)))
      : AdminAddress.of({})
  }
)

/** Ends when no response is generated in the background. */
const backgroundIdle = Effect.map(ResponseState, (state) => state?.background.idle ?? Effect.void)

/**
 * Listens for the other processes. Its layer is built after the server's, and so ends before it: otherwise the server would
 * interrupt the requests of other processes when its own have ended.
 */
const listenForProcesses = Effect.fnUntraced(
  function*(settings: Resolved["server"], peers: Peers | undefined, node: NodeServer, handle: Handle) {
    if (peers === undefined) return
    const options = yield* listenerOptions(settings, handle)
    peers.boundTo(options.port)
    const readiness = yield* Readiness
    const services = yield* Effect.context()
    const background = yield* backgroundIdle
    Handover.Handover.start(node, peers.member, peers.heldSocket, {
      onDrain: () => {
        readiness.isReplaced = true
      },
      whenIdle: (run) => void Effect.runForkWith(services)(Effect.andThen(background, Effect.sync(run)))
    })
    const graceMs = Duration.toMillis(settings.shutdownGrace) + lastResponsesMs
    yield* AdminListener.listeningForProcesses(options, peers.ownSocket, graceMs)
  }
)

/** Beside another generation, which has the port, at a socket file. */
const whereToListen = ({ host, port }: Resolved["server"], peers: Peers | undefined) => {
  if (peers?.member.isBeside !== true) {
    return { host, port, backlog: Defaults.connectionBacklog, reusePort: peers !== undefined }
  }
  AdminListener.makePrivateFolder(dirname(peers.heldSocket))
  // Of a process that was killed.
  rmSync(peers.heldSocket, { force: true })
  return { path: peers.heldSocket }
}

/** Undefined if streams are not kept alive. */
const streamsOf = ({ streamKeepAlive }: Resolved["server"]): KeptStreams | undefined =>
  streamKeepAlive === false ? undefined : new KeptStreams(Duration.toMillis(streamKeepAlive))

/**
 * Ends the service's work on shutdown: models load no longer, and requests that outlast the grace fail.
 *
 * **Details**
 *
 * Connections that outlast the grace (a half-sent request, a reader that stopped) are closed: they would delay the
 * shutdown for ever.
 */
const makeStop = Effect.fnUntraced(function*(node: NodeServer, graceMs: number) {
  const readiness = yield* Readiness
  const models = yield* Models
  const stopping = yield* Deferred.make<void>()
  const background = yield* backgroundIdle
  // Forked before the server starts, so that it ends after it.
  yield* Effect.forkScoped(
    Effect.andThen(Deferred.await(stopping), Effect.andThen(Effect.sleep(graceMs), models.stop))
  )
  // Runs when the server has ended; until then responses in the background go on, and after the grace they fail.
  const over = Effect.andThen(Deferred.await(stopping), Effect.sleep(graceMs + lastResponsesMs))
  const waited = yield* Effect.forkScoped(over)
  yield* Effect.addFinalizer(() =>
    Effect.raceFirst(Effect.interruptible(background), Effect.interruptible(Fiber.await(waited)))
  )
  return Layer.effectDiscard(Effect.addFinalizer(() =>
    Effect.andThen(
      Effect.sync(() => {
        readiness.status = "stopping"
        Deferred.doneUnsafe(stopping, Effect.void)
        setTimeout(() => node.closeAllConnections(), graceMs + lastResponsesMs + closeMarginMs).unref()
      }),
      models.stopLoads
    )
  ))
})

/** The server with these dialects. */
export const make = (dialects: Dialects) =>
  Layer.unwrap(Effect.gen(function*() {
    const { server } = yield* Settings
    const grace = Duration.toMillis(server.shutdownGrace)
    const services = yield* Effect.context()
    const makeId = () => Effect.runSyncWith(services)(Endpoint.makeId("req_"))
    const serviceRoutes = ServiceRoutes.make(dialects)
    const directRoutes = new Map<string, DirectRoute>()
    const authentication = yield* authenticated
    const streams = streamsOf(server)
    const refusals = yield* EarlyRefusals.make
    const shared = { authentication, refusals, makeId, directRoutes, streams }
    const node = new NodeServer({ settings: server, ...serviceRoutes, ...shared })
    const peers = yield* makePeers
    const stop = yield* makeStop(node, grace)
    const http = NodeHttpServer.layer(() => node, {
      ...whereToListen(server, peers),
      websocket: { maxPayload: server.maxBodyBytes },
      gracefulShutdownTimeout: grace + lastResponsesMs
    })
    const handle: Handle = (request, response) => node.handle(request, response)
    const admin = Layer.effect(AdminAddress, listenForAdmin(server, peers, handle))
    const forProcesses = Layer.effectDiscard(listenForProcesses(server, peers, node, handle))
    const served = HttpRouter.serve(routesOf(dialects, serviceRoutes.layer), serving)
    return stop.pipe(
      Layer.provideMerge(forProcesses),
      Layer.provideMerge(served),
      Layer.provide([
        CallerAddress.layer,
        layerRequestId,
        RequestIds.layer,
        Replays.layer,
        noQueryValues,
        Layer.succeed(DirectRoutes, directRoutes),
        Layer.succeed(EarlyRefusals.EarlyRefusals, refusals)
      ]),
      Layer.provideMerge(admin),
      Layer.provideMerge(http),
      Layer.provideMerge(layerLimits(server)),
      Layer.provide(Layer.succeed(PeerProcesses, peers))
    )
  }))

/** Requires `Inference`; provides `HttpServer`, which has the address that was bound, and `AdminAddress`. */
export const layer = make(dialects)
