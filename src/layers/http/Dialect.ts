/**
 * What a dialect of the HTTP interface provides: its routes, the shapes of its errors and of its model list.
 *
 * **When to use**
 *
 * To add a dialect, put its codec in `src/dialects/<name>`, export a `Dialect` from a routes file in this folder, and add it
 * to the list in `Server`.
 */
import type { Layer, Schema } from "effect"
import type { HttpRouter } from "effect/http"
import { HttpServerResponse } from "effect/http"
import type { HttpApiEndpoint, HttpApiGroup } from "effect/http-api"
import type { Reason } from "../../domain/InferenceError.ts"
import type { ModelCard } from "../../domain/ModelCard.ts"
import type { Readiness } from "../../services/health/Readiness.ts"
import type { Inference } from "../../services/inference/Inference.ts"
import type { VirtualKeys } from "../../services/keys/VirtualKeys.ts"
import type { RequestBytes } from "../../services/limits/RequestLimits.ts"
import type { Models } from "../../services/models/Models.ts"
import type { Registry } from "../../services/models/Registry.ts"
import type { Router } from "../../services/routing/Router.ts"
import type { Settings } from "../../services/settings/Settings.ts"
import type { EarlyRefusals } from "./EarlyRefusals.ts"

/** An error response in the shape of a dialect. */
export interface ErrorResponse {
  readonly status: number
  readonly body: unknown
  readonly headers: Readonly<Record<string, string>>
}

/** An error of the HTTP interface itself, before or outside of inference. */
export interface HttpProblem {
  readonly status: number
  readonly code: string | null
  readonly message: string
  readonly headers?: Readonly<Record<string, string>>
}

/** The response while the service shuts down. */
export const stopping: HttpProblem = {
  status: 503,
  code: "shutting_down",
  message: "The service is shutting down. Try again.",
  headers: { "retry-after": "1", connection: "close" }
}

/** The services that routes of a dialect may use. */
export type RouteServices =
  | EarlyRefusals
  | HttpRouter.HttpRouter
  | Inference
  | Models
  | Readiness
  | Registry
  | RequestBytes
  | Router
  | Settings
  | VirtualKeys

/** The shapes of `GET /v1/models` and `GET /v1/models/{model}`. */
export interface ModelShapes {
  readonly listSchema: Schema.Top
  readonly modelSchema: Schema.Top
  /** @param startedAt when the service started, ms since 1970 */
  readonly list: (models: ReadonlyArray<ModelCard>, startedAt: number) => unknown
  readonly model: (model: ModelCard, startedAt: number) => unknown
}

/** The headers of a request, with names in lower case. */
export type RequestHeaders = Readonly<Record<string, string | undefined>>

/** How clients of a dialect identify themselves, and how they recognize a response. */
export interface Conventions {
  readonly encodeProblem: (problem: HttpProblem, id: string) => ErrorResponse
  /** The headers of a response with the id of the request, where clients of the dialect look for it. */
  readonly idHeaders: (id: string) => Readonly<Record<string, string>>
  /** Reads the API key of the caller. */
  readonly keyOf: (headers: RequestHeaders) => string | undefined
}

/** A group of endpoints, each with its path. */
export interface DescribedGroup extends HttpApiGroup.Constraint {
  readonly endpoints: Readonly<Record<string, HttpApiEndpoint.Constraint & { readonly path: string }>>
}

export interface Dialect extends Conventions {
  /** Its endpoints, as `GET /openapi.json` describes them. Errors at their paths have the shape of this dialect. */
  readonly group: DescribedGroup
  /** The path below which errors at unknown paths have the shape of this dialect too. */
  readonly root?: string
  readonly layer: Layer.Layer<never, never, RouteServices>
  /** A header that only its clients send; it selects the dialect at paths that all dialects share. */
  readonly clientHeader?: string
  /** Encodes an error at a path that all dialects share. */
  readonly encodeReason: (reason: Reason, id: string) => ErrorResponse
  readonly models: ModelShapes
}

/** The dialects of a service. The first is the default. */
export type Dialects = readonly [Dialect, ...ReadonlyArray<Dialect>]

/** @param more headers beside those of the error */
export const respondError = ({ body, headers, status }: ErrorResponse, more: Readonly<Record<string, string>> = {}) =>
  HttpServerResponse.jsonUnsafe(body, { status, headers: { ...headers, ...more } })

/** Selects the dialect of a client by a header, at paths that all dialects share. */
export const makeDialectOfClient = (dialects: Dialects) => (headers: Readonly<Record<string, unknown>>): Dialect =>
  dialects.find(({ clientHeader }) => clientHeader !== undefined && headers[clientHeader] !== undefined) ?? dialects[0]

/** Selects a dialect by the path of a request, and at a path that is of no dialect by the header of its client. */
export const makeDialectOf = (dialects: Dialects) => {
  const dialectOfClient = makeDialectOfClient(dialects)
  const paths = dialects.map((dialect) => ({
    dialect,
    parents: [
      ...Object.values(dialect.group.endpoints).map(({ path }) => path),
      ...(dialect.root === undefined ? [] : [dialect.root])
    ]
  }))
  const isUnder = (path: string, parent: string): boolean =>
    path.startsWith(parent) && /^(?:$|[/?%])/.test(path.slice(parent.length))
  return (path: string, headers: Readonly<Record<string, unknown>>): Dialect =>
    paths.find(({ parents }) => parents.some((parent) => isUnder(path, parent)))?.dialect ?? dialectOfClient(headers)
}
