/** How GPT-2's byte-level vocabularies write bytes as letters: those that print as themselves, the others from U+0100. */

/** The byte of each letter. */
export const byteOfLetter: ReadonlyMap<string, number> = (() => {
  const letters = new Map<string, number>()
  let others = 0x100
  for (let byte = 0; byte < 0x100; byte++) {
    const prints = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae
    letters.set(String.fromCharCode(prints ? byte : others++), byte)
  }
  return letters
})()
