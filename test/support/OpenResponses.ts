/**
 * Checks answers against the schemas of Open Responses, restated in `fixtures/openResponses.json`, and streams against its
 * rules: event names, sequence numbers, and the order of the events of an item.
 */
import { Ajv } from "ajv"
import { assert } from "vitest"
import document from "../fixtures/openResponses.json" with { type: "json" }

export type Fields = Readonly<Record<string, unknown>>

const ajv = new Ajv({ allowUnionTypes: true, strict: false })
ajv.addSchema({ $id: "openresponses", $defs: document.$defs })

/** Fails with what is wrong if a value is not of the definition. */
export const check = (definition: keyof typeof document.$defs, value: unknown): void => {
  const validate = ajv.getSchema(`openresponses#/$defs/${definition}`)!
  assert.isTrue(validate(value), `${ajv.errorsText(validate.errors)} in ${JSON.stringify(value)}`)
}

/** The events of a stream of server-sent events, with its rules checked. */
export const eventsOf = (text: string): ReadonlyArray<Fields> => {
  const frames = text.split("\n\n").slice(0, -1)
  assert.strictEqual(frames.pop(), "data: [DONE]")
  return frames.map((frame) => {
    const [, name, data] = /^event: ([\w.]+)\ndata: ([^\n]+)$/.exec(frame) ?? assert.fail(frame)
    const event = JSON.parse(data!) as Fields
    assert.strictEqual(event["type"], name)
    return event
  })
}

/** What happened to an item, as a path through its states. */
const stepOf = ({ type }: Fields): string => (type as string).replace(/^response\.(?:output_)?/, "")

const steps =
  /^item\.added(?: (?:content_part|reasoning_summary_part)\.added(?: \S+\.delta)* \S+\.done (?:content_part|reasoning_summary_part)\.done| (?:function_call_arguments|custom_tool_call_input)\.(?:delta|done))* item\.done$/

/** Checks the events of one response, and returns the response of the last one. */
export const checkEvents = (events: ReadonlyArray<Fields>): Fields => {
  for (const event of events) check("event", event)
  assert.deepStrictEqual(events.map((event) => event["sequence_number"]), events.map((_, index) => index))
  assert.deepStrictEqual(events.slice(0, 2).map(({ type }) => type), ["response.created", "response.in_progress"])
  const paths = new Map<unknown, Array<string>>()
  for (const event of events) {
    const index = event["output_index"]
    if (index === undefined) continue
    paths.set(index, [...paths.get(index) ?? [], stepOf(event)])
  }
  for (const path of paths.values()) assert.match(path.join(" "), steps)
  const response = events.at(-1)!["response"] as Fields
  const done = events.filter(({ type }) => type === "response.output_item.done").map(({ item }) => item)
  assert.sameDeepMembers(response["output"] as Array<unknown>, done)
  return response
}
