/** `troupe serve`: the service, until a signal stops it. */
import type { Scope } from "effect"
import { Console, Duration, Effect, Layer, Option, Schema } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { HttpServer } from "effect/http"
import * as NetAddress from "effect/net/NetAddress"
import { flushCompileCache } from "node:module"
import { tmpdir } from "node:os"
import { resolve } from "node:path"
import * as App from "../App.ts"
import { durationText } from "../domain/Fields.ts"
import type { InferenceError } from "../domain/InferenceError.ts"
import * as Problem from "../domain/Problem.ts"
import * as Channel from "../layers/processes/Channel.ts"
import { DeployFailed, Deployment } from "../layers/processes/Deploy.ts"
import { checkPort, spawn } from "../layers/processes/Spawn.ts"
import type { GenerationOptions } from "../layers/processes/Supervisor.ts"
import { supervise } from "../layers/processes/Supervisor.ts"
import * as SettingsFile from "../layers/settings/SettingsFile.ts"
import * as SettingsWatch from "../layers/settings/SettingsWatch.ts"
import { SharedCounters } from "../services/admission/Counters.ts"
import { CircuitsOfOthers, SharedCircuits } from "../services/health/SharedCircuits.ts"
import { VirtualKeys } from "../services/keys/VirtualKeys.ts"
import { Models } from "../services/models/Models.ts"
import { numbered } from "../services/models/Numbering.ts"
import { SlotLease, SlotLeases } from "../services/models/SlotLeases.ts"
import type { Bound, Member, Place } from "../services/processes/ProcessGroup.ts"
import { deploySocketOf, ProcessGroup, socketOf } from "../services/processes/ProcessGroup.ts"
import * as Shares from "../services/processes/Shares.ts"
import { SupervisedCounters } from "../services/processes/SupervisedCounters.ts"
import type { Steps } from "../services/processes/Switch.ts"
import { defaultSteps } from "../services/processes/Switch.ts"
import type { Source } from "../services/settings/Reload.ts"
import { Reload, SettingsSource } from "../services/settings/Reload.ts"
import { defaultSocket } from "../services/settings/Resolution.ts"
import { mostProcesses } from "../services/settings/Schema.ts"
import type { Resolved } from "../services/settings/Settings.ts"
import { AdminAddress, Settings, SettingsError } from "../services/settings/Settings.ts"
import { SettingsChanges } from "../services/settings/SettingsChanges.ts"
import { warningsOf } from "../services/settings/Warnings.ts"
import * as DeployServer from "./DeployServer.ts"
import { addressOf, CommandFailed, config, loadWithoutSecrets, processCount, urlOf } from "./Flags.ts"
import * as Logging from "./Logging.ts"
import * as NamedModels from "./NamedModels.ts"
import * as RunningService from "./RunningService.ts"
import { listenError, listening } from "./ServeText.ts"
import { temporaryFiles } from "./Signals.ts"

const host = Flag.String("host").pipe(
  Flag.withSchema(Schema.NonEmptyString),
  Flag.withDescription("Address to listen on (default: HOST, the configuration, 127.0.0.1)"),
  Flag.optional
)

const port = Flag.Int("port").pipe(
  Flag.withSchema(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 65535 }))),
  Flag.withDescription("Port to listen on, 0 for any free port (default: PORT, the configuration, 3000)"),
  Flag.optional
)

const adminPort = Flag.Int("admin-port").pipe(
  Flag.withSchema(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 65535 }))),
  Flag.withDescription("Port on 127.0.0.1 for administration, 0 for any free port (default: the configuration)"),
  Flag.optional
)

/** The defaults of a service. */
const service = { engineHost: "process", defaultStorage: "sqlite" } as const

const processes = Flag.String("processes").pipe(
  Flag.withSchema(
    Schema.String.check(
      Schema.makeFilter((text) =>
        text === "auto" || /^[1-9]\d{0,2}$/.test(text) && Number(text) <= mostProcesses ||
        `${Problem.expectedWholeNumber(1, mostProcesses)}, or auto`
      )
    )
  ),
  Flag.withDescription("Service processes on the port, auto for one for each core (default: the configuration, 1)"),
  Flag.optional
)

