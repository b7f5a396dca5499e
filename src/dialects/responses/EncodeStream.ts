/**
 * Encodes streamed answers of the Responses dialect as frames of server-sent events. Pure.
 *
 * **Details**
 *
 * Each item of the output has an event for its start and one for its end, and so has each part of an item. A text or reasoning
 * is open until an item of another kind begins; calls are open until the answer ends, because a provider may send their pieces
 * in any order. The answer is also assembled, for the last event and to be stored.
 */
import type { Event } from "../../domain/Inference.ts"
import type { ContentRefused } from "../../domain/InferenceError.ts"
import type { ChosenLogprob, FinishReason, TokenUsage } from "../../domain/Job.ts"
import type { SignedReasoning } from "../../domain/Message.ts"
import type { Native } from "../../domain/Source.ts"
import { logprobsOf } from "../openai/EncodeAnswer.ts"
import type { ErrorBody } from "../openai/Schema.ts"
import type { OwnEvent } from "../shared/FrameBatch.ts"
import { write } from "../shared/FrameBatch.ts"
import type { Fields } from "../shared/Json.ts"
import * as CustomTools from "./CustomTools.ts"
import { InputReader } from "./CustomTools.ts"
import type { Envelope, ItemStatus, Outcome } from "./EncodeAnswer.ts"
import {
  callItem,
  customCallItem,
  effortOf,
  endOf,
  endOfNative,
  failureOf,
  itemStatusOf,
  messageItem,
  noUsage,
  outputId,
  reasoningItem,
  refusalOf,
  refusalPart,
  responseOf,
  textPart,
  wantsSummary
} from "./EncodeAnswer.ts"
import type { Item } from "./Items.ts"
import * as NativeAnswer from "./NativeAnswer.ts"
import type { Response } from "./Schema.ts"

type CallEvent = Extract<Event, { readonly type: "tool_call" }>
type FinishEvent = Extract<Event, { readonly type: "finish" }>

/** An item that is not complete. */
interface Open {
  readonly index: number
  readonly id: string
  text: string
}

interface OpenText extends Open {
  readonly kind: "text"
  readonly logprobs: Array<ChosenLogprob>
}

interface OpenThoughts extends Open {
  readonly kind: "thoughts"
  readonly signed: Array<SignedReasoning>
}

interface OpenCall extends Open {
  readonly callId: string
  readonly name: string
  /** Of a custom tool, whose input `text` is. */
  readonly input: InputReader | undefined
}

/** The beginning of the names of the events of a call. */
const typeOfCall = ({ input }: OpenCall): string =>
  input === undefined ? "response.function_call_arguments" : "response.custom_tool_call_input"

/** @param text the arguments */
const itemOfCall = ({ callId, id, input, name }: OpenCall, status: ItemStatus, text: string): Item =>
  input === undefined
    ? callItem(id, status, { id: callId, name, arguments: text })
    : customCallItem(id, status, { id: callId, name }, CustomTools.inputIn(text))

/** Encodes one answer. */
export class ResponseFrames {
  readonly #envelope: Envelope
  readonly #asSummary: boolean
  /** Names of custom tools. */
  readonly #custom: ReadonlySet<unknown>
  /** Seconds since 1970. */
  readonly #now: () => number
  readonly #output: Array<Item> = []
  /** By the index of the call in the answer. */
  readonly #calls = new Map<number, OpenCall>()
  #open: OpenText | OpenThoughts | undefined
  #sequence = 0
  #items = 0
  #begun = false
  /** The items of a provider's own events, while these come. */
  #native: NativeAnswer.NativeItems | undefined
  /** The text of a provider's own events that is not complete. */
  #nativeText: OpenText | undefined
  #model: string | undefined
  #deployment = ""
  #outcome: Omit<Outcome, "output"> = { status: "in_progress" }

  constructor(envelope: Envelope, now: () => number) {
    this.#envelope = envelope
    this.#asSummary = wantsSummary(envelope)
    this.#custom = CustomTools.namesOf(envelope.settings.tools)
    this.#now = now
  }

