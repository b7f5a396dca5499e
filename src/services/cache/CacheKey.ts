/**
 * The identity of a request: two requests with the same text may share an answer. Pure.
 *
 * **Details**
 *
 * The resolved model of a request is its model's name and the weights that answer: everything about a deployment that is
 * configured, except what only concerns its operation, and the state of its files. Two deployments of one model with the
 * same weights share answers; with different weights they do not.
 *
 * The body of the caller is part of the identity if a deployment of the model has the caller's dialect, because that
 * deployment is sent the body and answers with fields of the dialect. Otherwise only what every deployment is sent counts,
 * so that callers of different dialects share answers.
 *
 * **Gotchas**
 *
 * A field that is added to requests or deployments is part of the identity unless it is excluded here. The tenant is part
 * of it always.
 */
import type { Deployment, Model } from "../../domain/Deployment.ts"
import { isRemote } from "../../domain/Deployment.ts"
import * as ExactNumber from "../../domain/ExactNumber.ts"
import type { Request } from "../../domain/Inference.ts"
import type { Source } from "../../domain/Source.ts"
import { bodyWith, dialectOf, hasResponses, isComplete, requiredFields, valueAt } from "../../domain/Source.ts"

type Fields = Readonly<Record<string, unknown>>

const writeList = (list: ReadonlyArray<unknown>): string => {
  let text = "["
  for (let index = 0; index < list.length; index++) text += (index === 0 ? "" : ",") + canonical(list[index] ?? null)
  return `${text}]`
}

const writeObject = (value: Fields): string => {
  let text = "{"
  for (const name of Object.keys(value).sort()) {
    const inner = value[name]
    if (inner === undefined) continue
    text += `${text === "{" ? "" : ","}${JSON.stringify(name)}:${canonical(inner)}`
  }
  return `${text}}`
}

/** JSON with the fields of every object in alphabetical order, without undefined fields. */
export const canonical = (value: unknown): string => {
  if (Array.isArray(value)) return writeList(value)
  if (typeof value !== "object" || value === null) return JSON.stringify(value) ?? "null"
  if (value instanceof ExactNumber.ExactNumber) return value.text
  if (typeof (value as { readonly toJSON?: unknown }).toJSON === "function") return JSON.stringify(value)
  return writeObject(value as Fields)
}

const listOrNone = <A>(list: ReadonlyArray<A>): ReadonlyArray<A> | undefined => list.length === 0 ? undefined : list

/** The part of the caller's own request that the other fields do not have. No deployment is sent optional fields. */
const unknownValues = (source: Source) =>
  isComplete(source)
    ? listOrNone(
      requiredFields(source).map(({ path }) => ({ dialect: source.dialect, path, value: valueAt(source, path) }))
    )
    : { dialect: source.dialect, body: source.body }

/** Numbers that the other fields have rounded. */
const exactNumbers = (source: Source, seed: unknown) =>
  source.hasExactNumbers === true ? ExactNumber.textsIn(bodyWith(source, { seed })) : undefined

/** Fields of a body that do not change the answer, or that are elsewhere in the identity. */
const notOfAnswer = { model: undefined, stream: undefined, stream_options: undefined, user: undefined }

/** What a provider of the caller's dialect is sent. `null` is the same as a missing field. */
const bodyOf = (source: Source): Fields => {
  const body: Record<string, unknown> = {}
  const whole = bodyWith(source, notOfAnswer)
  for (const name of Object.keys(whole)) if (whole[name] !== null) body[name] = whole[name]
  return body
}

/** Fields of a request of the Responses API that do not change the answer, or that are elsewhere in the identity. */
const notOfResponse: ReadonlySet<string> = new Set([
  ...Object.keys(notOfAnswer),
  "metadata",
  "tenant",
  "priority",
  "keep_alive"
])

const withoutId = (item: unknown): unknown => {
  if (typeof item !== "object" || item === null) return item
  const { id: _, ...kept } = item as Fields
  return kept
}

/** What a deployment with the Responses API is sent, if the model has one. The ids of items differ in equal requests. */
const responseOf = ({ deployments }: Model, { responses }: Source): Fields | undefined => {
  if (responses === undefined || !deployments.some(({ options }) => hasResponses(options))) return undefined
  const { input, ...body } = responses.body
  return {
    ...Object.fromEntries(Object.entries(body).filter(([name]) => !notOfResponse.has(name))),
    input: Array.isArray(input) ? input.map(withoutId) : input
  }
}

/** Whether a deployment of the model is sent the caller's own body. */
const isSentBody = ({ deployments }: Model, { dialect }: Source): boolean =>
  deployments.some(({ options }) => dialectOf(options) === dialect)

const isEmpty = (value: unknown): boolean =>
  typeof value === "object" && value !== null && Object.keys(value).length === 0

/** The values that every engine on this machine has for a field that is left out. */
const engineDefaults: Fields = {
  temperature: 1,
  topP: 1,
  minP: 0,
  repeatPenalty: 1,
  presencePenalty: 0,
  frequencyPenalty: 0,
  toolChoice: "auto",
  parallelToolCalls: true
}

const emptyIsNone: ReadonlySet<string> = new Set(["stop", "tools", "logitBias"])

/**
 * The fields without those that have their default. A provider's default of a sampling option may be another, so that
 * those count as they are if a deployment is remote.
 */
const withoutDefaults = (content: Fields, areLocal: boolean): Fields => {
  const kept: Record<string, unknown> = {}
  for (const name of Object.keys(content)) {
    const value = content[name]
    if (areLocal && value === engineDefaults[name]) continue
    if (emptyIsNone.has(name) && isEmpty(value)) continue
    kept[name] = value
  }
  return kept
}

/** The text that identifies what a request asks for, without the weights that answer. */
export const identify = (request: Request, model: Model): string => {
  const { cache: _, identity: __, keepAlive: ___, priority: ____, source, tenant = "", ...content } = request
  const areLocal = !model.deployments.some(({ options }) => isRemote(options))
  return canonical({
    tenant,
    content: withoutDefaults(content, areLocal),
    responses: source && responseOf(model, source),
    ...(source !== undefined && isSentBody(model, source)
      ? { dialect: source.dialect, headers: source.headers, body: bodyOf(source) }
      : source && { fields: unknownValues(source), numbers: exactNumbers(source, source.body["seed"]) })
  })
}

/**
 * The text that identifies a request for the last fallback. It leaves out the seed, the routing and the weights, since
 * another answer of the tenant to the same question is better than an error.
 */
export const identifyForFallback = (
  {
    cache: _,
    identity: __,
    keepAlive: ___,
    priority: ____,
    route: _____,
    seed: ______,
    source,
    tenant = "",
    ...content
  }: Request
): string =>
  canonical({
    fallback: true,
    tenant,
    content,
    headers: source?.headers,
    needs: source?.responses?.needs,
    fields: source && unknownValues(source),
    numbers: source && exactNumbers(source, undefined)
  })

/** Options of deployments that do not change an answer. */
const operational: ReadonlySet<string> = new Set([
  "key",
  "keys",
  "maxConcurrent",
  "maxReplicas",
  "maxResponseBytes",
  "prefixFiles",
  "price",
  "quality",
  "replicas",
  "slots",
  "stream",
  "tasks",
  "timeouts",
  "useMlock",
  "useMmap",
  "weight"
])

/**
 * The text that identifies the weights of a deployment.
 *
 * @param version of its files
 */
export const weightsOf = ({ model, options }: Deployment, version: string): string => {
  const kept = Object.entries(options).filter(([name]) => !operational.has(name))
  return canonical({ model, version, options: Object.fromEntries(kept) })
}
