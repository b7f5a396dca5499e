/**
 * A bound on the bytes that requests hold together. Pure policy over plain data.
 *
 * **Details**
 *
 * A hold takes as it grows and gives all back at once, when the request leaves. Giving back twice gives back once.
 */
import { Context } from "effect"

/** What one request holds. */
export interface Hold {
  /** Takes more; false, with nothing taken, where that is more than is left, or the hold has been released. */
  readonly take: (bytes: number) => boolean
  /** Gives back all that was taken. */
  readonly release: () => void
}

export class ByteBudget {
  readonly limit: number
  #used = 0

  /** @param limit bytes */
  constructor(limit: number) {
    this.limit = limit
  }

  /** Bytes that are held now. */
  get used(): number {
    return this.#used
  }

  /** Bytes that may be taken now. */
  get left(): number {
    return this.limit - this.#used
  }

  hold(): Hold {
    let held = 0
    let isReleased = false
    return {
      take: (bytes) => {
        if (isReleased || bytes > this.left) return false
        held += bytes
        this.#used += bytes
        return true
      },
      release: () => {
        isReleased = true
        this.#used -= held
        held = 0
      }
    }
  }
}

/** Of the bodies of all requests, from their first byte until their answer has ended. */
export class RequestBytes extends Context.Service<RequestBytes, ByteBudget>()("troupe/services/RequestBytes") {}
