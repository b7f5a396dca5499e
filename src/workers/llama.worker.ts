/**
 * The llama engine's thread: a GGUF model with continuous batching over several slots, by node-llama-cpp.
 *
 * **Details**
 *
 * One context holds a sequence a slot; the tokens of all running jobs are computed in shared batches. The prompt is
 * made by the model file's own chat template, in which a caller's text can never become a control token.
 *
 * **Gotchas**
 *
 * A prompt that does not fit would be cut silently by the library, so its length is checked here; and generation ends
 * where the window ends, since going on would shift the context silently. Ending this thread while it evaluates
 * aborts the process: jobs are cancelled between tokens, and the host waits for them.
 */
import type {
  ChatHistoryItem,
  ChatWrapper,
  Llama,
  LlamaContext,
  LlamaContextSequence,
  LlamaModel,
  Token
} from "node-llama-cpp"
import { access, stat } from "node:fs/promises"
import { setImmediate } from "node:timers/promises"
import { workerData } from "node:worker_threads"
import type {
  ChatMessage,
  EngineDescription,
  EngineFailure,
  GenerateJob,
  LlamaSpec
} from "../services/EngineProtocol.ts"
import { failureFrom } from "../services/EngineProtocol.ts"
import type { Generation, JobTask } from "./JobRunner.ts"
import { runJob } from "./JobRunner.ts"

type Library = typeof import("node-llama-cpp")
type Sample = (...args: Array<unknown>) => Promise<unknown>

const spec = workerData as LlamaSpec
/** Tokens a slot gets when nobody says how many, since a model's own window may need more memory than there is. */
const largestDefaultWindow = 4096
const largestBatch = 512
const complaintsKept = 8

const refuse = (failure: EngineFailure): never => {
  throw failure
}

// A throw on this thread in mid-generation aborts the whole process unless someone listens.
process.on("uncaughtException", (cause) => {
  process.stderr.write(`troupe: the llama engine thread caught: ${cause.message}\n`)
})

const checkFile = async (): Promise<void> => {
  await access(spec.file).catch(() =>
    refuse({ kind: "load_failed", message: `There is no readable file at ${spec.file}` })
  )
  const file = await stat(spec.file)
  if (!file.isFile()) refuse({ kind: "load_failed", message: `${spec.file} is not a file` })
  if (file.size === 0) refuse({ kind: "load_failed", message: `${spec.file} is empty` })
}

const importLibrary = (): Promise<Library> =>
  import("node-llama-cpp").catch((cause: NodeJS.ErrnoException) =>
    cause.code === "ERR_MODULE_NOT_FOUND" ? refuse({ kind: "package_missing", packageName: "node-llama-cpp" }) : refuse(
      failureFrom(cause, "load_failed")
    )
  )

/** The file's own chat template; where it has none, or one that cannot be read, what its name and tokens suggest. */
const chatWrapperOf = (library: Library, model: LlamaModel): ChatWrapper => {
  const template = model.fileInfo.metadata.tokenizer.chat_template
  if (template === undefined) return library.resolveChatWrapper(model)
  try {
    return new library.JinjaTemplateChatWrapper({ template })
  } catch {
    return library.resolveChatWrapper(model)
  }
}

/**
 * Samples one sequence at a time. The library samples all sequences of a batch at once on libuv's threads, from one
 * context that llama.cpp does not make safe for that: answers then mix. One thread in the pool is order enough.
 */
const serialiseSampling = (context: LlamaContext): void => {
  if (process.env["UV_THREADPOOL_SIZE"] === "1") return
  const native = (context as unknown as { readonly _ctx?: { sampleToken?: Sample } })._ctx
  const sample = native?.sampleToken
  if (native === undefined || sample === undefined) {
    return refuse({ kind: "load_failed", message: "This version of node-llama-cpp is not the one that Troupe pins." })
  }
  let last: Promise<unknown> = Promise.resolve()
  Object.defineProperty(native, "sampleToken", {
    value: (...args: Array<unknown>) => {
      const next = last.then(() => sample.apply(native, args))
      last = next.catch(() => {})
      return next
    }
  })
}

const historyOf = (messages: ReadonlyArray<ChatMessage>): Array<ChatHistoryItem> => [
  ...messages.map(({ content, role }): ChatHistoryItem =>
    role === "assistant" ? { type: "model", response: [content] } : { type: role, text: content }
  ),
  { type: "model", response: [] }
]

/** The library's own words for a failure, which its errors leave out. */
const complaints: Array<string> = []

const loadModel = (llama: Llama): Promise<LlamaModel> =>
  llama.loadModel({ modelPath: spec.file }).catch(async (cause: Error) => {
    // Native log lines arrive on a later turn than the error they explain.
    await setImmediate()
    const why = complaints[0] ?? cause.message
    return refuse({
      kind: "load_failed",
      message: `${spec.file}: ${why.replace(/^\w+: (?:error loading model: )?/, "")}`
    })
  })

