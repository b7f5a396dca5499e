/**
 * Files in the input of the Responses dialect: texts that are sent in the request become parts of the prompt. Pure.
 *
 * **Details**
 *
 * Troupe stores no files, opens no URLs of files, and reads no formats such as PDF: those are rejected, and never left out.
 */
import * as TextFile from "../../domain/TextFile.ts"
import type { Fields } from "../shared/Json.ts"
import type { ItemProblem } from "./Items.ts"

const named = (name: unknown): string => typeof name === "string" && name !== "" ? JSON.stringify(name) : "The file"

/** What is wrong with a part of the type `input_file`. */
export const problemsOf = (part: Fields, path: string): ReadonlyArray<ItemProblem> => {
  const { file_data: data, file_id: id, file_url: url, filename } = part
  if (typeof id === "string") {
    return [{
      path: `${path}.file_id`,
      expected: "Troupe stores no files. Send the file as file_data",
      isForeign: true
    }]
  }
  if (typeof url === "string") {
    return [{
      path: `${path}.file_url`,
      expected: "Troupe does not open URLs of files. Send the file as file_data",
      isForeign: true
    }]
  }
  const encoded = TextFile.parse(typeof data === "string" ? data : "-")
  if (!TextFile.isValid(encoded)) {
    return [{ path: `${path}.file_data`, expected: "Expected a data: URL in base64, or base64" }]
  }
  if (TextFile.textOf(encoded) !== undefined) return []
  const format = encoded.mediaType === "" ? "" : ` (${encoded.mediaType.slice(0, 100)})`
  const expected = `${named(filename)}${format} is no text in UTF-8, and Troupe reads no other files. Send its text`
  return [{ path: `${path}.file_data`, expected, isForeign: true }]
}

/** The text of a checked part, after the name of the file. */
export const textOf = ({ file_data: data, filename }: Fields): string => {
  const text = TextFile.textOf(TextFile.parse(data as string)) ?? ""
  return typeof filename === "string" && filename !== "" ? `File ${JSON.stringify(filename)}:\n${text}` : text
}
