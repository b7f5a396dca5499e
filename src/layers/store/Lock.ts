/**
 * One pull of a model at a time, among processes, containers and machines that share the store.
 *
 * **Details**
 *
 * The lock is a file beside the model's folder. Its owner sets the file's time every few seconds; a lock whose time is
 * older than `Policies.pullLockExpiry` is abandoned, and the next pull takes it over. A process id says nothing about a
 * process in another container, so it counts only within the same machine, boot and PID namespace, where it shows at once
 * that the owner has ended.
 *
 * **Gotchas**
 *
 * An owner that was suspended for longer than the expiry loses the lock: `lost` fails then, and the pull must end.
 */
import { Clock, Duration, Effect, Option, Schema } from "effect"
import { randomUUID } from "node:crypto"
import { readFileSync, readlinkSync } from "node:fs"
import { link, mkdir, readFile, rename, rm, stat, utimes, writeFile } from "node:fs/promises"
import { hostname } from "node:os"
import { dirname } from "node:path"
import * as Policies from "../../domain/Defaults.ts"
import type { ModelStoreError } from "../../services/store/ModelStore.ts"
import { fail, PullInProgress, StoreUnusable } from "../../services/store/ModelStore.ts"
import { diskError, onDisk } from "./Download.ts"

const Owner = Schema.Struct({
  id: Schema.String,
  host: Schema.String,
  pid: Schema.Int,
  /** Where this process id means this process; empty where the system does not say. */
  namespace: Schema.String
})
type Owner = typeof Owner.Type

const OwnerText = Schema.fromJsonString(Owner)

/** The boot of this machine and the PID namespace of this process, on Linux. */
const namespaceOf = (): string => {
  try {
    return `${readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim()} ${readlinkSync("/proc/self/ns/pid")}`
  } catch {
    return ""
  }
}

const namespace = namespaceOf()

/** Ids of this process's locks: its process id in a file may be left from another that had it before. */
const held = new Set<string>()

const isRunning = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return true
  } catch (cause) {
    return (cause as NodeJS.ErrnoException).code === "EPERM"
  }
}

/** The owner has certainly ended, as far as this process can know. */
const hasEnded = (owner: Owner): boolean => {
  if (namespace === "" || owner.namespace !== namespace) return false
  return owner.pid === process.pid ? !held.has(owner.id) : !isRunning(owner.pid)
}

const textOf = (file: string): Promise<string> => readFile(file, "utf8").catch(() => "")

const ownerIn = (text: string): Owner | undefined => Option.getOrUndefined(Schema.decodeOption(OwnerText)(text))

/** ms since the file's time was set; infinite where there is no file. */
const ageOf = (file: string, now: number): Promise<number> =>
  stat(file).then(({ mtimeMs }) => now - mtimeMs, () => Number.POSITIVE_INFINITY)

const expiryMs = Duration.toMillis(Policies.pullLockExpiry)

/** A lock that another has. */
interface Held {
  readonly text: string
  readonly owner: Owner | undefined
}

/** The lock as it stands, unless it is abandoned. */
const holderOf = async (file: string, now: number): Promise<Held | undefined> => {
  const text = await textOf(file)
  const owner = ownerIn(text)
  const isAbandoned = await ageOf(file, now) > expiryMs || (owner !== undefined && hasEnded(owner))
  return isAbandoned ? undefined : { text, owner }
}

const moveAside = async (file: string, id: string, abandoned: string): Promise<void> => {
  const aside = `${file}.${id}.aside`
  await rename(file, aside).catch(() => {})
  // Another may have moved the abandoned one away first, and taken its place.
  if (await textOf(aside) !== abandoned) await link(aside, file).catch(() => {})
  await rm(aside, { force: true })
}

/** Undefined when the lock is ours now, else its holder. */
const take = async (file: string, owner: Owner, now: number): Promise<Held | undefined> => {
  await mkdir(dirname(file), { recursive: true })
  // Written beside its place: a lock without its owner's text would look abandoned.
  const mine = `${file}.${owner.id}`
  for (;;) {
    await writeFile(mine, JSON.stringify(owner))
    const taken = await link(mine, file).then(() => true, (cause: NodeJS.ErrnoException) => {
      if (cause.code === "EEXIST") return false
      throw cause
    })
    await rm(mine, { force: true })
    if (taken) return undefined
    const abandoned = await textOf(file)
    const holder = await holderOf(file, now)
    if (holder !== undefined) return holder
    await moveAside(file, owner.id, abandoned)
  }
}

const inProgress = (name: string, { owner }: Held): ModelStoreError =>
  fail(
    new PullInProgress({
      name,
      ...(owner === undefined ? {} : { pid: owner.pid, host: owner.host }),
      expiresSeconds: Duration.toSeconds(Policies.pullLockExpiry)
    })
  )

/** Sets the file's time; fails when the lock is another's. */
const beat = Effect.fnUntraced(function*(file: string, owner: Owner) {
  const now = yield* Clock.currentTimeMillis
  const isOurs = yield* onDisk(file, async () => {
    if (ownerIn(await textOf(file))?.id !== owner.id) return false
    await utimes(file, now / 1000, now / 1000)
    return true
  })
  if (!isOurs) {
    return yield* fail(
      new StoreUnusable({
        path: file,
        detail: "the lock expired during the pull and another process took it; pull again"
      })
    )
  }
})

const release = async (file: string, owner: Owner): Promise<void> => {
  held.delete(owner.id)
  if (ownerIn(await textOf(file))?.id === owner.id) await rm(file, { force: true }).catch(() => {})
}

/** A held lock. */
export interface Lock {
  /** Keeps the lock while it runs, and fails when the lock is lost. */
  readonly lost: Effect.Effect<never, ModelStoreError>
}

/** Takes the lock for the scope, or fails with the process that has it. */
export const acquire = Effect.fnUntraced(function*(file: string, name: string) {
  const owner: Owner = { id: randomUUID(), host: hostname(), pid: process.pid, namespace }
  yield* Effect.acquireRelease(
    Effect.gen(function*() {
      const now = yield* Clock.currentTimeMillis
      held.add(owner.id)
      const holder = yield* Effect.tryPromise({
        try: () => take(file, owner, now),
        catch: (cause) => diskError(file, cause)
      })
        .pipe(Effect.tapError(() => Effect.sync(() => held.delete(owner.id))))
      if (holder === undefined) return
      held.delete(owner.id)
      return yield* inProgress(name, holder)
    }),
    () => Effect.promise(() => release(file, owner))
  )
  const lock: Lock = {
    lost: Effect.forever(Effect.andThen(Effect.sleep(Policies.pullLockHeartbeat), beat(file, owner)))
  }
  return lock
})
