/**
 * Which signals ask for an end at once. Pure.
 *
 * **Gotchas**
 *
 * `npm start` forwards each signal to the service, so that a supervisor can stop it through npm. A terminal sends Ctrl-C to
 * npm and to the service alike, so one Ctrl-C then arrives twice within a moment.
 */

/** How long after a signal npm may forward it, ms; a person who means it presses again. */
const forwarding = 500

/** @param script that npm runs, from `npm_lifecycle_event` */
export const endsAtOnce = (firstAtMs: number | undefined, nowMs: number, script: string | undefined): boolean =>
  firstAtMs !== undefined && (script !== "start" || nowMs - firstAtMs >= forwarding)
