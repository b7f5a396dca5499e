/**
 * Texts that callers send as files, in base64. Pure.
 *
 * **Details**
 *
 * A file is a `data:` URL or base64 alone. It is a text if its bytes are valid UTF-8 without NUL, and no PDF: a PDF may be
 * ASCII alone.
 *
 * **Gotchas**
 *
 * Texts in other encodings, such as UTF-16, are bytes like any other.
 */

/** A file as it was sent. */
export interface Encoded {
  /** What is before the base64 of a `data:` URL; empty: base64 alone. */
  readonly prefix: string
  /** In lower case; empty: not given. */
  readonly mediaType: string
  readonly data: string
}

const dataUrl = /^data:([^;,]*)(?:;[^,]*)?;base64,/i

const base64 = /^[A-Za-z0-9+/]*={0,2}$/

export const parse = (fileData: string): Encoded => {
  const [prefix = "", mediaType = ""] = dataUrl.exec(fileData) ?? []
  return { prefix, mediaType: mediaType.toLowerCase(), data: fileData.slice(prefix.length) }
}

/** Whether what should be base64 is base64. */
export const isValid = ({ data }: Encoded): boolean => data.length % 4 === 0 && base64.test(data)

const utf8 = new TextDecoder("utf-8", { fatal: true })

/** The text of a file that is one. Characters that base64 does not have are passed over, as lenient decoders do. */
export const textOf = (file: Encoded): string | undefined => {
  try {
    const text = utf8.decode(Buffer.from(file.data, "base64"))
    return text.includes("\0") || text.startsWith("%PDF-") ? undefined : text
  } catch {
    return undefined
  }
}

/** The same file with another text. */
export const withText = ({ prefix }: Encoded, text: string): string =>
  prefix + Buffer.from(text, "utf8").toString("base64")
