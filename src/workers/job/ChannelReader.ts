/**
 * Reads the messages of gpt-oss ("harmony"): thoughts, calls and text are messages in channels.
 *
 * **Details**
 *
 * A message is a header, `<|message|>` and a body that the next marker ends. The header names the channel, and for a call
 * the recipient: `<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{}<|call|>`. Messages of `final`,
 * and those of `commentary` without a recipient, are text; those of `analysis`, and those to the model's own tools, are
 * thoughts. A line break separates messages of thoughts.
 *
 * **Gotchas**
 *
 * Source: OpenAI's "Harmony response format". An answer without a header is text.
 */
import type { ThoughtPart, ThoughtReader } from "./ThoughtSyntax.ts"
import { channelMarkers, heldLength } from "./ThoughtSyntax.ts"

/** A header of more characters is none: the model does not write in channels. */
const longestHeader = 300

/** What the body of a message is. */
type Body = { readonly type: "text" } | { readonly type: "thoughts" } | { readonly type: "call"; readonly name: string }

const bodyOf = (header: string, hasTools: boolean): Body => {
  const channel = /<\|channel\|>\s*(\w+)/.exec(header)?.[1]
  const recipient = /\bto=([^\s<]+)/.exec(header)?.[1]
  const name = /^functions\.([\w.-]+)$/.exec(recipient ?? "")?.[1]
  if (name !== undefined && hasTools) return { type: "call", name }
  return { type: channel === "analysis" || recipient !== undefined ? "thoughts" : "text" }
}

/** The first marker in a text. */
const markerIn = (text: string): { readonly at: number; readonly marker: string } | undefined => {
  const found = /<\|(?:start|channel|message|constrain|end|call|return)\|>/.exec(text)
  return found === null ? undefined : { at: found.index, marker: found[0] }
}

export class ChannelReader implements ThoughtReader {
  readonly #hasTools: boolean
  /** Undefined within a header. */
  #body: Body | undefined
  #header = ""
  /** No marker has been read yet: the answer may have none. */
  #isFirst = true
  #isNewCall = false
  #hasThoughts = false
  /** A line break comes before the next thoughts. */
  #needsBreak = false
  #rest = ""
  #parts: Array<ThoughtPart> = []

  /** @param body of the message that the prompt has begun; undefined if a header is next */
  constructor(body: "text" | undefined, hasTools: boolean) {
    this.#hasTools = hasTools
    if (body !== undefined) this.#body = { type: body }
  }

  isWithin(): boolean {
    return this.#body?.type === "thoughts"
  }

  push(text: string): ReadonlyArray<ThoughtPart> {
    this.#rest += text
    this.#parts = []
    for (let found = markerIn(this.#rest); found !== undefined; found = markerIn(this.#rest)) {
      this.#take(found.at)
      this.#mark(found.marker)
    }
    this.#take(this.#rest.length - heldLength(this.#rest, channelMarkers))
    return this.#parts
  }

  flush(isCut: boolean): ReadonlyArray<ThoughtPart> {
    this.#parts = []
    // The rest is what a marker may begin with.
    if (isCut) {
      this.#skip(this.#rest)
      this.#rest = ""
    }
    this.#take(this.#rest.length)
    if (this.#isFirst && this.#body === undefined) this.#write({ type: "text" }, this.#header)
    this.#header = ""
    this.#endCall()
    return this.#parts
  }

  /** Takes so many characters, which belong to the header or the body. */
  #take(length: number): void {
    const text = this.#rest.slice(0, length)
    this.#rest = this.#rest.slice(length)
    if (text === "") return
    if (this.#body !== undefined) return this.#write(this.#body, text)
    this.#header += text
    if (!this.#isFirst) this.#skip(text)
    else if (this.#header.length > longestHeader) {
      this.#body = { type: "text" }
      this.#write(this.#body, this.#header)
    }
  }

  #skip(text: string): void {
    this.#parts.push({ type: "skipped", text })
  }

  #write(body: Body, text: string): void {
    if (text === "") return
    if (body.type === "call") {
      this.#parts.push({ type: "call", name: body.name, isNew: this.#isNewCall, arguments: text })
      this.#isNewCall = false
      return
    }
    if (body.type === "thoughts") {
      if (this.#needsBreak) this.#parts.push({ type: "thoughts", text: "\n" })
      this.#needsBreak = false
      this.#hasThoughts = true
    }
    this.#parts.push({ type: body.type, text })
  }

  /** Reads the marker at the beginning of the rest. */
  #mark(marker: string): void {
    this.#rest = this.#rest.slice(marker.length)
    if (this.#isFirst && this.#body === undefined) this.#skip(this.#header)
    this.#isFirst = false
    this.#skip(marker)
    if (marker === "<|message|>" || marker === "<|constrain|>") {
      if (this.#body !== undefined) return
      if (marker === "<|message|>") return this.#begin()
    }
    this.#endCall()
    if (this.#body !== undefined || marker === "<|start|>") this.#header = ""
    this.#body = undefined
    this.#header += marker
  }

  #begin(): void {
    const body = bodyOf(this.#header, this.#hasTools)
    this.#body = body
    this.#header = ""
    if (body.type === "call") this.#isNewCall = true
    else this.#needsBreak = this.#hasThoughts
  }

  /** A call without arguments has been begun by its header only. */
  #endCall(): void {
    if (this.#body?.type !== "call" || !this.#isNewCall) return
    this.#parts.push({ type: "call", name: this.#body.name, isNew: true, arguments: "{}" })
    this.#isNewCall = false
  }
}
