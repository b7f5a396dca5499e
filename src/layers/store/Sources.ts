/** Finds the files of a source. */
import { Duration, Effect, Redacted, Schedule } from "effect"
import { HttpClient } from "effect/http"
import { resolve } from "node:path"
import { pullUnreachableRetries } from "../../domain/Defaults.ts"
import * as Text from "../../domain/Text.ts"
import type { Source } from "../../services/store/ModelSource.ts"
import * as ModelSource from "../../services/store/ModelSource.ts"
import type { ModelStoreError } from "../../services/store/ModelStore.ts"
import { ChecksumMismatch, DownloadFailed, fail } from "../../services/store/ModelStore.ts"
import * as Http from "./Http.ts"
import * as HuggingFace from "./HuggingFace.ts"
import * as LocalFiles from "./LocalFiles.ts"
import type { Cut, Origin } from "./Origin.ts"
import type { Found, Report, StoreContext } from "./StoreContext.ts"
import { invalid } from "./StoreContext.ts"

/** The file of a URL, with all parts of a split file. */
const originsOfUrl = (client: HttpClient.HttpClient, url: string): ReadonlyArray<Origin> => {
  const { pathname } = new URL(url)
  return ModelSource.partsOf(pathname).map((part) => {
    const at = new URL(url)
    at.pathname = part
    const path = `${ModelSource.nameOf(part)}${part === pathname ? "" : part.slice(part.lastIndexOf("-00"))}`
    return Http.make(client, {
      path: path.endsWith(".gguf") ? path : `${path}.gguf`,
      bytes: undefined,
      sha256: undefined,
      url: at.href,
      headers: {}
    })
  })
}

const findOnHuggingFace = Effect.fnUntraced(function*(
  { client, options: { endpoint }, retry }: StoreContext,
  typed: string,
  source: Extract<Source, { readonly type: "huggingface" }>,
  report: Report
) {
  const reported = Schedule.tap(
    Schedule.setInputType<Cut | ModelStoreError>()(retry),
    ({ attempt, duration, input }) =>
      input._tag === "Cut"
        ? report({
          type: "retry",
          file: source.repository,
          attempt,
          delayMs: Duration.toMillis(duration),
          detail: input.detail
        })
        : Effect.void
  )
  const problem = ModelSource.urlProblem(endpoint.url)
  if (problem !== undefined) return yield* invalid("HF_ENDPOINT", problem)
  const unfit = endpoint.token === undefined ? undefined : Text.headerProblem(Redacted.value(endpoint.token))
  if (unfit !== undefined) return yield* invalid("HF_TOKEN", `The value is not valid in an HTTP header: ${unfit}`)
  let attempts = 0
  let unreachable = 0
  const isRetried = (error: Cut | ModelStoreError): boolean => {
    if (error._tag !== "Cut") return false
    attempts++
    if (error.isUnreachable === true) unreachable++
    return unreachable <= pullUnreachableRetries
  }
  const choice = yield* HuggingFace.find(endpoint, source, typed).pipe(
    Effect.retry({ schedule: reported, while: isRetried }),
    Effect.catchTag("Cut", ({ detail }) => fail(new DownloadFailed({ url: endpoint.url, detail, attempts }))),
    Effect.provideService(HttpClient.HttpClient, client)
  )
  return { ...choice, origins: HuggingFace.originsOf(client, endpoint, source.repository, choice) } satisfies Found
})

/** Finds the files of a source. `report` gets the retries. */
export const find = (
  context: StoreContext,
  typed: string,
  source: Source,
  report: Report
): Effect.Effect<Found, ModelStoreError> => {
  switch (source.type) {
    case "huggingface":
      return findOnHuggingFace(context, typed, source, report)
    case "url": {
      const name = ModelSource.nameOf(new URL(source.url).pathname)
      return Effect.succeed({ kind: "gguf", name, origins: originsOfUrl(context.client, source.url) })
    }
    case "path":
      return LocalFiles.find(source.path)
  }
}

/** The source for manifests and messages: without a query, with an absolute path. */
export const shown = (typed: string, source: Source): string =>
  source.type === "url" ? Http.showUrl(source.url) : source.type === "path" ? resolve(source.path) : typed

/** The origins, with the given checksum for the first one. */
export const withChecksum = (
  origins: ReadonlyArray<Origin>,
  typed: string,
  given: string | undefined
): Effect.Effect<ReadonlyArray<Origin>, ModelStoreError> => {
  const [first, ...others] = origins
  if (given === undefined || first === undefined) return Effect.succeed(origins)
  const expected = given.toLowerCase()
  if (!/^[0-9a-f]{64}$/.test(expected)) {
    return Effect.fail(invalid(typed, "Expected a SHA-256 checksum of 64 hexadecimal digits"))
  }
  return first.sha256 === undefined || first.sha256 === expected
    ? Effect.succeed([{ ...first, sha256: expected }, ...others])
    : Effect.fail(fail(new ChecksumMismatch({ file: first.path, expected, actual: first.sha256 })))
}
