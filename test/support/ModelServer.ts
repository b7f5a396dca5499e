/** A local server of model files, with Hugging Face's API and configurable faults. */
import { createHash } from "node:crypto"
import { once } from "node:events"
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from "node:http"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"

/** The faults of one response; default none. */
export interface Fault {
  /** Responds with this status instead. */
  readonly status?: number
  readonly headers?: Readonly<Record<string, string>>
  /** Cuts the connection after this many bytes of the body. */
  readonly cutAfter?: number
  /** Sends nothing after this many bytes of the body. */
  readonly stallAfter?: number
  /** Changes the byte at this offset of the file. */
  readonly corruptAt?: number
  readonly ignoreRanges?: boolean
  readonly etag?: string
  /** Announces this many bytes more than the file has. */
  readonly lengthOff?: number
}

/** A received request. */
export interface Seen {
  readonly path: string
  readonly headers: IncomingHttpHeaders
}

export interface ModelServer {
  readonly url: string
  readonly port: number
  readonly seen: ReadonlyArray<Seen>
  /** Bytes of all sent bodies. */
  readonly sentBytes: () => number
  readonly close: () => Promise<void>
}

export const sha256Of = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex")

const treeOf = (files: Readonly<Record<string, Uint8Array>>) =>
  Object.entries(files).map(([path, bytes]) => ({
    type: "file",
    path,
    size: bytes.length,
    ...(/\.(gguf|onnx)$/.test(path) ? { lfs: { oid: sha256Of(bytes), size: bytes.length, pointerSize: 130 } } : {})
  }))

/** The range of the file that a request selects. */
const startOf = (request: IncomingMessage, etag: string, fault: Fault): number | undefined => {
  const [, first] = /^bytes=(\d+)-$/.exec(request.headers.range ?? "") ?? []
  const condition = request.headers["if-range"]
  const isSame = condition === undefined || condition === etag
  return first === undefined || !isSame || fault.ignoreRanges === true ? undefined : Number(first)
}

const sendBody = async (response: ServerResponse, body: Uint8Array, fault: Fault) => {
  const end = fault.cutAfter ?? fault.stallAfter
  if (end === undefined || end > body.length) return void response.end(body)
  response.write(body.subarray(0, end), () => {
    if (fault.cutAfter !== undefined) response.destroy()
  })
}

/** Headers of the response with a body. */
const headersOf = (file: Uint8Array, start: number | undefined, etag: string, more: number) => ({
  etag,
  "content-length": file.length - (start ?? 0) + more,
  "x-repo-commit": "0123456789abcdef",
  ...(start === undefined ? {} : { "content-range": `bytes ${start}-${file.length - 1}/${file.length + more}` })
})

const damaged = (file: Uint8Array, at: number | undefined): Uint8Array =>
  at === undefined ? file : file.with(at, file[at]! ^ 0xff)

const send = (request: IncomingMessage, response: ServerResponse, file: Uint8Array, fault: Fault): number => {
  const etag = fault.etag ?? `"${sha256Of(file).slice(0, 16)}"`
  const start = startOf(request, etag, fault)
  if (start !== undefined && start >= file.length) {
    response.writeHead(416, { etag, "content-range": `bytes */${file.length}` }).end()
    return 0
  }
  const body = damaged(file, fault.corruptAt).subarray(start)
  response.writeHead(start === undefined ? 200 : 206, headersOf(file, start, etag, fault.lengthOff ?? 0))
  void sendBody(response, body, fault)
  return Math.min(body.length, fault.cutAfter ?? fault.stallAfter ?? body.length)
}

/** Hugging Face's list of files: complete, or in pages. */
export interface Paging {
  readonly pageSize: number
  /** The URL of the next page; left out, this server's own. */
  readonly next?: (cursor: number) => string
}

const treePath = "/api/models/org/model/tree/main?recursive=1"

const sendTree = (
  response: ServerResponse,
  path: string,
  files: Readonly<Record<string, Uint8Array>>,
  { next = (cursor) => `${treePath}&cursor=${cursor}`, pageSize }: Paging
): void => {
  const tree = treeOf(files)
  const cursor = Number(/&cursor=(\d+)$/.exec(path)?.[1] ?? 0)
  const end = cursor + pageSize
  const link = { link: `<${treePath}>; rel="first", <${next(end)}>; rel="next"` }
  response.writeHead(200, { "content-type": "application/json", ...(end < tree.length ? link : {}) })
    .end(JSON.stringify(tree.slice(cursor, end)))
}

/**
 * Serves the files of the repository `org/model` only.
 *
 * @param faultOf the faults of the request with this number, counted from 0 over all requests
 */
export const startModelServer = async (
  files: Readonly<Record<string, Uint8Array>>,
  faultOf: (index: number, request: Seen) => Fault | undefined = () => undefined,
  paging: Paging = { pageSize: Number.POSITIVE_INFINITY }
): Promise<ModelServer> => {
  const seen: Array<Seen> = []
  let sent = 0
  const server = createServer((request, response) => {
    const path = decodeURIComponent(request.url ?? "")
    const one = { path, headers: request.headers }
    const fault = faultOf(seen.length, one) ?? {}
    seen.push(one)
    if (fault.status !== undefined) return void response.writeHead(fault.status, fault.headers).end("no")
    if (path.startsWith(treePath)) return sendTree(response, path, files, paging)
    const file = files[path.replace("/org/model/resolve/main/", "").replace(/\?.*$/, "")]
    if (file === undefined) return void response.writeHead(404).end("Entry not found")
    sent += send(request, response, file, fault)
  })
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  const { port } = server.address() as AddressInfo
  return {
    url: `http://127.0.0.1:${port}`,
    port,
    seen,
    sentBytes: () => sent,
    close: async () => {
      server.closeAllConnections()
      server.close()
      await once(server, "close")
    }
  }
}
