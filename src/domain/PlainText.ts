/**
 * Text of unknown origin for a terminal or a log: a model file's name, template or error may hold escape sequences that
 * move the cursor, change the title, or hide what was printed.
 *
 * **Gotchas**
 *
 * Engine processes import this module, so it must not import `effect`: see `domain/EngineProtocol`.
 */

/** Control characters except tab and line feed, and those that reorder text: Unicode's `Cc`, and bidirectional controls. */
// oxlint-disable-next-line no-control-regex
const unsafe = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g

const escaped = (character: string): string => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`

/** The text with each unsafe character written as `\u001b`; tabs and line feeds stay. */
export const plainText = (text: string): string => text.replaceAll(unsafe, escaped)

/** The same on one line: tabs and line feeds become spaces. */
export const plainLine = (text: string): string => plainText(text.replaceAll(/[\t\n\r]+/g, " "))