  /** The response as it is now. */
  get response(): Response {
    return responseOf(this.#envelope, {
      ...this.#outcome,
      model: this.#model,
      output: this.#output.filter((item) => item !== undefined)
    })
  }

  /** The response from here on is of this deployment. */
  answeredBy(deployment: string): void {
    this.#deployment = deployment
    this.#model = this.#envelope.servedModel?.(deployment) ?? this.#model
  }

  /** Whether the stream has a frame. */
  get isBegun(): boolean {
    return this.#begun
  }

  /** Frames for events; consecutive texts become one frame. */
  events(events: ReadonlyArray<Event>): string {
    // The events after a handoff are no longer those of the provider before.
    const end = this.#native === undefined ? 0 : events.findIndex(({ type }) => type === "handoff") + 1
    return end === 0
      ? write(this.#writer, events)
      : write(this.#writer, events.slice(0, end)) + write(this.#writer, events.slice(end))
  }

  /** The sequence number of the last event. */
  get last(): number {
    return this.#sequence - 1
  }

  /** The first frames of a response in the background, before the model is called. */
  queue(): string {
    this.#begun = true
    this.#outcome = { status: "queued" }
    const queued = this.response
    this.#outcome = { status: "in_progress" }
    return this.#frame("response.created", { response: queued }) +
      this.#frame("response.queued", { response: queued }) +
      this.#frame("response.in_progress", { response: this.response })
  }

  /** The frames of a response without output, which a conversation can be continued from. */
  empty(): string {
    const begun = this.#begin()
    this.#outcome = { status: "completed", completedAt: this.#now(), usage: noUsage }
    return begun + this.end()
  }

  /** The last frame, with the whole response. */
  end(response = this.response): string {
    return this.#frame(`response.${response.status === "completed" ? "completed" : "incomplete"}`, { response })
  }

  /** The frames of a refusal that a provider sent as an answer; undefined if it is an error. */
  refuse(reason: ContentRefused): string | undefined {
    const refusal = refusalOf(reason)
    if (refusal === undefined) return undefined
    const begun = this.#begin() + this.#close()
    const { id, index } = this.#next("msg")
    const part = { item_id: id, output_index: index, content_index: 0 }
    const item = messageItem(id, "completed", [refusalPart(refusal)])
    this.#output[index] = item
    this.#outcome = { status: "completed", completedAt: this.#now() }
    return begun + this.#frame("response.output_item.added", {
      output_index: index,
      item: messageItem(id, "in_progress", [])
    }) + this.#frame("response.content_part.added", { ...part, part: refusalPart("") }) +
      this.#frame("response.refusal.delta", { ...part, delta: refusal }) +
      this.#frame("response.refusal.done", { ...part, refusal }) +
      this.#frame("response.content_part.done", { ...part, part: refusalPart(refusal) }) +
      this.#frame("response.output_item.done", { output_index: index, item }) + this.end()
  }

  /** The frames of a failure after the first content. */
  fail({ error: { code, message, param } }: ErrorBody, status: number): string {
    this.#adopt()
    const begun = this.#begin() + this.#closeAll("length")
    this.#outcome = { status: "failed", error: failureOf(status, message) }
    return begun + this.#frame("error", { code, message, param }) +
      this.#frame("response.failed", { response: this.response })
  }

  readonly #writer = {
    begin: () => this.#begin(),
    frameOf: (event: OwnEvent) => this.#frameOf(event),
    isLeftOut: (event: OwnEvent) => this.#isLeftOut(event),
    nativeFrames: ({ body, dialect, form }: Native) => {
      if (dialect !== "responses") return ""
      return form === "chunk" ? this.#nativeFrame(body) : this.#nativeAnswer(body)
    }
  }

  #frame(type: string, fields: Fields): string {
    const data = JSON.stringify({ type, sequence_number: this.#sequence++, ...fields })
    return `event: ${type}\ndata: ${data}\n\n`
  }

  #begin(): string {
    if (this.#begun) return ""
    this.#begun = true
    const { response } = this
    return this.#frame("response.created", { response }) + this.#frame("response.in_progress", { response })
  }

  #isLeftOut(event: OwnEvent): boolean {
    if (this.#native !== undefined) return event.type !== "finish" && event.type !== "handoff"
    return event.type === "tool_call" && event.index > 0 && !this.#envelope.settings.parallel_tool_calls
  }

  /** A provider's own event. */
  #nativeFrame(event: Fields): string {
    this.#native ??= new NativeAnswer.NativeItems((prefix) => this.#next(prefix))
    const begun = this.#begin()
    const { fields, place } = this.#native.own(event)
    const { type } = event
    if (type === "response.output_item.done" && place !== undefined) {
      this.#output[place.index] = fields["item"] as Item
      this.#nativeText = undefined
    }
    if (type === "response.output_text.delta" && place !== undefined) {
      this.#nativeText ??= { kind: "text", ...place, text: "", logprobs: [] }
      this.#nativeText.text += fields["delta"] as string
    }
    return begun + this.#frame(type as string, fields)
  }

  /** The whole answer of a provider that has sent no events of it. */
  #nativeAnswer(response: Fields): string {
    const isStreamed = this.#native !== undefined
    const { incomplete: _, ...end } = endOfNative(response)
    this.#outcome = { ...this.#outcome, ...(end.settings === undefined ? {} : { settings: end.settings }) }
    return isStreamed ? "" : NativeAnswer.eventsOf(response).map((event) => this.#nativeFrame(event)).join("")
  }

  /** Goes on with the text of a provider's own events, if there are any, as with one of this service. */
  #adopt(): void {
    if (this.#native === undefined) return
    this.#native = undefined
    this.#open = this.#nativeText
    this.#nativeText = undefined
  }

  #next(prefix: string): { readonly id: string; readonly index: number } {
    const index = this.#items++
    return { index, id: outputId(prefix, this.#envelope.id, index) }
  }

  #frameOf(event: OwnEvent): string {
    switch (event.type) {
      case "text":
        return event.text === "" && event.logprobs === undefined ? "" : this.#text(event.text, event.logprobs ?? [])
      case "thoughts":
        return this.#reasoning(event)
      case "tool_call":
        return this.#call(event)
      case "handoff":
        this.#adopt()
        this.answeredBy(event.deployment)
        return ""
      case "finish":
        return this.#end(event)
    }
  }

  #text(delta: string, logprobs: ReadonlyArray<ChosenLogprob>): string {
    let out = ""
    if (this.#open?.kind !== "text") out = this.#close() + this.#beginText()
    const open = this.#open as OpenText
    open.text += delta
    open.logprobs.push(...logprobs)
    return out + this.#frame("response.output_text.delta", {
      item_id: open.id,
      output_index: open.index,
      content_index: 0,
      delta,
      logprobs: logprobsOf(logprobs).content
    })
  }

  #beginText(): string {
    const { id, index } = this.#next("msg")
    this.#open = { kind: "text", id, index, text: "", logprobs: [] }
    return this.#frame("response.output_item.added", {
      output_index: index,
      item: messageItem(id, "in_progress", [])
    }) + this.#frame("response.content_part.added", {
      item_id: id,
      output_index: index,
      content_index: 0,
      part: textPart("")
    })
  }

  /** The fields and the names of the events of a piece of reasoning. */
  #thoughtPart({ id, index }: Open) {
    const place = { item_id: id, output_index: index }
    return this.#asSummary
      ? {
        place: { ...place, summary_index: 0 },
        part: "response.reasoning_summary_part",
        text: "response.reasoning_summary_text",
        type: "summary_text"
      }
      : {
        place: { ...place, content_index: 0 },
        part: "response.content_part",
        text: "response.reasoning_text",
        type: "reasoning_text"
      }
  }

  #thoughts(delta: string): string {
    let out = ""
    if (this.#open?.kind !== "thoughts") out = this.#close() + this.#beginThoughts()
    const open = this.#open as OpenThoughts
    open.text += delta
    const { place, text } = this.#thoughtPart(open)
    return out + this.#frame(`${text}.delta`, { ...place, delta })
  }

  #reasoning({ signed, text }: Extract<OwnEvent, { readonly type: "thoughts" }>): string {
    const out = text === "" && (signed === undefined || this.#open?.kind === "thoughts") ? "" : this.#thoughts(text)
    if (signed !== undefined) (this.#open as OpenThoughts).signed.push(signed)
    return out
  }

  #beginThoughts(): string {
    const { id, index } = this.#next("rs")
    const open: OpenThoughts = { kind: "thoughts", id, index, text: "", signed: [] }
    this.#open = open
    const { part, place, type } = this.#thoughtPart(open)
    return this.#frame("response.output_item.added", {
      output_index: index,
      item: reasoningItem(id, undefined, this.#asSummary)
    }) + this.#frame(`${part}.added`, { ...place, part: { type, text: "" } })
  }

  #call({ arguments: delta, id: callId, index: call, name }: CallEvent): string {
    let out = ""
    let open = this.#calls.get(call)
    if (open === undefined) {
      out = this.#close()
      const isCustom = this.#custom.has(name)
      const { id, index } = this.#next(isCustom ? "ctc" : "fc")
      const input = isCustom ? new InputReader() : undefined
      open = { id, index, text: "", callId: callId ?? "", name: name ?? "", input }
      this.#calls.set(call, open)
      out += this.#frame("response.output_item.added", {
        output_index: index,
        item: itemOfCall(open, "in_progress", "")
      })
    }
    open.text += delta
    const piece = open.input === undefined ? delta : open.input.push(delta)
    return piece === "" ? out : out + this.#frame(`${typeOfCall(open)}.delta`, {
      item_id: open.id,
      output_index: open.index,
      delta: piece
    })
  }

  /** Ends the open text or reasoning. */
  #close(reason: FinishReason = "stop"): string {
    const open = this.#open
    this.#open = undefined
    if (open === undefined) return ""
    return open.kind === "text" ? this.#closeText(open, reason) : this.#closeThoughts(open)
  }

  #closeText({ id, index, logprobs, text }: OpenText, reason: FinishReason): string {
    const status = itemStatusOf(reason, index === this.#items - 1)
    const part = textPart(text, logprobs)
    const place = { item_id: id, output_index: index, content_index: 0 }
    return this.#frame("response.output_text.done", { ...place, text, logprobs: part["logprobs"] }) +
      this.#frame("response.content_part.done", { ...place, part }) +
      this.#done(index, messageItem(id, status, [part]))
  }

  #closeThoughts(open: OpenThoughts): string {
    const { part, place, text, type } = this.#thoughtPart(open)
    return this.#frame(`${text}.done`, { ...place, text: open.text }) +
      this.#frame(`${part}.done`, { ...place, part: { type, text: open.text } }) +
      this.#done(open.index, reasoningItem(open.id, open.text, this.#asSummary, open.signed))
  }

  #done(index: number, item: Item): string {
    this.#output[index] = item
    return this.#frame("response.output_item.done", { output_index: index, item })
  }

  #closeCalls(reason: FinishReason): string {
    let out = ""
    for (const open of this.#calls.values()) {
      const { id, index, input, name, text } = open
      const status = itemStatusOf(reason, index === this.#items - 1)
      const place = { item_id: id, output_index: index }
      const done = input === undefined ? { name, arguments: text } : { input: CustomTools.inputIn(text) }
      const rest = input === undefined ? "" : input.restOf(CustomTools.inputIn(text))
      if (rest !== "") out += this.#frame(`${typeOfCall(open)}.delta`, { ...place, delta: rest })
      out += this.#frame(`${typeOfCall(open)}.done`, { ...place, ...done }) +
        this.#done(index, itemOfCall(open, status, text))
    }
    this.#calls.clear()
    return out
  }

  #closeAll(reason: FinishReason): string {
    return this.#close(reason) + this.#closeCalls(reason)
  }

  #end(event: FinishEvent): string {
    return this.#native === undefined ? this.#finish(event.reason, event.usage) : this.#finishNative(event)
  }

  /** The items are complete. */
  #finishNative({ native, reason, usage }: FinishEvent): string {
    const response = NativeAnswer.responseIn(native === undefined ? [] : [native])
    const { settings } = this.#outcome
    const end: Omit<Outcome, "output"> = response === undefined
      ? { ...endOf(reason), ...(settings === undefined ? {} : { settings }) }
      : endOfNative(response)
    this.#outcome = { ...end, usage, ...(end.status === "completed" ? { completedAt: this.#now() } : {}) }
    return ""
  }

  #finish(reason: FinishReason, usage: TokenUsage): string {
    // An answer without text and calls has an empty message, as a buffered one has.
    const hasContent = this.#open?.kind === "text" || this.#calls.size > 0 ||
      this.#output.some(({ type }) => type === "message")
    const out = (hasContent ? "" : this.#close() + this.#beginText()) + this.#closeAll(reason)
    const end = endOf(reason)
    const effort = effortOf(this.#envelope, this.#deployment, usage)
    this.#outcome = { ...end, usage, effort, ...(end.status === "completed" ? { completedAt: this.#now() } : {}) }
    return out
  }
}
