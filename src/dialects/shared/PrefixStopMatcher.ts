/** Stop sequences across an assistant prefix and the answer that continues it. Pure. */
import type { RemoteDeployment } from "../../domain/Deployment.ts"
import type { Generation } from "../../domain/Generation.ts"
import type { Event } from "../../domain/Inference.ts"
import { isNative } from "../../domain/Source.ts"
import { makeStopMatcher } from "../../domain/StopMatcher.ts"
import { makeCounter } from "./TokenCounter.ts"

/** Also ends an answer at a stop sequence that begins in the assistant prefix: the provider matches only its own text. */
export const makePrefixStopMatcher = (
  generation: Generation,
  options: RemoteDeployment
): (events: ReadonlyArray<Event>) => ReadonlyArray<Event> => {
  const { assistantPrefix, stop } = generation
  if (assistantPrefix === undefined || stop.length === 0 || isNative(generation, options)) return (events) => events
  const matcher = makeStopMatcher(stop, assistantPrefix)
  const counter = makeCounter(generation)
  const join = (event: Event): ReadonlyArray<Event> => {
    if (event.type !== "text") {
      const text = matcher.flush()
      return text === "" ? [event] : [{ type: "text", text, tokens: 0 }, event]
    }
    counter.count(event.text)
    const { sequence, stopped, text } = matcher.push(event.text)
    const texts: ReadonlyArray<Event> = text === "" && event.tokens === 0 ? [] : [{ ...event, text }]
    return stopped
      ? [...texts, {
        type: "finish",
        reason: "stop",
        usage: counter.usage({}),
        ...(sequence === undefined ? {} : { stop: sequence })
      }]
      : texts
  }
  return (events) => {
    const joined: Array<Event> = []
    for (const event of events) {
      joined.push(...join(event))
      if (joined.at(-1)?.type === "finish") break
    }
    return joined
  }
}
