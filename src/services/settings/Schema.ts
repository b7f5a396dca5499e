/**
 * The schema of `troupe.yaml`: fields, limits, defaults, and the descriptions that editors show.
 *
 * **Details**
 *
 * A setting is a field here and the code that uses it. `withDefault` writes a default once, for decoding and for the
 * description.
 */
import { Duration, Effect, Schema } from "effect"
import * as Defaults from "../../domain/Defaults.ts"
import { defaultIdleUnload } from "../../domain/Deployment.ts"
import { Bytes, described, durationText, optional, Span, SpanOrOff } from "../../domain/Fields.ts"
import { wholeNumber } from "../../domain/Problem.ts"
import { RemoteDeployment } from "../../domain/RemoteDeployment.ts"
import * as EngineKinds from "../engines/EngineKinds.ts"
import { defaultSteps } from "../processes/Switch.ts"
import { ExperimentSettings, RolloutSettings, Steps } from "../rollout/RolloutSettings.ts"
import { ShadowSettings } from "../rollout/ShadowSettings.ts"
import { ScalingSettings } from "../scaling/ScalingSettings.ts"
import { BudgetAlerts, Budgets, Ledger, Limits } from "./AdmissionSettings.ts"
import { Alerts } from "./AlertSettings.ts"
import { Cache, ModelCache } from "./CacheSettings.ts"
import { Guard } from "./GuardSettings.ts"
import { KeySettings } from "./KeySettings.ts"
import { PolicySettings, routingFields } from "./PolicySettings.ts"
import { PrefixFiles } from "./PrefixFileSettings.ts"
import { DecisionSettings, ResponseSettings } from "./ResponseSettings.ts"
import { Redis, Storage } from "./StorageSettings.ts"
import { Streams } from "./StreamSettings.ts"
import { Telemetry } from "./TelemetrySettings.ts"

const positive = wholeNumber(1)
const Port = wholeNumber(0, 65535)
const Share = Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 1 }))

/** The most service processes on one port. */
export const mostProcesses = 128

const defaultText = (value: unknown): string =>
  Duration.isDuration(value) ? durationText(Duration.toMillis(value)) : String(value)

/** A field that may be left out. `value` is its decoded default, and `text` is the default in the description. */
const withDefault = <S extends Schema.Top>(
  description: string,
  schema: S,
  value: S["Type"],
  text = defaultText(value)
) => {
  const field = described(`${description} Default ${text}.`, schema) as unknown as S
  return Schema.withDecodingDefaultTypeKey<S>(Effect.succeed(value))(field)
}

/** A section that may be left out; each of its fields then has its default. */
const section = <S extends Schema.Top>(schema: S, empty: S["Encoded"]) =>
  schema.pipe(Schema.withDecodingDefaultKey(Effect.succeed(empty)))

