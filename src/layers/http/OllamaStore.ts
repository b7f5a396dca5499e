/**
 * `POST /api/pull` and `DELETE /api/delete`: the model store, for administrators, as Ollama's clients use it.
 *
 * **Details**
 *
 * A source is one of `troupe models pull`, or a page of Hugging Face as Ollama names it (`hf.co/org/repo:Q4_K_M`). Files of
 * this machine are no sources. A pulled model is served once the configuration has it; a model that the service has is there
 * already.
 */
import { Array as Arr, Effect, Option, Result, Stream } from "effect"
import { HttpServerRequest, HttpServerResponse } from "effect/http"
import * as EncodeError from "../../dialects/ollama/EncodeError.ts"
import type { PullProgress } from "../../dialects/ollama/Schema.ts"
import type { NamedCall } from "../../dialects/ollama/Tasks.ts"
import { decodeNamed } from "../../dialects/ollama/Tasks.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import { InvalidRequest, make as failure } from "../../domain/InferenceError.ts"
import { pathOf } from "../../services/engines/EngineKinds.ts"
import { Registry } from "../../services/models/Registry.ts"
import * as ModelSource from "../../services/store/ModelSource.ts"
import type { ModelStoreError, Progress } from "../../services/store/ModelStore.ts"
import { ModelStore } from "../../services/store/ModelStore.ts"
import { respondError } from "./Dialect.ts"
import { nameIn } from "./OllamaModels.ts"
import * as RequestBody from "./RequestBody.ts"

export const linesType = "application/x-ndjson"

const encoder = new TextEncoder()

const frame = (line: object): string => `${JSON.stringify(line)}\n`

/** The text of a source, as `troupe models pull` takes it; or what is wrong with it. */
export const sourceOf = (model: string): Result.Result<string, InvalidRequest> => {
  const source = model.replace(/^(?:https?:\/\/)?(?:hf\.co|huggingface\.co)\/(?!.*\/(?:resolve|tree|blob)\/)/, "hf:")
  const parsed = ModelSource.parse(source)
  if (Result.isFailure(parsed)) return Result.fail(new InvalidRequest({ path: "model", detail: parsed.failure }))
  return parsed.success.type === "path"
    ? Result.fail(
      new InvalidRequest({
        path: "model",
        detail: `No model "${model}" is configured, and it is no source of one. ` +
          "Sources are hf:org/repo[:quantization][/file] and https://host/model.gguf."
      })
    )
    : Result.succeed(source)
}

/** The lines for the progress of a pull. */
export const linesOf = (progress: Progress): ReadonlyArray<PullProgress> => {
  switch (progress.type) {
    case "received":
      return [{
        status: `pulling ${progress.file}`,
        completed: progress.receivedBytes,
        ...(progress.totalBytes === undefined ? {} : { total: progress.totalBytes })
      }]
    case "resumed":
      return [{ status: `pulling ${progress.file}`, completed: progress.fromBytes }]
    case "retry":
      return [{ status: `retrying ${progress.file}: ${progress.detail}` }]
    case "inspecting":
      return [{ status: `testing ${progress.name}` }]
    case "done":
      return [{ status: `stored as ${progress.model.manifest.name}: add it to the configuration to serve it` }, success]
    case "resolved":
      return [{ status: "pulling manifest" }]
  }
}

const success: PullProgress = { status: "success" }

const statuses: Readonly<Partial<Record<ModelStoreError["reason"]["_tag"], number>>> = {
  InvalidSource: 400,
  SourceNotFound: 404,
  NotInStore: 404,
  NameTaken: 409,
  PullInProgress: 409,
  AccessDenied: 502,
  DownloadFailed: 502,
  DiskFull: 507
}

const refusalOf = ({ message, reason }: ModelStoreError) => EncodeError.make(statuses[reason._tag] ?? 500, message)

const unavailable = EncodeError.make(501, "This service has no model store.")

const wrong = (detail: string) => failure(new InvalidRequest({ detail }))

/** The body of a request, decoded. */
const bodyOf = (
  endpoint: "delete" | "pull"
): Effect.Effect<NamedCall, InferenceError, HttpServerRequest.HttpServerRequest> =>
  Effect.gen(function*() {
    const { text } = yield* HttpServerRequest.HttpServerRequest
    const body = yield* Effect.mapError(
      text,
      () => wrong("The request body ended before it was complete, or is too large.")
    )
    return yield* Effect.fromResult(
      Result.mapError(Result.flatMap(RequestBody.parse(body), (json) => decodeNamed(json, endpoint)), failure)
    )
  })

/** A failure is a line with an error. */
const respondStream = (progress: Stream.Stream<Progress, ModelStoreError>) => {
  const lines = progress.pipe(
    Stream.map((event) => linesOf(event).map(frame).join("")),
    Stream.catch((error) => Stream.succeed(frame(refusalOf(error).body))),
    Stream.mapArray((texts) => Arr.of(encoder.encode(texts.join(""))))
  )
  return HttpServerResponse.stream(lines, { contentType: linesType })
}

const respondBuffered = (progress: Stream.Stream<Progress, ModelStoreError>) =>
  Effect.match(Stream.runDrain(progress), {
    onFailure: (error) => respondError(refusalOf(error)),
    onSuccess: () => HttpServerResponse.jsonUnsafe(success)
  })

/** Answers of the store. */
export const make = Effect.gen(function*() {
  const registry = yield* Registry
  const store = Option.getOrUndefined(yield* Effect.serviceOption(ModelStore))

  const pull = Effect.gen(function*() {
    const { model, stream } = yield* bodyOf("pull")
    if (Result.isSuccess(registry.find(nameIn(registry, model)))) {
      return stream
        ? HttpServerResponse.text(frame(success), { contentType: linesType })
        : HttpServerResponse.jsonUnsafe(success)
    }
    if (store === undefined) return respondError(unavailable)
    const source = yield* Effect.fromResult(Result.mapError(sourceOf(model), failure))
    const progress = store.pull(source)
    return stream ? respondStream(progress) : yield* respondBuffered(progress)
  })

  /** Paths that deployments load. */
  const isServed = (path: string): boolean =>
    registry.models().some(({ deployments }) => deployments.some(({ options }) => pathOf(options) === path))

  const remove = Effect.gen(function*() {
    const { model } = yield* bodyOf("delete")
    if (store === undefined) return respondError(unavailable)
    const name = model.replace(/:latest$/, "")
    const removed = Effect.gen(function*() {
      const { path } = yield* store.get(name)
      if (isServed(path)) {
        return respondError(EncodeError.make(409, `The configuration has the model "${name}". Remove it there first.`))
      }
      yield* store.remove(name)
      return HttpServerResponse.empty({ status: 200 })
    })
    return yield* Effect.match(removed, {
      onFailure: (error) => respondError(refusalOf(error)),
      onSuccess: (response) => response
    })
  })

  return { pull, remove }
})
