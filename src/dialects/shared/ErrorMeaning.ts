/**
 * Classifies errors of providers: by code or type first, then by message. Pure.
 *
 * **Details**
 *
 * Sources: the error pages of OpenAI, Azure, Anthropic, Google, Mistral, DeepSeek, Moonshot, DashScope, xAI, OpenRouter and
 * Groq; the sources of vLLM, SGLang, TGI, llama.cpp and Ollama; public reports.
 */

/** A prompt's tokens and the window that they do not fit. */
export interface ContextFigures {
  readonly promptTokens: number
  readonly contextWindow: number
  /** `promptTokens` is a lower bound. */
  readonly atLeast?: boolean
  /** `promptTokens` includes the answer that was asked for. */
  readonly withAnswer?: true
}

/**
 * The prompt exceeds the context window, a content policy rejects it, the quota is used up, too many requests were sent, or the
 * provider has no capacity.
 */
export type Meaning = "context" | "content" | "quota" | "rate" | "overloaded"

const codes: Readonly<Record<Meaning, ReadonlySet<string>>> = {
  context: new Set([
    "context_length_exceeded",
    "context_window_exceeded",
    "exceed_context_size_error",
    "max_prompt_tokens_exceeded",
    "model_max_prompt_tokens_exceeded",
    "tokens_limit_reached"
  ]),
  content: new Set([
    "content_blocked",
    "content_filter",
    "content_policy_violation",
    "data_inspection_failed",
    "datainspectionfailed",
    "invalid_prompt",
    "moderation_blocked",
    "prohibited_content",
    "responsibleaipolicyviolation",
    "sensitive_words_detected"
  ]),
  quota: new Set([
    "arrearage",
    "billing_error",
    "billing_hard_limit_reached",
    "billing_not_active",
    "credit_balance_too_low",
    "exceeded_current_quota_error",
    "insufficient_balance",
    "insufficient_credits",
    "insufficient_quota",
    "insufficient_user_quota",
    "payment_required"
  ]),
  rate: new Set([
    "limit_burst_rate",
    "limit_requests",
    "rate_limit",
    "rate_limit_error",
    "rate_limit_exceeded",
    "rate_limit_reached_error",
    "rate_limited",
    "ratelimiterror",
    "ratelimitexceeded",
    "ratelimitreached",
    "resource_exhausted",
    "throttling",
    "throttling.ratequota",
    "throttlingexception",
    "too_many_requests",
    "toomanyrequestsexception",
    "userratelimitexceeded"
  ]),
  overloaded: new Set([
    "capacity_exceeded",
    "engine_overloaded",
    "engine_overloaded_error",
    "model_overloaded",
    "overloaded",
    "overloaded_error",
    "server_is_overloaded",
    "server_overloaded",
    "service_overloaded",
    "slow_down",
    "system_overloaded"
  ])
}

/**
 * Messages about a prompt that does not fit, with the token counts that they contain. Gaps in a pattern and the length of the
 * text are bounded, because a message may be as long as an answer.
 */
