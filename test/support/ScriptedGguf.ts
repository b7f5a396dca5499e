/**
 * Writes GGUF files whose answers are scripts, for the real engine.
 *
 * **Details**
 *
 * The vocabulary is the 256 bytes and the control tokens of the script: a prompt has one token for each byte. See
 * `bench/PositionGguf.ts`.
 */
import { positions, signsOf, width, write } from "../../bench/PositionGguf.ts"
import { byteOfLetter } from "../../src/workers/job/TextJoiner.ts"
import { makeRandom } from "../../src/workers/model/Sampler.ts"

/** A model, and what it says. */
export interface Script {
  /** The template of a chat, in Jinja. */
  readonly template: string
  /** The template for prompts with tools; left out, `template`. */
  readonly toolUse?: string
  /** The texts of control tokens; the first ends an answer. */
  readonly control: ReadonlyArray<string>
  /** The prompt that the template renders. */
  readonly prompt: string
  readonly answer: string
}

const letterOfByte = new Map([...byteOfLetter].map(([letter, byte]) => [byte, letter]))

const escape = (text: string): string => text.replaceAll(/[\\^$.*+?()[\]{}|]/g, String.raw`\$&`)

/** Writes the model, and returns nothing: its answer to `prompt` is `answer` at temperature 0. */
export const writeScriptedGguf = (file: string, { answer, control, prompt, template, toolUse }: Script): void => {
  const bytes = Array.from({ length: 256 }, (_, byte) => letterOfByte.get(byte)!)
  const tokens = [...bytes, ...control]
  const marked = new RegExp(`(${control.map(escape).join("|")})`)
  const idsOf = (text: string): ReadonlyArray<number> =>
    text.split(marked).flatMap((part) =>
      control.includes(part) ? [256 + control.indexOf(part)] : [...Buffer.from(part)]
    )
  const signs = signsOf(tokens.length, makeRandom(7))
  const start = idsOf(prompt).length
  const script = [...idsOf(answer), 256]
  const byPosition = new Float32Array(positions * width)
  for (const [index, token] of script.entries()) {
    const row = (start - 1 + index) * width
    for (let at = 0; at < width; at++) byPosition[row + at] = 20 * signs[token * width + at]!
  }
  write(file, {
    tokens,
    isControl: (id) => id >= 256,
    end: 256,
    template,
    ...(toolUse === undefined ? {} : { toolUse }),
    signs,
    byPosition
  })
}
