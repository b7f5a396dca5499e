/**
 * Signals: the first one stops the command in order, the second one ends the process immediately.
 *
 * **Gotchas**
 *
 * `npm start` and `npm run troupe` forward each signal to the service, so that a supervisor can stop it through npm. A
 * terminal sends Ctrl-C both to npm and to the service, so one Ctrl-C arrives twice within a moment.
 */
import { unlinkSync } from "node:fs"

/** The scripts of this repository that run the command line. */
const scripts = new Set<string | undefined>(["start", "troupe"])

/** How long after a signal npm may forward it, ms; a second Ctrl-C takes longer. */
const forwarding = 500

/**
 * Whether a signal ends the process immediately.
 *
 * @param script that npm runs, from `npm_lifecycle_event`
 */
export const endsImmediately = (firstAtMs: number | undefined, nowMs: number, script: string | undefined): boolean =>
  firstAtMs !== undefined && (!scripts.has(script) || nowMs - firstAtMs >= forwarding)

/** Files to remove when a second signal ends the process, since finalizers do not run then. */
export const temporaryFiles = new Set<string>()

/** Ends this process. An ordinary exit would end native threads in the middle of their work, which aborts. */
export const killSelf = (): void => {
  for (const file of temporaryFiles) {
    try {
      unlinkSync(file)
    } catch {
      // Removed already, or a named pipe.
    }
  }
  process.kill(process.pid, "SIGKILL")
}

/** 128 plus the number of the signal, as shells expect. */
const exitCodes = { SIGINT: 130, SIGTERM: 143 } as const

/** How often the service checks that npm's shell still runs, ms. */
const shellCheck = 250

/** npm forwards a signal to its shell, and most shells end without passing it on. */
const stopWithShell = (isStopping: () => boolean): void => {
  const shell = process.ppid
  const check = setInterval(() => {
    if (process.ppid === shell) return
    clearInterval(check)
    if (!isStopping()) process.kill(process.pid, "SIGTERM")
  }, shellCheck)
  check.unref()
}

/** Listens for signals; gives the exit code of the first one that has arrived. */
export const listen = (): () => number | undefined => {
  let exitCode: number | undefined
  let firstAt: number | undefined
  for (const [signal, code] of Object.entries(exitCodes)) {
    process.on(signal, () => {
      const now = performance.now()
      if (endsImmediately(firstAt, now, process.env["npm_lifecycle_event"])) killSelf()
      exitCode = code
      firstAt ??= now
    })
  }
  if (scripts.has(process.env["npm_lifecycle_event"])) stopWithShell(() => firstAt !== undefined)
  return () => exitCode
}
