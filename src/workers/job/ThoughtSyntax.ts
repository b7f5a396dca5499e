/**
 * How models mark their thoughts, as their chat templates show it, and where an answer begins after a prompt.
 *
 * **Details**
 *
 * Most models write a pair of markers around thoughts at the beginning of the answer. gpt-oss writes messages in channels
 * ("harmony"): `<|channel|>analysis<|message|>` begins thoughts, `final` the answer, and a recipient a call. Some templates
 * write the first marker themselves, so that the answer begins within the thoughts.
 */
import type { GenerateJob } from "../../domain/Job.ts"
import type { Piece } from "../model/ChatTemplate.ts"

/** The markers around a model's thoughts. */
export interface Pair {
  readonly start: string
  readonly end: string
}

export type ThoughtStyle = { readonly type: "pair"; readonly pair: Pair } | { readonly type: "channels" }

/** Markers of known models: the first whose `start` or `end` a template has. */
const pairs: ReadonlyArray<Pair> = [
  { start: "<think>", end: "</think>" },
  { start: "[THINK]", end: "[/THINK]" },
  { start: "<seed:think>", end: "</seed:think>" },
  { start: "<|START_THINKING|>", end: "<|END_THINKING|>" },
  { start: "<|inner_prefix|>", end: "<|inner_suffix|>" },
  { start: "<|channel>thought", end: "<channel|>" }
]

/** The control tokens of gpt-oss's format. */
export const channelMarkers = [
  "<|start|>",
  "<|channel|>",
  "<|message|>",
  "<|constrain|>",
  "<|end|>",
  "<|call|>",
  "<|return|>"
] as const

/** Those that end an answer in channels: others end one of its messages. */
export const channelEnds: ReadonlyArray<string> = ["<|return|>", "<|call|>"]

export const channelMessageEnd = "<|end|>"

/**
 * The style of a model.
 *
 * @param configured the markers of the deployment, or false for none; default those that the template has
 */
export const styleOf = (template: string, configured?: Pair | false): ThoughtStyle | undefined => {
  if (configured === false) return undefined
  if (configured !== undefined) return { type: "pair", pair: configured }
  if (template.includes("<|channel|>") && template.includes("<|message|>")) return { type: "channels" }
  const pair = pairs.find(({ end, start }) => template.includes(start) || template.includes(end))
  return pair && { type: "pair", pair }
}

/** The texts of a style that the engine must not leave out if they are control tokens. */
export const markersOf = (style: ThoughtStyle | undefined): ReadonlyArray<string> => {
  if (style === undefined) return []
  return style.type === "channels" ? channelMarkers : [style.pair.start, style.pair.end]
}

/** Where an answer begins: before possible thoughts, within them, or in its text. */
export type Beginning = "before" | "within" | "text"

/** The thoughts of one answer. */
export interface Thoughts {
  readonly style: ThoughtStyle
  readonly begins: Beginning
}

/** Whether the first character of an answer is fixed: by a format, a forced call or the text that it continues. */
const isFixed = ({ assistantPrefix = "", completion, format, toolChoice = "auto" }: GenerateJob): boolean =>
  assistantPrefix !== "" || completion !== undefined || format !== undefined ||
  (toolChoice !== "auto" && toolChoice !== "none")

/** Whether the answer is a call, and no text that it continues comes before it. */
const isForced = ({ assistantPrefix = "", completion, toolChoice = "auto" }: GenerateJob): boolean =>
  assistantPrefix === "" && completion === undefined && toolChoice !== "auto" && toolChoice !== "none"

/** Whether an answer may begin with thoughts. */
export const mayThink = (job: GenerateJob): boolean => job.thinking?.on !== false && !isFixed(job)

/**
 * What a template is told, and whether the answer may begin with thoughts. A model that writes in channels would call no tools
 * without the header of a message: where its caller wants no thoughts, it thinks little, and a forced call has the header.
 */
export const planOf = (
  style: ThoughtStyle,
  job: GenerateJob
): { readonly thinks: boolean; readonly thinking: GenerateJob["thinking"] } => {
  if (style.type === "channels" && isForced(job)) return { thinks: true, thinking: { on: true, effort: "low" } }
  if (isFixed(job)) return { thinks: false, thinking: { on: false } }
  if (style.type === "channels" && job.thinking?.on === false) {
    return { thinks: true, thinking: { on: true, effort: "low" } }
  }
  return { thinks: job.thinking?.on !== false, thinking: job.thinking }
}

const channelText = "<|channel|>final<|message|>"

/** What has to follow a prompt so that the answer begins with its text; empty if it does already. */
const closing = (style: ThoughtStyle, prompt: string, hasSwitch: boolean): string => {
  if (style.type === "channels") return channelText
  const { end, start } = style.pair
  const last = prompt.trimEnd()
  if (last.endsWith(start)) return `\n${end}\n\n`
  return hasSwitch || last.endsWith(end) ? "" : `${start}\n\n${end}\n\n`
}

/**
 * A prompt with what follows it, and where its answer begins.
 *
 * @param thinks see `planOf`
 * @param hasSwitch whether the template itself tells the model not to think
 */
export const begin = (
  style: ThoughtStyle,
  pieces: ReadonlyArray<Piece>,
  thinks: boolean,
  hasSwitch: boolean
): { readonly pieces: ReadonlyArray<Piece>; readonly thoughts: Thoughts } => {
  const prompt = pieces.slice(-8).map(({ special, text }) => special ? text : text.replaceAll(/[<[]/g, " ")).join("")
  if (!thinks) {
    const text = closing(style, prompt, hasSwitch)
    return {
      pieces: text === "" ? pieces : [...pieces, { text, special: true }],
      thoughts: { style, begins: "text" }
    }
  }
  const isWithin = style.type === "pair" && prompt.trimEnd().endsWith(style.pair.start)
  return { pieces, thoughts: { style, begins: isWithin ? "within" : "before" } }
}

/** A part of an answer; characters of markers and of white space around thoughts are `skipped`. */
export type ThoughtPart =
  | { readonly type: "text" | "thoughts" | "skipped"; readonly text: string }
  | { readonly type: "call"; readonly name: string; readonly isNew: boolean; readonly arguments: string }

export interface ThoughtReader {
  /** Whether the text so far ends within thoughts. */
  readonly isWithin: () => boolean
  /** The parts that more text cannot change. */
  readonly push: (text: string) => ReadonlyArray<ThoughtPart>
  /**
   * The remaining parts, at the end of the answer.
   *
   * @param isCut whether the model has not ended it: the beginning of a marker is left out, and is text where the model has
   */
  readonly flush: (isCut: boolean) => ReadonlyArray<ThoughtPart>
}

/** The number of characters at the end of a text that a marker may begin with. */
export const heldLength = (text: string, markers: ReadonlyArray<string>): number => {
  const longest = Math.max(...markers.map(({ length }) => length)) - 1
  for (let length = Math.min(longest, text.length); length > 0; length--) {
    const tail = text.slice(-length)
    if (markers.some((marker) => marker.startsWith(tail))) return length
  }
  return 0
}