/** Logs the requests that a shutdown waits for, and the time limit. */
const logShutdown = ({ server }: Resolved) =>
  Effect.gen(function*() {
    const models = yield* Models
    const requests = (yield* models.statuses).reduce((sum, { queued, running }) => sum + running + queued, 0)
    yield* Effect.logInfo(
      requests === 0
        ? "Stopping; no requests are running."
        : `Stopping after ${requests === 1 ? "1 request has" : `${requests} requests have`} finished, in at most ` +
          `${durationText(Duration.toMillis(server.shutdownGrace))}. Press Ctrl-C again to stop immediately.`
    )
  })

/** What SIGHUP does. A terminal that closes sends it, too: the process and every stream go on. */
class HangUp {
  reload: Effect.Effect<void> = Effect.logInfo("Ignoring SIGHUP while the service starts.")

  /** Listens until the scope ends. */
  readonly listening = Effect.flatMap(Effect.context(), (services) => {
    const run = () => void Effect.runForkWith(services)(this.reload)
    return Effect.acquireRelease(
      Effect.sync(() => process.on("SIGHUP", run)),
      () => Effect.sync(() => process.off("SIGHUP", run))
    )
  })
}

/** The file of a configuration that was read, and what follows when it changes. */
const watchFile = (
  { settings: { reload: { wait, watch } }, text }: Pick<Loaded, "settings" | "text">,
  file: string | undefined,
  reload: Effect.Effect<void>
) =>
  watch && text !== undefined
    ? Effect.asVoid(SettingsWatch.watch(resolve(file ?? SettingsFile.defaultFile), text, wait, reload))
    : Effect.void

/** A model that does not fit in memory is a problem of the file, if there is one: named by its place there. */
const withPlace = Effect.fnUntraced(function*(file: string | undefined, error: InferenceError) {
  const { reason } = error
  if (reason._tag !== "InsufficientMemory") return yield* error
  const { source, text } = yield* SettingsFile.inspect({ ...service, file })
  if (text === undefined) return yield* error
  const [, model, index] = /^(.*)#(\d+)$/s.exec(reason.deployment)!
  const path = Problem.formatPath(["models", model!, "deployments", Number(index)])
  return yield* new SettingsError({
    source,
    problems: SettingsFile.located(text, [{ path, expected: reason.message.replace(/\.$/, "") }])
  })
})

type Loaded = Effect.Success<ReturnType<typeof load>>

interface Flags {
  readonly adminPort: Option.Option<number>
  readonly config: Option.Option<string>
  readonly host: Option.Option<string>
  /** Models beside those of the configuration; without a configuration, these only. */
  readonly named: ReadonlyArray<NamedModels.Named>
  readonly port: Option.Option<number>
  readonly processes: Option.Option<string>
}

/** How many processes a service has. */
const countOf = (processes: Option.Option<string>, { server }: Resolved): number => {
  const wanted = Option.map(processes, (text) => text === "auto" ? text : Number(text))
  return processCount(Option.getOrElse(wanted, () => server.processes))
}

/** Where the service listens. */
const serverOf = Effect.fnUntraced(function*({ adminPort, host, port }: Flags, { server }: Resolved) {
  return {
    ...server,
    ...(yield* addressOf(server, { host: Option.getOrUndefined(host), port: Option.getOrUndefined(port) })),
    admin: { ...server.admin, ...(Option.isSome(adminPort) ? { port: adminPort.value } : {}) }
  }
})

