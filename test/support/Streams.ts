/** Streams of providers, read with and without templates of their events. */
import { RepeatedChunks } from "../../src/dialects/shared/EventTemplate.ts"
import { parse } from "../../src/dialects/shared/Json.ts"
import type { Dialect } from "../../src/dialects/shared/ProviderDialect.ts"
import type { Provider } from "../../src/domain/Deployment.ts"
import type { Generation } from "../../src/domain/Generation.ts"
import type { Event } from "../../src/domain/Inference.ts"
import type { Native } from "../../src/domain/Source.ts"
import { makeEventReader } from "../../src/layers/providers/EventReader.ts"
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

export const isRepeated = (event: Event): boolean => event.type === "native" && event.native instanceof RepeatedChunks

/** Events of a run of chunks, one a chunk. */
export const lengthOf = (event: Event): number =>
  event.type === "native" && event.native instanceof RepeatedChunks
    ? event.native.run.places.length / (2 * event.native.run.count + 1)
    : 0

const parsedNative = (native: Native): Native => {
  const { body, dialect, form, hasMore } = native
  return { dialect, form, body, hasMore }
}

/** The events of each chunk of a run. */
const chunksOf = ({ run: { count, places, source }, template }: RepeatedChunks): ReadonlyArray<Event> => {
  const events: Array<Event> = []
  for (let place = 0; place < places.length; place++) {
    let json = template.parts[0]!
    let text: string | undefined
    for (let index = 0; index < count; index++, place += 2) {
      const literal = source.slice(places[place], places[place + 1])
      text ??= JSON.parse(`"${literal}"`) as string
      json += literal + template.parts[index + 1]!
    }
    const body = parse(json) as Native["body"]
    events.push(
      { type: "native", native: { ...parsedNative(template.native), body }, content: true, tokens: 0 },
      { type: "text", text: text!, tokens: 0 }
    )
  }
  return events
}

/** The events without their tokens, with native chunks as parsed JSON. */
const parsedOne = (event: Event): ReadonlyArray<Event> => {
  if (event.type !== "native") return ["tokens" in event ? { ...event, tokens: 0 } : event]
  return event.native instanceof RepeatedChunks
    ? chunksOf(event.native)
    : [{ ...event, native: parsedNative(event.native) }]
}

/** The events without their tokens, with native chunks as parsed JSON, and texts in a row as one. */
export const parsedOf = (events: ReadonlyArray<Event>): ReadonlyArray<Event> => {
  // A run's chunks have its text.
  const chunks = events.filter((event, index) => event.type !== "text" || !isRepeated(events[index - 1] ?? event))
  return joined(chunks.flatMap(parsedOne))
}

export const tokensOf = (events: ReadonlyArray<Event>): number =>
  events.reduce((sum, event) => sum + ("tokens" in event ? event.tokens : 0), 0)

/** The events with texts in a row as one. */
export const joined = (events: ReadonlyArray<Event>): ReadonlyArray<Event> => {
  const all: Array<Event> = []
  for (const event of events) {
    const last = all.at(-1)
    if (event.type !== "text" || last?.type !== "text" || event.logprobs !== undefined) all.push(event)
    else all[all.length - 1] = { ...last, text: last.text + event.text, tokens: last.tokens + event.tokens }
  }
  return all
}
