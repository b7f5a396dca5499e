/**
 * A model folder's tokenizer. Text of a caller never becomes a control token.
 *
 * **Details**
 *
 * The library is the tokenizer of transformers.js. It needs no native code when imported on its own, so that a model can
 * run on WASM without native code.
 */
import type { Tokenizer } from "@huggingface/tokenizers"
import { byteOfLetter } from "../job/TextJoiner.ts"
import { markers } from "../job/ToolCallSyntax.ts"
import type { Piece } from "../model/ChatTemplate.ts"

/** The fields of `tokenizer.json` that this module reads; the library reads the others. */
export interface TokenizerFile {
  readonly added_tokens?: ReadonlyArray<{ readonly id: number; readonly content: string; readonly special: boolean }>
  readonly decoder?: unknown
}

/** One text or a pair, with the control tokens that the model expects around it. */
export interface ModelInput {
  readonly ids: ReadonlyArray<number>
  /** 1 for tokens of a pair's second text. */
  readonly types: ReadonlyArray<number>
}

export interface OnnxTokenizer {
  /** The texts of all control tokens. */
  readonly control: ReadonlyArray<string>
  /** Characters of the vocabulary's longest token. */
  readonly longestToken: number
  /** Ids are below this. */
  readonly size: number
  readonly idOf: (token: string) => number | undefined
  readonly encode: (pieces: ReadonlyArray<Piece>) => Array<number>
  /** A whole prompt of the caller, in which texts of control tokens are these tokens. */
  readonly encodePrompt: (text: string) => Array<number>
  readonly encodeInput: (text: string, pair?: string) => ModelInput
  /** Gives these control tokens their text, as those that begin a tool call have. */
  readonly show: (control: ReadonlyArray<string>) => void
  /** The token's bytes, which may be part of a character; empty for a control token, unless it begins a tool call. */
  readonly bytesOf: (token: number) => Uint8Array
  /** The same, without keeping them for the next call: for all tokens at once. */
  readonly readBytes: (token: number) => Uint8Array
  /** The text of `tokens`; `first` means that they begin the answer. */
  readonly decode: (tokens: ReadonlyArray<number>, first: boolean) => string
}

/** The bytes of a token's text in the vocabulary's encoding, by the tokenizer's decoders. */
const bytesBy = (decoder: string): (text: string) => Uint8Array => {
  if (decoder.includes(`"ByteLevel"`)) {
    return (text) => Uint8Array.from(text, (letter) => byteOfLetter.get(letter) ?? 0x3f)
  }
  if (decoder.includes(`"WordPiece"`)) {
    return (text) => Buffer.from(text.startsWith("##") ? text.slice(2) : ` ${text}`)
  }
  return (text) => {
    const byte = /^<0x([0-9A-F]{2})>$/.exec(text)?.[1]
    return byte === undefined ? Buffer.from(text.replaceAll("▁", " ")) : Uint8Array.of(Number.parseInt(byte, 16))
  }
}

const escape = (text: string): string => text.replaceAll(/[\\^$.*+?()[\]{}|]/g, String.raw`\$&`)

/** Wraps the library's tokenizer. */
export const makeTokenizer = (tokenizer: Tokenizer, { added_tokens = [], decoder }: TokenizerFile): OnnxTokenizer => {
  const added = new Map(added_tokens.map((token) => [token.id, token]))
  const control = added_tokens.filter(({ special }) => special).map(({ content }) => content)
  const controlToken = control.length === 0 ? /(?!)/g : new RegExp(control.map(escape).join("|"), "g")
  const vocabulary = tokenizer.get_vocab(true)
  const decoderText = JSON.stringify(decoder ?? {})
  const bytesOfText = bytesBy(decoderText)
  // A vocabulary with a space before each word puts an extra one before the first word.
  const dropsFirstSpace = !decoderText.includes(`"ByteLevel"`)
  const known: Array<Uint8Array | undefined> = []
  const shown = new Set(markers)

  const encodeText = (text: string) => tokenizer.encode(text, { add_special_tokens: false }).ids
  /** Tokenizes the first character separately, so that the text of a control token stays ordinary text. */
  const encodePiece = ({ special, text }: Piece): ReadonlyArray<number> =>
    special ? encodeText(text) : text.split(controlToken).length === 1
      ? encodeText(text)
      : text.replaceAll(controlToken, (found) => `${found[0]}\0${found.slice(1)}`).split("\0").flatMap(encodeText)
  const defused = (text: string) => text.replaceAll(controlToken, (found) => `${found[0]} ${found.slice(1)}`)

  const readBytes = (token: number): Uint8Array => {
    const found = added.get(token)
    if (found === undefined) return bytesOfText(tokenizer.id_to_token(token) ?? "")
    return found.special && !shown.has(found.content) ? new Uint8Array() : Buffer.from(found.content)
  }
  return {
    control,
    size: [...vocabulary.values()].reduce((largest, id) => Math.max(largest, id), -1) + 1,
    longestToken: [...vocabulary.keys()].reduce((longest, { length }) => Math.max(longest, length), 1),
    idOf: (token) => tokenizer.token_to_id(token),
    encode: (pieces) => pieces.flatMap((piece) => [...encodePiece(piece)]),
    encodePrompt: (text) => tokenizer.encode(text).ids,
    encodeInput(text, pair) {
      const { ids, token_type_ids } = tokenizer.encode(defused(text), {
        return_token_type_ids: true,
        ...(pair === undefined ? {} : { text_pair: defused(pair) })
      })
      return { ids, types: token_type_ids }
    },
    show: (control) => control.forEach((text) => shown.add(text)),
    readBytes,
    bytesOf: (token) => known[token] ??= readBytes(token),
    decode(tokens, first) {
      const text = Buffer.concat(tokens.map((token) => known[token] ??= readBytes(token))).toString("utf8")
      return first && dropsFirstSpace && text.startsWith(" ") ? text.slice(1) : text
    }
  }
}
