/**
 * The admin key, and the requests that the page makes with it.
 *
 * **Details**
 *
 * The key is in a variable of this module and nowhere else: not in the URL, in no storage and in no cookie, so a page of
 * another origin cannot use it (no CSRF), and it ends with the page. Browsers offer to keep it in their password manager.
 */
import { signal } from "@preact/signals"

/** The address of the service: this file is `ui/app.js` in it. */
const root = new URL("..", import.meta.url)

let key: string | undefined

/** What the service says of itself before the first request. */
interface Access {
  readonly needsKey: boolean
  /** Whether actions are accepted here. */
  readonly mayChange: boolean
}

/** Whether the page may ask the service. */
export interface Session {
  readonly phase: "starting" | "signedOut" | "signedIn" | "unreachable"
  /** Why the key is asked for again, or why the service is not asked. */
  readonly notice?: string
  readonly needsKey: boolean
  readonly mayChange: boolean
}

export const session = signal<Session>({ phase: "starting", needsKey: true, mayChange: true })

/** A request that the service refused, or that did not reach it (status 0). */
export class RequestError extends Error {
  readonly status: number
  readonly code: string | undefined
  /** Of the response; undefined where there was none. */
  readonly headers: Headers | undefined

  constructor(message: string, status: number, code?: string, headers?: Headers) {
    super(message)
    this.status = status
    this.code = code
    this.headers = headers
  }
}

export interface RequestOptions {
  readonly method?: "GET" | "POST" | "DELETE"
  readonly body?: unknown
  readonly signal?: AbortSignal
  /** In place of the admin key: the playground may have a key of its own. */
  readonly key?: string | undefined
  readonly accept?: string
}

const headersOf = ({ accept = "application/json", body, key: own = key }: RequestOptions): Record<string, string> => ({
  accept,
  ...(body === undefined ? {} : { "content-type": "application/json" }),
  ...(own === undefined ? {} : { authorization: `Bearer ${own}` })
})

const isAbort = (error: unknown): boolean => error instanceof DOMException && error.name === "AbortError"

const send = async (path: string, options: RequestOptions): Promise<Response> => {
  try {
    return await fetch(new URL(path.replace(/^\//, ""), root), {
      method: options.method ?? "GET",
      headers: headersOf(options),
      body: options.body === undefined ? null : JSON.stringify(options.body),
      signal: options.signal ?? null,
      cache: "no-store",
      credentials: "omit",
      redirect: "error"
    })
  } catch (error) {
    if (isAbort(error)) throw error
    throw new RequestError("The service does not answer. It is stopped, is being restarted, or cannot be reached.", 0)
  }
}

interface ErrorBody {
  readonly error?: { readonly message?: string; readonly code?: string | null }
}

const errorOf = async (response: Response): Promise<RequestError> => {
  const text = await response.text().catch(() => "")
  try {
    const { error } = JSON.parse(text) as ErrorBody
    const message = error?.message ?? `The service answered with status ${response.status}.`
    return new RequestError(message, response.status, error?.code ?? undefined, response.headers)
  } catch {
    const message = text.trim() || `The service answered with status ${response.status}.`
    return new RequestError(message, response.status, undefined, response.headers)
  }
}

/** A response of the service. A rejected admin key ends the session. */
export const request = async (path: string, options: RequestOptions = {}): Promise<Response> => {
  const response = await send(path, options)
  if (response.ok) return response
  const error = await errorOf(response)
  if (error.status === 401 && options.key === undefined && path.startsWith("/admin")) {
    signOut(key === undefined ? "The service needs an admin key now." : `The key was rejected. ${error.message}`)
  }
  throw error
}

export const ask = async <A>(path: string, options?: RequestOptions): Promise<A> =>
  await (await request(path, options)).json() as A

export const messageOf = (error: unknown): string => error instanceof Error ? error.message : String(error)

/** Whether the request was cancelled by the page itself. */
export const wasCancelled = isAbort

export const signOut = (notice?: string): void => {
  key = undefined
  session.value = {
    ...session.value,
    phase: "signedOut",
    needsKey: true,
    ...(notice === undefined ? {} : { notice })
  }
}

const signedIn = ({ mayChange, needsKey }: Access): void => {
  session.value = { phase: "signedIn", mayChange, needsKey }
}

/** Takes the key if the service accepts it; fails otherwise. */
export const signIn = async (given: string): Promise<void> => {
  await ask("/admin/deployments", { key: given })
  key = given
  signedIn({ needsKey: true, mayChange: true })
}

/** Asks whether the service needs a key. Where it is not reached, it is asked again. */
export const start = async (): Promise<void> => {
  try {
    const access = await ask<Access>("/ui/access.json")
    if (access.needsKey) {
      session.value = { phase: "signedOut", ...access }
      return
    }
    await ask("/admin/deployments")
    signedIn(access)
  } catch (error) {
    const status = error instanceof RequestError ? error.status : 0
    const phase = status === 0 ? "unreachable" : "signedOut"
    session.value = { phase, notice: messageOf(error), needsKey: true, mayChange: true }
    if (status === 0) setTimeout(() => void start(), 2_000)
  }
}