/** The settings with the flags, and the text that they are from. */
const load = Effect.fnUntraced(function*(
  flags: Flags,
  place?: Pick<Place, "configuration" | "count"> & { readonly mayBeEmpty?: boolean }
) {
  const { config, named, processes } = flags
  const { problems, settings: configured, source, text } = yield* SettingsFile.inspect({
    ...service,
    file: Option.getOrUndefined(config),
    ...(place === undefined ? {} : { read: { text: place.configuration }, mayBeEmpty: place.mayBeEmpty })
  })
  if (configured === undefined || problems.length > 0) {
    return yield* new SettingsError({ source, problems: [...problems] })
  }
  const settings = yield* NamedModels.withAll(configured, named, text !== undefined)
  const count = place?.count ?? countOf(processes, settings)
  const unfit = count === 1 && !settings.server.supervised
    ? []
    : SettingsFile.located(text, Shares.problemsOf(settings, count))
  if (unfit.length > 0) return yield* new SettingsError({ source, problems: [...unfit] })
  return { count, settings: { ...settings, server: yield* serverOf(flags, settings) }, text }
})

/** Where the settings come from when they are read again: a file that was there must be there. */
const sourceOf = (flags: Flags, { count, text }: Loaded, share = (settings: Resolved) => settings): Source => ({
  read: SettingsFile.textOf(Option.getOrUndefined(flags.config), text !== undefined),
  resolve: Effect.fnUntraced(function*(configuration) {
    const { settings } = yield* Effect.catchTag(
      load(flags, { configuration, count, mayBeEmpty: false }),
      "CommandFailed",
      ({ message }) =>
        Effect.fail(new SettingsError({ source: "the environment", problems: [{ path: "PORT", expected: message }] }))
    )
    const problems = SettingsFile.located(configuration, SettingsFile.missingFiles(settings))
    if (problems.length === 0) return share(settings)
    return yield* new SettingsError({
      source: Option.getOrElse(flags.config, () => SettingsFile.defaultFile),
      problems
    })
  })
})

/** The configuration file; undefined: there is none. */
const fileOf = ({ config }: Flags, { text }: Loaded): string | undefined =>
  text === undefined ? undefined : Option.getOrElse(config, () => SettingsFile.defaultFile)

/** What is valid in the configuration and probably not meant. */
const logWarnings = ({ settings, text }: Loaded) =>
  Effect.forEach(
    SettingsFile.located(text, warningsOf(settings)),
    (warning) => Effect.logWarning(Problem.format(warning)),
    { discard: true }
  ).pipe(Effect.provide(Logging.layer(settings)))

/** Runs the service in this process, until a signal stops it. */
const run = (
  settings: Resolved,
  file: string | undefined,
  onListening: (bound: Bound) => Effect.Effect<void, never, Reload | Scope.Scope>
) => {
  const logLevel = { level: settings.logLevel }
  const banner = Layer.effectDiscard(Effect.gen(function*() {
    const { address } = yield* HttpServer.HttpServer
    // The layer that is built last is finalized first. Added before the banner: a signal may arrive right after it.
    const services = yield* Effect.context<Models>()
    yield* Effect.addFinalizer(() => Effect.provide(logShutdown(settings), services))
    const changes = yield* SettingsChanges
    changes.follow((next) => {
      logLevel.level = next.logLevel
    })
    const admin = yield* AdminAddress
    if (admin.socket !== undefined) temporaryFiles.add(admin.socket)
    const keys = yield* VirtualKeys
    const { host, port } = settings.server
    const place = "port" in address
      ? { bound: `http://${NetAddress.formatUrlHost(address.address)}:${address.port}`, port: address.port }
      : { bound: urlOf(host, port), port }
    yield* onListening({ ...place, admin, hasKeys: keys.state.areRequired })
    // Node.js would write it at an orderly exit only.
    flushCompileCache()
  }))
  return banner.pipe(
    Layer.provide(App.service),
    Layer.provide(Layer.merge(Layer.succeed(Settings, settings), Logging.layerChanging(settings, logLevel))),
    Layer.launch,
    Effect.catchTags({
      ServeError: (error) => Effect.fail(listenError(settings, error)),
      InferenceError: (error) => withPlace(file, error)
    })
  )
}

