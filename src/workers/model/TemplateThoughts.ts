/**
 * How a chat template reads the thoughts of earlier answers: in which fields of an assistant's message. Pure.
 *
 * **Details**
 *
 * Most templates read `reasoning_content` (Qwen, GLM, DeepSeek, Kimi, MiniMax), others `reasoning` (Gemma, Solar), `thinking`
 * (gpt-oss, LFM) or `thought` (Apriel). Ministral's reads parts of the content. A message gets the fields that the template
 * names, and no others: the template decides which thoughts the prompt has. Most leave out those before the last question.
 *
 * **Gotchas**
 *
 * gpt-oss's template rejects a call with thoughts and a text before it: it prints either as thoughts. It gets both as thoughts.
 */
type Fields = Readonly<Record<string, unknown>>

/** What of an assistant's message depends on its thoughts. */
export interface Thought {
  readonly content: string
  readonly thoughts: string
  readonly hasCalls: boolean
}

/** The fields of an assistant's message with thoughts. */
export type ThoughtFields = (message: Thought) => Fields

const names = ["reasoning_content", "reasoning", "thinking", "thought"] as const

/** Whether a template reads a field of this name, as `message.name`, `message['name']` or `'name' in message`. */
const reads = (source: string, name: string): boolean => new RegExp(String.raw`[.'"]${name}\b`).test(source)

/** A type of parts, as in `block['type'] == 'thinking'`. */
const thinkingPart = /type\b['"]?\]?\s*==\s*['"]thinking['"]/

const asParts: ThoughtFields = ({ content, thoughts }) => ({
  content: [{ type: "thinking", thinking: thoughts }, ...(content === "" ? [] : [{ type: "text", text: content }])]
})

/** How a template reads thoughts; undefined if it reads none. */
export const fieldsFor = (source: string): ThoughtFields | undefined => {
  if (thinkingPart.test(source)) return asParts
  const fields = names.filter((name) => reads(source, name))
  return fields.length === 0
    ? undefined
    : ({ thoughts }) => Object.fromEntries(fields.map((name) => [name, thoughts]))
}

/** The fields for a template that accepts no text beside the thoughts of a call. */
export const joined = (fields: ThoughtFields): ThoughtFields => (message) => {
  const { content, hasCalls, thoughts } = message
  return hasCalls && content !== ""
    ? { content: "", ...fields({ ...message, content: "", thoughts: `${thoughts}\n${content}` }) }
    : fields(message)
}
