/**
 * The events of a response that is streamed in the background: written by the process that generates it, read by any, also
 * after the response has ended.
 *
 * **Details**
 *
 * Events that arrive within `everyMs` are one row, which has the sequence number of its last event. A reader asks for new rows
 * as often, until the response has ended and there are no more.
 */
import { Effect } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import type { FrameTable } from "./Tables.ts"

/** How often events are written and read, ms. */
export const everyMs = 100

/** Events of one response in a row, as text, and the sequence number of the last one. */
export interface Frames {
  readonly last: number
  readonly text: string
}

interface Row {
  readonly last: number | string
  readonly frames: string
}

/** The events of all responses, in a database. */
export class FrameLog implements FrameTable {
  readonly #sql: SqlClient

  constructor(sql: SqlClient) {
    this.#sql = sql
  }

  /** Adds events of a response, whose bytes grow by theirs. */
  add(response: string, { last, text }: Frames): Effect.Effect<void, SqlError> {
    const sql = this.#sql
    return Effect.andThen(
      sql`INSERT INTO troupe_responses_events ${sql.insert({ response, last, frames: text })}`,
      Effect.asVoid(
        sql`UPDATE troupe_responses SET bytes = bytes + ${Buffer.byteLength(text)} WHERE id = ${response}`
      )
    )
  }

  /** The rows of a response with an event after the one with this number. */
  after(response: string, number: number): Effect.Effect<ReadonlyArray<Frames>, SqlError> {
    return Effect.map(
      this.#sql<Row>`SELECT last, frames FROM troupe_responses_events
        WHERE response = ${response} AND last > ${number} ORDER BY last`,
      (rows) => rows.map(({ frames, last }) => ({ last: Number(last), text: frames }))
    )
  }

  remove(responses: ReadonlyArray<string>): Effect.Effect<void, SqlError> {
    const sql = this.#sql
    return responses.length === 0
      ? Effect.void
      : Effect.asVoid(sql`DELETE FROM troupe_responses_events WHERE ${sql.in("response", responses)}`)
  }
}

/** The events of one response that are not written yet. */
export class UnwrittenFrames {
  #text = ""
  #last = -1

  /** @param last the sequence number of the last event */
  add(text: string, last: number): void {
    this.#text += text
    this.#last = last
  }

  /** Takes all events; undefined if there are none. */
  take(): Frames | undefined {
    const text = this.#text
    this.#text = ""
    return text === "" ? undefined : { text, last: this.#last }
  }
}

/** The events of a row after the one with this number. A row ends with its last event. */
export const eventsAfter = ({ last, text }: Frames, number: number): string => {
  const events = text.split("\n\n").slice(0, -1)
  return events.slice(Math.max(0, events.length - (last - number))).map((event) => `${event}\n\n`).join("")
}