/** Runs the service in one process. */
const runAlone = Effect.fnUntraced(function*(flags: Flags, loaded: Loaded) {
  const { settings } = loaded
  const file = Option.getOrUndefined(flags.config)
  const hangUp = new HangUp()
  const onListening = (bound: Bound) =>
    Effect.gen(function*() {
      const reload = yield* Reload
      // With the log of the service.
      const services = yield* Effect.context()
      const by = (trigger: "file" | "signal") => Effect.provideContext(Effect.ignore(reload.run({ trigger })), services)
      hangUp.reload = by("signal")
      yield* watchFile(loaded, file, by("file"))
      yield* RunningService.record(fileOf(flags, loaded), bound)
      yield* Console.log(listening({ ...bound, settings }))
    })
  yield* hangUp.listening
  return yield* run(settings, file, onListening).pipe(
    Effect.provideService(SettingsSource, sourceOf(flags, loaded))
  )
}, Effect.scoped)

/** Sends the supervisor why this process ends, for `troupe deploy`. */
const report = ({ send }: Member, { message }: { readonly message: string }): Effect.Effect<void> =>
  Effect.callback((resume) => send({ type: "failed", reason: message }, undefined, () => resume(Effect.void)))

/** Runs this process of the service. */
const runAs = Effect.fnUntraced(function*(member: Member, flags: Flags) {
  const loaded = yield* load(flags, member)
  const settings = { ...loaded.settings, models: numbered(loaded.settings.models, member.numbering) }
  const { index, count, port, adminPort = settings.server.admin.port } = member
  const { admin, ...server } = settings.server
  const own = Shares.settingsOf(
    {
      ...settings,
      server: { ...server, port, admin: { ...admin, ...(adminPort === undefined ? {} : { port: adminPort }) } }
    },
    index,
    count
  )
  const leases = new Map<string, SlotLease>()
  const lease = ({ models }: Resolved) => {
    for (const id of Shares.leasedLimits(models).keys()) {
      if (!leases.has(id)) leases.set(id, new SlotLease(id, member.send))
    }
  }
  lease(settings)
  const source: Source = {
    ...sourceOf(flags, { ...loaded, count }, (next) => Shares.settingsOf(next, index, count)),
    planned: lease
  }
  const circuits = new SharedCircuits(member.send)
  const counters = new SupervisedCounters(member.send)
  member.listen((message) => {
    circuits.receive(message)
    counters.receive(message)
    if (message.type === "grant" || message.type === "limit" || message.type === "recall") {
      leases.get(message.deployment)?.receive(message)
    }
  })
  const onListening = (bound: Bound) =>
    Effect.sync(() => {
      temporaryFiles.add(socketOf(defaultSocket(bound.port, tmpdir(), process), member))
      member.send({ type: "listening", bound })
    })
  return yield* run(own, Option.getOrUndefined(flags.config), onListening).pipe(
    Effect.provideService(ProcessGroup, member),
    Effect.provideService(SettingsSource, source),
    Effect.provideService(SlotLeases, leases),
    Effect.provideService(CircuitsOfOthers, circuits),
    Effect.provideService(SharedCounters, counters),
    Effect.annotateLogs({ process: index })
  )
})

/** Runs one of several processes of the service. */
const runMember = (flags: Flags) =>
  Effect.flatMap(
    Channel.open,
    (member) => Effect.tapError(runAs(member, flags), (error) => report(member, error))
  )

/** How much longer than running requests the processes may take to stop. */
const stopMargin = Duration.seconds(15)

/** What a generation of processes runs with. */
const generationOf = (flags: Flags, loaded: Loaded): GenerationOptions => {
  const { count, settings, text } = loaded
  return {
    count,
    configuration: text,
    limits: Shares.leasedLimits(settings.models),
    reload: { source: sourceOf(flags, loaded), settings },
    grace: Duration.sum(settings.server.shutdownGrace, stopMargin)
  }
}

const stepsOf = ({ deploy: { errorRate, every, steps } }: Resolved): Steps => ({
  ...defaultSteps,
  shares: steps,
  stepMs: Duration.toMillis(every),
  maxErrorRate: errorRate
})

