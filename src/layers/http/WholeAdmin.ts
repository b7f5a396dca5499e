/** Administration of a service of several processes: adds what the others answer, in the process that answers for all of them. */
import { Effect, Stream } from "effect"
import type { Contents, Selection } from "../../services/cache/ResponseCache.ts"
import type { Models } from "../../services/models/Models.ts"
import type { CacheCleared, Circuits, Deployments } from "./AdminSchema.ts"
import { PeerProcesses } from "./Peers.ts"
import * as WholeService from "./WholeService.ts"

const queryOf = (which: Selection): string => {
  const query = new URLSearchParams()
  for (const [name, value] of Object.entries(which)) if (typeof value === "string") query.set(name, value)
  return query.size === 0 ? "" : `?${query.toString()}`
}

export const make = Effect.map(PeerProcesses, (peers) => {
  const others = peers?.isFirst === true ? peers : undefined
  /** Adds the answers of the others at this path. */
  const merged = <A>(path: string, own: A, add: (own: A, answers: ReadonlyArray<never>) => A): Effect.Effect<A> =>
    others === undefined
      ? Effect.succeed(own)
      : Effect.map(others.askJson<never>("GET", path), (answers) => add(own, answers))
  return {
    events: (own: Models["Service"]["events"]) => others === undefined ? own : Stream.merge(own, others.events),
    deployments: (own: Deployments["deployments"]) => merged("/admin/deployments", own, WholeService.deployments),
    circuits: (own: Circuits["circuits"]) => merged("/admin/circuits", own, WholeService.circuits),
    cache: (own: Contents) => merged("/admin/cache", own, WholeService.cacheContents),
    /** Also clears the memory of the others; the number of answers that were cleared there. */
    clearCache: (which: Selection) =>
      others === undefined
        ? Effect.succeed(0)
        : Effect.map(
          others.askJson<CacheCleared>("DELETE", `/admin/cache${queryOf(which)}`),
          (answers) => answers.reduce((sum, { cleared }) => sum + cleared, 0)
        ),
    /** Also does something in the others, unless they do not serve the model. */
    post: (model: string, path: string) =>
      others === undefined || others.isOfFirst(model) ? Effect.void : others.ask("POST", path)
  }
})
