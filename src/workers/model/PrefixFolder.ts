/**
 * The folder with files of computed prefixes that one configuration of a model can read.
 *
 * **Details**
 *
 * Several threads and processes share it: a file is written under a temporary name and renamed, and never changed later. What
 * is damaged or was written by another configuration is deleted. Only this user may read files and folder.
 *
 * **Gotchas**
 *
 * It reads synchronously, in small chunks: the asynchronous functions of `node:fs` wait for the threads that compute.
 */
import { randomUUID } from "node:crypto"
import type { Dirent } from "node:fs"
import {
  closeSync,
  existsSync,
  fstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  rmdirSync,
  rmSync,
  statfsSync,
  statSync,
  utimesSync,
  writeSync
} from "node:fs"
import { open } from "node:fs/promises"
import { dirname, join } from "node:path"
import { setImmediate } from "node:timers/promises"
import { crc32 } from "node:zlib"
import type { PrefixFile, PrefixFileOptions, StoredFile } from "../../domain/PrefixFiles.ts"
import { largestFile, replacedBy, temporary, toDelete } from "../../domain/PrefixFiles.ts"
import type { PrefixEnd } from "./PrefixFormat.ts"
import { decodeEnd, encodeEnd, sumOf, tokensToBytes } from "./PrefixFormat.ts"

/** Bytes that are read and checked without a pause. */
const chunkBytes = 2 ** 20

/** The extension of complete files. */
const extension = ".prefix"

/** A file whose end has been read. */
export interface KnownFile extends PrefixFile, PrefixEnd {
  readonly tokens: Uint32Array
  readonly path: string
}

const noEntry: ReadonlyArray<Dirent> = []

const entriesOf = (folder: string): ReadonlyArray<Dirent> =>
  existsSync(folder) ? readdirSync(folder, { withFileTypes: true }) : noEntry

/** Undefined where another process has deleted it. */
const unlessGone = <A>(read: () => A): A | undefined => {
  try {
    return read()
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return undefined
    throw cause
  }
}

const withFile = <A>(path: string, use: (descriptor: number) => A): A => {
  const descriptor = openSync(path, "r")
  try {
    return use(descriptor)
  } finally {
    closeSync(descriptor)
  }
}

const readEnd = (path: string): PrefixEnd & { readonly bytes: number } | undefined =>
  withFile(path, (descriptor) => {
    const { size } = fstatSync(descriptor)
    const end = decodeEnd(size, (position, length) => {
      const into = Buffer.alloc(length)
      return into.subarray(0, readSync(descriptor, into, 0, length, position))
    })
    return end && { ...end, bytes: size }
  })

export class PrefixFolder {
  readonly #options: PrefixFileOptions
  readonly #fingerprint: string
  readonly #path: string
  readonly #warn: (message: string) => void
  readonly #now: () => number
  readonly #files = new Map<string, KnownFile>()
  readonly #chunk = Buffer.alloc(chunkBytes)

