/**
 * The section `telemetry`: where spans are sent, and which. OpenTelemetry's variables go before it.
 *
 * **Details**
 *
 * The variables are those of https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/. Without an
 * endpoint, in the file or in a variable, nothing is recorded.
 */
import { Duration, Redacted, Schema } from "effect"
import { optional, Span } from "../../domain/Fields.ts"
import type * as Problem from "../../domain/Problem.ts"

const Ratio = Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 1 }))

const Address = Schema.String.check(
  Schema.isPattern(/^https?:\/\/[^\s/?#]+|^\$\{/, {
    message: "Expected a URL of OTLP over HTTP such as http://localhost:4318"
  })
)

/** The section `telemetry`. */
export const Telemetry = Schema.Struct({
  endpoint: optional(
    "Base URL of an OpenTelemetry collector that takes OTLP over HTTP, as http://localhost:4318: traces go to /v1/traces " +
      "there. Default OTEL_EXPORTER_OTLP_ENDPOINT; without both, no telemetry is sent.",
    Address
  ),
  headers: optional(
    "Headers of each export, such as authorization: ${OTLP_TOKEN}. Default OTEL_EXPORTER_OTLP_HEADERS, or none.",
    Schema.Record(Schema.String, Schema.RedactedFromValue(Schema.String, { disallowEncode: true }))
  ),
  protocol: optional(
    "Encoding of the exports: protobuf or json, both over HTTP. Default OTEL_EXPORTER_OTLP_PROTOCOL, or protobuf.",
    Schema.Literals(["json", "protobuf"])
  ),
  compression: optional(
    "Whether exports are compressed. Default OTEL_EXPORTER_OTLP_COMPRESSION, or none.",
    Schema.Literals(["none", "gzip"])
  ),
  every: optional(
    "How often spans are sent, at the latest. Default OTEL_BSP_SCHEDULE_DELAY, or 5 seconds.",
    Span
  ),
  service: optional("The service's name in telemetry. Default OTEL_SERVICE_NAME, or troupe.", Schema.NonEmptyString),
  attributes: optional(
    "Attributes of the resource, such as deployment.environment.name: production. Default OTEL_RESOURCE_ATTRIBUTES, which go before these, or none.",
    Schema.Record(Schema.String, Schema.String)
  ),
  sample: optional(
    "Share of the traces that are sent, 0 to 1, where the caller has not decided; failed requests are always sent. Default " +
      "OTEL_TRACES_SAMPLER with OTEL_TRACES_SAMPLER_ARG, or 1.",
    Ratio
  ),
  content: optional(
    "Whether spans have prompts and answers. Default OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT, or false.",
    Schema.Boolean
  )
})
type Section = typeof Telemetry.Type

/** How head sampling decides. */
export interface Sampling {
  /** Whether the caller's decision goes before the ratio. */
  readonly isParentBased: boolean
  readonly ratio: number
}

/** Which names attributes have where they have changed: those of GenAI v0.1.0, those before v1.37, or both. */
export type Names = "latest" | "older" | "both"

/** Where spans are sent, and which. */
export interface TracesSettings {
  /** The whole URL. */
  readonly url: string
  readonly headers: Readonly<Record<string, Redacted.Redacted>>
  readonly protocol: "json" | "protobuf"
  readonly compression: "none" | "gzip"
  readonly every: Duration.Duration
  /** How long one export may take. */
  readonly timeout: Duration.Duration
  /** Spans of one export, at most. */
  readonly batch: number
  readonly sampling: Sampling
  readonly content: boolean
  readonly names: Names
}

/** What telemetry the service sends. */
export interface TelemetrySettings {
  /** Attributes of the resource, `service.name` among them. */
  readonly resource: Readonly<Record<string, string>>
  /** Undefined: none are sent. */
  readonly traces?: TracesSettings
}

type Variables = Readonly<Record<string, string | undefined>>

/** An empty variable is as one that is not set. */
const read = (variables: Variables, ...names: ReadonlyArray<string>): string | undefined => {
  for (const name of names) {
    const value = variables[name]?.trim()
    if (value !== undefined && value !== "") return value
  }
  return undefined
}

const isTrue = (text: string | undefined): boolean => text?.toLowerCase() === "true"