const unfit: ReadonlyArray<RegExp> = [
  // OpenAI, DeepSeek, OpenRouter, SGLang: the sum, and its parts.
  /context length (?:is|of) (?<window>\d+) tokens.{0,200}?(?:requested|total of)(?: about)? \d+ tokens ?[(:] ?(?<prompt>\d+) (?:in the messages|of text input|in your prompt|tokens from the input)/is,
  /context length is (?<window>\d+) tokens.{0,200}?requested(?: about)? (?<total>\d+) tokens/is,
  // vLLM.
  /context length is (?<window>\d+) tokens.{0,200}?prompt contains (?<least>at least )?(?<prompt>\d+) input tokens/is,
  // OpenAI.
  /context length is (?<window>\d+) tokens.{0,200}?(?:requested|resulted in|has|total of at least)(?: about)? (?<prompt>\d+)(?!\d| output)/is,
  /passed (?<prompt>\d+) input tokens .{0,200}?context length is only (?<window>\d+) tokens/is,
  /configured limit of (?<window>\d+) tokens.{0,100}?resulted in (?<prompt>\d+)/is,
  // Troupe.
  /prompt has (?<least>at least )?(?<prompt>\d+) tokens, and the context window of .{0,200}? is (?<window>\d+) tokens/is,
  // Anthropic, Fireworks.
  /prompt is too long: (?<prompt>\d+)(?: tokens > |, model maximum context length: )(?<window>\d+)/i,
  /input length and `max_tokens` exceed context limit: (?<prompt>\d+) \+ \d+ > (?<window>\d+)/i,
  // Gemini, Vertex.
  /input token count(?: \((?<prompt>\d+)\))? exceeds the maximum number of tokens allowed(?: \((?<window>\d+)\))?/i,
  /input token count is (?<prompt>\d+) but model only supports up to (?<window>\d+)/i,
  // Mistral, xAI, Cerebras, Moonshot, GitHub, watsonx.
  /prompt contains (?<prompt>\d+) tokens.{0,100}?with (?<window>\d+) maximum context length/is,
  /maximum prompt length is (?<window>\d+) but the request contains (?<prompt>\d+)/i,
  /current length is (?<total>\d+) while limit is (?<window>\d+)/i,
  /model token limit: (?<window>\d+) \(requested: (?<total>\d+)/i,
  /prompt token count of (?<prompt>\d+) exceeds the limit of (?<window>\d+)/i,
  /input tokens (?<prompt>\d+) cannot exceed the total tokens limit (?<window>\d+)/i,
  // SGLang, vLLM, llama.cpp, LM Studio, TGI.
  /input \((?<prompt>\d+) tokens\) is longer than the model's context length \((?<window>\d+)/i,
  /maximum context length of (?<window>\d+) tokens.{0,100}?total of (?<total>\d+)/is,
  /prompt \(length (?<prompt>\d+)\) is longer than the maximum model length of (?<window>\d+)/i,
  /request \((?<prompt>\d+) tokens\) exceeds the available context size \((?<window>\d+)/i,
  /keep the first (?<prompt>\d+) tokens.{0,200}?context length of only (?<window>\d+)/is,
  /`?max_new_tokens`? must be <= (?<window>\d+)\. Given: (?<prompt>\d+)/i,
  /`inputs` must have less than (?<window>\d+) tokens\. Given: (?<prompt>\d+)/i,
  // Without figures.
  /exceed(?:s|ed|ing)? (?:(?:the|this|its|max|maximum|available|model|model's) ){0,4}context (?:length|size|window)/i,
  /maximum context length|context (?:length|window) (?:exceeded|exceeds|is full)/i,
  /(?:prompt|input|input context) (?:is )?too long(?! (?:for|to) (?:a|the) (?:name|title|field|string))/i,
  /prompt exceeds max length|reduce the length of (?:the|your) (?:messages|prompt|input)/i,
  /range of input length should be|too many tokens: size limit exceeded|request body too large for .{1,100}? model/i
]

const refusing =
  /content management policy|content filter(?:ing)? policy|inappropriate content|content exists risk|violates? (?:our |the )?(?:usage|content|safety|acceptable use) (?:policy|policies|guidelines)|violating our usage polic|(?:input|prompt|content|request) (?:was|is|has been) (?:flagged|blocked)|requires moderation on|considered high risk/i

const unpaid =
  /credit balance is too low|insufficient (?:account )?(?:balance|credits?|funds|quota)|exceeded your current quota, please check your plan and billing|billing (?:hard )?limit has been reached|used all (?:of your )?available credits|negative credit balance/i

/** Characters of a message that are read. */
const mostRead = 4000

/** An error of any dialect. */
export interface ProviderError {
  readonly status: number
  /** Codes and types, in any case. */
  readonly codes: ReadonlyArray<string | undefined>
  readonly message: string
}

/** The statuses of a rejected prompt; older servers use 500. */
const ofRequest = new Set([400, 403, 413, 422, 451, 500])

const byWords = (status: number, text: string): Meaning | undefined => {
  if (unpaid.test(text) && status !== 429) return "quota"
  if (!ofRequest.has(status)) return undefined
  if (status !== 403 && unfit.some((words) => words.test(text))) return "context"
  return status !== 500 && refusing.test(text) ? "content" : undefined
}

/** The meaning of an error beyond its status, if it has one. */
export const meaningOf = ({ codes: given, message, status }: ProviderError): Meaning | undefined => {
  const lower = given.flatMap((code) => code === undefined ? [] : [code.toLowerCase()])
  for (const meaning of ["quota", "content", "context", "rate", "overloaded"] as const) {
    if (lower.some((code) => codes[meaning].has(code))) return meaning
  }
  return status === 402 ? "quota" : byWords(status, message.slice(0, mostRead))
}

type Groups = Readonly<Record<string, string | undefined>>

/** Undefined without both counts. */
const figuresIn = ({ least, total, window, prompt = total }: Groups): ContextFigures | undefined => {
  const figures = { promptTokens: Number(prompt), contextWindow: Number(window) }
  if (!Number.isSafeInteger(figures.promptTokens) || !Number.isSafeInteger(figures.contextWindow)) return undefined
  if (total !== undefined) return { ...figures, withAnswer: true }
  return least === undefined ? figures : { ...figures, atLeast: true }
}

/** The token counts in a message about a prompt that is too long. */
export const figuresOf = (message: string): ContextFigures | undefined => {
  const text = message.slice(0, mostRead)
  for (const words of unfit) {
    const figures = figuresIn(words.exec(text)?.groups ?? {})
    if (figures !== undefined) return figures
  }
  return undefined
}
