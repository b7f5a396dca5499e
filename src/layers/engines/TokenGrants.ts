/**
 * Grants tokens to an engine as the reader of its answer takes them, and holds back an engine whose reader is slow.
 *
 * **Details**
 *
 * The engine may be a window of tokens ahead. Tokens are granted in one message for a quarter of the window. The
 * reader's latency is the longest time that it was not ready for more; it is read every 100 tokens. A slow reader gets a smaller
 * window until its latency is low again: its answer then fills no buffers, and leaves the engine to other answers.
 */
import type { SendCommand } from "../../domain/EngineProtocol.ts"
import type { Event } from "../../domain/Inference.ts"
import type { ReaderLimits } from "../../domain/StreamLimits.ts"

const everyOf = (window: number): number => Math.ceil(window / 4)

export class TokenGrants {
  readonly #send: SendCommand
  readonly #limits: ReaderLimits
  #taken = 0
  /** Of the granted window, what a slow reader does not have. */
  #withheld = 0
  /** Tokens since the latency was read. */
  #unread = 0
  #latencyMs = 0
  #isSlow = false

  constructor(send: SendCommand, limits: ReaderLimits) {
    this.#send = send
    this.#limits = limits
  }

  take(events: ReadonlyArray<Event>): void {
    for (const event of events) if ("tokens" in event) this.#taken += event.tokens
  }

  /** The reader was not ready for this time, ms. */
  waited(ms: number): void {
    if (ms > this.#latencyMs) this.#latencyMs = ms
  }

  /** Grants what has been taken, if it is enough for a message. */
  send(): void {
    const { slowWindow, window } = this.#limits
    if (this.#taken < everyOf(this.#isSlow ? Math.min(slowWindow, window) : window)) return
    this.#readLatency()
    const withheld = this.#isSlow ? Math.max(0, window - slowWindow) : 0
    const tokens = Math.max(0, this.#taken - (withheld - this.#withheld))
    this.#withheld += this.#taken - tokens
    this.#taken = 0
    if (tokens > 0) this.#send({ type: "grant", tokens })
  }

  #readLatency(): void {
    this.#unread += this.#taken
    if (this.#unread < this.#limits.readEvery) return
    this.#isSlow = this.#latencyMs > this.#limits.slowAfterMs
    this.#unread = 0
    this.#latencyMs = 0
  }
}
