/** Chunks of a text in the OpenAI dialect. OpenAI adds a text of random length to each, in `obfuscation`. Pure. */
import type { Event } from "../../domain/Inference.ts"
import type { Fields } from "../shared/Json.ts"
import { at, fieldsOf, listAt } from "../shared/Json.ts"
import type { TextForm } from "../shared/TextChunks.ts"

const choiceOf = (chunk: Fields): Fields | undefined => fieldsOf(listAt(chunk, "choices")[0])

/** Whether a choice adds to the text only. */
const addsText = (choice: Fields | undefined, events: ReadonlyArray<Event>): boolean => {
  const [event] = events
  const delta = fieldsOf(choice?.["delta"])
  return events.length === 1 && event?.type === "text" && event.logprobs === undefined &&
    delta?.["content"] === event.text &&
    listAt(delta, "tool_calls").length === 0 && (delta["function_call"] ?? null) === null
}

/** The chunk has one choice, the first. */
const isTextOnly = (chunk: Fields, events: ReadonlyArray<Event>): boolean => {
  const choice = choiceOf(chunk)
  return listAt(chunk, "choices").length === 1 && (choice?.["index"] ?? 0) === 0 && (chunk["usage"] ?? null) === null &&
    addsText(choice, events)
}

export const textForm: TextForm = {
  begins: [/"content"\s*:\s*"/g, /"obfuscation"\s*:\s*"/g],
  stringsOf: (chunk) => [at(choiceOf(chunk), "delta", "content"), chunk["obfuscation"]],
  isTextOnly
}