const decoded = (text: string): string => {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

/** Such as `a=1,b=2`, with percent-encoded values. */
const pairsOf = (text = ""): Readonly<Record<string, string>> =>
  Object.fromEntries(
    text.split(",").flatMap((pair) => {
      const at = pair.indexOf("=")
      return at < 1 ? [] : [[pair.slice(0, at).trim(), decoded(pair.slice(at + 1).trim())] as const]
    })
  )

/** A positive number of a variable. */
const numberOf = (text: string | undefined): number | undefined => {
  const number = Number(text ?? Number.NaN)
  return number > 0 && Number.isFinite(number) ? number : undefined
}

const samplers = {
  always_on: { isParentBased: false, ratio: 1 },
  always_off: { isParentBased: false, ratio: 0 },
  traceidratio: { isParentBased: false },
  parentbased_always_on: { isParentBased: true, ratio: 1 },
  parentbased_always_off: { isParentBased: true, ratio: 0 },
  parentbased_traceidratio: { isParentBased: true }
} as const satisfies Readonly<Record<string, Partial<Sampling>>>

const isSampler = (name: string): name is keyof typeof samplers => Object.hasOwn(samplers, name)

const ratioOf = (text: string | undefined): number => {
  const ratio = Number(text ?? 1)
  return ratio >= 0 && ratio <= 1 ? ratio : 1
}

const samplingOf = ({ sample = 1 }: Section, variables: Variables): Sampling => {
  const name = read(variables, "OTEL_TRACES_SAMPLER")?.toLowerCase()
  if (name === undefined || !isSampler(name)) return { isParentBased: true, ratio: sample }
  return { ratio: ratioOf(read(variables, "OTEL_TRACES_SAMPLER_ARG")), ...samplers[name] }
}

const protocols = { "http/json": "json", "http/protobuf": "protobuf" } as const

const protocolVariables = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"]

const protocolOf = ({ protocol = "protobuf" }: Section, variables: Variables): TracesSettings["protocol"] =>
  protocols[read(variables, ...protocolVariables) as keyof typeof protocols] ?? protocol

const namesOf = (variables: Variables): Names => {
  const wanted = read(variables, "OTEL_SEMCONV_STABILITY_OPT_IN")?.split(",").map((name) => name.trim()) ?? []
  if (wanted.includes("gen_ai/dup")) return "both"
  return wanted.includes("gen_ai/v1.36") ? "older" : "latest"
}

const contentValues = new Set(["true", "span_only", "span_and_event"])

const contentOf = ({ content = false }: Section, variables: Variables): boolean => {
  const value = read(variables, "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT")
  return value === undefined ? content : contentValues.has(value.toLowerCase())
}

const withPath = (base: string): string => `${base.replace(/\/+$/, "")}/v1/traces`

const urlOf = ({ endpoint }: Section, variables: Variables): string | undefined => {
  const own = read(variables, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
  if (own !== undefined) return own
  const base = read(variables, "OTEL_EXPORTER_OTLP_ENDPOINT") ?? endpoint
  return base && withPath(base)
}

const headersOf = ({ headers = {} }: Section, variables: Variables): TracesSettings["headers"] => {
  const given = read(variables, "OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")
  const ofVariable = Object.entries(pairsOf(given)).map(([name, value]) => [name, Redacted.make(value)] as const)
  return { ...headers, ...Object.fromEntries(ofVariable) }
}

const compressionOf = (section: Section, variables: Variables): TracesSettings["compression"] => {
  const given = read(variables, "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION")
  return (given ?? section.compression) === "gzip" ? "gzip" : "none"
}

const durationOf = (text: string | undefined): Duration.Duration | undefined => {
  const ms = numberOf(text)
  return ms === undefined ? undefined : Duration.millis(ms)
}

/** Undefined if no endpoint is set, or a variable turns traces off. */
const tracesOf = (section: Section, variables: Variables): TracesSettings | undefined => {
  const url = urlOf(section, variables)
  if (url === undefined || isTrue(read(variables, "OTEL_SDK_DISABLED"))) return undefined
  const exporters = read(variables, "OTEL_TRACES_EXPORTER")?.split(",").map((name) => name.trim()) ?? ["otlp"]
  if (!exporters.includes("otlp")) return undefined
  const timeout = read(variables, "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT")
  return {
    url,
    headers: headersOf(section, variables),
    protocol: protocolOf(section, variables),
    compression: compressionOf(section, variables),
    every: durationOf(read(variables, "OTEL_BSP_SCHEDULE_DELAY")) ?? section.every ?? Duration.seconds(5),
    timeout: durationOf(timeout) ?? Duration.seconds(10),
    batch: Math.ceil(numberOf(read(variables, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE")) ?? 2_500),
    sampling: samplingOf(section, variables),
    content: contentOf(section, variables),
    names: namesOf(variables)
  }
}

/** The resolved section `telemetry`; undefined if nothing is sent. */
export const telemetryOf = (section: Section = {}, variables: Variables): TelemetrySettings | undefined => {
  const traces = tracesOf(section, variables)
  if (traces === undefined) return undefined
  return {
    resource: {
      "service.name": section.service ?? "troupe",
      ...section.attributes,
      ...pairsOf(read(variables, "OTEL_RESOURCE_ATTRIBUTES")),
      ...(read(variables, "OTEL_SERVICE_NAME") === undefined
        ? {}
        : { "service.name": read(variables, "OTEL_SERVICE_NAME")! })
    },
    traces
  }
}

const isAddress = (text: string): boolean => /^https?:$/.test(URL.parse(text)?.protocol ?? "")

const endpointVariables = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"]

/** Problems of OpenTelemetry's variables, by their names; those of variables that are not used are none. */
export const problemsOf = (variables: Variables): ReadonlyArray<Problem.Problem> => {
  const problems: Array<Problem.Problem> = []
  const check = (names: ReadonlyArray<string>, isValid: (value: string) => boolean, expected: string): void => {
    const value = read(variables, ...names)
    if (value !== undefined && !isValid(value)) problems.push({ path: names.at(-1)!, expected })
  }
  if (isTrue(read(variables, "OTEL_SDK_DISABLED")) || read(variables, ...endpointVariables) === undefined) return []
  check(endpointVariables, isAddress, "Expected a URL of OTLP over HTTP such as http://localhost:4318")
  check(
    protocolVariables,
    (value) => Object.hasOwn(protocols, value),
    "Expected http/json or http/protobuf: use the HTTP port of the collector, usually 4318"
  )
  check(
    ["OTEL_TRACES_SAMPLER"],
    (value) => isSampler(value.toLowerCase()),
    `Expected one of ${Object.keys(samplers).join(", ")}`
  )
  return problems
}
