/**
 * Decodes bodies of `POST /v1/completions` into one request per prompt and choice. Pure.
 *
 * **Details**
 *
 * Troupe puts an echo before the answer itself. With log-probabilities or tokens it needs the model, as it does without an
 * answer.
 */
import { Result } from "effect"
import * as ExactNumber from "../../domain/ExactNumber.ts"
import type { Request } from "../../domain/Inference.ts"
import type { InvalidRequest } from "../../domain/InferenceError.ts"
import type * as Problem from "../../domain/Problem.ts"
import { decoderOf } from "../../domain/Problem.ts"
import type { Source } from "../../domain/Source.ts"
import type { CallerIdentity, Shape } from "../shared/CallerRequest.ts"
import { cacheOf, callerOf, decodeBody } from "../shared/CallerRequest.ts"
import type { Fields } from "../shared/Json.ts"
import * as UnknownFields from "../shared/UnknownFields.ts"
import type { CompletionRequest } from "./CompletionSchema.ts"
import * as Schema from "./CompletionSchema.ts"
import { addSampling, checked, formatOf, seed32, seedOf, sourceOf, streamProblems } from "./DecodeRequest.ts"
import * as FieldNames from "./FieldNames.ts"
import { mostStops } from "./Schema.ts"
import * as ServerFields from "./ServerFields.ts"

/** One choice to generate. */
export interface CompletionChoice {
  readonly request: Request
  /** The text that is put before the answer; "" for none. */
  readonly echo: string
}

/** A decoded body, and how to answer. */
export interface CompletionCall {
  readonly model: string
  /** In the order of the prompts, `n` for each. */
  readonly choices: readonly [CompletionChoice, ...Array<CompletionChoice>]
  /** Choices of each prompt. */
  readonly n: number
  readonly stream: boolean
  readonly includeUsage: boolean
}

type Prompt = string | ReadonlyArray<number>

/** The prompts of a body. Exact numbers cannot be among token ids. */
const promptsOf = (prompt: CompletionRequest["prompt"]): ReadonlyArray<Prompt> =>
  typeof prompt === "string" || typeof prompt[0] === "number"
    ? [prompt as Prompt]
    : prompt as ReadonlyArray<Prompt>

const suffixOf = ({ suffix }: CompletionRequest): string | undefined => suffix === "" ? undefined : suffix

/** Whether Troupe can put the prompt before the answer itself. */
const isOwnEcho = (
  { echo = false, logprobs, max_tokens: maxTokens }: CompletionRequest,
  prompts: ReadonlyArray<Prompt>
): boolean => echo && logprobs === undefined && maxTokens !== 0 && prompts.every((prompt) => typeof prompt === "string")

const echoProblems = (
  body: CompletionRequest,
  [first]: ReadonlyArray<Prompt>
): ReadonlyArray<Problem.Problem> => {
  const found: Array<Problem.Problem> = []
  if (body.max_tokens === 0 && body.echo !== true) {
    found.push({ path: "max_tokens", expected: "Expected at least 1, or 0 with `echo`, for the prompt alone" })
  }
  if (suffixOf(body) === undefined) return found
  if (body.echo === true) found.push({ path: "echo", expected: "Not allowed with `suffix`" })
  if (typeof first !== "string") found.push({ path: "suffix", expected: "Allowed only with a prompt of text" })
  return found
}

const problems = (body: CompletionRequest): ReadonlyArray<Problem.Problem> => {
  const { best_of: bestOf = 1, n = 1 } = body
  const prompts = promptsOf(body.prompt)
  const found: Array<Problem.Problem> = [...streamProblems(body)]
  if (prompts.length * n > Schema.mostCompletions) {
    found.push({
      path: "prompt",
      expected: `Expected at most ${Schema.mostCompletions} prompts times \`n\`, not ${prompts.length * n}`
    })
  }
  if (bestOf !== 1 && bestOf !== n) {
    found.push({
      path: "best_of",
      expected: "Expected 1 or the value of `n`: choices are not compared. Request them with `n` and `logprobs`"
    })
  }
  return [...found, ...echoProblems(body, prompts)]
}

