/** One answer of an ONNX decoder: the prompt in pieces, then token after token. */
import { promptPiece } from "../../domain/EngineProtocol.ts"
import type { ChosenLogprob, DecodingOptions, GenerateJob, TokenLogprob } from "../../domain/Job.ts"
import { refuse } from "../../domain/Job.ts"
import type { Generation, JobSignals } from "../job/JobRunner.ts"
import { notCapable } from "../job/JobRunner.ts"
import { channelSyntax } from "../model/CallGrammar.ts"
import type { ChatTemplate } from "../model/ChatTemplate.ts"
import type { Likelihood } from "../model/Sampler.ts"
import { likelihoods, makeSampler } from "../model/Sampler.ts"
import type { Check } from "../model/TextLimits.ts"
import { fitCheck, render, renderJob } from "../model/TextLimits.ts"
import type { Cache, Decoder } from "./OnnxDecoder.ts"
import type { Loaded } from "./OnnxLoad.ts"
import { Restraint } from "./OnnxRestraint.ts"
import type { Slot } from "./OnnxSlots.ts"
import { begin } from "./OnnxSlots.ts"
import type { OnnxTokenizer } from "./OnnxTokenizer.ts"

/** Tokens of a conversation; throws an `EngineFailure` if it is too long or the template rejects it. */
export const promptOf = (
  check: Check,
  tokenizer: OnnxTokenizer,
  template: ChatTemplate,
  messages: GenerateJob["messages"],
  tools?: GenerateJob["tools"]
): Array<number> => tokenizer.encode(render(template, check, messages, tools))

/** Tokens of a text completion: with the control tokens in its text, and the one that begins a text. */
const completionOf = (
  check: Check,
  tokenizer: OnnxTokenizer,
  vocabulary: number,
  { completion, messages: [prompt, suffix] }: GenerateJob
): ReadonlyArray<number> => {
  if (suffix !== undefined) {
    refuse({ kind: "not_supported", path: "suffix", message: "ONNX models cannot fill in the middle. Omit the suffix" })
  }
  const text = prompt?.content ?? ""
  check(text.length)
  const tokens = completion?.tokens ?? tokenizer.encodePrompt(text)
  const index = tokens.findIndex((token) => token >= vocabulary)
  if (tokens.length === 0 || index >= 0) {
    refuse({
      kind: "invalid_request",
      path: index < 0 ? "messages" : `completion.tokens[${index}]`,
      message: index < 0
        ? "Expected a prompt that is not empty: the model has no token that begins a text"
        : `Expected a token id below ${vocabulary}, the size of the model's vocabulary, got ${tokens[index]}`
    })
  }
  return tokens
}

/** The inputs of one answer. */
interface Answer {
  readonly decoder: Decoder
  readonly slot: Slot
  /** The part of the prompt that the slot has not computed. */
  readonly prompt: ReadonlyArray<number>
  /** The next token; undefined at the end of the answer. */
  readonly choose: (logits: Float32Array) => number | undefined
  readonly restraint: Restraint
  readonly signals: JobSignals
}

async function* evaluate(
  { choose, decoder, prompt, restraint, slot, signals }: Answer
): AsyncGenerator<number, void, undefined> {
  let next = prompt
  const keep = (cache: Cache, computed: ReadonlyArray<number>) => {
    slot.cache = cache
    slot.tokens = slot.tokens.concat(computed)
  }
  while (next.length > promptPiece) {
    const piece = next.slice(0, promptPiece)
    keep(await decoder.read(slot.cache, piece), piece)
    slot.inPieces += promptPiece
    next = next.slice(promptPiece)
    if (signals.isCancelled()) return
    signals.progress()
  }
  while (true) {
    const { cache, logits } = await decoder.step(slot.cache, next)
    keep(cache, next)
    const token = choose(logits)
    if (token === undefined) return
    const restrained = restraint.accept(token)
    if (restrained !== undefined) await restrained
    yield token
    next = [token]
  }
}

/** How the model writes calls; undefined if its template does not show it. */
const callSyntaxOf = ({ style, template }: Extract<Loaded["work"], { readonly kind: "generate" }>) =>
  style?.type === "channels" ? channelSyntax : template.callSyntax

const nothingLeft = (guarded: boolean): never =>
  refuse({
    kind: "failed",
    message: guarded
      ? "No token can come next: logit_bias bans every token that the format or the tools allow."
      : "No token can come next: logit_bias bans all tokens, or the model computes values that are not numbers."
  })

