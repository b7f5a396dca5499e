/** Errors of the HTTP interface: what went wrong outside of inference, and an error in a dialect's shape. */

/** An error ready to be sent. */
export interface Failure {
  readonly status: number
  readonly body: unknown
  readonly headers: Readonly<Record<string, string>>
}

/** What goes wrong outside of inference; `message` is for people. */
export interface Trouble {
  readonly status: number
  readonly code: string | null
  readonly message: string
  readonly headers?: Readonly<Record<string, string>>
}