const shape: Shape<CompletionRequest> = {
  suggest: UnknownFields.makeSuggest(FieldNames.completions, false),
  decode: decoderOf(Schema.CompletionRequest),
  most: [["prompt", Schema.mostPromptElements], ["stop", mostStops]],
  problems
}

type Mutable<A> = { -readonly [K in keyof A]: A[K] }

/** What all choices share. */
const sharedOf = (
  body: CompletionRequest,
  caller: CallerIdentity,
  seed: bigint | undefined
): Mutable<Omit<Request, "messages">> => {
  const shared: Mutable<Omit<Request, "messages">> = {
    model: body.model,
    maxTokens: body.max_tokens ?? Schema.defaultMaxTokens
  }
  addSampling(shared, body, seed)
  if (body.stop !== undefined) shared.stop = typeof body.stop === "string" ? [body.stop] : body.stop
  if (body.logprobs !== undefined) shared.logprobs = body.logprobs
  return Object.assign(shared, formatOf(body), callerOf(body, caller), cacheOf(caller))
}

const messagesOf = (prompt: Prompt, suffix: string | undefined): Request["messages"] => {
  const texts = [typeof prompt === "string" ? prompt : "", ...(suffix === undefined ? [] : [suffix])]
  return texts.map((content) => ({ role: "user", content }))
}

/** The caller's body without the fields that are answered here. */
const sentOf = (body: CompletionRequest, json: Fields, exact: Fields, isEchoed: boolean): Source => {
  const { best_of: _, echo, n: __, ...rest } = exact
  const sent = body.echo === true && !isEchoed ? { ...rest, echo } : rest
  const source = sourceOf(json, sent, FieldNames.completions, "completions")
  return exact === json ? { ...source, hasExactNumbers: false } : source
}

const choicesOf = (
  body: CompletionRequest,
  json: Fields,
  exact: Fields,
  caller: CallerIdentity,
  seed: bigint | undefined
): ReadonlyArray<CompletionChoice> => {
  const { n = 1 } = body
  const prompts = promptsOf(body.prompt)
  const isEchoed = isOwnEcho(body, prompts)
  const source = sentOf(body, json, exact, isEchoed)
  const shared = sharedOf(body, caller, seed)
  if (source.unknownFields !== undefined) ServerFields.addToCompletion(shared, json)
  const suffix = suffixOf(body)
  const siblings: Array<Fields> = []
  const echoed = body.echo === true && !isEchoed ? { echo: true } : {}
  return prompts.flatMap((prompt) =>
    Array.from({ length: n }, (_, index): CompletionChoice => {
      const own = seed === undefined ? undefined : BigInt.asIntN(64, seed + BigInt(index))
      const seeded = own === undefined ? {} : { seed: ExactNumber.fromInteger(own) }
      const sent = { ...source.body, ...seeded, prompt }
      siblings.push(sent)
      return {
        echo: isEchoed ? prompt as string : "",
        request: {
          ...shared,
          ...(own === undefined ? {} : { seed: seed32(own) }),
          messages: messagesOf(prompt, suffix),
          completion: { ...(typeof prompt === "string" ? {} : { tokens: prompt }), ...echoed },
          source: {
            ...source,
            body: sent,
            ...(n === 1 ? {} : { isChoice: true }),
            ...(prompts.length * n === 1 ? {} : { siblings })
          }
        }
      }
    })
  )
}

/**
 * Decodes a parsed JSON body.
 *
 * @param exact the same body with its inexact numbers as `ExactNumber`; default the body
 */
export const decode = (
  json: unknown,
  caller: CallerIdentity = {},
  exact: unknown = json
): Result.Result<CompletionCall, InvalidRequest> =>
  Result.flatMap(
    decodeBody(json, shape),
    (body) =>
      Result.flatMap(seedOf((exact as Fields)["seed"]), (seed): Result.Result<CompletionCall, InvalidRequest> => {
        const choices = choicesOf(body, json as Fields, exact as Fields, caller, seed) as
          & CompletionCall["choices"]
          & Array<CompletionChoice>
        const call: CompletionCall = {
          model: body.model,
          choices,
          n: body.n ?? 1,
          stream: body.stream ?? false,
          includeUsage: body.stream_options?.include_usage ?? false
        }
        return checked(call, choices[0].request, json as Fields)
      })
  )
