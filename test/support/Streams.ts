/** Streams of providers, read with and without templates of their events. */
import { RepeatedChunk } from "../../src/dialects/shared/EventTemplate.ts"
import type { Dialect } from "../../src/dialects/shared/ProviderDialect.ts"
import type { Provider } from "../../src/domain/Deployment.ts"
import type { Generation } from "../../src/domain/Generation.ts"
import type { Event } from "../../src/domain/Inference.ts"
import { makeEventReader } from "../../src/layers/providers/AnswerEvents.ts"
import { targetOf } from "./Dialects.ts"

/** What a reader makes of a stream that arrives in pieces of these lengths, in turn. */
export const read = (
  [provider, dialect]: readonly [Provider, Dialect],
  generation: Generation,
  body: Uint8Array,
  lengths: ReadonlyArray<number>
) => {
  const reader = makeEventReader(dialect, targetOf(provider), generation)
  let from = 0
  for (let index = 0; from < body.length && !reader.isOver(); index++) {
    const to = from + lengths[index % lengths.length]!
    reader.push(body.subarray(from, to))
    from = to
  }
  if (!reader.isOver()) reader.end()
  return reader.take()
}

export const bodyOf = (chunks: ReadonlyArray<string>): Uint8Array =>
  Buffer.from(chunks.map((chunk) => `data: ${chunk}\n\n`).join(""))

/** The same chunks with a different number of spaces before each, which no template matches. */
export const spaced = (chunks: ReadonlyArray<string>): ReadonlyArray<string> =>
  chunks.map((chunk, index) => chunk === "[DONE]" ? chunk : `${" ".repeat(index)}${chunk}`)

export const isRepeated = (event: Event): boolean => event.type === "native" && event.native instanceof RepeatedChunk

/** The events with native chunks as parsed JSON. */
export const parsedOf = (events: ReadonlyArray<Event>): ReadonlyArray<Event> =>
  events.map((event) => {
    if (event.type !== "native") return event
    const { body, dialect, form, hasMore } = event.native
    return { ...event, native: { body, dialect, form, hasMore } }
  })
