/**
 * The conversation of a request of the Responses dialect: of stored objects, of the latest response of its WebSocket, or of the
 * request alone.
 */
import { Effect } from "effect"
import type { Prompt } from "../../dialects/responses/DecodeRequest.ts"
import * as EncodeAnswer from "../../dialects/responses/EncodeAnswer.ts"
import * as Items from "../../dialects/responses/Items.ts"
import type { Message } from "../../domain/Inference.ts"
import * as InferenceError from "../../domain/InferenceError.ts"
import type { Dialogue } from "../../services/responses/Dialogues.ts"
import { StateError } from "../../services/responses/Dialogues.ts"
import type { Responses } from "../../services/responses/Responses.ts"
import type { StoreError } from "../../services/responses/Tables.ts"
import type { Connection } from "./ResponsesSocket.ts"

/** Where the conversation before a request is kept. */
export interface Sources {
  readonly state: Responses | undefined
  /** Of the messages of a WebSocket. */
  readonly connection?: Connection
}

const needsState = ({ conversation, input, previous }: Prompt): boolean =>
  conversation !== undefined || previous !== undefined || input.some((item) => Items.typeOf(item) === "item_reference")

/** The latest response of the connection, if a request continues it and it is not stored. */
export const unstored = (connection: Connection | undefined, { previous }: Prompt): Connection["latest"] =>
  previous === undefined || connection?.latest?.id !== previous || connection.latest.isStored
    ? undefined
    : connection.latest

/** The conversation of a request that continues the latest response of its connection, which is not stored. */
const dialogueOfConnection = (
  latest: NonNullable<Connection["latest"]>,
  { input }: Prompt,
  id: string
): Effect.Effect<Dialogue, StateError> => {
  const missing = input.find((item) =>
    item["type"] === "item_reference" && !latest.items.some((known) => known.id === item["id"])
  )
  if (missing !== undefined) {
    return Effect.fail(new StateError({ problem: "item-missing", id: missing["id"] as string }))
  }
  return Effect.succeed({
    before: latest.items,
    input: input.map((item, index) =>
      latest.items.find((known) => item["type"] === "item_reference" && known.id === item["id"]) ??
        EncodeAnswer.storedInput(item, id, index)
    ),
    chain: []
  })
}

/** The conversation of a request; undefined if it needs stored objects and there are none. */
export const dialogueOf = (
  { connection, state }: Sources,
  prompt: Prompt,
  id: string
): Effect.Effect<Dialogue | undefined, StoreError | StateError> => {
  const latest = unstored(connection, prompt)
  if (latest !== undefined) return dialogueOfConnection(latest, prompt, id)
  if (state !== undefined) return state.dialogues.of(prompt, prompt.input, id)
  return Effect.succeed(
    needsState(prompt) ? undefined : {
      before: [],
      chain: [],
      input: prompt.input.map((item, index) => EncodeAnswer.storedInput(item, id, index))
    }
  )
}

const orphan = (index: number): InferenceError.InferenceError =>
  InferenceError.make(
    new InferenceError.InvalidRequest({
      path: index < 0 ? "input" : `input[${index}].call_id`,
      detail: "No earlier function_call has this call_id",
      inBody: true
    })
  )

/** The messages of a conversation, after the instructions. */
export const messagesOf = (
  { instructions }: Prompt,
  { before, input }: Dialogue
): Effect.Effect<ReadonlyArray<Message>, InferenceError.InferenceError> => {
  const all = [...before, ...input]
  const index = Items.orphanOf(all)
  if (index !== undefined) return Effect.fail(orphan(index - before.length))
  const messages = Items.messagesOf(all)
  return Effect.succeed(
    instructions === undefined ? messages : [{ role: "system", content: instructions }, ...messages]
  )
}
