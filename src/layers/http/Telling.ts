/** What every answer tells of its routing, in headers. Pure. */
import type { By } from "../../services/Inference.ts"
import type { InferenceError } from "../../services/InferenceError.ts"

type Headers = Readonly<Record<string, string>>

/** Its deployment, how many attempts it took, and the id of the record that says why. */
export const ofAnswer = ({ attempts, decision, deployment }: By): Headers => ({
  "x-troupe-deployment": deployment,
  "x-troupe-attempts": String(attempts),
  "x-troupe-decision": decision
})

export const ofError = ({ attempts, decision }: InferenceError): Headers =>
  decision === undefined ? {} : { "x-troupe-attempts": String(attempts?.length ?? 1), "x-troupe-decision": decision }
