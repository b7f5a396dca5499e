/**
 * Keeps the computed prefixes of slots in files, so that a conversation continues after an unload, a crash or a restart.
 *
 * **Details**
 *
 * Prefixes are saved when the engine has had no job for a moment, and when it unloads. A prompt whose slot lacks a long part
 * of it restores the file that saves most time.
 *
 * **Gotchas**
 *
 * A job that begins while a slot is written waits for it, since nothing else can use the context then: 1,000 tokens of a small
 * model take about 10 ms. After a failure, such as a full disk, nothing more is saved until the next load.
 */
import type { Token } from "node-llama-cpp"
import type { Costs, PrefixFileOptions } from "../../domain/PrefixFiles.ts"
import { canGain, choose, isWorthSaving, largestFile } from "../../domain/PrefixFiles.ts"
import type { KnownFile, PrefixFolder } from "../model/PrefixFolder.ts"
import type { Slot } from "./LlamaSlots.ts"

/** How long saving may take when the engine unloads, ms: the process is killed some seconds later. */
const unloadLimitMs = 2_000

export interface Prefixes {
  /** Restores what a file has of a prompt, if that is faster than computing it. */
  readonly restore: (slot: Slot, prompt: Array<Token>) => Promise<void>
  /** Resolves when no slot is being written, after `begun`. */
  readonly ready: () => Promise<void>
  /** A job has begun. */
  readonly begun: () => void
  /** A job has ended. */
  readonly ended: () => void
  /** Saves the slots that changed; the engine unloads. */
  readonly close: () => Promise<void>
}

const nothing = async (): Promise<void> => {}

/** Keeps no prefixes. */
export const noPrefixes: Prefixes = {
  restore: nothing,
  ready: nothing,
  begun: () => {},
  ended: () => {},
  close: nothing
}

export interface PrefixesOptions {
  readonly folder: PrefixFolder
  readonly limits: Pick<PrefixFileOptions, "idleMs" | "maxBytes">
  readonly costs: Costs
  /** Slots without a job, the last used one at the end. */
  readonly free: ReadonlyArray<Slot>
  /** Called with one line when files cannot be written or read. */
  readonly warn: (message: string) => void
}

const cachedIn = (slot: Slot, prompt: Array<Token>): number =>
  Math.min(slot.cachedOf(prompt).shared, slot.reusable().length)

/** Saves slots, one at a time. */
const makeSaving = ({ costs, folder, free, limits, warn }: PrefixesOptions) => {
  /** Jobs of each slot when it was saved. */
  const saved = new WeakMap<Slot, number>()
  let bytesPerToken = 0
  let hasFailed = false
  /** Resolves when the state of a slot has been written. */
  let writing: Promise<void> | undefined

  const save = async (slot: Slot) => {
    saved.set(slot, slot.jobs())
    const tokens = slot.reusable()
    if (tokens.length * bytesPerToken > largestFile(limits)) return
    if (!isWorthSaving(folder.files(), slot.owner, tokens, costs)) return
    const { owner } = slot
    const path = folder.create()
    try {
      const state = slot.save(path)
      writing = state.catch(() => {})
      await state
      writing = undefined
      bytesPerToken = await folder.commit(path, owner, Uint32Array.from(tokens)) / tokens.length
    } finally {
      writing = undefined
      folder.discard(path)
    }
  }

  return {
    writing: () => writing,
    /** Saves the slots that changed, the last used one first, as long as `goesOn` allows. */
    async all(goesOn: () => boolean) {
      for (const slot of free.toReversed()) {
        if (hasFailed || !goesOn()) return
        if (saved.get(slot) === slot.jobs() || slot.jobs() === 0) continue
        await save(slot).catch((cause: Error) => {
          hasFailed = true
          warn(`Computed prompts are not kept: ${cause.message}`)
        })
      }
    }
  }
}

export const makePrefixes = (options: PrefixesOptions): Prefixes => {
  const { costs, folder, limits: { idleMs }, warn } = options
  const saving = makeSaving(options)
  let running = 0
  let timer: NodeJS.Timeout | undefined
  let pass: Promise<void> = Promise.resolve()

  const load = async (slot: Slot, file: KnownFile) => {
    if (!await folder.isIntact(file)) return
    try {
      await slot.restore(file.path)
    } catch {
      return folder.reject(file, "could not be read")
    }
    folder.used(file)
  }

  const restore = async (slot: Slot, prompt: Array<Token>) => {
    const computed = cachedIn(slot, prompt)
    if (!canGain(prompt.length, computed, costs)) return
    const file = choose(folder.files(), slot.owner, prompt, computed, costs)
    if (file !== undefined) await load(slot, file)
  }

  return {
    restore: (slot, prompt) =>
      restore(slot, prompt).catch((cause: Error) => warn(`A computed prompt was not restored: ${cause.message}`)),
    ready: () => saving.writing() ?? nothing(),
    begun() {
      running++
      clearTimeout(timer)
    },
    ended() {
      running--
      if (running > 0) return
      timer = setTimeout(() => {
        pass = pass.then(() => saving.all(() => running === 0))
      }, idleMs).unref()
    },
    async close() {
      clearTimeout(timer)
      await pass
      const end = performance.now() + unloadLimitMs
      await saving.all(() => performance.now() < end)
    }
  }
}
