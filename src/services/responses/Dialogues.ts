/** The conversation of a request: the stored responses or the conversation that it continues, and its own items. */
import { Clock, Effect, Schema } from "effect"
import * as EncodeAnswer from "../../dialects/responses/EncodeAnswer.ts"
import type { Item } from "../../dialects/responses/Items.ts"
import type { Fields } from "../../dialects/shared/Json.ts"
import { isRunning, itemsOf } from "./ResponseStore.ts"
import type { ConversationTable, ResponseTable } from "./Tables.ts"

/** Why stored objects cannot be used. */
export class StateError extends Schema.TaggedError<StateError>()("StateError", {
  problem: Schema.Literals([
    "conversation-missing",
    "item-missing",
    "not-in-background",
    "not-streamed",
    "previous-missing",
    "previous-unfinished",
    "response-missing",
    "too-large"
  ]),
  /** Of the object. */
  id: Schema.String
}) {}

/** What a request continues. */
export interface Continued {
  readonly owner: string
  readonly previous: string | undefined
  readonly conversation: string | undefined
}

/** The conversation of a request. */
export interface Dialogue {
  /** Before the request. */
  readonly before: ReadonlyArray<Item>
  /** Of the request, in their stored form. */
  readonly input: ReadonlyArray<Item>
  /** The ids of the responses that it continues. */
  readonly chain: ReadonlyArray<string>
}

/** Fails with a `StateError`. */
export const fail = (problem: StateError["problem"], id: string) => Effect.fail(new StateError({ problem, id }))

/** The conversations of requests. */
export class Dialogues {
  readonly #responses: ResponseTable
  readonly #conversations: ConversationTable
  readonly #mostBytes: number

  /** @param mostBytes of the conversation before a request */
  constructor(responses: ResponseTable, conversations: ConversationTable, mostBytes: number) {
    this.#responses = responses
    this.#conversations = conversations
    this.#mostBytes = mostBytes
  }

  /**
   * The conversation of a request.
   *
   * @param given checked items of the request
   * @param id of the response, from which the items get theirs
   */
  readonly of = Effect.fnUntraced(
    function*(this: Dialogues, continued: Continued, given: ReadonlyArray<Fields>, id: string) {
      const { chain, items } = yield* this.before(continued)
      const input = yield* this.#stored(continued.owner, items, given, id)
      return { before: items, input, chain } satisfies Dialogue
    }
  )

  /** The items that a request continues, and the responses they are of. */
  readonly before = Effect.fnUntraced(
    function*(this: Dialogues, { conversation, owner, previous }: Continued) {
      if (previous !== undefined) {
        const responses = yield* this.#chain(owner, previous)
        if (isRunning(responses.at(-1)!)) return yield* fail("previous-unfinished", previous)
        return {
          chain: responses.map((response) => response.id),
          items: responses.flatMap(itemsOf)
        }
      }
      const items = conversation === undefined ? [] : yield* this.itemsOf(owner, conversation)
      return { chain: [], items }
    }
  )

  readonly #chain = Effect.fnUntraced(function*(this: Dialogues, owner: string, id: string) {
    if (!EncodeAnswer.isId("resp", id)) return yield* fail("previous-missing", id)
    const now = yield* Clock.currentTimeMillis
    const chain = yield* this.#responses.chain(owner, id, now, this.#mostBytes)
    if (chain.type === "missing") return yield* fail("previous-missing", chain.id)
    return chain.type === "too-large" ? yield* fail("too-large", id) : chain.responses
  })

  /** The items of a conversation, in their order. */
  readonly itemsOf = Effect.fnUntraced(function*(this: Dialogues, owner: string, id: string) {
    const { bytes } = yield* this.conversation(owner, id)
    if (bytes > this.#mostBytes) return yield* fail("too-large", id)
    return (yield* this.#conversations.items(id)) as ReadonlyArray<Item>
  })

  /** The conversation with this id. */
  readonly conversation = Effect.fnUntraced(function*(this: Dialogues, owner: string, id: string) {
    const now = yield* Clock.currentTimeMillis
    const found = EncodeAnswer.isId("conv", id) ? yield* this.#conversations.find(owner, id, now) : undefined
    return found ?? (yield* fail("conversation-missing", id))
  })

  /** Items with ids, references replaced by what they refer to. */
  readonly #stored = Effect.fnUntraced(
    function*(
      this: Dialogues,
      owner: string,
      before: ReadonlyArray<Item>,
      given: ReadonlyArray<Fields>,
      id: string
    ) {
      const items: Array<Item> = []
      for (const [index, item] of given.entries()) {
        items.push(
          item["type"] === "item_reference"
            ? yield* this.#referenced(owner, before, item["id"] as string)
            : EncodeAnswer.storedInput(item, id, index)
        )
      }
      return items
    }
  )

  /** An item of the conversation, or of the response that its id names. */
  readonly #referenced = Effect.fnUntraced(
    function*(this: Dialogues, owner: string, before: ReadonlyArray<Item>, id: string) {
      const inConversation = before.find((item) => item.id === id)
      if (inConversation !== undefined) return inConversation
      const of = EncodeAnswer.ownerOfItem(id)
      const now = yield* Clock.currentTimeMillis
      const response = of === undefined ? undefined : yield* this.#responses.find(owner, `resp_${of}`, now)
      const items = response === undefined ? [] : itemsOf(response)
      return items.find((item) => item.id === id) ?? (yield* fail("item-missing", id))
    }
  )
}