  /**
   * Creates the folder, and deletes files that are too old.
   *
   * @param fingerprint the name of the folder: letters and digits
   * @param warn called with one line for each file that is deleted because it is not usable
   */
  constructor(
    options: PrefixFileOptions,
    fingerprint: string,
    warn: (message: string) => void,
    now: () => number = Date.now
  ) {
    this.#options = options
    this.#fingerprint = fingerprint
    this.#path = join(options.folder, fingerprint)
    this.#warn = warn
    this.#now = now
    mkdirSync(this.#path, { recursive: true, mode: 0o700 })
    this.#sweep()
    this.files()
  }

  /** The files that there are now. Only those that are new are read. */
  files(): ReadonlyArray<KnownFile> {
    const names = entriesOf(this.#path).filter((entry) => entry.isFile() && entry.name.endsWith(extension))
      .map(({ name }) => name)
    const present = new Set(names)
    for (const name of this.#files.keys()) if (!present.has(name)) this.#files.delete(name)
    for (const name of names) if (!this.#files.has(name)) this.#add(name)
    return [...this.#files.values()]
  }

  /** Whether the content is what was saved; if not, the file is deleted. */
  async isIntact(file: KnownFile): Promise<boolean> {
    const descriptor = unlessGone(() => openSync(file.path, "r"))
    if (descriptor === undefined) {
      this.#files.delete(file.name)
      return false
    }
    try {
      const sum = await this.#sumOf(descriptor, file.stateBytes + file.tokens.length * 4)
      if (sum === file.sum) return true
    } finally {
      closeSync(descriptor)
    }
    this.reject(file, "is damaged")
    return false
  }

  /** A file was used: it is among the last to be deleted. */
  used({ path }: KnownFile): void {
    const now = this.#now() / 1_000
    unlessGone(() => utimesSync(path, now, now))
  }

  /** Deletes a file that is not usable. */
  reject({ name, path }: Pick<KnownFile, "name" | "path">, problem: string): void {
    this.#warn(`${path} ${problem} and was deleted.`)
    this.#delete({ name, path })
  }

  /** The path of a new, empty file for the state, which `commit` completes. */
  create(): string {
    const path = join(this.#path, `${randomUUID()}${temporary}`)
    mkdirSync(this.#path, { recursive: true, mode: 0o700 })
    closeSync(openSync(path, "wx", 0o600))
    return path
  }

  /** Discards a file that `create` has made. */
  discard(path: string): void {
    rmSync(path, { force: true })
  }

  /**
   * Completes a file whose state is written, and deletes what it replaces and what is above the budget.
   *
   * @returns its size, bytes; a file that is too large is discarded
   */
  async commit(path: string, owner: string, tokens: Uint32Array): Promise<number> {
    const bytes = await this.#complete(path, owner, tokens)
    if (bytes > largestFile(this.#options)) {
      this.discard(path)
      return bytes
    }
    const name = `${randomUUID()}${extension}`
    renameSync(path, join(this.#path, name))
    const saved = this.#add(name)
    if (saved !== undefined) { for (const file of replacedBy(this.files(), saved)) this.#delete(file) }
    this.#sweep()
    return bytes
  }

  async #complete(path: string, owner: string, tokens: Uint32Array): Promise<number> {
    const handle = await open(path, "r+")
    try {
      const stateBytes = fstatSync(handle.fd).size
      const stateSum = await this.#sumOf(handle.fd, stateBytes) ?? 0
      const sum = crc32(tokensToBytes(tokens), stateSum)
      const end = encodeEnd({ fingerprint: this.#fingerprint, owner, tokens, stateBytes, sum })
      writeSync(handle.fd, end, 0, end.length, stateBytes)
      await handle.sync()
      return stateBytes + end.length
    } finally {
      await handle.close()
    }
  }

  #sumOf(descriptor: number, bytes: number): Promise<number | undefined> {
    return sumOf(
      bytes,
      this.#chunk,
      (into, position) => readSync(descriptor, into, 0, into.length, position),
      () => setImmediate()
    )
  }

  #add(name: string): KnownFile | undefined {
    const path = join(this.#path, name)
    const end = unlessGone(() => readEnd(path))
    if (end === undefined) {
      if (existsSync(path)) this.reject({ name, path }, "is damaged")
      return undefined
    }
    if (end.fingerprint !== this.#fingerprint) {
      this.reject({ name, path }, "was written by another configuration")
      return undefined
    }
    const file: KnownFile = { ...end, name, path }
    this.#files.set(name, file)
    return file
  }

  #delete({ name, path }: Pick<KnownFile, "name" | "path">): void {
    this.#files.delete(name)
    rmSync(path, { force: true })
  }

  /** Deletes files of all configurations that are too old, or above the budget. */
  #sweep(): void {
    const { folder } = this.#options
    const stored: Array<StoredFile> = []
    for (const { name: group } of entriesOf(folder).filter((entry) => entry.isDirectory())) {
      for (const { name } of unlessGone(() => entriesOf(join(folder, group))) ?? noEntry) {
        const path = join(folder, group, name)
        const stats = unlessGone(() => statSync(path))
        if (stats !== undefined) stored.push({ path, bytes: stats.size, usedAt: stats.mtimeMs })
      }
    }
    const { bavail, bsize } = statfsSync(folder)
    for (const { path } of toDelete(stored, this.#options, bavail * bsize, this.#now())) {
      rmSync(path, { force: true })
      this.#removeEmpty(dirname(path))
    }
  }

  /** Removes the folder of a configuration without files. */
  #removeEmpty(folder: string): void {
    if (folder === this.#path || entriesOf(folder).length > 0) return
    try {
      rmdirSync(folder)
    } catch {
      // Another process has removed it, or saved a file in it.
    }
  }
}
