/**
 * Answers of Troupe as results and stream parts of the AI SDK.
 *
 * **Details**
 *
 * Every run of text or reasoning and every tool call is a part with an id, a start and an end. `providerMetadata.troupe` has
 * the route and the cost.
 */
import type {
  JSONObject,
  LanguageModelV4Content,
  LanguageModelV4FinishReason,
  LanguageModelV4StreamPart,
  LanguageModelV4Usage,
  SharedV4ProviderMetadata
} from "@ai-sdk/provider"
import type { Price } from "../../domain/DeploymentFacts.ts"
import type { Answer, AnsweredBy, Event } from "../../domain/Inference.ts"
import type { FinishReason, TokenUsage } from "../../domain/Job.ts"
import type { SignedReasoning } from "../../domain/Message.ts"
import * as Money from "../../domain/Money.ts"

const unified = {
  stop: "stop",
  length: "length",
  tool_calls: "tool-calls",
  content_filter: "content-filter"
} as const satisfies Readonly<Record<FinishReason, LanguageModelV4FinishReason["unified"]>>

export const finishOf = (reason: FinishReason): LanguageModelV4FinishReason => ({
  unified: unified[reason],
  raw: reason
})

export const usageOf = (usage: TokenUsage): LanguageModelV4Usage => {
  const { cachedTokens, cacheWriteTokens, completionTokens, promptTokens, reasoningTokens } = usage
  return {
    inputTokens: {
      total: promptTokens,
      noCache: promptTokens - cachedTokens - (cacheWriteTokens ?? 0),
      cacheRead: cachedTokens,
      cacheWrite: cacheWriteTokens
    },
    outputTokens: {
      total: completionTokens,
      text: completionTokens - (reasoningTokens ?? 0),
      reasoning: reasoningTokens
    }
  }
}

/** The prices of deployments, where they are known. */
export type Prices = ReadonlyMap<string, Price>

/** Of all attempts where limits or budgets count them, else of the answer alone. */
const costOf = (
  { admitted, attempts, deployment }: AnsweredBy,
  usage: TokenUsage,
  prices: Prices
): number | undefined => {
  if (admitted?.cost !== undefined) return Money.usdOf(admitted.cost)
  if (attempts === 0) return 0
  const price = prices.get(deployment)
  return price && Money.usdOf(Money.costOf(price, usage))
}

/** `providerMetadata.troupe` of an answer. */
export type Metadata = {
  /** The id of the decision record. */
  readonly decision: string
  /** The deployment that answered, as `tiny-chat#0`; the first one, if others continued its answer. */
  readonly deployment: string
  /** Including failed ones; 0 for a cached answer. */
  readonly attempts: number
  /** USD; left out: a price is unknown. With `unpriced`, the known part. */
  readonly costUsd?: number
  /** Attempts whose cost is unknown; left out, none. */
  readonly unpriced?: number
  /** Deployments that continued the answer. */
  readonly handoffs?: ReadonlyArray<string>
  /** How the cache took part; left out where the model has none. */
  readonly cache?: JSONObject
  /** What the input policy changed in the request. */
  readonly policy?: JSONObject
}

/** The route of an answer, and its cost in USD if the price is known. */
export const metadataOf = (
  by: AnsweredBy,
  usage: TokenUsage,
  prices: Prices,
  handoffs: ReadonlyArray<string> = []
): SharedV4ProviderMetadata => {
  const { attempts, cache, decision, deployment, policy } = by
  // After a handoff several deployments have generated the answer.
  const cost = handoffs.length === 0 || by.admitted !== undefined ? costOf(by, usage, prices) : undefined
  const metadata: Metadata = {
    decision,
    deployment,
    attempts,
    ...(cost === undefined ? {} : { costUsd: cost }),
    ...(by.admitted?.unpriced === undefined ? {} : { unpriced: by.admitted.unpriced }),
    ...(handoffs.length === 0 ? {} : { handoffs }),
    ...(cache === undefined ? {} : { cache: { ...cache } }),
    ...(policy === undefined ? {} : { policy: { ...policy } })
  }
  return { troupe: metadata }
}

/** The model that answered, which may be a fallback. */
export const modelOf = ({ deployment }: Pick<AnsweredBy, "deployment">, requested: string): string => {
  const end = deployment.lastIndexOf("#")
  return end < 0 ? requested : deployment.slice(0, end)
}

const inputOf = (json: string): string => json === "" ? "{}" : json

/** What the prompt of the next step has of signed reasoning, named as `@ai-sdk/anthropic` names it. */
const signatureOf = (signed: SignedReasoning): SharedV4ProviderMetadata => ({
  troupe: {
    ...(signed.type === "thinking" ? { signature: signed.signature } : { redactedData: signed.data }),
    ...(signed.maker === undefined ? {} : { maker: signed.maker })
  }
})

