/** The model store in a folder of this machine. */
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import { Effect, Layer, Queue, Redacted, Result, Semaphore, Stream } from "effect"
import { HttpClient } from "effect/http"
import { join, relative, resolve, sep } from "node:path"
import * as Defaults from "../../domain/Defaults.ts"
import * as Text from "../../domain/Text.ts"
import { ModelFiles } from "../../services/engines/ModelFiles.ts"
import * as ProxySettings from "../../services/settings/ProxySettings.ts"
import { Settings } from "../../services/settings/Settings.ts"
import * as ModelSource from "../../services/store/ModelSource.ts"
import { fail, ModelStore, NotInStore } from "../../services/store/ModelStore.ts"
import type { Endpoint } from "./HuggingFace.ts"
import * as Lock from "./Lock.ts"
import * as Manifests from "./Manifests.ts"
import { pull } from "./Pull.ts"
import { ensureInspected } from "./Quarantine.ts"
import { shown } from "./Sources.ts"
import type { Options, StoreContext } from "./StoreContext.ts"

const pulledFrom = (folder: string, typed: string) =>
  Result.match(ModelSource.parse(typed), {
    onFailure: () => Effect.undefined,
    onSuccess: (source) =>
      Effect.map(
        Manifests.list(folder),
        (models) => models.find(({ manifest }) => manifest.source === shown(typed, source))
      )
  })

/** A store in this folder. */
export const make = Effect.fnUntraced(function*(options: Options) {
  const folder = resolve(options.folder)
  const context: StoreContext = {
    options: { ...options, folder },
    client: yield* HttpClient.HttpClient,
    files: yield* ModelFiles,
    retry: options.retry ?? Defaults.pullRetry,
    stallAfter: options.stallAfter ?? Defaults.pullStall,
    inspected: new Map()
  }
  // One inspection at a time: a model of two deployments is inspected once.
  const inspecting = yield* Semaphore.make(1)
  const missing = (name: string) =>
    Effect.flatMap(
      Manifests.list(folder),
      (models) => Effect.fail(fail(new NotInStore({ name, available: models.map(({ manifest }) => manifest.name) })))
    )

  return ModelStore.of({
    pull: (source, given = {}) =>
      Stream.callback((queue) =>
        Effect.scoped(pull(context, source, given, (progress) => Queue.offer(queue, progress))).pipe(
          Effect.andThen(Queue.end(queue))
        )
      ),
    list: Manifests.list(folder),
    get: (name) =>
      Effect.filterOrElse(
        ModelSource.isName(name) ? Manifests.read(folder, name) : Effect.undefined,
        (model) => model !== undefined,
        () => missing(name)
      ),
    pulledFrom: (source) => pulledFrom(folder, source),
    remove: Effect.fnUntraced(function*(name) {
      if (!ModelSource.isName(name)) return yield* missing(name)
      yield* Lock.acquire(join(folder, `.${name}.lock`), name)
      if (!(yield* Manifests.remove(folder, name))) return yield* missing(name)
    }, Effect.scoped),
    ensureInspected: Effect.fnUntraced(function*(path) {
      const [name, ...others] = relative(folder, resolve(path)).split(sep)
      if (name === undefined || others.length === 0 || !ModelSource.isName(name)) return
      yield* inspecting.withPermit(
        Effect.flatMap(
          Manifests.read(folder, name),
          (model) => model === undefined ? Effect.void : ensureInspected(context, model, () => Effect.void)
        )
      )
    })
  })
})

const endpointOf = (): Endpoint => {
  const token = Text.trimKey(process.env["HF_TOKEN"] ?? "")
  const url = Text.trimValue(process.env["HF_ENDPOINT"] ?? "")
  return {
    url: (url || "https://huggingface.co").replace(/\/+$/, ""),
    token: token === "" ? undefined : Redacted.make(token)
  }
}

/** A client whose connections go through the proxies that the environment names, if any. */
export const clientLayer = (env: ProxySettings.Environment) => {
  if (!ProxySettings.isUsed(env)) return NodeHttpClient.layerNodeHttp
  const dispatcher = Effect.acquireRelease(
    Effect.map(
      // Imported only if a proxy is configured.
      Effect.promise(() => import("@effect/platform-node/Undici")),
      ({ Agent, Pool, ProxyAgent }) =>
        new Agent({
          factory: (origin, options) => {
            const uri = ProxySettings.proxyFor(String(origin), env)
            return uri === undefined ? new Pool(origin, options) : new ProxyAgent({ uri })
          }
        })
    ),
    (agent) => Effect.promise(() => agent.destroy())
  )
  return Layer.provide(
    NodeHttpClient.layerUndiciNoDispatcher,
    Layer.effect(NodeHttpClient.Dispatcher, dispatcher)
  )
}

/** The store of the settings. `HF_ENDPOINT` and `HF_TOKEN` configure Hugging Face. */
export const layer = Layer.effect(
  ModelStore,
  Effect.flatMap(Settings, ({ store }) => make({ ...store, endpoint: endpointOf() }))
).pipe(Layer.provide(clientLayer(process.env)))
