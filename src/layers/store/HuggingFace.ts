/**
 * Finds a model's files in a repository on Hugging Face, or on a server with the same API.
 *
 * **Details**
 *
 * `GET /api/models/{repository}/tree/main?recursive=1` lists the files with the checksums of the large ones, 1,000 on a
 * page, and `/{repository}/resolve/main/{file}` has the bytes: https://huggingface.co/docs/hub/api.
 */
import { Effect, Redacted, Result, Schema } from "effect"
import type { HttpClient } from "effect/http"
import type { Choice, RepositoryFile, Source } from "../../services/store/ModelSource.ts"
import { choose } from "../../services/store/ModelSource.ts"
import { DownloadFailed, fail, InvalidSource } from "../../services/store/ModelStore.ts"
import * as Http from "./Http.ts"
import type { Origin } from "./Origin.ts"

export interface Endpoint {
  /** As `https://huggingface.co`. */
  readonly url: string
  /** Sent to the endpoint only. */
  readonly token: Redacted.Redacted | undefined
}

const Tree = Schema.fromJsonString(Schema.Array(Schema.Struct({
  type: Schema.String,
  path: Schema.String,
  size: Schema.optional(Schema.Finite),
  lfs: Schema.optional(Schema.NullOr(Schema.Struct({ oid: Schema.String, size: Schema.optional(Schema.Finite) })))
})))

const isSafe = (path: string): boolean =>
  !path.includes("\\") && path.split("/").every((part) => part !== "" && part !== "." && part !== "..")

const filesOf = (tree: typeof Tree.Type): ReadonlyArray<RepositoryFile> =>
  tree.filter(({ path, type }) => type === "file" && isSafe(path)).map(({ lfs, path, size }) => ({
    path,
    bytes: lfs?.size ?? size ?? 0,
    sha256: lfs?.oid.toLowerCase()
  }))

const headersOf = ({ token }: Endpoint): Readonly<Record<string, string>> =>
  token === undefined ? {} : { authorization: `Bearer ${Redacted.value(token)}` }

/** Limit of the pages of a repository's list. */
const maxPages = 100

const pageOf = Effect.fnUntraced(function*(endpoint: Endpoint, url: string) {
  const { next, text } = yield* Http.getPage(url, headersOf(endpoint))
  const tree = yield* Effect.mapError(
    Schema.decodeEffect(Tree)(text),
    () => fail(new DownloadFailed({ url: Http.showUrl(url), detail: "the response is not a list of files" }))
  )
  return { files: filesOf(tree), next }
})

/** Every file of a repository. */
const list = Effect.fnUntraced(function*(endpoint: Endpoint, repository: string) {
  const files: Array<RepositoryFile> = []
  let url: string | undefined = `${endpoint.url}/api/models/${repository}/tree/main?recursive=1`
  for (let page = 0; url !== undefined; page++) {
    if (page === maxPages) {
      return yield* fail(
        new DownloadFailed({ url: Http.showUrl(url), detail: `the list of files has more than ${maxPages} pages` })
      )
    }
    const found: Effect.Success<ReturnType<typeof pageOf>> = yield* pageOf(endpoint, url)
    files.push(...found.files)
    url = found.next
  }
  return files
})

/** Lists a repository and chooses the files of the source. */
export const find = Effect.fnUntraced(function*(
  endpoint: Endpoint,
  source: Extract<Source, { readonly type: "huggingface" }>,
  typed: string
) {
  return yield* Result.match(choose(source, yield* list(endpoint, source.repository)), {
    onFailure: (detail) => Effect.fail(fail(new InvalidSource({ source: typed, detail }))),
    onSuccess: Effect.succeed
  })
})

/** The origins of the chosen files. */
export const originsOf = (
  client: HttpClient.HttpClient,
  endpoint: Endpoint,
  repository: string,
  { files, kind }: Choice
): ReadonlyArray<Origin> =>
  files.map((file) =>
    Http.make(client, {
      ...file,
      // The folder of a GGUF model has no subfolders.
      path: kind === "gguf" ? file.path.slice(file.path.lastIndexOf("/") + 1) : file.path,
      url: `${endpoint.url}/${repository}/resolve/main/${file.path.split("/").map(encodeURIComponent).join("/")}`,
      headers: headersOf(endpoint)
    })
  )
