/**
 * Computes and samples the next tokens of answers, over private parts of the library in the pinned version.
 *
 * **Details**
 *
 * libuv's thread computes a batch, and samples each answer's token from it. The library requests a token only after it has
 * been told of the batch, so that both threads wait for each other once more. With one such thread, the requests are sent
 * together with the batch, since the thread takes them in order. With several threads, which would sample at the same
 * time from a context that is not thread-safe, tokens are sampled one after another.
 *
 * The probabilities of a token (`LlamaProbabilities`) are those before temperature, penalties and biases, over the whole
 * vocabulary. They do not change which token is sampled.
 */
import type {
  Llama,
  LlamaContext,
  LlamaContextSequence,
  LlamaModel,
  SequenceEvaluateOptions,
  Token
} from "node-llama-cpp"
import { refuse } from "../../domain/Job.ts"
import type { Probabilities, Sample, Sampled, Sampler } from "./LlamaProbabilities.ts"
import { makeReadProbabilities, oneAfterAnother } from "./LlamaProbabilities.ts"
import { Rejoin } from "./LlamaRejoin.ts"

interface NativeContext {
  readonly initBatch: (size: number) => void
  readonly addToBatch: (sequence: number, first: number, tokens: Uint32Array, logits: Uint32Array) => Uint32Array
  readonly decodeBatch: () => Promise<void>
  readonly sampleToken: Sample
}

/** Called after a batch, before the next one is chosen. */
type AfterBatch = (length: number) => Promise<void> | void

interface Sequence {
  readonly _sequenceId: number
  readonly _tokenMeter: unknown
  readonly _contextShift: unknown
  readonly _takeIntervalCheckpointIfNeededAfterBatch: AfterBatch
  readonly _resolveSamplerConfig: (options: SequenceEvaluateOptions) => object
  /**
   * The results of `sample` at the places of their tokens; `sample` gets the place of a token's logits in its batch, and the
   * index of the token.
   */
  readonly _decodeTokens: (
    tokens: Array<Token>,
    logits: ReadonlyArray<true>,
    priority: number,
    meter: unknown,
    shift: unknown,
    sample: (logits: number, index: number) => Promise<Token>,
    afterBatch: AfterBatch | undefined
  ) => Promise<ReadonlyArray<Token>>
}

/** The library's default, which all sequences have. */
const priority = 5

interface Internals {
  readonly context: NativeContext
  readonly makeSampler: () => Sampler
}

const internalsOf = (llama: Llama, model: LlamaModel, context: LlamaContext): Internals => {
  const inside = { llama, model, context } as unknown as {
    readonly llama: { readonly _bindings?: { readonly AddonSampler?: new(model: unknown) => Sampler } }
    readonly model: { readonly _model?: unknown }
    readonly context: { readonly _ctx?: Partial<NativeContext> }
  }
  const AddonSampler = inside.llama._bindings?.AddonSampler
  const native = inside.context._ctx
  const nativeModel = inside.model._model
  const functions = [native?.initBatch, native?.addToBatch, native?.decodeBatch, native?.sampleToken]
  if (AddonSampler === undefined || nativeModel === undefined || functions.includes(undefined)) {
    return refuse({ kind: "load_failed", message: "This version of node-llama-cpp is not the one that Troupe pins." })
  }
  return { context: native as NativeContext, makeSampler: () => new AddonSampler(nativeModel) }
}

const tokenOf = (sampled: Sampled): Token => typeof sampled === "number" ? sampled : sampled[0]

/** The properties are read-only. */
const replace = (native: NativeContext, functions: Partial<NativeContext>): void => {
  for (const [name, value] of Object.entries(functions)) {
    Object.defineProperty(native, name, { configurable: true, value })
  }
}

/** Samples the answers of one context. */
export class Answers {
  readonly native: NativeContext
  readonly makeSampler: () => Sampler
  /** By the numbers of their sequences. */
  readonly running = new Map<number, Answer>()
  readonly readProbabilities: (logits: number, token: Token) => Promise<Probabilities>
  readonly rejoin = new Rejoin<Answer>()
  #batch: Array<readonly [answer: Answer, logits: number]> = []

  /** Patches the context: `LlamaContextSequence.evaluate` samples as answers do. */
  constructor(llama: Llama, model: LlamaModel, context: LlamaContext) {
    const { context: native, makeSampler } = internalsOf(llama, model, context)
    this.native = native
    this.makeSampler = makeSampler
    const isSingleThread = process.env["UV_THREADPOOL_SIZE"] === "1"
    const bound: Sample = native.sampleToken.bind(native)
    const sample = isSingleThread ? bound : oneAfterAnother(bound)
    this.readProbabilities = makeReadProbabilities(sample, makeSampler)
    replace(native, { sampleToken: sample })
    if (isSingleThread) this.#sampleWithBatches()
  }

