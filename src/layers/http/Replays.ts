/**
 * What sends a request again: the bodies that are kept, and the handlers of the endpoints by path.
 *
 * **Details**
 *
 * A request is answered as a message of a connection is, by the handler of its endpoint: it is decoded, checked, routed and
 * counted as any other. Endpoints at a path with parameters have no request that is kept.
 */
import { Context, Effect, Layer } from "effect"
import type { KeptRequest } from "../../services/routing/KeptRequests.ts"
import { headersOf, KeptRequests } from "../../services/routing/KeptRequests.ts"
import { Settings } from "../../services/settings/Settings.ts"
import type { MessageHandler } from "./Endpoint.ts"

export class Replays {
  readonly handlers = new Map<string, MessageHandler>()
  readonly #kept: KeptRequests

  constructor(kept: KeptRequests) {
    this.#kept = kept
  }

  /**
   * Keeps a request.
   *
   * @param id of the response
   * @param source with the URL or its path
   */
  keep(id: string, source: object, headers: Readonly<Record<string, string | undefined>>, text: string): void {
    const path = new URL(String((source as { readonly url?: unknown }).url), "http://localhost").pathname
    if (this.handlers.has(path)) this.#kept.add(id, { path, headers: headersOf(headers), text })
  }

  /** @param id of the response */
  find(id: string): KeptRequest | undefined {
    return this.#kept.find(id)
  }
}

/** Undefined where no body is kept. */
export const RequestReplays = Context.Reference<Replays | undefined>("troupe/layers/http/Replays", {
  defaultValue: () => undefined
})

export const layer = Layer.effect(
  RequestReplays,
  Effect.map(
    Settings,
    ({ decisions }) => decisions === undefined ? undefined : new Replays(new KeptRequests(decisions))
  )
)
