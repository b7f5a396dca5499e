import { assert } from "@effect/vitest"
import { Duration, Redacted } from "effect"
import { describe, it } from "vitest"
import { problemsOf, telemetryOf } from "../../../src/services/settings/TelemetrySettings.ts"

const endpoint = "http://collector:4318"
const variable = { OTEL_EXPORTER_OTLP_ENDPOINT: endpoint }
const tracesOf = (...given: Parameters<typeof telemetryOf>) => telemetryOf(...given)?.traces

describe("telemetry", () => {
  it.each([
    ["without an endpoint", {}, {}],
    ["when the SDK is disabled", { endpoint }, { OTEL_SDK_DISABLED: "true" }],
    ["when no exporter is named", { endpoint }, { OTEL_TRACES_EXPORTER: "none" }],
    ["when the endpoint is empty", {}, { OTEL_EXPORTER_OTLP_ENDPOINT: " " }]
  ])("is off %s", (_, section, variables) => {
    assert.isUndefined(telemetryOf(section, variables))
  })

  it("has defaults", () => {
    assert.deepStrictEqual(telemetryOf({ endpoint: `${endpoint}/` }, {}), {
      resource: { "service.name": "troupe" },
      traces: {
        url: `${endpoint}/v1/traces`,
        headers: {},
        protocol: "protobuf",
        compression: "none",
        every: Duration.seconds(5),
        timeout: Duration.seconds(10),
        batch: 2500,
        sampling: { isParentBased: true, ratio: 1 },
        content: false,
        names: "latest"
      }
    })
  })

  it("is that of the variables where they are set", () => {
    const telemetry = telemetryOf({ endpoint: "http://other:1", sample: 0.5, service: "mine", content: true }, {
      ...variable,
      OTEL_EXPORTER_OTLP_HEADERS: "api-key=a%20b,x=1",
      OTEL_EXPORTER_OTLP_PROTOCOL: "http/protobuf",
      OTEL_EXPORTER_OTLP_COMPRESSION: "gzip",
      OTEL_EXPORTER_OTLP_TIMEOUT: "2000",
      OTEL_BSP_SCHEDULE_DELAY: "250",
      OTEL_BSP_MAX_EXPORT_BATCH_SIZE: "64",
      OTEL_TRACES_SAMPLER: "traceidratio",
      OTEL_TRACES_SAMPLER_ARG: "0.25",
      OTEL_SERVICE_NAME: "theirs",
      OTEL_RESOURCE_ATTRIBUTES: "deployment.environment.name=prod,service.name=ignored",
      OTEL_SEMCONV_STABILITY_OPT_IN: "http, gen_ai/dup",
      OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT: "no_content"
    })
    assert.deepStrictEqual(telemetry?.resource, { "service.name": "theirs", "deployment.environment.name": "prod" })
    const { headers, ...traces } = telemetry!.traces!
    assert.deepStrictEqual(
      Object.entries(headers).map(([name, value]) => [name, Redacted.value(value)]),
      [["api-key", "a b"], ["x", "1"]]
    )
    assert.deepStrictEqual(traces, {
      url: `${endpoint}/v1/traces`,
      protocol: "protobuf",
      compression: "gzip",
      every: Duration.millis(250),
      timeout: Duration.seconds(2),
      batch: 64,
      sampling: { isParentBased: false, ratio: 0.25 },
      content: false,
      names: "both"
    })
  })

  it("sends traces to their own endpoint as it is", () => {
    const url = "https://vendor.example/otlp/traces?project=1"
    assert.strictEqual(tracesOf({ endpoint }, { OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: url })?.url, url)
  })

  it.each([
    ["", "latest"],
    ["gen_ai_latest_experimental", "latest"],
    ["gen_ai/v1.36", "older"],
    ["gen_ai/dup", "both"]
  ])("has the names of the opt-in %s", (OTEL_SEMCONV_STABILITY_OPT_IN, names) => {
    assert.strictEqual(tracesOf({ endpoint }, { OTEL_SEMCONV_STABILITY_OPT_IN })?.names, names)
  })
})

describe("problems of the variables", () => {
  it.each([
    ["OTEL_EXPORTER_OTLP_ENDPOINT", { OTEL_EXPORTER_OTLP_ENDPOINT: "collector:4317" }],
    ["OTEL_EXPORTER_OTLP_PROTOCOL", { ...variable, OTEL_EXPORTER_OTLP_PROTOCOL: "grpc" }],
    ["OTEL_TRACES_SAMPLER", { ...variable, OTEL_TRACES_SAMPLER: "jaeger_remote" }]
  ])("name %s", (path, variables) => {
    assert.deepStrictEqual(problemsOf(variables).map((problem) => problem.path), [path])
  })

  it("are none of a configuration that is not used", () => {
    assert.deepStrictEqual(problemsOf({ OTEL_EXPORTER_OTLP_PROTOCOL: "grpc" }), [])
    assert.deepStrictEqual(problemsOf({ ...variable, OTEL_TRACES_SAMPLER: "Always_On" }), [])
  })
})
