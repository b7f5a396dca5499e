/**
 * Spans as OTLP/JSON, https://opentelemetry.io/docs/specs/otlp/: written as text at once, without the
 * objects of the data model.
 */
import { OtlpResource } from "effect/observability"
import type { Attributes, AttributeWriter } from "../../services/observability/RequestSpans.ts"
import { putAll } from "../../services/observability/RequestSpans.ts"
import type { Names } from "../../services/settings/TelemetrySettings.ts"
import type { Ended } from "./RecordedSpans.ts"
import { failed, keptNames, KeptTexts, kinds, namesOf } from "./SpanAttributes.ts"
import * as SpanIds from "./SpanIds.ts"

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

/** One attribute, under all of its names. */
class Attribute {
  readonly encode: (value: unknown) => string
  readonly texts: KeptTexts<string>

  constructor(names: ReadonlyArray<string>) {
    this.encode = (value) => names.map((name) => pair(name, value)).join(",")
    this.texts = new KeptTexts(this.encode)
  }
}

/** Writes spans, with these names of attributes. */
export class JsonSpans implements AttributeWriter {
  readonly #attributeOf: (name: string) => Attribute
  readonly #nameOf = keptNames((name) => JSON.stringify(name))
  #attributes = ""

  constructor(names: Names) {
    this.#attributeOf = keptNames((name) => new Attribute(namesOf(name, names)))
  }

  /** Writes an attribute of the span whose text is being made. */
  put(name: string, value: unknown): void {
    if (value === undefined) return
    const { encode, texts } = this.#attributeOf(name)
    const text = texts.of(value) ?? encode(value)
    this.#attributes += this.#attributes === "" ? text : `,${text}`
  }

  putKept(attributes: Attributes): void {
    putAll(attributes, this)
  }

  textOf(span: Ended): string {
    const { attributes, endTime, kind, name, parentId, spanId, startTime, traceId } = span
    const above = parentId === undefined ? "" : `"parentSpanId":"${SpanIds.toHex(parentId)}",`
    this.#attributes = ""
    attributes(this)
    return `{"traceId":"${SpanIds.toHex(traceId)}","spanId":"${SpanIds.toHex(spanId)}",${above}` +
      `"name":${this.#nameOf(name)},"kind":${kinds[kind]},` +
      `"startTimeUnixNano":"${startTime}","endTimeUnixNano":"${endTime}","attributes":[${this.#attributes}],` +
      endText(span)
  }
}
