/** The section `decisions`: what is kept of requests beside their decision records. */
import { Schema } from "effect"
import { Bytes, optional } from "../../domain/Fields.ts"
import { wholeNumber } from "../../domain/Problem.ts"
import type { Bounds } from "../routing/KeptRequests.ts"

const defaultBytes = 64 * 2 ** 20

/** A body cannot be found without its decision record. */
const mostBodies = 1_000

export const DecisionSettings = Schema.Struct({
  keepBodies: optional(
    "Number of the latest requests whose bodies are kept in memory, in each process, so that administrators can see them and " +
      `send them again; at most ${mostBodies}. They contain prompts: security.md. Default 0, none.`,
    wholeNumber(0).check(Schema.isLessThanOrEqualTo(mostBodies))
  ),
  maxBytes: optional("Memory of these bodies together, as 64 MiB or in bytes. Default 64 MiB.", Bytes)
})

/** Undefined: no body is kept. */
export const decisionsOf = ({ keepBodies = 0, maxBytes = defaultBytes }: typeof DecisionSettings.Type = {}):
  | Bounds
  | undefined => keepBodies === 0 ? undefined : { keepBodies, maxBytes }
