/**
 * What stores responses and conversations: the operations that a database and Redis have.
 *
 * **Details**
 *
 * Times are ms since 1970. An owner sees its own objects only. An object that has ended is not found, whether it has been
 * deleted or not.
 */
import type { Effect } from "effect"
import type { RedisError } from "effect/persistence/Redis"
import type { SqlError } from "effect/sql/SqlError"
import type { StoredConversation, StoredItem } from "./ConversationStore.ts"
import type { Frames } from "./FrameLog.ts"
import type { Chain, Json, NewResponse, StoredResponse } from "./ResponseStore.ts"

/** Why nothing can be read or written. */
export type StoreError = RedisError | SqlError

type Stored<A> = Effect.Effect<A, StoreError>

/** Stored responses. */
export interface ResponseTable {
  /** @returns the bytes of the response */
  readonly insert: (response: NewResponse) => Stored<number>
  readonly find: (owner: string, id: string, now: number) => Stored<StoredResponse | undefined>
  /** @param most bytes of the chain */
  readonly chain: (owner: string, id: string, now: number, most: number) => Stored<Chain>
  /** Keeps responses at least until a time: those that end before `whenBefore`. */
  readonly keep: (ids: ReadonlyArray<string>, expiresAt: number, whenBefore: number) => Stored<void>
  /** Replaces the body of a response that is still being generated. False if it no longer is. */
  readonly finish: (id: string, status: string, body: Json) => Stored<boolean>
  /** Records that the process which generates a response runs. False if the response is no longer to be generated. */
  readonly see: (id: string, now: number) => Stored<boolean>
  /** False if there was none. */
  readonly remove: (owner: string, id: string, now: number) => Stored<boolean>
}

/** Stored conversations and their items. */
export interface ConversationTable {
  readonly create: (id: string, owner: string, metadata: Json, at: number, expiresAt: number) => Stored<void>
  readonly find: (owner: string, id: string, now: number) => Stored<StoredConversation | undefined>
  /** For a conversation of the owner. */
  readonly describe: (id: string, metadata: Json) => Stored<void>
  /** Of a conversation of the owner, in their order. */
  readonly items: (id: string) => Stored<ReadonlyArray<StoredItem>>
  /** Adds items at the end of a conversation of the owner, and keeps it until a time. */
  readonly add: (id: string, items: ReadonlyArray<StoredItem>, expiresAt: number) => Stored<void>
  /** False if the conversation of the owner has no such item. */
  readonly removeItem: (id: string, item: string) => Stored<boolean>
  /** Removes conversations with their items. */
  readonly remove: (ids: ReadonlyArray<string>) => Stored<void>
}

/** The events of responses that are streamed in the background. */
export interface FrameTable {
  /** Adds events of a response, whose bytes grow by theirs. */
  readonly add: (response: string, frames: Frames) => Stored<void>
  /** The rows of a response with an event after the one with this number. */
  readonly after: (response: string, number: number) => Stored<ReadonlyArray<Frames>>
  readonly remove: (responses: ReadonlyArray<string>) => Stored<void>
}

/** An object that ends, and its bytes. */
export interface Ending {
  readonly id: string
  readonly bytes: number
}

/** All objects of a kind, of every owner. */
export interface Kept {
  readonly bytes: Stored<number>
  /** Some that end until a time, those that end first. */
  readonly ending: (until: number) => Stored<ReadonlyArray<Ending>>
  readonly remove: (ids: ReadonlyArray<string>) => Stored<void>
}

/** What stores responses and conversations. */
export interface Tables {
  readonly responses: ResponseTable
  readonly conversations: ConversationTable
  readonly frames: FrameTable
  /** Responses, then conversations: above the bound responses are deleted first. */
  readonly kept: ReadonlyArray<Kept>
}