/** The next generation: the configuration is read again, and its address must be the same. */
const nextOf = (flags: Flags, { settings: { server } }: Loaded) =>
  Effect.flatMap(load(flags), (loaded) => {
    const { host, port } = loaded.settings.server
    return host === server.host && port === server.port
      ? Effect.succeed({ options: generationOf(flags, loaded), steps: stepsOf(loaded.settings) })
      : Effect.fail(
        new DeployFailed({
          message:
            `The service listens on ${server.host}, port ${server.port}, and now the configuration says ${host}, port ${port}. ` +
            "Restart the service to change its address."
        })
      )
  }).pipe(Effect.mapError(({ message }) => new DeployFailed({ message })))

/** Runs the service in several processes, and supervises them. */
const runGroup = (flags: Flags, loaded: Loaded) =>
  Effect.gen(function*() {
    const { count, settings } = loaded
    const { host, port } = settings.server
    yield* checkPort(host, port)
    const hangUp = new HangUp()
    yield* hangUp.listening
    const supervised = yield* supervise({ ...generationOf(flags, loaded), spawn, port })
    const { bound } = supervised
    const deployment = new Deployment(supervised)
    const services = yield* Effect.context()
    const by = (trigger: "file" | "signal") => Effect.provideContext(deployment.reload(trigger), services)
    hangUp.reload = by("signal")
    yield* watchFile(loaded, Option.getOrUndefined(flags.config), by("file"))
    yield* RunningService.record(fileOf(flags, loaded), bound)
    yield* DeployServer.listen({
      deployment,
      next: nextOf(flags, loaded),
      socket: deploySocketOf(defaultSocket(bound.port, tmpdir(), process))
    })
    yield* Console.log(listening({ ...bound, settings, count }))
    return yield* Effect.never
  }).pipe(
    Effect.scoped,
    Effect.catchTags({
      // A process that ended by itself has written what is wrong.
      ProcessEnded: ({ message, signal }) =>
        signal === null
          ? Effect.sync(() => {
            process.exitCode = 1
          })
          : Effect.fail(new CommandFailed({ message })),
      PortError: (error) => Effect.fail(listenError(loaded.settings, error))
    }),
    Effect.provide(Logging.layer(loaded.settings))
  )

const models = Argument.String("model").pipe(
  Argument.withDescription(
    "Models to serve beside those of troupe.yaml, or alone without one: in the store, a path, or a source, such as hf:org/repo"
  ),
  Argument.variadic()
)

/** Pulls the named models that are not there. */
const findNamed = Effect.fnUntraced(function*(file: Option.Option<string>, models: ReadonlyArray<string>) {
  if (models.length === 0) return []
  const settings = yield* loadWithoutSecrets(file, "process")
  return yield* Effect.forEach(models, (one) => NamedModels.find(settings, one))
})

export const serve = Command.make(
  "serve",
  { models, adminPort, config, host, port, processes },
  ({ models, ...input }) =>
    Effect.gen(function*() {
      const flags: Flags = { ...input, named: yield* findNamed(input.config, models) }
      if (Channel.isServiceProcess()) return yield* runMember(flags)
      const loaded = yield* load(flags)
      yield* logWarnings(loaded)
      if (loaded.count > 1 || loaded.settings.server.supervised) return yield* runGroup(flags, loaded)
      return yield* runAlone(flags, loaded)
    }).pipe(
      // An orderly shutdown is a success.
      Effect.onInterrupt(() =>
        Effect.sync(() => {
          process.exitCode = 0
        })
      )
    )
).pipe(
  Command.withDescription("Start the HTTP service and load the first deployment of each model"),
  Command.withExamples([
    { command: "troupe serve", description: "Serve troupe.yaml, or the embedded model" },
    { command: "troupe serve mine", description: "Serve a pulled model without a configuration" },
    {
      command: "troupe serve --port 8080 --config ./troupe.yaml",
      description: "Use another port and configuration file"
    }
  ])
)
