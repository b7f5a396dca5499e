/**
 * The files of the dashboard at `/ui`, which the build makes of `src/ui`.
 *
 * **Details**
 *
 * The files have no secret and need no key: the page asks for the admin key and keeps it in its memory. It calls `/admin` as
 * any other client does, so it is of use where administration answers. The Content-Security-Policy permits the page's own
 * files and requests to its own origin, and nothing else: no inline script or style, no frame, no form target.
 *
 * **Gotchas**
 *
 * The folder is next to the bundle. Where the sources run and nothing has been built, `/ui` answers 404 with what to do.
 */
import { Effect } from "effect"
import { HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import { createHash } from "node:crypto"
import { readFile } from "node:fs/promises"
import { fileURLToPath } from "node:url"
import { Settings } from "../../services/settings/Settings.ts"
import { originOf } from "./AdminListener.ts"
import * as Authentication from "./Authentication.ts"

/** The same from the sources and from a bundle: see `rolldown.config.ts`. */
const folder = new URL("../../../dist/ui/", import.meta.url)

/** The files by name, with their types. */
const types: Readonly<Record<string, string>> = {
  "index.html": "text/html; charset=utf-8",
  "app.js": "text/javascript; charset=utf-8",
  "style.css": "text/css; charset=utf-8",
  "icon.svg": "image/svg+xml",
  "LICENSES.txt": "text/plain; charset=utf-8"
}

const policy = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  // Images that a user attaches in the playground are shown as `data:`.
  "img-src 'self' data:",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
  "require-trusted-types-for 'script'",
  "trusted-types 'none'"
].join("; ")

/** Of every answer under `/ui`. */
export const securityHeaders = {
  "content-security-policy": policy,
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
  "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
  "referrer-policy": "no-referrer",
  "x-content-type-options": "nosniff",
  "x-frame-options": "DENY"
} as const

/** The paths of the dashboard. */
export const paths = ["/ui", "/ui/:file"] as const

const text = (status: number, message: string) =>
  HttpServerResponse.text(`${message}\n`, { status, headers: securityHeaders })

const missing = text(404, "The dashboard is not built. Build it with `npm run build`, or use an installed package.")

const unknown = text(404, "The dashboard has no such file. It is at /ui.")

const read = (name: string) =>
  Effect.tryPromise(() => readFile(fileURLToPath(new URL(name, folder)))).pipe(Effect.orElseSucceed(() => undefined))

/** A file, or 304 where the client has it. */
const respond = Effect.fnUntraced(function*(name: string) {
  const { headers } = yield* HttpServerRequest.HttpServerRequest
  const contentType = types[name]
  if (contentType === undefined) return unknown
  const body = yield* read(name)
  if (body === undefined) return missing
  const etag = `"${createHash("sha256").update(body).digest("base64url").slice(0, 22)}"`
  const sent = { ...securityHeaders, "cache-control": "no-cache", etag }
  return headers["if-none-match"] === etag
    ? HttpServerResponse.empty({ status: 304, headers: sent })
    : HttpServerResponse.uint8Array(body, { contentType, headers: sent })
})

/** The page's addresses of its files are relative to `/ui`, so that a proxy may put a prefix before it. */
const page = Effect.flatMap(
  HttpServerRequest.HttpServerRequest,
  ({ url }) =>
    url.split("?")[0]!.endsWith("/")
      ? Effect.succeed(HttpServerResponse.empty({ status: 308, headers: { ...securityHeaders, location: "../ui" } }))
      : respond("index.html")
)

/** What the page has to know before its first request of `/admin`: refused requests are logged and counted. */
const makeAccess = Effect.gen(function*() {
  const { server } = yield* Settings
  const authentication = yield* Authentication.make
  return Effect.map(HttpServerRequest.HttpServerRequest, ({ source }) => {
    const origin = originOf(source)
    const needsKey = origin !== "socket" && (server.admin.token !== undefined || authentication.isRequired)
    const access = { needsKey, mayChange: needsKey || origin !== undefined }
    return HttpServerResponse.jsonUnsafe(access, { headers: { ...securityHeaders, "cache-control": "no-store" } })
  })
})

export const layer = HttpRouter.use(Effect.fnUntraced(function*(router) {
  const access = yield* makeAccess
  yield* router.add("GET", "/ui", page)
  yield* router.add(
    "GET",
    "/ui/:file",
    Effect.flatMap(HttpRouter.params, ({ file = "" }) => file === "access.json" ? access : respond(file))
  )
}))
