/**
 * Links the results of tools to their calls. Pure.
 *
 * **Details**
 *
 * Calls of Ollama's API need no ids: a result names its tool, or follows the order of the calls. The core's results have the
 * id of their call, so calls without one get an id of their position.
 */
import type { ToolCall } from "../../domain/Job.ts"
import type { ChatMessage } from "./Schema.ts"

const idOf = (given: string | null | undefined, message: number, call: number): string =>
  given === undefined || given === null || given === "" ? `call_${message}_${call}` : given

/** The calls of a conversation, message by message. */
export class ToolLinks {
  /** Calls without a result. */
  #open: Array<ToolCall> = []
  #at = -1

  /** The calls of the next message. */
  callsOf({ tool_calls }: ChatMessage): ReadonlyArray<ToolCall> {
    this.#at++
    const calls = (tool_calls ?? []).map(({ function: called, id }, index) => ({
      id: idOf(id, this.#at, index),
      name: called.name,
      arguments: JSON.stringify(called.arguments)
    }))
    if (calls.length > 0) this.#open = [...calls]
    return calls
  }

  /** The id of the call whose result a tool's message has; undefined if no call without a result fits. */
  resultOf({ tool_call_id, tool_name }: ChatMessage): string | undefined {
    const byId = this.#open.findIndex(({ id }) => id === tool_call_id)
    const byName = this.#open.findIndex(({ name }) => name === tool_name)
    const found = byId >= 0 ? byId : (tool_name ?? "") === "" ? 0 : byName
    return this.#open.splice(Math.max(0, found), found < 0 ? 0 : 1)[0]?.id
  }
}
