/** Where administration listens, and the socket at which the command line looks for it. */
import { Context } from "effect"

export class AdminAddress extends Context.Service<AdminAddress, {
  /** A socket file, or a named pipe on Windows. */
  readonly socket?: string
  readonly url?: string
}>()("troupe/services/settings/AdminAddress") {}

/** What of `process` is needed. */
export interface Process {
  readonly platform: string
  readonly getuid?: () => number
}

/**
 * The default socket of the service whose models are on this port.
 *
 * @param temporaryFolder as `node:os` gives it
 */
export const defaultSocket = (port: number, temporaryFolder: string, { getuid, platform }: Process): string =>
  platform === "win32" ? `\\\\.\\pipe\\troupe-${port}` : `${temporaryFolder}/troupe-${getuid?.() ?? 0}/${port}.sock`
