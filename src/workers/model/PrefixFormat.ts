/**
 * The format of a file with a computed prefix: the state that the engine's library has written, the tokens, and a
 * description.
 *
 * **Details**
 *
 * `state | tokens (32-bit, little endian) | JSON | its length | its CRC-32 | magic number`. The library reads the state from the
 * beginning of the file and ignores the rest. The JSON has the CRC-32 of the state and the tokens, and the fingerprint of the
 * configuration that has computed them.
 *
 * **Gotchas**
 *
 * Native code reads the state, and a damaged one could end the process: `sumOf` is compared before each use. The checksums
 * detect accidents. They do not protect against a user who can write to the folder; such a user could replace the model as well.
 */
import { crc32 } from "node:zlib"

/** What a file holds. */
export interface PrefixContent {
  /** Of the model's files, its options and the engine's build. */
  readonly fingerprint: string
  /** The tenant as a hash, empty for none. */
  readonly owner: string
  readonly tokens: Uint32Array
}

/** The end of a file. */
export interface PrefixEnd extends PrefixContent {
  readonly stateBytes: number
  /** CRC-32 of the state and the tokens. */
  readonly sum: number
}

interface Description {
  readonly version: number
  readonly fingerprint: string
  readonly owner: string
  readonly tokens: number
  readonly stateBytes: number
  readonly sum: number
}

const version = 1
const magic = Buffer.from("TRPEPFX1", "latin1")
/** Length and checksum of the JSON, and the magic number, bytes. */
const footerBytes = 8 + magic.length
const tokenBytes = 4
const longestDescription = 4_096

/** The tokens as the file has them. */
export const tokensToBytes = (tokens: ArrayLike<number>): Buffer => {
  const bytes = Buffer.alloc(tokens.length * tokenBytes)
  for (let index = 0; index < tokens.length; index++) bytes.writeUInt32LE(tokens[index]!, index * tokenBytes)
  return bytes
}

const bytesToTokens = (bytes: Buffer): Uint32Array =>
  Uint32Array.from({ length: bytes.length / tokenBytes }, (_, index) => bytes.readUInt32LE(index * tokenBytes))

/** The bytes after the state. */
export const encodeEnd = ({ fingerprint, owner, stateBytes, sum, tokens }: PrefixEnd): Buffer => {
  const description: Description = { version, fingerprint, owner, tokens: tokens.length, stateBytes, sum }
  const json = Buffer.from(JSON.stringify(description))
  const footer = Buffer.alloc(8)
  footer.writeUInt32LE(json.length, 0)
  footer.writeUInt32LE(crc32(json), 4)
  return Buffer.concat([tokensToBytes(tokens), json, footer, magic])
}

/** Reads bytes at a position; fewer at the end of the file. */
export type Read = (position: number, length: number) => Buffer

const describedBy = (json: Buffer, sum: number): Description | undefined => {
  if (crc32(json) !== sum) return undefined
  // The checksum proves that `encodeEnd` has written it.
  const description = JSON.parse(json.toString()) as Description
  return description.version === version ? description : undefined
}

/**
 * The end of a file; undefined if it is damaged or not of this format.
 *
 * @param size of the file, bytes
 */
export const decodeEnd = (size: number, read: Read): PrefixEnd | undefined => {
  if (size < footerBytes) return undefined
  const footer = read(size - footerBytes, footerBytes)
  const length = footer.readUInt32LE(0)
  if (!footer.subarray(8).equals(magic) || length > Math.min(longestDescription, size - footerBytes)) return undefined
  const described = describedBy(read(size - footerBytes - length, length), footer.readUInt32LE(4))
  if (described === undefined) return undefined
  const { fingerprint, owner, stateBytes, sum, tokens } = described
  const tokensLength = tokens * tokenBytes
  if (stateBytes + tokensLength + length + footerBytes !== size) return undefined
  return { fingerprint, owner, stateBytes, sum, tokens: bytesToTokens(read(stateBytes, tokensLength)) }
}

/**
 * CRC-32 of the first bytes of a file, read in chunks, so that the thread runs its other jobs in between.
 *
 * @param chunk a buffer to read into
 */
export const sumOf = async (
  bytes: number,
  chunk: Buffer,
  read: (into: Buffer, position: number) => number,
  pause: () => Promise<void>
): Promise<number | undefined> => {
  let sum = 0
  for (let at = 0; at < bytes;) {
    const length = read(chunk.subarray(0, Math.min(chunk.length, bytes - at)), at)
    if (length === 0) return undefined
    sum = crc32(chunk.subarray(0, length), sum)
    at += length
    if (at < bytes) await pause()
  }
  return sum
}
