/** Handlers for an operator: the kept request of a decision record, and sending it again. */
import { Effect } from "effect"
import { HttpServerRequest, HttpServerResponse } from "effect/http"
import * as OpenAiEncodeError from "../../dialects/openai/EncodeError.ts"
import { isObject } from "../../dialects/shared/Json.ts"
import * as Caller from "../../domain/Caller.ts"
import * as Text from "../../domain/Text.ts"
import { DecisionLog } from "../../services/routing/DecisionLog.ts"
import type { Record as DecisionRecord } from "../../services/routing/DecisionRecord.ts"
import { bufferedBody } from "../../services/routing/KeptRequests.ts"
import { Settings } from "../../services/settings/Settings.ts"
import type { KeptBody, ReplayState } from "./AdminSchema.ts"
import * as Authentication from "./Authentication.ts"
import { respondError } from "./Dialect.ts"
import { PeerProcesses } from "./Peers.ts"
import { RequestReplays } from "./Replays.ts"

/** @param kept `decisions.keepBodies` */
const notKeptText = (id: string, kept: number): string =>
  `The body of the request of ${JSON.stringify(Text.cutName(id))} is not kept. ` +
  (kept === 0
    ? "Set decisions.keepBodies in the configuration, such as 100, restart, and send the request again."
    : `decisions.keepBodies keeps the latest ${kept}, within decisions.maxBytes, until the service restarts.`)

const notKept = (id: string, kept: number) =>
  respondError(OpenAiEncodeError.make(notKeptText(id, kept), {
    status: 409,
    type: "invalid_request_error",
    code: "body_not_kept"
  }))

/** An answer of a handler: it is not a stream, since the request asks for none. */
const textOf = ({ body }: HttpServerResponse.HttpServerResponse): string =>
  body._tag === "Uint8Array" ? Buffer.from(body.body).toString() : ""

const jsonOf = (text: string): unknown => {
  try {
    return JSON.parse(text) as unknown
  } catch {
    return text
  }
}

type FindRecord = (id: string) => Effect.Effect<DecisionRecord | undefined>
type NotFound = (id: string) => HttpServerResponse.HttpServerResponse

/** Finds the kept request of a record, or of the one that it repeats; or the response where there is none. */
const makeFind = Effect.fnUntraced(function*(findRecord: FindRecord, notFound: NotFound) {
  const peers = yield* PeerProcesses
  const replays = yield* RequestReplays
  const { decisions: bounds } = yield* Settings
  const kept = bounds?.keepBodies ?? 0
  const missing = (id: string) => notKept(id, kept)
  const own = ({ requestId }: DecisionRecord): KeptBody | undefined => {
    const kept = requestId === undefined ? undefined : replays?.find(requestId)
    return kept && { path: kept.path, headers: kept.headers, body: jsonOf(kept.text) }
  }
  const keptOf = Effect.fnUntraced(function*(record: DecisionRecord) {
    const found = own(record)
    if (found !== undefined || peers?.isFirst !== true) return found
    const path = `/admin/decisions/${encodeURIComponent(record.id)}/request`
    return (yield* peers.askJson<KeptBody>("GET", path))[0]
  })

  /** The record whose request is sent again: that of a request that repeats another one is not kept. */
  const originalOf = Effect.fnUntraced(function*(record: DecisionRecord) {
    return record.replayOf === undefined ? record : (yield* findRecord(record.replayOf)) ?? record
  })

  const find = Effect.fnUntraced(function*(id: string) {
    const found = yield* findRecord(id)
    if (found === undefined) return { response: notFound(id) }
    const record = yield* originalOf(found)
    const request = yield* keptOf(record)
    return request === undefined ? { response: missing(id) } : { record, request }
  })

  const stateOf = Effect.fnUntraced(function*(record: DecisionRecord) {
    const request = kept === 0 ? undefined : yield* keptOf(yield* originalOf(record))
    const state: ReplayState = request === undefined
      ? { possible: false, reason: notKeptText(record.id, kept) }
      : { possible: true }
    return state
  })
  return { find, missing, stateOf }
})

/** @param findRecord the record of a request, of any process; undefined if there is none */
export const make = Effect.fnUntraced(function*(findRecord: FindRecord, notFound: NotFound) {
  const authentication = yield* Authentication.make
  const decisions = yield* DecisionLog
  const replays = yield* RequestReplays
  const { find, missing, stateOf } = yield* makeFind(findRecord, notFound)

  /** Headers and identity of the administrator: the request counts for its key, and its answer is not cached. */
  const callerOf = (request: HttpServerRequest.HttpServerRequest, headers: KeptBody["headers"]) => {
    const found = authentication.isRequired ? authentication.identify(request.headers) : "missing"
    const identity = typeof found === "string" ? undefined : found
    const tenant = identity === undefined ? { [Caller.tenantHeader]: "administrator" } : {}
    return { identity, headers: { ...headers, ...tenant, "cache-control": "no-store" } }
  }

  return {
    stateOf,
    request: (id: string) =>
      Effect.map(find(id), ({ request, response }) => response ?? HttpServerResponse.jsonUnsafe(request)),
    replay: Effect.fnUntraced(function*(id: string) {
      const { record, request, response } = yield* find(id)
      if (response !== undefined) return response
      const handler = replays?.handlers.get(request.path)
      if (handler === undefined || !isObject(request.body)) return missing(id)
      const administrator = yield* HttpServerRequest.HttpServerRequest
      const bytes = Buffer.from(JSON.stringify(bufferedBody(request.path, request.body)))
      const message = { ...callerOf(administrator, request.headers), bytes, named: administrator.source }
      const answered = Effect.map(handler(message), (answer) => ({
        status: answer.status,
        answer: jsonOf(textOf(answer)),
        made: answer.headers["x-troupe-decision"]
      }))
      // The record is complete when the scope has closed.
      const { answer, made, status } = yield* Effect.provideService(
        Effect.scoped(answered),
        Caller.ReplayOf,
        record.id
      )
      const decision = made === undefined ? undefined : decisions.find(made)
      return HttpServerResponse.jsonUnsafe({
        replayOf: record.id,
        status,
        ...(decision === undefined ? {} : { decision }),
        answer
      })
    })
  }
})
