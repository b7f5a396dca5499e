/**
 * Spans as OTLP/JSON, https://opentelemetry.io/docs/specs/otlp/: written as text at once, without the
 * objects of the data model.
 */
import { OtlpResource } from "effect/observability"
import type { Names } from "../../services/settings/TelemetrySettings.ts"
import type { Ended } from "./RecordedSpans.ts"
import { Attributes, failed, keptNames, kinds } from "./SpanAttributes.ts"

const listText = (values: ReadonlyArray<unknown>): string => {
  let text = "{\"arrayValue\":{\"values\":["
  for (let index = 0; index < values.length; index++) text += (index === 0 ? "" : ",") + valueText(values[index])
  return `${text}]}}`
}

/** A value of an attribute. Numbers that JSON does not have are text, as OTLP says. */
const valueText = (value: unknown): string => {
  if (typeof value === "string") return `{"stringValue":${JSON.stringify(value)}}`
  if (typeof value === "boolean") return value ? "{\"boolValue\":true}" : "{\"boolValue\":false}"
  if (Number.isSafeInteger(value)) return `{"intValue":"${value as number}"}`
  if (typeof value === "number") return `{"doubleValue":${Number.isFinite(value) ? value : `"${value}"`}}`
  return Array.isArray(value) ? listText(value) : JSON.stringify(OtlpResource.unknownToAttributeValue(value))
}

const pair = (key: string, value: unknown): string => `{"key":${JSON.stringify(key)},"value":${valueText(value)}}`

/** The status and the exception. Success has no status: OpenTelemetry leaves `Ok` to the application's developer. */
const endText = ({ endTime, error }: Ended): string => {
  if (error === undefined) return "\"status\":{\"code\":0}}"
  const attributes = `${pair("exception.type", error.name)},${pair("exception.message", error.message)}`
  return `"events":[{"name":"exception","timeUnixNano":"${endTime}","attributes":[${attributes}]}],` +
    `"status":{"code":${failed},"message":${JSON.stringify(error.message)}}}`
}

const attributeText = (names: ReadonlyArray<string>, value: unknown): string =>
  names.map((name) => pair(name, value)).join(",")

/** Writes spans, with these names of attributes. */
export const make = (names: Names): (span: Ended) => string => {
  const known = new Attributes(names, attributeText)
  const nameOf = keptNames((name) => JSON.stringify(name))
  const attributesText = (attributes: Ended["attributes"]): string => {
    let text = ""
    for (const name in attributes) {
      const value = attributes[name]
      if (value !== undefined) text += (text === "" ? "" : ",") + known.of(name, value)
    }
    return text
  }
  return (span) => {
    const { attributes, endTime, kind, name, parentId, spanId, startTime, traceId } = span
    const above = parentId === undefined ? "" : `"parentSpanId":"${parentId}",`
    return `{"traceId":"${traceId}","spanId":"${spanId}",${above}"name":${nameOf(name)},"kind":${kinds[kind]},` +
      `"startTimeUnixNano":"${startTime}","endTimeUnixNano":"${endTime}","attributes":[${
        attributesText(attributes)
      }],` +
      endText(span)
  }
}