  /**
   * Computes the tokens of a prompt without sampling.
   *
   * @param read called with the index of each token, and the probabilities of what comes after it, likeliest first: the most that
   *   are reported, and that of the token `next(index)`
   */
  async read(
    sequence: LlamaContextSequence,
    tokens: Array<Token>,
    next: (index: number) => Token,
    read: (index: number, probabilities: Probabilities) => void
  ): Promise<void> {
    const inside = sequence as unknown as Sequence
    await inside._decodeTokens(
      tokens,
      tokens.map(() => true as const),
      priority,
      inside._tokenMeter,
      inside._contextShift,
      async (logits, index) => {
        const token = next(index)
        read(index, await this.readProbabilities(logits, token))
        return token
      },
      sequence.needsCheckpoints ? inside._takeIntervalCheckpointIfNeededAfterBatch : undefined
    )
  }

  #sampleWithBatches(): void {
    const { native } = this
    const init = native.initBatch.bind(native)
    const add = native.addToBatch.bind(native)
    const decode = native.decodeBatch.bind(native)
    const functions: Omit<NativeContext, "sampleToken"> = {
      initBatch: (size) => {
        this.#batch = []
        init(size)
      },
      addToBatch: (sequence, first, tokens, logits) => {
        const places = add(sequence, first, tokens, logits)
        const answer = this.running.get(sequence)
        if (answer !== undefined && places.length === 1) this.#batch.push([answer, places[0]!])
        return places
      },
      decodeBatch: () => {
        const decoded = decode()
        for (const [answer, logits] of this.#batch) answer.sampleEarly(logits)
        return decoded
      }
    }
    replace(native, functions)
  }
}

/** The next tokens of one answer. No other computation of its sequence may run before `end`. */
export class Answer {
  readonly #answers: Answers
  readonly #sequence: Sequence
  readonly #sampler: Sampler
  #options: SequenceEvaluateOptions
  readonly #hasProbabilities: boolean
  readonly #afterBatch: AfterBatch
  /** The sample that was requested together with its batch. */
  #early: Promise<Token> | undefined
  #isConfigured = false
  readonly #sample = (logits: number): Promise<Token> => {
    const early = this.#early
    this.#early = undefined
    this.#answers.rejoin.sampled(this)
    return early ?? this.#request(logits)
  }
  /** Of the last token, likeliest first, if they are requested. */
  probabilities: Probabilities | undefined

  /** @param hasProbabilities requests probabilities */
  constructor(
    answers: Answers,
    sequence: LlamaContextSequence,
    options: SequenceEvaluateOptions,
    hasProbabilities: boolean
  ) {
    this.#answers = answers
    this.#sequence = sequence as unknown as Sequence
    this.#options = options
    this.#hasProbabilities = hasProbabilities
    this.#sampler = answers.makeSampler()
    const checkpoint = sequence.needsCheckpoints
      ? this.#sequence._takeIntervalCheckpointIfNeededAfterBatch
      : undefined
    this.#afterBatch = checkpoint === undefined ? () => answers.rejoin.wait() : async (length) => {
      await checkpoint(length)
      await answers.rejoin.wait()
    }
    answers.running.set(this.#sequence._sequenceId, this)
  }

  /** Samples the next tokens with other options. */
  use(options: SequenceEvaluateOptions): void {
    this.#options = options
    this.#isConfigured = false
  }

  /** Computes these tokens, and samples the one after them. */
  async after(tokens: Array<Token>): Promise<Token> {
    this.#configure()
    const logits: Array<true> = []
    logits[tokens.length - 1] = true
    const { _contextShift: shift, _tokenMeter: meter } = this.#sequence
    const decoded = this.#sequence._decodeTokens(
      tokens,
      logits,
      priority,
      meter,
      shift,
      this.#sample,
      this.#afterBatch
    )
    this.#answers.rejoin.settled(this)
    const sampled = await decoded
    const token = sampled[tokens.length - 1]!
    if (token < 0) throw new Error("The engine could not sample a token.")
    return token
  }

  /** See `Answers`. */
  sampleEarly(logits: number): void {
    this.#early = this.#request(logits)
    // The batch fails as well, and reports why.
    this.#early.catch(() => {})
  }

  async end(): Promise<void> {
    this.#answers.running.delete(this.#sequence._sequenceId)
    this.#answers.rejoin.settled(this)
    await this.#early?.catch(() => {})
    this.#sampler.dispose()
  }

  async #request(logits: number): Promise<Token> {
    const { native, readProbabilities } = this.#answers
    const token = tokenOf(await native.sampleToken(logits, this.#sampler))
    if (this.#hasProbabilities && token >= 0) this.probabilities = await readProbabilities(logits, token)
    return token
  }

  /** Penalties depend on the answer so far; all else stays. */
  #configure(): void {
    if (this.#isConfigured && this.#options.repeatPenalty === undefined) return
    this.#isConfigured = true
    this.#sampler.applyConfig(this.#sequence._resolveSamplerConfig(this.#options))
  }
}
