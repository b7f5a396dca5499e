/**
 * Starts engines: local ones in a pool of threads, in this process or a child process, language models that the program
 * provides, and remote deployments. Maps an engine's failures to `InferenceError`.
 */
import { Clock, Duration, Effect, Layer, Random } from "effect"
import * as Defaults from "../../domain/Defaults.ts"
import type { Deployment, EngineDeployment } from "../../domain/Deployment.ts"
import { isRemote } from "../../domain/Deployment.ts"
import type { EngineDescription, EngineHost, HostOptions } from "../../domain/EngineProtocol.ts"
import * as InferenceError from "../../domain/InferenceError.ts"
import type { EngineFailure } from "../../domain/Job.ts"
import type { PrefixFileOptions } from "../../domain/PrefixFiles.ts"
import { streamDefaults } from "../../domain/StreamLimits.ts"
import { plainLine } from "../../domain/Text.ts"
import type { StartLocal, Where } from "../../services/engines/Engine.ts"
import { Engines, localEngine } from "../../services/engines/Engine.ts"
import type { EngineKind } from "../../services/engines/EngineKind.ts"
import * as EngineKinds from "../../services/engines/EngineKinds.ts"
import type { LanguageModelOptions, LanguageModels as Provided } from "../../services/engines/LanguageModelKind.ts"
import { LanguageModels } from "../../services/engines/LanguageModelKind.ts"
import { none, Providers } from "../../services/engines/Providers.ts"
import { Settings } from "../../services/settings/Settings.ts"
import { ModelStore } from "../../services/store/ModelStore.ts"
import { makeChildHost } from "./ChildHost.ts"
import * as HangDetector from "./HangDetector.ts"
import * as LanguageModelEngine from "./LanguageModelEngine.ts"
import * as LocalEngine from "./LocalEngine.ts"
import * as PrefixFiles from "./PrefixFiles.ts"

/** The reason, if the request caused the failure. */
const requestReason = ({ id, model }: Deployment, failure: EngineFailure): InferenceError.Reason | undefined => {
  switch (failure.kind) {
    case "context_length_exceeded": {
      const { atLeast, contextWindow, promptTokens } = failure
      return new InferenceError.ContextLengthExceeded({
        model,
        promptTokens,
        contextWindow,
        ...(atLeast === undefined ? {} : { atLeast })
      })
    }
    case "invalid_request":
      return new InferenceError.InvalidRequest({ path: failure.path, detail: failure.message })
    case "not_supported":
      return new InferenceError.NotSupported({
        deployment: id,
        path: failure.path,
        detail: failure.message,
        ...(failure.capability === undefined ? {} : { capability: failure.capability })
      })
    default:
      return undefined
  }
}

type EngineOwnFailure = Exclude<
  EngineFailure,
  { kind: "context_length_exceeded" | "invalid_request" | "not_supported" }
>

const engineReason = ({ id }: Deployment, failure: EngineOwnFailure): InferenceError.Reason => {
  switch (failure.kind) {
    case "package_missing":
      return new InferenceError.EngineMissing({ deployment: id, packageName: failure.packageName })
    case "load_failed":
      return new InferenceError.ModelLoadFailed({ deployment: id, detail: failure.message })
    case "crashed":
      return new InferenceError.EngineCrashed({ deployment: id, detail: failure.message })
    case "hung":
      return new InferenceError.EngineHung({ deployment: id, afterMs: failure.afterMs })
    case "stopped":
      return new InferenceError.EngineStopped({ deployment: id })
    case "failed":
      return new InferenceError.EngineFailed({ deployment: id, detail: failure.message })
  }
}

const errorOf = (deployment: Deployment, failure: EngineFailure): InferenceError.InferenceError =>
  InferenceError.make(requestReason(deployment, failure) ?? engineReason(deployment, failure as EngineOwnFailure))

/** On interruption, a loading process is killed, since it may not read messages. A loading thread continues. */
const waitReady = (
  where: Where,
  deployment: Deployment,
  host: EngineHost
): Effect.Effect<EngineDescription, InferenceError.InferenceError> =>
  Effect.onInterrupt(
    Effect.tryPromise({
      try: () => host.ready,
      catch: (cause) => errorOf(deployment, cause as EngineFailure)
    }),
    () => where === "process" ? Effect.sync(() => host.abandon({ kind: "stopped" })) : Effect.void
  )

const graces = {
  cancelGraceMs: Duration.toMillis(Defaults.cancelGrace),
  closeGraceMs: Duration.toMillis(Defaults.closeGrace)
}