const refuseFurther = ({ dry, xtc }: DecodingOptions): void => {
  const path = xtc === undefined ? "decoding.dry" : "decoding.xtc"
  if (dry === undefined && xtc === undefined) return
  refuse({ kind: "not_supported", path, message: "ONNX models have neither XTC nor DRY sampling. Remove it" })
}

/** Chooses the tokens of an answer, and reports the probability of the last one. */
const makeChooser = (
  job: GenerateJob,
  vocabulary: number,
  tokenizer: OnnxTokenizer,
  endTokens: ReadonlySet<number>,
  prefixTokens: ReadonlyArray<number>,
  restraint: Restraint
) => {
  const { decoding = {} } = job
  const { minTokens = 0, stopTokens = [] } = decoding
  refuseFurther(decoding)
  const sampler = makeSampler(job.sampling, vocabulary, decoding.penaltyWindow)
  let length = 0
  prefixTokens.forEach(sampler.accept)
  let chosen: ReturnType<typeof likelihoods> | undefined
  const entryOf = ({ logprob, token }: Likelihood): TokenLogprob => {
    const bytes = tokenizer.bytesOf(token)
    return { token: Buffer.from(bytes).toString("utf8"), bytes: [...bytes], logprob }
  }
  const beforeEnd = (guard: Restraint["guard"]) => ({
    allows: (token: number) => !endTokens.has(token) && guard?.allows(token) !== false,
    mask: guard?.maskWithoutEnd
  })
  return {
    choose: (logits: Float32Array): number | undefined => {
      const { guard } = restraint
      if (guard?.isOver() === true) return undefined
      const { allows, mask } = length < minTokens ? beforeEnd(guard) : { ...guard }
      const token = sampler.choose(logits, allows, mask) ?? nothingLeft(guard !== undefined)
      if (endTokens.has(token) || stopTokens.includes(token)) return undefined
      length++
      sampler.accept(token)
      if (job.logprobs !== undefined) chosen = likelihoods(logits, token, job.logprobs)
      return token
    },
    logprobOf: (): ChosenLogprob => ({ ...entryOf(chosen!), top: chosen!.top.map(entryOf) })
  }
}

/**
 * Tokenizes the prompt and takes a slot; throws an `EngineFailure` if the job cannot run.
 *
 * @param take takes the slot that shares most with the prompt
 */
export const prepare = async (
  { contextWindow, tokenizer, work }: Loaded,
  job: GenerateJob,
  signals: JobSignals,
  take: (prompt: ReadonlyArray<number>) => Slot
): Promise<Generation<number>> => {
  if (work.kind !== "generate") return notCapable("generate")
  const { decoder, endTokens, guards, style, template } = work
  const { assistantPrefix = "" } = job
  const check = fitCheck(contextWindow, tokenizer.longestToken)
  check(assistantPrefix.length)
  const prefixTokens = assistantPrefix === "" ? [] : tokenizer.encode([{ text: assistantPrefix, special: false }])
  const tools = job.toolChoice === "none" ? [] : job.tools
  const { pieces, thoughts } = job.completion === undefined
    ? renderJob(template, style, check, job, tools)
    : { pieces: undefined }
  const restraint = await Restraint.make(guards, job, callSyntaxOf(work), thoughts, tokenizer)
  const { choose, logprobOf } = makeChooser(job, decoder.vocabulary, tokenizer, endTokens, prefixTokens, restraint)
  const begins = pieces === undefined
    ? completionOf(check, tokenizer, decoder.vocabulary, job)
    : tokenizer.encode(pieces)
  const prompt = [...begins, ...prefixTokens]
  const room = contextWindow - prompt.length
  if (room <= 0) refuse({ kind: "context_length_exceeded", promptTokens: prompt.length, contextWindow })
  const slot = take(prompt)
  const cachedTokens = begin(decoder, slot, prompt)
  return {
    promptTokens: prompt.length,
    cachedTokens,
    room,
    // The text of a completion goes on from the prompt.
    prefixTokens: job.completion === undefined ? prefixTokens : prompt,
    thoughts,
    tokens: evaluate({ decoder, slot, prompt: prompt.slice(cachedTokens), choose, restraint, signals }),
    logprobOf,
    decode: (tokens, before) => tokenizer.decode(tokens, before.length === 0)
  }
}
