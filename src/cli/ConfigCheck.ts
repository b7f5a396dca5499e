/**
 * `troupe config check`: the configuration of every environment, and what the model files it names say of themselves.
 * Starts no engine.
 */
import { Console, Effect, Layer, Option, Result } from "effect"
import { Command } from "effect/cli"
import { relative, resolve, sep } from "node:path"
import * as App from "../App.ts"
import * as SettingsFile from "../layers/SettingsFile.ts"
import { contextSizeOf, shapeOf } from "../services/MemoryEstimate.ts"
import type { Deployment, DeploymentOptions } from "../services/Model.ts"
import { ModelFiles } from "../services/ModelFiles.ts"
import type { Problem } from "../services/Problem.ts"
import { formatPath } from "../services/Problem.ts"
import type { Resolved } from "../services/Settings.ts"
import { Settings, SettingsError } from "../services/Settings.ts"
import { bytesAsText, config, json, printJson, table } from "./Shared.ts"

/** One of the files that a deployment can be loaded from. */
interface Candidate {
  /** As `models.assistant.deployments[0]`. */
  readonly place: string
  /** Within it: `file`, `variants[0]` or `folder`. */
  readonly field: string
  readonly source: string
  readonly model: string
  readonly options: DeploymentOptions
}

/** What is known of a candidate before it is loaded. */
interface Facts extends Candidate {
  /** Tokens a slot; null where only loading tells. */
  readonly window: number | null
  /** Tokens that the model was trained for. */
  readonly trainedWindow: number | null
  readonly memoryBytes: number
}

const candidatesOf = ({ model, options }: Deployment, index: number): ReadonlyArray<Candidate> => {
  const place = formatPath(["models", model, "deployments", index])
  switch (options.engine) {
    case "llama":
      return [options.file, ...(options.variants ?? [])].map((file, at) => ({
        place,
        field: at === 0 ? "file" : `variants[${at - 1}]`,
        source: file,
        model,
        options: { ...options, file }
      }))
    case "onnx":
      return [{ place, field: "folder", source: options.folder, model, options }]
    default:
      return []
  }
}

const windowsOf = Effect.fnUntraced(function*({ options }: Candidate) {
  if (options.engine !== "llama") return { window: null, trainedWindow: null }
  const shape = shapeOf((yield* (yield* ModelFiles).inspectFile(options.file)).header)
  return { window: contextSizeOf(shape, options.contextSize), trainedWindow: shape.trainedWindow ?? null }
})

/** Where a model of the store says what became of it. */
const inStore = (settings: Resolved, path: string): string => {
  const inside = relative(settings.store.folder, path)
  return inside.startsWith("..") || resolve(inside) === inside
    ? ""
    : `. See: troupe models show ${inside.split(sep)[0]}`
}

/** What the files say of a candidate, or what is wrong with it. */
const look =
  (settings: Resolved) => (candidate: Candidate): Effect.Effect<Result.Result<Facts, Problem>, never, ModelFiles> =>
    Effect.gen(function*() {
      const { totalBytes } = yield* (yield* ModelFiles).estimate(candidate.options)
      const facts = { ...candidate, ...(yield* windowsOf(candidate)), memoryBytes: totalBytes }
      const { trainedWindow, window } = facts
      return window !== null && trainedWindow !== null && window > trainedWindow
        ? Result.fail({
          path: `${candidate.place}.contextSize`,
          expected: `Expected at most ${trainedWindow} tokens, which ${candidate.source} was trained for`
        })
        : Result.succeed(facts)
    }).pipe(
      Effect.catch(({ message }) =>
        Effect.succeed(Result.fail({
          path: `${candidate.place}.${candidate.field}`,
          expected: `${message}${inStore(settings, candidate.source)}`
        }))
      )
    )

/** Deployments of which no candidate can ever fit. */
const tooLarge = (facts: ReadonlyArray<Facts>, budgetBytes: number | undefined): ReadonlyArray<Problem> =>
  budgetBytes === undefined ? [] : [...Map.groupBy(facts, ({ place }) => place)].flatMap(([place, ofOne]) => {
    const least = Math.min(...ofOne.map(({ memoryBytes }) => memoryBytes))
    return least <= budgetBytes ? [] : [{
      path: place,
      expected: `It takes about ${bytesAsText(least)}, and memory.budget is ${bytesAsText(budgetBytes)}`
    }]
  })

/** Every local deployment's facts; fails with everything that is wrong. */
const lookAtFiles = Effect.fnUntraced(function*(settings: Resolved, file: string) {
  const missing = SettingsFile.missingFiles(settings)
  const paths = new Set(missing.map(({ path }) => path))
  const candidates = settings.models
    .flatMap(({ deployments }) => deployments.flatMap(candidatesOf))
    .filter(({ field, place }) => !paths.has(`${place}.${field}`))
  const looks = yield* Effect.forEach(candidates, look(settings))
  const facts = looks.flatMap((found) => Result.isSuccess(found) ? [found.success] : [])
  const wrong = looks.flatMap((found) => Result.isFailure(found) ? [found.failure] : [])
  const problems = [...missing, ...wrong, ...tooLarge(facts, settings.memory.budgetBytes)]
  return problems.length === 0 ? facts : yield* new SettingsError({ source: resolve(file), problems })
})

const windowAsText = ({ trainedWindow, window }: Facts): string =>
  window === null ? "" : `${window} of ${trainedWindow ?? "?"} tokens`

const printFacts = (settings: Resolved, facts: ReadonlyArray<Facts>) => {
  const { budgetBytes } = settings.memory
  const availableBytes = budgetBytes ?? process.availableMemory()
  const where = budgetBytes === undefined ? "free here" : "of the budget"
  const rows = facts.map((one) => [
    one.model,
    windowAsText(one),
    `about ${bytesAsText(one.memoryBytes)}: ${one.memoryBytes <= availableBytes ? "it fits" : "it does not fit"} the ` +
    `${bytesAsText(availableBytes)} ${where}`,
    one.source
  ])
  return rows.length === 0 ? Effect.void : Console.log(`\n${table([["MODEL", "WINDOW", "MEMORY", "SOURCE"], ...rows])}`)
}

const lookAt = Effect.fnUntraced(function*(file: string | undefined) {
  const settings = yield* SettingsFile.load({ file })
  const facts = yield* lookAtFiles(settings, file ?? SettingsFile.defaultFile).pipe(
    Effect.provide(Layer.provide(App.store, Layer.succeed(Settings, settings)))
  )
  return { settings, facts }
})

export const check = Command.make(
  "check",
  { config, json },
  ({ config, json }) =>
    lookAt(Option.getOrUndefined(config)).pipe(
      Effect.matchEffect({
        onSuccess: ({ facts, settings }) => {
          const { environment, models } = settings
          const names = models.map(({ name }) => name)
          return json
            ? printJson({
              valid: true,
              environment,
              models: names,
              files: facts.map(({ options: _, ...one }) => one)
            })
            : Effect.andThen(
              Console.log(`The configuration is valid. Environment: ${environment}. Models: ${names.join(", ")}.`),
              printFacts(settings, facts)
            )
        },
        onFailure: (error) =>
          json
            ? Effect.andThen(
              printJson({ valid: false, source: error.source, problems: error.problems }),
              Effect.sync(() => {
                process.exitCode = 1
              })
            )
            : Effect.fail(error)
      })
    )
).pipe(
  Command.withDescription("Check the configuration of every environment and its model files, without starting anything")
)