const closeHost = (deployment: Deployment, host: EngineHost): Effect.Effect<void> =>
  Effect.promise(() => host.close()).pipe(
    Effect.timeoutOrElse({
      // A process has been killed before this.
      duration: Duration.times(Defaults.closeGrace, 2),
      orElse: () => Effect.logWarning(`The engine of ${deployment.id} did not stop in time and is abandoned.`)
    })
  )

/** The code of thread pools is loaded only where engines run in this process. */
const makeHost = (where: Where, options: HostOptions): Effect.Effect<EngineHost> =>
  where === "process"
    ? Effect.sync(() => makeChildHost(options))
    : Effect.map(Effect.promise(() => import("./PoolHost.ts")), ({ makePoolHost }) => makePoolHost(options))

/** Starts an engine in a pool of threads. */
const startLocal: StartLocal = Effect.fnUntraced(
  function*(where, deployment, options, streams, prefixFiles) {
    const spec = EngineKinds.kindOf(options).spec!(options, prefixFiles)
    const replicas = options.replicas ?? 1
    const host = yield* Effect.acquireRelease(
      makeHost(where, { ...graces, spec, replicas }),
      (host) => closeHost(deployment, host)
    )
    const description = yield* waitReady(where, deployment, host)
    for (const warning of description.warnings ?? []) {
      yield* Effect.logWarning(`${deployment.id}: ${plainLine(warning)}`)
    }
    const watched = yield* HangDetector.watch(host, deployment.stallAfter)
    const surroundings = { random: yield* Random.Random, clock: yield* Clock.Clock }
    return LocalEngine.make(watched, description, (failure) => errorOf(deployment, failure), surroundings, streams)
  }
)

/** Loads a model of the store once in a process of its own before its first use. */
const ensureInspected = (
  { id }: Deployment,
  options: EngineDeployment,
  store: Pick<ModelStore["Service"], "ensureInspected">
) => {
  const path = EngineKinds.pathOf(options)
  return path === undefined ? Effect.void : Effect.mapError(
    store.ensureInspected(path),
    ({ message }) => InferenceError.make(new InferenceError.ModelLoadFailed({ deployment: id, detail: message }))
  )
}

/** Local engines by the names of their kinds. */
type LocalEngines = ReadonlyMap<string, StartLocal>

const everyKind: LocalEngines = new Map(EngineKinds.threadKinds.map(({ name }) => [name, startLocal]))

const missingKind = ({ id, options: { engine } }: Deployment) =>
  InferenceError.make(
    new InferenceError.ModelLoadFailed({
      deployment: id,
      detail: `this application has no ${engine} engine. Add it with App.${engine}.`
    })
  )

/**
 * @param where `process`: a child process each; `thread`: this process
 * @param provided the language models that the program provides
 * @param store checks whether its files are safe to load; default none is checked
 * @param providers starts remote deployments; default none can be started
 * @param local the local engines; default every kind
 * @param streams how answers are streamed
 * @param prefixFiles where computed prompts are kept; default nowhere
 */
export const make = (
  where: Where,
  provided: Provided = new Map(),
  store: Pick<ModelStore["Service"], "ensureInspected"> = { ensureInspected: () => Effect.void },
  providers: Providers["Service"] = none,
  local = everyKind,
  streams = streamDefaults,
  prefixFiles?: PrefixFileOptions
) =>
  Engines.of({
    start: (deployment) => {
      const { options } = deployment
      if (isRemote(options)) return providers.start(deployment, options)
      // A kind without a worker: the program provides the model.
      if (EngineKinds.kindOf(options).spec === undefined) {
        return LanguageModelEngine.start(deployment, options as LanguageModelOptions, provided)
      }
      const start = local.get(options.engine)
      return start === undefined
        ? Effect.fail(missingKind(deployment))
        : Effect.andThen(
          ensureInspected(deployment, options, store),
          start(where, deployment, options, streams, prefixFiles)
        )
    }
  })

/** The local engine of one kind. */
export const layerKind = ({ name }: Pick<EngineKind, "name">) => Layer.succeed(localEngine(name), startLocal)

/** Engines as the settings configure them; local engines of the kinds that `layerKind` provides. */
export const layer = Layer.effect(
  Engines,
  Effect.gen(function*() {
    const { engineHost, prefixFiles, streams } = yield* Settings
    const local = new Map<string, StartLocal>()
    for (const { name } of EngineKinds.threadKinds) {
      const start = yield* localEngine(name)
      if (start !== undefined) local.set(name, start)
    }
    return make(
      engineHost,
      yield* LanguageModels,
      yield* ModelStore,
      yield* Providers,
      local,
      streams,
      yield* PrefixFiles.prepare(prefixFiles)
    )
  })
)
