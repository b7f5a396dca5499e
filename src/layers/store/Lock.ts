/**
 * A lock file, so that one process at a time pulls a model, among processes, containers and machines that share the store.
 *
 * **Details**
 *
 * The lock is a file beside the model's folder. Its owner updates the file's time every few seconds; a lock whose time is
 * older than `Defaults.pullLockExpiry` has expired, and the next pull takes it over. A process id is meaningless in another
 * container, so it is compared only within the same machine, boot and PID namespace, where it shows immediately that the
 * owner has ended.
 *
 * `proper-lockfile` has the same expiry and heartbeat, but not the rest: its lock is a directory without an owner, so that
 * a second pull cannot name the process that holds it and waits for the expiry after a crash; it reads the system clock and
 * its own timers instead of Effect's, and reports a lost lock by a callback outside the pull's fiber; and it adds signal
 * handlers to the process (`signal-exit`), where signals are handled by `cli/Signals`.
 *
 * **Gotchas**
 *
 * An owner that was suspended for longer than the expiry loses the lock: `lost` fails then, and the pull must end.
 */
import { Clock, Duration, Effect, Option, Schema } from "effect"
import { randomUUID } from "node:crypto"
import { readFileSync, readlinkSync } from "node:fs"
import { link, mkdir, readFile, rm, stat, utimes, writeFile } from "node:fs/promises"
import { hostname } from "node:os"
import { dirname } from "node:path"
import { setTimeout } from "node:timers/promises"
import * as Defaults from "../../domain/Defaults.ts"
import type { ModelStoreError } from "../../services/store/ModelStore.ts"
import { fail, PullInProgress, StoreUnusable } from "../../services/store/ModelStore.ts"
import { diskError, onDisk } from "./Download.ts"

const Owner = Schema.Struct({
  id: Schema.String,
  host: Schema.String,
  pid: Schema.Int,
  /** The namespace of the process id; empty if the system has none. */
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

/** IDs of the locks that this process holds: an older process may have had the same process id. */
const held = new Set<string>()

const isRunning = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return true
  } catch (cause) {
    return (cause as NodeJS.ErrnoException).code === "EPERM"
  }
}

/** Whether the owner has certainly ended. False if this process cannot check it. */
const hasEnded = (owner: Owner): boolean => {
  if (namespace === "" || owner.namespace !== namespace) return false
  return owner.pid === process.pid ? !held.has(owner.id) : !isRunning(owner.pid)
}

const textOf = (file: string): Promise<string> => readFile(file, "utf8").catch(() => "")

const ownerIn = (text: string): Owner | undefined => Option.getOrUndefined(Schema.decodeOption(OwnerText)(text))

/** Time since the file's time was set, ms; infinite if the file does not exist. */
const ageOf = (file: string, now: number): Promise<number> =>
  stat(file).then(({ mtimeMs }) => now - mtimeMs, () => Number.POSITIVE_INFINITY)

const expiryMs = Duration.toMillis(Defaults.pullLockExpiry)

/** A lock that another process holds. */
interface Held {
  readonly text: string
  readonly owner: Owner | undefined
}

/** The current holder; undefined if the lock has expired. */
const holderOf = async (file: string, now: number): Promise<Held | undefined> => {
  const text = await textOf(file)
  const owner = ownerIn(text)
  const isExpired = await ageOf(file, now) > expiryMs || (owner !== undefined && hasEnded(owner))
  return isExpired ? undefined : { text, owner }
}

/**
 * Removes an expired lock. One process at a time may, which holds the file `.expired`: another could remove a lock that was
 * taken since. A process that ended with that file is waited for until it expires, too.
 */
const removeExpired = async (file: string, now: number, expired: string): Promise<void> => {
  const mutex = `${file}.expired`
  const isOurs = await writeFile(mutex, "", { flag: "wx" }).then(() => true, (cause: NodeJS.ErrnoException) => {
    if (cause.code === "EEXIST") return false
    throw cause
  })
  if (!isOurs) {
    const age = await ageOf(mutex, now)
    if (Number.isFinite(age) && age > expiryMs) await rm(mutex, { force: true })
    return setTimeout(1)
  }
  // Where the file does not exist, there is nothing to remove.
  const isSame = await readFile(file, "utf8").then((text) => text === expired, () => false)
  if (isSame) await rm(file, { force: true })
  await rm(mutex, { force: true })
}

/** Takes the lock. Returns the holder if another process holds it. */
const take = async (file: string, owner: Owner, clock: Clock.Clock): Promise<Held | undefined> => {
  await mkdir(dirname(file), { recursive: true })
  // Written beside the lock first: a lock without the text of its owner would look expired.
  const mine = `${file}.${owner.id}`
  for (;;) {
    await writeFile(mine, JSON.stringify(owner))
    const taken = await link(mine, file).then(() => true, (cause: NodeJS.ErrnoException) => {
      if (cause.code === "EEXIST") return false
      throw cause
    })
    await rm(mine, { force: true })
    if (taken) return undefined
    const now = clock.currentTimeMillisUnsafe()
    const expired = await textOf(file)
    const holder = await holderOf(file, now)
    if (holder !== undefined) return holder
    await removeExpired(file, now, expired)
  }
}

const inProgress = (name: string, { owner }: Held): ModelStoreError =>
  fail(
    new PullInProgress({
      name,
      ...(owner === undefined ? {} : { pid: owner.pid, host: owner.host }),
      expiresSeconds: Duration.toSeconds(Defaults.pullLockExpiry)
    })
  )

/** Updates the file's time; fails when another process has the lock. */
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
  /** Updates the lock while it runs, and fails when the lock is lost. */
  readonly lost: Effect.Effect<never, ModelStoreError>
}

/** Takes the lock for the scope, or fails with the process that holds it. */
export const acquire = Effect.fnUntraced(function*(file: string, name: string) {
  const owner: Owner = { id: randomUUID(), host: hostname(), pid: process.pid, namespace }
  yield* Effect.acquireRelease(
    Effect.gen(function*() {
      const clock = yield* Clock.Clock
      held.add(owner.id)
      const holder = yield* Effect.tryPromise({
        try: () => take(file, owner, clock),
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
    lost: Effect.forever(Effect.andThen(Effect.sleep(Defaults.pullLockHeartbeat), beat(file, owner)))
  }
  return lock
})