/** An origin as browsers send it, or `*`. */
const Origin = Schema.String.check(
  Schema.isPattern(/^(?:\*|[a-z][a-z0-9+.-]*:\/\/[^\s/?#]+)$/, {
    message: "Expected an origin such as https://app.example.com or http://localhost:5173, or *"
  })
)

const Server = Schema.Struct({
  host: withDefault(
    "Address to listen on; the default is reachable from this machine only.",
    Schema.NonEmptyString,
    "127.0.0.1"
  ),
  allowAnonymous: withDefault(
    "Whether the service may listen on an address that other machines reach while it has no keys. Then everyone who " +
      "reaches the port uses the models and the provider keys. Not in production.",
    Schema.Boolean,
    false
  ),
  port: withDefault("Port to listen on, 0 for any free port.", Port, 3000),
  processes: withDefault(
    "Number of service processes that share the port, auto for one for each core. Needs SO_REUSEPORT (Linux, FreeBSD).",
    Schema.Union([wholeNumber(1, mostProcesses), Schema.Literal("auto")]),
    1
  ),
  supervised: withDefault(
    "Whether one process has a supervisor too, so that `troupe deploy` can replace it while it runs. Several processes always have.",
    Schema.Boolean,
    false
  ),
  shutdownGrace: withDefault(
    "How long a shutdown waits for running requests, false for not at all.",
    SpanOrOff,
    Duration.seconds(30)
  ),
  maxBodyBytes: withDefault("Maximum size of a request body, as 16 MiB or in bytes.", Bytes, 10 * 2 ** 20, "10 MiB"),
  maxRequestMemory: optional(
    "Memory of all request bodies together, as 512 MiB or in bytes. A body counts from its first byte until its answer " +
      "ends; above the limit, requests get 503. Default a quarter of the Node.js heap limit.",
    Bytes
  ),
  trustedProxies: withDefault(
    "Addresses of reverse proxies whose X-Forwarded-For identifies the callers. Without it, all callers behind a proxy " +
      "count as one address.",
    Schema.Array(Schema.NonEmptyString),
    [],
    "none"
  ),
  headersTimeout: withDefault(
    "How long a client may take to send the headers of a request; then it gets 408.",
    Span,
    Duration.seconds(15)
  ),
  bodyTimeout: withDefault(
    "How long a request body may pause between two chunks; then the client gets 408. The duration of the upload is not " +
      "limited.",
    Span,
    Duration.seconds(30)
  ),
  streamKeepAlive: withDefault(
    "How long a stream may be without a frame, before the answer too; then it gets a comment, or a ping event in Anthropic's " +
      "API. False for never.",
    SpanOrOff,
    Defaults.streamKeepAlive
  ),
  maxConnections: withDefault("Maximum number of open connections; further ones are closed.", positive, 16_384),
  admin: withDefault(
    "Where administration (/admin) listens. Without a token, the port of the models answers only GET requests to /admin, " +
      "and only to local programs of the service's own user (on Linux; elsewhere to none).",
    Schema.Struct({
      socket: optional(
        "Socket file that only this user may open, or false for none. Default a file named after the port in the folder " +
          "of temporary files, where the command line finds it.",
        Schema.Union([Schema.NonEmptyString, Schema.Literal(false)])
      ),
      port: optional(
        "Port on 127.0.0.1, for programs that cannot open a socket file; 0 for any free port. Default none.",
        Port
      ),
      token: optional(
        "${NAME}: bearer token of every request to /admin that does not come by the socket. With it, the port of the " +
          "models serves /admin too. Default none.",
        Schema.RedactedFromValue(Schema.NonEmptyString, { disallowEncode: true })
      )
    }),
    {},
    "the socket only"
  ),
  cors: optional(
    "Web pages of other origins that may call the service from a browser.",
    Schema.Struct({
      origins: optional(
        "Allowed origins, such as https://app.example.com, or * for all; never for /admin. Default none.",
        Schema.Array(Origin)
      )
    })
  ),
  media: optional(
    "Images that requests name by URL.",
    Schema.Struct({
      allowHosts: optional(
        "Names and addresses of private hosts from which images may be fetched. Default none.",
        Schema.Array(
          Schema.String.check(
            Schema.isPattern(/^[a-z0-9._:-]+$/, {
              message: "Expected a host name or address in lower case, without a port"
            })
          )
        )
      )
    })
  )
})
export type Server = typeof Server.Type

/** Server settings without a file. */
export const serverDefaults = Schema.decodeSync(Server)({})

const { engineRestarts } = Defaults

const EngineSettings = Schema.Struct({
  host: optional(
    "Where engine threads run. process: in a supervised child process for each deployment, so that a crash of native code does not end the service. thread: in this process. Default process for the service, thread for embedding.",
    Schema.Literals(["process", "thread"])
  ),
  restarts: section(
    described(
      "When an engine that crashed or hung is started again.",
      Schema.Struct({
        times: withDefault("Restarts before the deployment counts as failed.", wholeNumber(0), engineRestarts.times),
        first: withDefault(
          "Time before the first restart; each further one takes twice as long.",
          Span,
          engineRestarts.first
        ),
        longest: withDefault("Maximum of that.", Span, engineRestarts.longest),
        stableAfter: withDefault(
          "A crash after at least this uptime begins a new series of restarts.",
          Span,
          engineRestarts.stableAfter
        ),
        retryAfter: withDefault(
          "Time after the last restart until a request may try the deployment again.",
          Span,
          engineRestarts.retryAfter
        )
      })
    ),
    {}
  ),
  prefixFiles: optional(
    "Where the KV cache of prompts is kept in files, so that conversations go on without computing them again after an unload, " +
      "a crash or a restart.",
    PrefixFiles
  ),
  streamWindow: withDefault(
    "Tokens that an engine may be ahead of the reader of its answer. The reader confirms a quarter of them in one message.",
    wholeNumber(16),
    Defaults.streamWindow
  ),
  streams: optional(
    "How answers of local engines are streamed: the first token at once, then in parts.",
    Streams
  ),
  sampleEvery: withDefault(
    "How often memory and queues are sampled for the metrics.",
    Span,
    Defaults.sampleInterval
  )
})

const modelFields = {
  idleUnload: withDefault("How long an unused model stays loaded, false for always.", SpanOrOff, defaultIdleUnload),
  preload: withDefault(
    "Whether the service loads the first deployment of the model at start, and does not start if the load fails.",
    Schema.Boolean,
    true
  ),
  pinned: withDefault("Keep it loaded even if it is idle and other models need the memory.", Schema.Boolean, false),
  queueLimit: withDefault("Maximum number of waiting requests; further ones get 429.", positive, Defaults.queueLimit),
  stallAfter: withDefault(
    "How long its engine may make no progress before it counts as hung and is stopped, false for no limit.",
    SpanOrOff,
    Defaults.stallAfter
  )
}

/** Model settings without a file. */
export const modelDefaults = Schema.decodeSync(Schema.Struct(modelFields))({})

const ModelSettings = Schema.Struct({
  deployments: described(
    "Deployments of the model, tried in the order that its policy chooses.",
    Schema.NonEmptyArray(EngineKinds.Options)
  ),
  ...modelFields,
  ...routingFields,
  cache: optional("Earlier answers of the model. Default as the section cache says.", ModelCache),
  rollout: optional("How its gradual rollouts go: troupe rollout starts one.", RolloutSettings),
  experiment: optional("An A/B test: deployments with fixed shares of the requests.", ExperimentSettings),
  shadow: optional(
    "Copies of some requests for another deployment, whose answers are compared and given to no caller.",
    ShadowSettings
  ),
  aliases: optional(
    "Further names of the model in requests. Keys, limits, budgets, usage and the cache have its own name. Default none.",
    Schema.Array(Schema.NonEmptyString)
  )
})

const { memoryPressure } = Defaults

const Pressure = Schema.Struct({
  every: withDefault("How often the memory in use is read.", Span, memoryPressure.every),
  warning: withDefault("Share of the memory in use at which models are unloaded early.", Share, memoryPressure.warning),
  critical: withDefault(
    "Share at which models are unloaded sooner, and requests of low priority get 429.",
    Share,
    memoryPressure.critical
  ),
  emergency: withDefault(
    "Share at which every unused model is unloaded, cached answers are cleared from memory, and an alert is logged.",
    Share,
    memoryPressure.emergency
  ),
  hysteresis: withDefault("How far below its share a level ends.", Share, memoryPressure.hysteresis),
  warningIdle: withDefault(
    "How long a model has been unused that is unloaded at the level warning.",
    Span,
    memoryPressure.warningIdle
  ),
  criticalIdle: withDefault("The same at the level critical.", Span, memoryPressure.criticalIdle)
}).check(
  Schema.makeFilter((
    { critical, emergency, warning }: { readonly [level in "critical" | "emergency" | "warning"]: number }
  ) => warning < critical && critical < emergency || "Expected warning below critical, and critical below emergency")
)

const Quantization = Schema.Struct({
  int4Below: withDefault(
    "Memory of all models below which a file of at most 4 bits a weight is preferred among `variants`.",
    Bytes,
    Defaults.quantization.int4Below,
    "2 GiB"
  ),
  int8Below: withDefault(
    "Memory below which one of at most 8 bits is preferred; above it, one of at most 16.",
    Bytes,
    Defaults.quantization.int8Below,
    "4 GiB"
  )
})

const EmbeddingBatches = Schema.Struct({
  size: withDefault(
    "Requests for embeddings, rankings or classifications in one job of an engine; 1: none shares one.",
    positive,
    Defaults.batchSize
  ),
  wait: withDefault("How long they are collected while the engine works, at most.", Span, Defaults.batchWait),
  waitIdle: withDefault(
    "Whether they are collected as long while the engine is idle.",
    Schema.Boolean,
    Defaults.batchWaitIdle
  )
})

const Memory = Schema.Struct({
  budget: optional(
    "Memory of all models together, as 8 GiB or in bytes. Default the memory that is available to the machine or the " +
      "control group, minus memory.reserve.",
    Bytes
  ),
  reserve: withDefault(
    "Share of the available memory that models leave free where there is no budget.",
    Share,
    Defaults.memoryReserve
  ),
  pressure: section(described("What happens when the machine's memory fills up.", Pressure), {}),
  quantization: section(described("Which variant of a model is preferred.", Quantization), {}),
  hold: withDefault(
    "How long a loaded model keeps its memory at least while another model needs it, false for not at all.",
    SpanOrOff,
    Defaults.memoryHold
  )
})

const DeploySettings = Schema.Struct({
  steps: withDefault(
    "Shares of the new connections that the new processes get.",
    Steps,
    defaultSteps.shares,
    `[${defaultSteps.shares.join(", ")}]`
  ),
  every: withDefault(
    "How long each step lasts, unless --step says otherwise.",
    Span,
    Duration.millis(defaultSteps.stepMs)
  ),
  errorRate: withDefault(
    "Share of answers with a status from 500, at least 2 of them, above which the old processes get all connections again.",
    Share,
    defaultSteps.maxErrorRate
  )
})

const ReloadSettings = Schema.Struct({
  watch: withDefault(
    "Whether the service reads this file again when it changes, and applies it if it is valid. Without it, `troupe reload`, " +
      "POST /admin/reload and SIGHUP do.",
    Schema.Boolean,
    true
  ),
  wait: withDefault("How long the file must stay unchanged before it is read.", Span, Defaults.reloadWait)
})

const Store = Schema.Struct({
  folder: optional(
    "Folder of pulled models, relative to the configuration file. Default TROUPE_MODELS, or troupe/models in the user's data folder.",
    Schema.NonEmptyString
  ),
  maxBytes: optional(
    "Maximum size of the pulled models together, as 200 GiB or in bytes. Default the free space of the disk.",
    Bytes
  )
})

const Circuits = Schema.Struct({
  failures: withDefault(
    "Consecutive failures that open the circuit of a deployment.",
    positive,
    Defaults.breaker.opensAfter
  ),
  openFor: withDefault(
    "How long an open circuit rejects calls before one may try the deployment again.",
    Span,
    Defaults.breaker.openFor
  ),
  successes: withDefault(
    "Consecutive successes of those calls that close the circuit.",
    positive,
    Defaults.breaker.closesAfter
  ),
  probes: withDefault(
    "Maximum number of concurrent calls to a half-open deployment when no other deployment can take the request. Otherwise it is 1.",
    positive,
    Defaults.breaker.probes
  )
})

const { longest, longestRefused, limited, refused } = Defaults.keyCooldowns

const KeyCooldowns = Schema.Struct({
  rateLimited: withDefault(
    "How long a provider key is not used after 429 without a retry-after.",
    Span,
    Duration.millis(limited)
  ),
  rateLimitedMax: withDefault("Maximum of that, whatever retry-after says.", Span, Duration.millis(longest)),
  rejected: withDefault(
    "How long a key is not used after 401 or 403. After that, one request tries it. Each further rejection doubles the time.",
    Span,
    Duration.millis(refused)
  ),
  rejectedMax: withDefault("Maximum of that.", Span, Duration.millis(longestRefused))
})

const AnswerSettings = Schema.Struct({
  model: withDefault(
    "The model that answers name: served, the one that answered, by its name at its provider; requested, the one in the " +
      "request.",
    Schema.Literals(["served", "requested"]),
    "served"
  )
})

const LogLevel = Schema.Literals(["debug", "info", "warn", "error"])

const logFields = {
  logLevel: optional(
    "Minimum level of log entries. Default debug in development, warn in test, info in production.",
    LogLevel
  ),
  logFormat: optional(
    "Format of log entries. Default text in a terminal, except in production; else json.",
    Schema.Literals(["text", "json"])
  ),
  logRequests: optional(
    "Which requests have a log entry of their own when they end. Default none.",
    Schema.Literals(["none", "failed", "all"])
  )
}

/** The sections of a file, for a schema of its models: in an overlay, models may be incomplete. */
const sections = <S extends Schema.Top>(model: S) => ({
  server: section(Server, {}),
  engines: section(EngineSettings, {}),
  memory: section(Memory, {}),
  circuits: section(described("When calls to a failing deployment are paused.", Circuits), {}),
  keys: optional(
    "Virtual keys of callers, by name. Once there is a key, here or made by troupe keys create, every request needs one.",
    Schema.Record(Schema.String, KeySettings)
  ),
  limits: optional("Limits of the rate of requests and tokens, by name.", Limits),
  budgets: optional("What may be spent in a period, by name.", Budgets),
  budgetAlerts: optional("When budgets raise alerts, those of keys included.", BudgetAlerts),
  alerts: optional("Conditions of the service that operators are told of.", Alerts),
  decisions: optional("What is kept of requests beside their decision records.", DecisionSettings),
  ledger: optional("What is counted as used.", Ledger),
  keyCooldowns: section(described("How long provider keys are not used after they fail.", KeyCooldowns), {}),
  embeddingBatches: section(
    described("Which requests for embeddings, rankings and classifications share a job.", EmbeddingBatches),
    {}
  ),
  deploy: section(described("How troupe deploy moves connections to the new processes.", DeploySettings), {}),
  reload: section(described("How another configuration gets into a running service.", ReloadSettings), {}),
  store: Schema.optionalKey(Store),
  storage: Schema.optionalKey(Storage),
  redis: Schema.optionalKey(Redis),
  responses: optional("Where and how long responses of /v1/responses are stored.", ResponseSettings),
  cache: section(described("Which answers are given again to equal requests.", Cache), {}),
  guard: optional("The policy for prompts.", Guard),
  scaling: optional(
    "Replicas of local deployments follow their load. Default not: each deployment has its `replicas`.",
    ScalingSettings
  ),
  troupe: section(described("What answers tell of Troupe.", AnswerSettings), {}),
  policies: optional(
    "How requests are routed and retried, by name. The policy named default applies to all models, and the others " +
      "inherit from it.",
    Schema.Record(Schema.String, PolicySettings)
  ),
  telemetry: optional("Traces that are sent to an OpenTelemetry collector.", Telemetry),
  ...logFields,
  models: optional(
    "Models, by the name in requests. Default the embedded tiny-chat and tiny-embed.",
    Schema.Record(Schema.String, model)
  )
})

/**
 * The file of one environment, with its overlay merged. `environments` has been removed; its name stays here for "Did you
 * mean environments?".
 */
export const Source = Schema.Struct({ ...sections(ModelSettings), environments: Schema.optionalKey(Schema.Never) })
export type Source = typeof Source.Type

/** As users write it: `provider` makes a deployment remote, without `engine`. */
const WrittenModel = Schema.Struct({
  ...ModelSettings.fields,
  deployments: described(
    "Deployments of the model, tried in the order that its policy chooses.",
    Schema.NonEmptyArray(Schema.Union([
      ...EngineKinds.Options.members.slice(0, -1),
      Schema.Struct({ ...RemoteDeployment.fields, engine: Schema.optionalKey(RemoteDeployment.fields.engine) })
    ]))
  )
})

const Overlay = Schema.Struct(sections(Schema.Struct({
  ...WrittenModel.fields,
  deployments: Schema.optionalKey(WrittenModel.fields.deployments)
})))

/** The whole file, as editors check it; `Decode.decode` checks each overlay laid over the rest. */
export const File = Schema.Struct({
  ...sections(WrittenModel),
  environments: optional(
    "Overlays for the environment that NODE_ENV names: mappings merge, everything else replaces.",
    Schema.Struct({
      development: Schema.optionalKey(Overlay),
      test: Schema.optionalKey(Overlay),
      production: Schema.optionalKey(Overlay)
    })
  )
})

const reference = { type: "string", pattern: "^\\$\\{[A-Za-z_][A-Za-z0-9_]*\\}$" }

/** Adds what `Decode.decode` accepts: no unknown fields, and `${NAME}` in place of any scalar. */
const asWritten = (schema: unknown): unknown => {
  if (Array.isArray(schema)) return schema.map(asWritten)
  if (typeof schema !== "object" || schema === null) return schema
  const { description, ...inner } = Object.fromEntries(
    Object.entries(schema).map(([key, value]) => [key, key === "enum" ? value : asWritten(value)])
  )
  const words = description === undefined ? {} : { description }
  if ("properties" in schema) return { ...words, ...inner, additionalProperties: false }
  return inner["type"] === "integer" || inner["type"] === "number" || inner["type"] === "boolean"
    ? { ...words, anyOf: [inner, reference] }
    : { ...words, ...inner }
}

/** The file's JSON Schema (draft 2020-12), for editors. */
export const fileJsonSchema = (): Record<string, unknown> => ({
  $schema: "https://json-schema.org/draft/2020-12/schema",
  title: "troupe.yaml",
  ...asWritten(Schema.toJsonSchemaDocument(File).schema) as Record<string, unknown>
})
