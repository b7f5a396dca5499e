/**
 * Server-sent events (WHATWG HTML) over `fetch`, which sends the key in a header: `EventSource` would need it in the URL.
 */
import type { RequestOptions } from "./session.ts"
import { request } from "./session.ts"

export interface ServerEvent {
  readonly type: string
  readonly data: string
}

/** An event from the lines of its block; undefined for comments. */
export const parseEvent = (block: string): ServerEvent | undefined => {
  let type = "message"
  const data: Array<string> = []
  for (const line of block.split(/\r\n|\r|\n/)) {
    const colon = line.indexOf(":")
    const name = colon < 0 ? line : line.slice(0, colon)
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "")
    if (name === "data") data.push(value)
    else if (name === "event") type = value
  }
  return data.length === 0 ? undefined : { type, data: data.join("\n") }
}

/** The complete blocks of a text, and what remains of it. */
export const splitBlocks = (text: string): readonly [blocks: ReadonlyArray<string>, rest: string] => {
  const blocks = text.split(/\r\n\r\n|\n\n|\r\r/)
  const rest = blocks.pop() ?? ""
  return [blocks, rest]
}

/** The events of a response, until it ends. */
export async function* eventsOf(response: Response): AsyncGenerator<ServerEvent, void> {
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader()
  let rest = ""
  try {
    for (;;) {
      const { done, value } = await reader.read()
      if (done) return
      const [blocks, left] = splitBlocks(rest + value)
      rest = left
      for (const block of blocks) {
        const event = parseEvent(block)
        if (event !== undefined) yield event
      }
    }
  } finally {
    await reader.cancel().catch(() => {})
  }
}

/** Asks for a stream of events. */
export const streamOf = async (
  path: string,
  options: RequestOptions = {}
): Promise<AsyncGenerator<ServerEvent, void>> =>
  eventsOf(await request(path, { ...options, accept: "text/event-stream" }))
