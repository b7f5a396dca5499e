/** What is wrong with a model's file before any library sees it. */
import { access, stat } from "node:fs/promises"
import { refuse } from "../../domain/Job.ts"

/** Throws `load_failed` unless there is a file with something in it. */
export const checkFile = async (file: string): Promise<void> => {
  await access(file).catch(() => refuse({ kind: "load_failed", message: `There is no readable file at ${file}` }))
  const found = await stat(file)
  if (!found.isFile()) refuse({ kind: "load_failed", message: `${file} is not a file` })
  if (found.size === 0) refuse({ kind: "load_failed", message: `${file} is empty` })
}
