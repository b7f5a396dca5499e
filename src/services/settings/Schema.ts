/** The schema of `troupe.yaml`, with the words that editors show. */
import { Schema } from "effect"
import { Bytes, described, optional, Span, SpanOrOff } from "../../domain/Fields.ts"
import { RemoteDeployment } from "../../domain/RemoteDeployment.ts"
import * as EngineKinds from "../engines/EngineKinds.ts"
import { PolicySettings, routingFields } from "./PolicySettings.ts"

const positive = Schema.Int.check(Schema.isGreaterThanOrEqualTo(1))

/** As a browser sends it in `Origin`, or `*`. */
const Origin = Schema.String.check(
  Schema.isPattern(/^(?:\*|[a-z][a-z0-9+.-]*:\/\/[^\s/?#]+)$/, {
    message: "Expected an origin such as https://app.example.com or http://localhost:5173, or *"
  })
)

const Server = Schema.Struct({
  host: optional("Address to listen on; default 127.0.0.1, this machine only.", Schema.NonEmptyString),
  port: optional(
    "Port to listen on, 0 for any free one; default 3000.",
    Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 65535 }))
  ),
  shutdownGrace: optional(
    "How long a shutdown waits for requests in flight, false for not at all; default 30 seconds.",
    SpanOrOff
  ),
  maxBodyBytes: optional("The largest request body, as 16 MiB or in bytes; default 10 MiB.", Bytes),
  maxRequestMemory: optional(
    "Memory that request bodies may take together, as 512 MiB or in bytes, each from its first byte until its answer " +
      "ends; beyond it 503. Default a quarter of the memory that Node.js gives the service's heap.",
    Bytes
  ),
  trustedProxies: optional(
    "Addresses of reverse proxies whose X-Forwarded-For tells callers apart; default none, and then all callers behind a " +
      "proxy count as one address.",
    Schema.Array(Schema.NonEmptyString)
  ),
  headersTimeout: optional(
    "How long a client may take to send a request's headers; later it gets 408. Default 15 seconds.",
    Span
  ),
  bodyTimeout: optional(
    "How long a request body may pause between two pieces; later the client gets 408. The whole upload has no limit of " +
      "time. Default 30 seconds.",
    Span
  ),
  maxConnections: optional("Connections open at once; more are closed as they come. Default 16384.", positive),
  admin: optional(
    "Where administration (/admin) listens. Without a token, the port of the models answers only its GET requests: a " +
      "reverse proxy on the same machine cannot be told from a local program.",
    Schema.Struct({
      socket: optional(
        "File of the socket that only this user may open, or false for none; default one of the port's name in the " +
          "folder of temporary files, where the command line finds it.",
        Schema.Union([Schema.NonEmptyString, Schema.Literal(false)])
      ),
      port: optional(
        "Port of 127.0.0.1, for programs that cannot open a socket file; 0 for any free one. Default none.",
        Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 65535 }))
      ),
      token: optional(
        "${NAME}: bearer token of every request to /admin that does not come by the socket. With it, the port of the " +
          "models serves /admin, too. Default none.",
        Schema.RedactedFromValue(Schema.NonEmptyString, { disallowEncode: true })
      )
    })
  ),
  cors: optional(
    "Web pages of other origins that may call the service from a browser.",
    Schema.Struct({
      origins: optional(
        "Allowed origins, as https://app.example.com, or * for all; never of /admin. Default none.",
        Schema.Array(Origin)
      )
    })
  ),
  media: optional(
    "Images that requests name by URL.",
    Schema.Struct({
      allowHosts: optional(
        "Names and addresses of hosts that may be asked for images though they are not in the public Internet; default none.",
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

const EngineSettings = Schema.Struct({
  host: optional(
    "Where engine threads run. process: in a supervised child process a deployment, which native code can take down without harm to the service. thread: in this process. Default process for the service, thread for embedding.",
    Schema.Literals(["process", "thread"])
  )
})

const ModelSettings = Schema.Struct({
  deployments: described(
    "Ways to serve the model, tried in the order that its policy chooses.",
    Schema.NonEmptyArray(EngineKinds.Options)
  ),
  idleUnload: optional("How long an unused model stays loaded, false for ever; default 10 minutes.", SpanOrOff),
  preload: optional(
    "Whether the service loads it at start, and does not start where that fails; default true.",
    Schema.Boolean
  ),
  pinned: optional("Keep it loaded, idle or not, whoever else needs the memory; default false.", Schema.Boolean),
  queueLimit: optional("Requests that may wait for it before others get 429; default 512.", positive),
  stallAfter: optional(
    "How long its engine may give no sign of work before it counts as hung and is ended, false for ever; default 2 minutes.",
    SpanOrOff
  ),
  ...routingFields
})

const Memory = Schema.Struct({
  budget: optional(
    "Memory that all models together may use, as 8 GiB or in bytes; default what the machine or the control group has " +
      "available, less a fifth.",
    Bytes
  ),
  hold: optional(
    "How long a model stays at least, once loaded, before another that needs its memory may have it, false for not at all; default 5 " +
      "seconds.",
    SpanOrOff
  )
})

const Store = Schema.Struct({
  folder: optional(
    "Where pulled models lie, relative to the configuration file's folder; default TROUPE_MODELS, or troupe/models in the user's data folder.",
    Schema.NonEmptyString
  ),
  maxBytes: optional(
    "The most that pulled models may take on the disk, as 200 GiB or in bytes; default what the disk has.",
    Bytes
  )
})

const Circuits = Schema.Struct({
  failures: optional("Failures in a row that open a deployment's circuit; default 5.", positive),
  openFor: optional("How long it stays open before calls try the deployment again; default 60 seconds.", Span),
  successes: optional("Successes in a row, once calls try it again, that close it; default 3.", positive),
  probes: optional(
    "Calls that may try it at the same time where no other deployment can take the request; default 4. Where another " +
      "can, one at a time tries it.",
    positive
  )
})

const KeyCooldowns = Schema.Struct({
  rateLimited: optional(
    "How long a provider's key is not used after 429 without a retry-after; default 1 second.",
    Span
  ),
  rateLimitedMax: optional("The longest, whatever the provider's retry-after says; default 1 hour.", Span),
  rejected: optional(
    "How long a key is not used after 401 or 403, until one request tries it again; doubles each time. Default 1 second.",
    Span
  ),
  rejectedMax: optional("The longest of those; default 1 minute.", Span)
})

const LogLevel = Schema.Literals(["debug", "info", "warn", "error"])

/** The sections of a file, whose models need only be whole where no overlay stands on something. */
const sections = <S extends Schema.Top>(model: S) => ({
  server: Schema.optionalKey(Server),
  engines: Schema.optionalKey(EngineSettings),
  memory: Schema.optionalKey(Memory),
  circuits: optional("When a deployment that fails is not called for a time.", Circuits),
  keyCooldowns: optional("When a provider's key is not used for a time.", KeyCooldowns),
  store: Schema.optionalKey(Store),
  policies: optional(
    "How requests are routed and retried, by names that models use; the one named default holds for all, and the others " +
      "stand on it.",
    Schema.Record(Schema.String, PolicySettings)
  ),
  logLevel: optional(
    "Least severe log entries that are printed; default warn in test, else info.",
    LogLevel
  ),
  logFormat: optional(
    "How log entries are printed: text for people, json for programs; default text in a terminal, else json.",
    Schema.Literals(["text", "json"])
  ),
  models: optional(
    "By the name callers ask for; without it, the embedded tiny-chat.",
    Schema.Record(Schema.String, model)
  )
})

/**
 * One environment's settings, overlay and all. The overlays were taken out before; they are here for their name, which
 * others are compared with.
 */
export const Source = Schema.Struct({ ...sections(ModelSettings), environments: Schema.optionalKey(Schema.Never) })
export type Source = typeof Source.Type

/** As people write them: a provider says that a deployment is remote. */
const WrittenModel = Schema.Struct({
  ...ModelSettings.fields,
  deployments: described(
    "Ways to serve the model, tried in the order that its policy chooses.",
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
    "What differs in an environment, which NODE_ENV names; mappings merge, everything else replaces.",
    Schema.Struct({
      development: Schema.optionalKey(Overlay),
      test: Schema.optionalKey(Overlay),
      production: Schema.optionalKey(Overlay)
    })
  )
})

const reference = { type: "string", pattern: "^\\$\\{[A-Za-z_][A-Za-z0-9_]*\\}$" }

/** Objects take no other fields than those they name, and `${NAME}` may stand for any scalar, as `Decode.decode` has it. */
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
