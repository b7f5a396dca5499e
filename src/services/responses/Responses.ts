/**
 * Responses and conversations that outlive their request, each for its owner.
 *
 * **Details**
 *
 * A response has the items of its own request only; the conversation before is the chain of responses that it continues. A
 * chain is kept as long as the latest response of it, and is not longer than a body may be.
 */
import { Clock, Context, Duration, Effect, Layer, Schedule } from "effect"
import type { Scope } from "effect"
import { SqlClient } from "effect/sql/SqlClient"
import * as EncodeAnswer from "../../dialects/responses/EncodeAnswer.ts"
import type { Item } from "../../dialects/responses/Items.ts"
import type { Response } from "../../dialects/responses/Schema.ts"
import type { Fields } from "../../dialects/shared/Json.ts"
import * as Migrations from "../persistence/Migrations.ts"
import { summaryOf } from "../persistence/StorageError.ts"
import { Settings } from "../settings/Settings.ts"
import { BackgroundResponses } from "./BackgroundResponses.ts"
import type { Continued, Dialogue, StateError } from "./Dialogues.ts"
import { Dialogues, fail } from "./Dialogues.ts"
import { bodyOf, migrations } from "./ResponseStore.ts"
import { Retention } from "./Retention.ts"
import * as SqlTables from "./SqlTables.ts"
import type { ConversationTable, FrameTable, ResponseTable, StoreError, Tables } from "./Tables.ts"

/** The limits of what is stored. */
export interface Limits {
  /** How long responses and conversations are kept after their last use, ms. */
  readonly keptMs: number
  /** Bytes of all responses and conversations. */
  readonly mostBytes: number
  /** Bytes of the conversation before a request. */
  readonly mostContextBytes: number
}

/** Chains whose responses end later than this share of the time are not kept longer: not each request writes all of them. */
const kept = 0.97

const trimEvery = Schedule.spaced(Duration.minutes(5))

/** Stored responses and conversations. */
export class Responses {
  readonly conversations: ConversationTable
  readonly dialogues: Dialogues
  readonly background: BackgroundResponses
  readonly #responses: ResponseTable
  readonly #frames: FrameTable
  readonly #retention: Retention
  readonly #limits: Limits

  /** @param scope of what is generated in the background */
  constructor({ conversations, frames, kept, responses }: Tables, limits: Limits, scope: Scope.Scope) {
    this.conversations = conversations
    this.#responses = responses
    this.#frames = frames
    this.#retention = new Retention(kept, limits.mostBytes)
    this.#limits = limits
    this.dialogues = new Dialogues(this.#responses, this.conversations, limits.mostContextBytes)
    this.background = new BackgroundResponses(
      this.#responses,
      this.#frames,
      scope,
      (conversation, dialogue, response) => this.#addToConversation(conversation, dialogue, response)
    )
  }

  /** Deletes what has ended, every five minutes. */
  get trimming(): Effect.Effect<void> {
    const warn = (error: StoreError) => Effect.logWarning(`Stored responses cannot be deleted: ${summaryOf(error)}.`)
    return Effect.asVoid(Effect.repeat(this.#retention.trim.pipe(Effect.catch(warn)), trimEvery))
  }

  /** Stores a response with its items, and adds these to its conversation. */
  readonly save = Effect.fnUntraced(
    function*(this: Responses, { conversation, owner, previous }: Continued, dialogue: Dialogue, response: Response) {
      const now = yield* Clock.currentTimeMillis
      const { keptMs } = this.#limits
      const expiresAt = now + keptMs
      if (response.store) {
        const { id, status } = response
        const bytes = yield* this.#responses.insert({
          id,
          owner,
          at: now,
          expiresAt,
          status,
          previous,
          conversation,
          input: dialogue.input,
          body: response
        })
        yield* this.#responses.keep(dialogue.chain, expiresAt, now + keptMs * kept)
        yield* this.#retention.written(bytes)
      }
      yield* this.#addToConversation(conversation, dialogue, response)
    }
  )

  #addToConversation(
    conversation: string | undefined,
    { input }: Dialogue,
    response: Response
  ): Effect.Effect<void, StoreError> {
    return conversation === undefined || response.status === "queued" || response.status === "failed"
      ? Effect.void
      : this.addItems(conversation, [...input, ...response.output as ReadonlyArray<Item>])
  }

  /** Adds items to a conversation of the owner. */
  readonly addItems = Effect.fnUntraced(function*(this: Responses, id: string, items: ReadonlyArray<Item>) {
    const now = yield* Clock.currentTimeMillis
    yield* this.conversations.add(id, items, now + this.#limits.keptMs)
    yield* this.#retention.written(Buffer.byteLength(JSON.stringify(items)))
  })

  /** Creates a conversation. */
  readonly newConversation = Effect.fnUntraced(
    function*(this: Responses, id: string, owner: string, metadata: Fields, items: ReadonlyArray<Item>) {
      const now = yield* Clock.currentTimeMillis
      yield* this.conversations.create(id, owner, metadata, now, now + this.#limits.keptMs)
      yield* this.addItems(id, items)
      return now
    }
  )

  /** The body of a response. */
  response(owner: string, id: string): Effect.Effect<Fields, StoreError | StateError> {
    return Effect.map(this.background.find(owner, id), bodyOf)
  }

  /** The items of a response's request, those of the conversation before first. */
  readonly inputOf = Effect.fnUntraced(function*(this: Responses, owner: string, id: string) {
    const response = yield* this.background.find(owner, id)
    const own = response.input as ReadonlyArray<Item>
    if (response.previous === undefined) return own
    const { items } = yield* this.dialogues.before({ owner, previous: response.previous, conversation: undefined })
    return [...items, ...own]
  })

  /** Deletes a response. */
  readonly remove = Effect.fnUntraced(function*(this: Responses, owner: string, id: string) {
    const now = yield* Clock.currentTimeMillis
    const isRemoved = EncodeAnswer.isId("resp", id) && (yield* this.#responses.remove(owner, id, now))
    if (!isRemoved) return yield* fail("response-missing", id)
    yield* this.#frames.remove([id])
  })
}

/** Stored responses and conversations; undefined where the service stores none. */
export const ResponseState = Context.Reference<Responses | undefined>("troupe/services/responses/Responses", {
  defaultValue: () => undefined
})

/** The responses of these tables, which are trimmed within the scope. */
const over = Effect.fnUntraced(function*(tables: Tables) {
  const { responses, server } = yield* Settings
  const made = new Responses(
    tables,
    {
      keptMs: Duration.toMillis(responses.ttl),
      mostBytes: responses.maxBytes,
      mostContextBytes: server.maxBodyBytes
    },
    yield* Effect.scope
  )
  yield* Effect.forkScoped(made.trimming)
  return made
})

/** In the database. Requires `SqlClient` and `Settings`. */
export const layer = Layer.effect(
  ResponseState,
  Effect.andThen(
    Migrations.apply(migrations),
    Effect.flatMap(SqlClient, (sql) => over(SqlTables.make(sql)))
  )
)

/**
 * In Redis. Requires `Redis` and `Settings`.
 *
 * @param prefix of the names of all keys
 */
export const layerRedis = (prefix: string) =>
  Layer.effect(
    ResponseState,
    Effect.gen(function*() {
      const { responses } = yield* Settings
      const RedisTables = yield* Effect.promise(() => import("./RedisTables.ts"))
      return yield* over(yield* RedisTables.make(prefix, Duration.toMillis(responses.ttl)))
    })
  )
