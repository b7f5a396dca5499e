/** Bodies and lists of conversations, and pages of items, in the Responses dialect. Pure. */
import { Result } from "effect"
import { InvalidRequest } from "../../domain/InferenceError.ts"
import * as Problem from "../../domain/Problem.ts"
import type { CallerIdentity } from "../shared/CallerRequest.ts"
import type { Fields } from "../shared/Json.ts"
import { decodeKnown, ownerOf } from "./DecodeRequest.ts"
import * as FieldNames from "./FieldNames.ts"
import type { Item } from "./Items.ts"
import * as Items from "./Items.ts"
import * as Schema from "./Schema.ts"

/** A decoded body about a conversation. */
export interface ConversationCall {
  readonly owner: string
  /** Undefined: as before. */
  readonly metadata: Readonly<Record<string, string>> | undefined
  /** Checked items, as the caller sent them. */
  readonly items: ReadonlyArray<Fields>
}

type Body = typeof Schema.NewConversation.Type

const bodies = {
  create: [Schema.NewConversation, FieldNames.newConversation],
  update: [Schema.ConversationUpdate, FieldNames.conversationUpdate],
  addItems: [Schema.NewItems, FieldNames.newItems]
} as const

const shapes = Object.fromEntries(
  Object.entries(bodies).map(([name, [schema, table]]) => [name, {
    table,
    shape: {
      suggest: () => undefined,
      decode: Problem.decoderOf(schema),
      most: [["items", Schema.mostItems]] as const,
      problems: ({ items = [] }: Body) => Items.withoutDocumented(Items.problemsOf(items, "items"))
    }
  }])
)

/** Makes the decoder of a body: of a new conversation, of changes of one, or of new items. */
export const decoderOf = (name: keyof typeof bodies) => {
  const { shape, table } = shapes[name]!
  return (json: unknown, caller: CallerIdentity = {}): Result.Result<ConversationCall, InvalidRequest> =>
    Result.map(decodeKnown<Body>(json, table, shape), ({ items = [], metadata }) => ({
      owner: ownerOf(caller),
      metadata,
      items
    }))
}

/** @param createdAt ms since 1970 */
export const conversationOf = (id: string, createdAt: number, metadata: Fields): Fields => ({
  id,
  object: "conversation",
  created_at: Math.floor(createdAt / 1000),
  metadata
})

/** Which items of a list are returned. */
export interface Page {
  readonly limit: number
  readonly order: "asc" | "desc"
  /** Items after the one with this id. */
  readonly after: string | undefined
}

/** The most items of a page, and the number without `limit`. */
const pageSizes = { most: 100, default: 20 }

const wrong = (path: string, detail: string) => Result.fail(new InvalidRequest({ path, detail, inBody: true }))

/** The page that a query selects. */
export const pageOf = (query: URLSearchParams): Result.Result<Page, InvalidRequest> => {
  const limit = query.get("limit") ?? String(pageSizes.default)
  const order = query.get("order") ?? "desc"
  if (!/^\d{1,3}$/.test(limit) || Number(limit) < 1 || Number(limit) > pageSizes.most) {
    return wrong("limit", Problem.expectedWholeNumber(1, pageSizes.most))
  }
  if (order !== "asc" && order !== "desc") return wrong("order", "Expected one of \"asc\", \"desc\"")
  return Result.succeed({ limit: Number(limit), order, after: query.get("after") ?? undefined })
}

/** A page of items, which are given oldest first. */
export const listOf = (items: ReadonlyArray<Item>, { after, limit, order }: Page): Schema.ItemList => {
  const all = order === "asc" ? items : items.toReversed()
  const first = after === undefined ? 0 : all.findIndex(({ id }) => id === after) + 1
  const data = all.slice(first, first + limit)
  return {
    object: "list",
    data,
    first_id: data[0]?.id ?? null,
    last_id: data.at(-1)?.id ?? null,
    has_more: first + limit < all.length
  }
}