const reasoningOf = ({ reasoning, thoughts = "" }: Answer): Array<LanguageModelV4Content> =>
  reasoning?.map((signed) => ({
    type: "reasoning",
    text: signed.type === "thinking" ? signed.thinking : "",
    providerMetadata: signatureOf(signed)
  })) ?? (thoughts === "" ? [] : [{ type: "reasoning", text: thoughts }])

/** The content of a buffered answer. */
export const contentOf = (answer: Answer): Array<LanguageModelV4Content> => {
  const { text, toolCalls } = answer
  return [
    ...reasoningOf(answer),
    ...(text === "" ? [] : [{ type: "text", text } as const]),
    ...toolCalls.map((call) => ({
      type: "tool-call",
      toolCallId: call.id,
      toolName: call.name,
      input: inputOf(call.arguments)
    } as const))
  ]
}

type Call = { readonly index: number; readonly id: string; readonly name: string; input: string }

/** A stream of these parts, and then of those that `next` gives. */
export const streamAfter = (
  first: ReadonlyArray<LanguageModelV4StreamPart>,
  next: () => Promise<{ readonly done?: boolean; readonly value?: LanguageModelV4StreamPart | void }>,
  cancel: (reason: unknown) => Promise<void>
): ReadableStream<LanguageModelV4StreamPart> =>
  new ReadableStream({
    start(controller) {
      for (const part of first) controller.enqueue(part)
    },
    async pull(controller) {
      const { done, value } = await next()
      if (done === true) controller.close()
      else controller.enqueue(value as LanguageModelV4StreamPart)
    },
    cancel
  })

/** Encodes the events of one streamed answer, except its finish. */
export class PartEncoder {
  readonly #handoffs: Array<string> = []
  #runs = 0
  #run: { readonly kind: "reasoning" | "text"; readonly id: string } | undefined
  #call: Call | undefined
  #parts: Array<LanguageModelV4StreamPart> = []

  /** Deployments that have continued the answer. */
  get handoffs(): ReadonlyArray<string> {
    return this.#handoffs
  }

  add(event: Event): ReadonlyArray<LanguageModelV4StreamPart> {
    this.#parts = []
    if (event.type === "text") this.#addText("text", event.text)
    else if (event.type === "thoughts") this.#addThoughts(event)
    else if (event.type === "tool_call") this.#addCall(event)
    else if (event.type === "handoff") this.#handoffs.push(event.deployment)
    return this.#parts
  }

  /** Ends what is open. A call that the answer was cut within is left out, if its arguments are no JSON. */
  end(): ReadonlyArray<LanguageModelV4StreamPart> {
    this.#parts = []
    this.#endRun()
    this.#endCall()
    return this.#parts
  }

  #addThoughts({ signed, text }: Extract<Event, { type: "thoughts" }>): void {
    this.#addText("reasoning", text)
    if (signed === undefined) return
    // Of encrypted reasoning, and of reasoning that the provider leaves out, there is the signature alone.
    if (this.#run?.kind !== "reasoning") this.#begin("reasoning")
    this.#endRun(signatureOf(signed))
  }

  #addText(kind: "reasoning" | "text", delta: string): void {
    if (delta === "") return
    const id = this.#run?.kind === kind ? this.#run.id : this.#begin(kind)
    this.#parts.push({ type: `${kind}-delta`, id, delta })
  }

  #begin(kind: "reasoning" | "text"): string {
    this.#endCall()
    this.#endRun()
    const id = `${kind}-${this.#runs++}`
    this.#run = { kind, id }
    this.#parts.push({ type: `${kind}-start`, id })
    return id
  }

  #addCall(event: Extract<Event, { type: "tool_call" }>): void {
    this.#endRun()
    let call = this.#call
    if (call?.index !== event.index) {
      this.#endCall()
      const { id = `call-${event.index}`, index, name = "" } = event
      call = { index, id, name, input: "" }
      this.#call = call
      this.#parts.push({ type: "tool-input-start", id, toolName: name })
    }
    call.input += event.arguments
    if (event.arguments !== "") {
      this.#parts.push({ type: "tool-input-delta", id: call.id, delta: event.arguments })
    }
  }

  #endRun(providerMetadata?: SharedV4ProviderMetadata): void {
    if (this.#run !== undefined) {
      this.#parts.push({
        type: `${this.#run.kind}-end`,
        id: this.#run.id,
        ...(providerMetadata === undefined ? {} : { providerMetadata })
      })
    }
    this.#run = undefined
  }

  #endCall(): void {
    const call = this.#call
    if (call === undefined) return
    this.#call = undefined
    const input = inputOf(call.input)
    this.#parts.push({ type: "tool-input-end", id: call.id })
    if (isJson(input)) this.#parts.push({ type: "tool-call", toolCallId: call.id, toolName: call.name, input })
  }
}

const isJson = (text: string): boolean => {
  try {
    return JSON.parse(text) !== undefined
  } catch {
    return false
  }
}
