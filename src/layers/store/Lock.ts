/** One pull of a model at a time, among processes: a file with the process's id. A process that has died has let go. */
import { Effect } from "effect"
import { link, mkdir, readFile, rename, rm, writeFile } from "node:fs/promises"
import { dirname } from "node:path"
import type { ModelStoreError } from "../../services/ModelStore.ts"
import { fail, PullInProgress } from "../../services/ModelStore.ts"
import { diskError } from "./Download.ts"

/** Locks of this process: its own id in a file may be left from another that had it before. */
const held = new Set<string>()

const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return true
  } catch (cause) {
    return (cause as NodeJS.ErrnoException).code === "EPERM"
  }
}

const textOf = (file: string): Promise<string> => readFile(file, "utf8").catch(() => "")

/** Whose lock it is, if the process still runs. */
const holderOf = (file: string, text: string): number | undefined => {
  const pid = Number(text)
  if (!Number.isSafeInteger(pid) || pid <= 0) return undefined
  const isHeld = pid === process.pid ? held.has(file) : isAlive(pid)
  return isHeld ? pid : undefined
}

const moveAside = async (file: string, dead: string): Promise<void> => {
  const aside = `${file}.${process.pid}.aside`
  await rename(file, aside).catch(() => {})
  // Another may have moved the abandoned one away first, and taken its place.
  if (await textOf(aside) !== dead) await link(aside, file).catch(() => {})
  await rm(aside, { force: true })
}

/** Undefined when it is ours now, or who has it. */
const take = async (file: string): Promise<number | undefined> => {
  await mkdir(dirname(file), { recursive: true })
  // Written beside its place: a lock that says nobody's id yet would look abandoned.
  const mine = `${file}.${process.pid}`
  for (;;) {
    await writeFile(mine, String(process.pid))
    const taken = await link(mine, file).then(() => true, (cause: NodeJS.ErrnoException) => {
      if (cause.code === "EEXIST") return false
      throw cause
    })
    await rm(mine, { force: true })
    if (taken) {
      held.add(file)
      return undefined
    }
    const text = await textOf(file)
    const holder = holderOf(file, text)
    if (holder !== undefined) return holder
    await moveAside(file, text)
  }
}

/** Holds the lock for the scope, or fails with who holds it. */
export const acquire = (file: string, name: string) =>
  Effect.acquireRelease(
    Effect.tryPromise({ try: () => take(file), catch: (cause) => diskError(file, cause) }).pipe(
      Effect.flatMap((pid): Effect.Effect<void, ModelStoreError> =>
        pid === undefined ? Effect.void : Effect.fail(fail(new PullInProgress({ name, pid })))
      )
    ),
    () =>
      Effect.promise(async () => {
        held.delete(file)
        await rm(file, { force: true }).catch(() => {})
      })
  )
