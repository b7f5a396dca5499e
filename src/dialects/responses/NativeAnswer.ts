/**
 * Answers of a provider's Responses API as the caller gets them: its items and events with the ids of the caller's response.
 * Pure.
 *
 * **Details**
 *
 * A whole answer that is streamed after all, from a cache or after a hook has seen it, has the events of each of its items.
 */
import { numberOf } from "../../domain/ExactNumber.ts"
import type { Native } from "../../domain/Source.ts"
import type { Fields } from "../shared/Json.ts"
import { countAt, fieldsOf, isObject, listAt, textAt } from "../shared/Json.ts"
import type { Item } from "./Items.ts"
import { prefixOf } from "./Items.ts"
import type { Settings } from "./Schema.ts"

const prefix = /^([a-z]+)_/

/** The prefix of an item's id, which names its kind. */
export const prefixIn = (item: Fields): string =>
  prefix.exec(textAt(item, "id") ?? "")?.[1] ?? prefixOf(textAt(item, "type") ?? "")

/** An item with another id. */
export const withId = (item: Fields, id: string): Item => ({ ...item, id, type: textAt(item, "type") ?? "message" })

/** The whole response of a provider in an answer; undefined if another API has answered. */
export const responseIn = (natives: ReadonlyArray<Native> | undefined): Fields | undefined => {
  const native = natives?.at(-1)
  return native?.dialect === "responses" && native.form === "buffered" ? native.body : undefined
}

/** The items of a provider's response. */
export const itemsOf = (response: Fields): ReadonlyArray<Fields> => listAt(response, "output").filter(isObject)

const texts = ["service_tier"] as const
const numbers = ["temperature", "top_p"] as const

/** The settings that had an effect, where the provider says so. */
export const settingsOf = (response: Fields): Partial<Settings> => {
  const reasoning = fieldsOf(response["reasoning"])
  const settings = [
    ...texts.map((name) => [name, textAt(response, name)]),
    ...numbers.map((name) => [name, numberOf(response[name])]),
    ["reasoning", reasoning && { effort: reasoning["effort"] ?? null, summary: reasoning["summary"] ?? null }]
  ]
  return Object.fromEntries(settings.filter(([, value]) => value !== undefined)) as Partial<Settings>
}

/** An event of a provider, or of a part of a whole answer. */
type ItemEvent = Fields & { readonly type: string }

/** The events of one part: its begin, its text and its end. */
const eventsOfPart = (part: Fields, place: Fields, names: readonly [part: string, text: string, field: string]) => {
  const [partName, textName, field] = names
  const text = textAt(part, field) ?? ""
  const logprobs = "logprobs" in part ? { logprobs: part["logprobs"] } : {}
  return [
    {
      type: `${partName}.added`,
      ...place,
      part: { ...part, [field]: "", ...("annotations" in part ? { annotations: [] } : {}) }
    },
    ...(text === "" ? [] : [{ type: `${textName}.delta`, ...place, delta: text, ...logprobs }]),
    { type: `${textName}.done`, ...place, [field]: text, ...logprobs },
    { type: `${partName}.done`, ...place, part }
  ]
}

const contentEvents = (item: Fields, place: Fields): ReadonlyArray<ItemEvent> =>
  listAt(item, "content").filter(isObject).flatMap((part, content_index) => {
    const type = textAt(part, "type") ?? ""
    const field = type === "refusal" ? "refusal" : "text"
    return eventsOfPart(part, { ...place, content_index }, ["response.content_part", `response.${type}`, field])
  })

const summaryEvents = (item: Fields, place: Fields): ReadonlyArray<ItemEvent> =>
  listAt(item, "summary").filter(isObject).flatMap((part, summary_index) =>
    eventsOfPart(part, { ...place, summary_index }, [
      "response.reasoning_summary_part",
      "response.reasoning_summary_text",
      "text"
    ])
  )

/** The events between the begin and the end of a complete item. */
const innerEvents = (item: Fields, place: Fields): ReadonlyArray<ItemEvent> => {
  switch (item["type"]) {
    case "message":
      return contentEvents(item, place)
    case "reasoning":
      return [...summaryEvents(item, place), ...contentEvents(item, place)]
    case "function_call": {
      const { arguments: text, name } = item
      const event = "response.function_call_arguments"
      return [{ type: `${event}.delta`, ...place, delta: text }, {
        type: `${event}.done`,
        ...place,
        name,
        arguments: text
      }]
    }
    case "custom_tool_call": {
      const { input } = item
      const event = "response.custom_tool_call_input"
      return [{ type: `${event}.delta`, ...place, delta: input }, { type: `${event}.done`, ...place, input }]
    }
    default:
      return []
  }
}

/** An item before its content. */
const begun = (item: Fields): Fields => {
  const empty: Fields = { status: "in_progress", content: [], summary: [], arguments: "", input: "" }
  return Object.fromEntries(
    Object.entries(item).map(([name, value]) => [name, Object.hasOwn(empty, name) ? empty[name] : value])
  )
}

/** The events of the items of a whole answer. */
export const eventsOf = (response: Fields): ReadonlyArray<ItemEvent> =>
  itemsOf(response).flatMap((item, output_index) => {
    const place = { item_id: item["id"], output_index }
    return [
      { type: "response.output_item.added", output_index, item: begun(item) },
      ...innerEvents(item, place),
      { type: "response.output_item.done", output_index, item }
    ]
  })

/** The place of an item that is passed on. */
interface Place {
  readonly index: number
  readonly id: string
}

/** Gives the items of a provider's events their places in the caller's response. */
export class NativeItems {
  readonly #next: (prefix: string) => Place
  readonly #places = new Map<number, Place>()

  /** @param next the next place in the caller's response */
  constructor(next: (prefix: string) => Place) {
    this.#next = next
  }

  #placeOf(event: Fields): Place | undefined {
    const given = countAt(event, "output_index")
    if (given === undefined) return undefined
    const known = this.#places.get(given)
    if (known !== undefined) return known
    const place = this.#next(prefixIn(fieldsOf(event["item"]) ?? { id: event["item_id"] }))
    this.#places.set(given, place)
    return place
  }

  /** The fields of an event for the caller, without its name and its number, and the place it is about. */
  own(event: Fields): { readonly fields: Fields; readonly place: Place | undefined } {
    const { sequence_number: _, type: __, ...rest } = event
    const place = this.#placeOf(event)
    if (place === undefined) return { fields: rest, place }
    const item = fieldsOf(event["item"])
    return {
      fields: {
        ...rest,
        output_index: place.index,
        ...("item_id" in rest ? { item_id: place.id } : {}),
        ...(item === undefined ? {} : { item: withId(item, place.id) })
      },
      place
    }
  }
}
