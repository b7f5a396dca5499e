/** Whether the key of a request allows the models that its body names; a request that it does not allow is recorded. */
import type { Identity } from "../../domain/Identity.ts"
import * as InferenceError from "../../domain/InferenceError.ts"
import * as TraceContext from "../../domain/TraceContext.ts"
import type { EarlyRefusal } from "../../services/inference/RefusedRequest.ts"
import * as Authentication from "./Authentication.ts"
import type { RequestHeaders } from "./Dialect.ts"

export interface Parts {
  /** The own name of the model that a name or an alias selects. */
  readonly nameOf: (name: string) => string
  readonly refused: (refusal: EarlyRefusal) => void
}

/** A request whose body is decoded. */
export interface Decoded {
  /** The id of the response. */
  readonly id: string
  readonly headers: RequestHeaders
  readonly identity: Identity | undefined
}

const textOf = (text: string | undefined): string | undefined => text === "" ? undefined : text

/**
 * Why the key does not allow a model; undefined: it allows all.
 *
 * @param body with the registry's names of models
 */
export const refusalOf = (
  { nameOf, refused }: Parts,
  { headers, id, identity }: Decoded,
  body: unknown,
  operation: EarlyRefusal["operation"] = "chat"
): InferenceError.InferenceError | undefined => {
  const reason = Authentication.modelRefusal(identity, body, nameOf)
  if (reason === undefined || identity === undefined) return undefined
  const error = InferenceError.make(reason)
  const { keyId, name, tenant } = identity
  refused({
    operation,
    model: reason.model ?? "",
    caller: { requestId: id, dialect: undefined, tenant: textOf(tenant), key: name ?? keyId, replayOf: undefined },
    error,
    span: TraceContext.callerOf(headers),
    keyId
  })
  return error
}
