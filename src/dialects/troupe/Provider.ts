/** Another instance of this service: the OpenAI dialect, and the service's own tasks and fields. Pure. */
import { Duration, Result } from "effect"
import * as Caller from "../../domain/Caller.ts"
import { numberOf } from "../../domain/ExactNumber.ts"
import type { Countable, Generation } from "../../domain/Generation.ts"
import { withAssistantPrefix } from "../../domain/Generation.ts"
import type { Classification } from "../../domain/Job.ts"
import { messagesOf, toolsOf } from "../openai/EncodeRequest.ts"
import { ownDialect } from "../openai/Provider.ts"
import { malformed } from "../shared/ErrorMapping.ts"
import type { Fields } from "../shared/Json.ts"
import { at, countAt, eachOf, listAt, numbersOf, textAt } from "../shared/Json.ts"
import type { Dialect, Target } from "../shared/ProviderDialect.ts"
import { taskUsage } from "../shared/TokenCounter.ts"

const scoreAt = (value: unknown, name: string): number | undefined => {
  const score = numberOf(at(value, name))
  return score !== undefined && score >= 0 && score <= 1 ? score : undefined
}

const rerank: NonNullable<Dialect["rerank"]> = {
  request: ({ documents, query }, { options: { model } }) =>
    Result.succeed({ path: "/rerank", body: { model, query, documents } }),
  answer: (body, { documents, query }, target) => {
    const results = eachOf(listAt(body, "results"), documents.length)
    const found = numbersOf(results?.map((result) => scoreAt(result, "relevance_score")))
    return found === undefined
      ? Result.fail(malformed(target, "not one score per document"))
      : Result.succeed({
        scores: found,
        // The query is read with each document.
        ...taskUsage(countAt(body, "usage", "prompt_tokens"), [documents, documents.map(() => query)])
      })
  }
}

const labelsOf = (one: unknown): Classification["labels"] =>
  listAt(one, "predictions").flatMap((prediction) => {
    const label = textAt(prediction, "label")
    const score = scoreAt(prediction, "score")
    return label === undefined || score === undefined ? [] : [{ label, score }]
  })

const classify: NonNullable<Dialect["classify"]> = {
  request: (input, { options: { model } }) => Result.succeed({ path: "/classify", body: { model, input } }),
  answer: (body, inputs, target) => {
    const found = listAt(body, "data").map(labelsOf)
    if (found.length !== inputs.length || found.some((labels) => labels.length === 0)) {
      return Result.fail(malformed(target, "not labels for each input"))
    }
    const { promptTokens, ...estimated } = taskUsage(countAt(body, "usage", "prompt_tokens"), inputs)
    // The answer has one count for all inputs: the first input gets it.
    return Result.succeed(
      found.map((labels, index) =>
        Result.succeed({ labels, promptTokens: index === 0 ? promptTokens : 0, ...estimated })
      )
    )
  }
}

const tokenizeBody = (input: Countable, target: Target) =>
  typeof input === "string" ? { prompt: input } : {
    messages: messagesOf(withAssistantPrefix(input).messages, target),
    ...(input.assistantPrefix === undefined ? {} : { continue_final_message: true }),
    ...(input.tools === undefined ? {} : { tools: toolsOf(input.tools) })
  }

const tokenize: NonNullable<Dialect["tokenize"]> = {
  request: (input, target) =>
    Result.succeed({ path: "/tokenize", body: { model: target.options.model, ...tokenizeBody(input, target) } }),
  answer: (body, _, target) => {
    const tokens = numbersOf(at(body, "tokens"))
    return tokens === undefined ? Result.fail(malformed(target, "no `tokens`")) : Result.succeed(tokens)
  }
}

/** A duration of Go; a negative value means without a limit. */
const keepAliveOf = (keepAlive: Duration.Duration): string | number =>
  Duration.isFinite(keepAlive) ? `${Duration.toMillis(keepAlive)}ms` : -1

/** The caller's options for the other instance. */
const callerFieldsOf = ({ caller = {} }: Generation) => ({
  ...(caller.priority === undefined ? {} : { priority: caller.priority }),
  ...(caller.keepAlive === undefined ? {} : { keep_alive: keepAliveOf(caller.keepAlive) })
})

/** The caller's tenant, which the other instance uses if the request has no key. */
const tenantHeader = ({ caller: { tenant = "" } = {} }: Generation): Readonly<Record<string, string>> =>
  tenant === "" ? {} : { [Caller.tenantHeader]: tenant }

/** With the caller's tenant and options. */
const withCaller = (own: typeof ownDialect["generate"]): Dialect["generate"] => ({
  ...own,
  request: (generation, target, stream) =>
    Result.map(own.request(generation, target, stream), (call) => ({
      ...call,
      headers: tenantHeader(generation),
      body: { ...call.body as Fields, ...callerFieldsOf(generation) }
    })),
  passThrough: (generation, { text: _, ...source }, ...rest) =>
    Result.map(own.passThrough(generation, source, ...rest), (call) => ({
      ...call,
      headers: tenantHeader(generation),
      body: { ...call.body as Fields, ...callerFieldsOf(generation) }
    }))
})

export const troupe: Dialect = {
  ...ownDialect,
  generate: withCaller(ownDialect.generate),
  complete: withCaller(ownDialect.complete),
  rerank,
  classify,
  tokenize
}