const load = async () => {
  await checkFile()
  const library = await importLibrary()
  const llama = await library.getLlama({
    gpu: false,
    build: "never",
    logLevel: library.LlamaLogLevel.error,
    logger: (_, message) => {
      complaints.push(message.trim())
      if (complaints.length > complaintsKept) complaints.shift()
    },
    maxThreads: 0
  })
  const model = await loadModel(llama)
  const contextSize = spec.contextSize ?? Math.min(model.trainContextSize, largestDefaultWindow)
  if (contextSize > model.trainContextSize) {
    refuse({
      kind: "load_failed",
      message: `contextSize is ${contextSize} tokens, and the model was trained for at most ${model.trainContextSize}`
    })
  }
  const context = await model.createContext({
    contextSize,
    sequences: spec.slots,
    threads: spec.threads,
    batchSize: Math.min(contextSize * spec.slots, largestBatch)
  })
  serialiseSampling(context)
  const { general } = model.fileInfo.metadata
  const description: EngineDescription = {
    engine: "llama",
    contextWindow: context.contextSize,
    slots: spec.slots,
    details: {
      name: general.name ?? "",
      architecture: general.architecture,
      type: model.typeDescription,
      sizeBytes: model.size
    }
  }
  return {
    llama,
    model,
    description,
    chatWrapper: chatWrapperOf(library, model),
    free: Array.from({ length: spec.slots }, () => context.getSequence())
  }
}

const loading = load().catch((cause) => refuse(failureFrom(cause, "load_failed")))
// Unhandled, the rejection would end the thread before anyone has asked `describe`.
loading.catch(() => {})

/** Tokens that end an answer: the vocabulary's own, and the template's end of a turn where that is one token. */
const endTokensOf = (model: LlamaModel, triggers: ReturnType<ChatWrapper["generateContextState"]>) =>
  new Set(
    triggers.stopGenerationTriggers
      .map((trigger) => trigger.tokenize(model.tokenizer)[0])
      .filter((token): token is Token => token !== undefined && model.isSpecialToken(token))
  )

/**
 * Runs work that needs the context to itself, while every generation waits at its next token.
 *
 * The library computes batches under the context's lock for as long as any token is asked for, so without this a
 * newcomer would wait until all others have finished.
 */
const makeInterlude = () => {
  let waiting = 0
  let over = Promise.withResolvers<void>()
  return {
    async run(work: () => Promise<void>) {
      waiting++
      try {
        await work()
      } finally {
        waiting--
        if (waiting === 0) {
          over.resolve()
          over = Promise.withResolvers()
        }
      }
    },
    /** Resolves when no one needs the context to itself. */
    pause: (): Promise<void> | undefined => waiting === 0 ? undefined : over.promise
  }
}

const interlude = makeInterlude()

async function* evaluate(
  model: LlamaModel,
  sequence: LlamaContextSequence,
  prompt: Array<Token>,
  endTokens: ReadonlySet<Token>,
  { sampling }: GenerateJob
): AsyncGenerator<Token, void, undefined> {
  if (sequence.nextTokenIndex > 0) await interlude.run(() => sequence.clearHistory())
  const tokens = sequence.evaluate(prompt, {
    temperature: sampling.temperature,
    topP: sampling.topP,
    topK: 0,
    minP: 0,
    seed: sampling.seed,
    yieldEogToken: true
  })
  for await (const token of tokens) {
    if (model.isEogToken(token) || endTokens.has(token)) return
    yield token
    await interlude.pause()
  }
}

/** Resolves once the model is loaded. */
export const describe = async (): Promise<EngineDescription> => (await loading).description

/** Frees the model's memory; no job may be running. */
export const dispose = async (): Promise<void> => {
  const loaded = await loading.catch(() => undefined)
  await loaded?.llama.dispose()
}

export default async (task: JobTask): Promise<void> => {
  const { chatWrapper, free, model } = await loading
  const sequence = free.pop()
  const prepare = async (): Promise<Generation<Token>> => {
    if (sequence === undefined) return refuse({ kind: "failed", message: "More jobs than slots reached the engine." })
    const state = chatWrapper.generateContextState({ chatHistory: historyOf(task.job.messages) })
    const prompt = state.contextText.tokenize(model.tokenizer)
    const contextWindow = sequence.contextSize
    const room = contextWindow - prompt.length
    if (room <= 0) refuse({ kind: "context_length_exceeded", promptTokens: prompt.length, contextWindow })
    return {
      promptTokens: prompt.length,
      room,
      tokens: evaluate(model, sequence, prompt, endTokensOf(model, state), task.job),
      decode: (tokens, before) => model.detokenize(tokens, false, before)
    }
  }
  await runJob(task, prepare, () => {
    if (sequence !== undefined) free.push(sequence)
  })
}
