/** One answer of an ONNX decoder: the prompt in pieces, then token after token. */
import { promptPiece } from "../../domain/EngineProtocol.ts"
import type { ChosenLogprob, GenerateJob, TokenLogprob } from "../../domain/Job.ts"
import { refuse } from "../../domain/Job.ts"
import type { Grammar } from "../grammar/JsonGrammar.ts"
import { grammarOf, makeMatcher, toolGrammar } from "../grammar/JsonGrammar.ts"
import type { Generation, Watch } from "../job/JobRunner.ts"
import { notAble } from "../job/JobRunner.ts"
import type { ChatTemplate } from "../model/ChatTemplate.ts"
import type { Likelihood } from "../model/Sampler.ts"
import { likelihoods, makeSampler } from "../model/Sampler.ts"
import type { Check } from "../model/TextLimits.ts"
import { charactersOf, fitCheck, lengthOf } from "../model/TextLimits.ts"
import type { Cache, Decoder } from "./OnnxDecoder.ts"
import type { Loaded } from "./OnnxLoad.ts"
import type { Slot } from "./OnnxSlots.ts"
import { begin } from "./OnnxSlots.ts"
import type { OnnxTokenizer } from "./OnnxTokenizer.ts"

/** A conversation's tokens; throws an `EngineFailure` for what is too long or does not fit the template. */
export const promptOf = (
  check: Check,
  tokenizer: OnnxTokenizer,
  template: ChatTemplate,
  messages: GenerateJob["messages"],
  tools: GenerateJob["tools"] = []
): Array<number> => {
  if (tools.length > 0 && !template.knowsTools) {
    refuse({
      kind: "not_supported",
      path: "tools",
      message: "the model's chat template has no tools",
      capability: "tools"
    })
  }
  check(charactersOf(messages))
  const pieces = template.render(messages, tools)
  check(lengthOf(pieces))
  return tokenizer.encode(pieces)
}

/** What one answer is made of. */
interface Answer {
  readonly decoder: Decoder
  readonly slot: Slot
  /** What the slot has not computed yet of the prompt. */
  readonly prompt: ReadonlyArray<number>
  /** The next token, or undefined at the answer's end. */
  readonly choose: (logits: Float32Array) => number | undefined
  readonly watch: Watch
}

async function* evaluate({ choose, decoder, prompt, slot, watch }: Answer): AsyncGenerator<number, void, undefined> {
  let next = prompt
  const keep = (cache: Cache, computed: ReadonlyArray<number>) => {
    slot.cache = cache
    slot.tokens = slot.tokens.concat(computed)
  }
  while (next.length > promptPiece) {
    const piece = next.slice(0, promptPiece)
    keep(await decoder.read(slot.cache, piece), piece)
    slot.whole += promptPiece
    next = next.slice(promptPiece)
    if (watch.isCancelled()) return
    watch.progress()
  }
  while (true) {
    const { cache, logits } = await decoder.step(slot.cache, next)
    keep(cache, next)
    const token = choose(logits)
    if (token === undefined) return
    yield token
    next = [token]
  }
}

/** What the answer must be, if that is said. */
const grammarFor = ({ format, toolChoice, tools = [] }: GenerateJob): Grammar | undefined => {
  if (toolChoice === "required" || typeof toolChoice === "object") return toolGrammar(tools, toolChoice)
  return format === undefined ? undefined : grammarOf(format)
}

/** Which tokens keep an answer within its grammar. */
const makeGuard = (grammar: Grammar, { bytesOf }: OnnxTokenizer, endTokens: ReadonlySet<number>) => {
  const matcher = makeMatcher(grammar)
  return {
    allows: (token: number): boolean => {
      if (endTokens.has(token)) return matcher.isComplete()
      const bytes = bytesOf(token)
      return bytes.length > 0 && matcher.allows(bytes)
    },
    accept: (token: number) => matcher.push(bytesOf(token)),
    /** Nothing but the end can follow, so the model need not be asked. */
    isOver: () => matcher.isComplete() && !matcher.canContinue()
  }
}

const nothingLeft = (guarded: boolean): never =>
  refuse({
    kind: "failed",
    message: guarded
      ? "No token can come next: none that is not banned keeps to the format or the tools."
      : "No token can come next: all are banned, or the model computes no numbers."
  })

/** Chooses an answer's tokens, and tells how likely the last one was. */
const makeChooser = (
  job: GenerateJob,
  vocabulary: number,
  tokenizer: OnnxTokenizer,
  endTokens: ReadonlySet<number>,
  goesOn: ReadonlyArray<number>
) => {
  const sampler = makeSampler(job.sampling, vocabulary)
  goesOn.forEach(sampler.accept)
  const grammar = grammarFor(job)
  const guard = grammar === undefined ? undefined : makeGuard(grammar, tokenizer, endTokens)
  let chosen: ReturnType<typeof likelihoods> | undefined
  const told = ({ logprob, token }: Likelihood): TokenLogprob => {
    const bytes = tokenizer.bytesOf(token)
    return { token: Buffer.from(bytes).toString("utf8"), bytes: [...bytes], logprob }
  }
  return {
    choose: (logits: Float32Array): number | undefined => {
      if (guard?.isOver() === true) return undefined
      const token = sampler.choose(logits, guard?.allows) ?? nothingLeft(guard !== undefined)
      if (endTokens.has(token)) return undefined
      sampler.accept(token)
      guard?.accept(token)
      if (job.logprobs !== undefined) chosen = likelihoods(logits, token, job.logprobs)
      return token
    },
    logprobOf: (): ChosenLogprob => ({ ...told(chosen!), top: chosen!.top.map(told) })
  }
}

/**
 * Makes a job's prompt into tokens; throws an `EngineFailure` where that is the job's end.
 *
 * @param take gives the slot that suits the prompt best
 */
export const prepare = async (
  { contextWindow, tokenizer, work }: Loaded,
  job: GenerateJob,
  watch: Watch,
  take: (prompt: ReadonlyArray<number>) => Slot
): Promise<Generation<number>> => {
  if (work.kind !== "generate") return notAble("generate")
  const { decoder, endTokens, template } = work
  const { assistantPrefix = "" } = job
  const check = fitCheck(contextWindow, tokenizer.longestToken)
  check(assistantPrefix.length)
  const goesOn = assistantPrefix === "" ? [] : tokenizer.encode([{ text: assistantPrefix, special: false }])
  const { choose, logprobOf } = makeChooser(job, decoder.vocabulary, tokenizer, endTokens, goesOn)
  const prompt = [
    ...promptOf(check, tokenizer, template, job.messages, job.toolChoice === "none" ? [] : job.tools),
    ...goesOn
  ]
  const room = contextWindow - prompt.length
  if (room <= 0) refuse({ kind: "context_length_exceeded", promptTokens: prompt.length, contextWindow })
  const slot = take(prompt)
  const cachedTokens = begin(decoder, slot, prompt)
  return {
    promptTokens: prompt.length,
    cachedTokens,
    room,
    goesOn,
    tokens: evaluate({ decoder, slot, prompt: prompt.slice(cachedTokens), choose, watch }),
    logprobOf,
    decode: (tokens, before) => tokenizer.decode(tokens, before.length === 0)
  }
}
