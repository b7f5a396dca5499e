/**
 * `troupe config check`: checks the configuration of every environment, the headers of its model files, and what would stop
 * the service. Starts no engine.
 */
import { Console, Effect, Layer, Option, Result } from "effect"
import { Command } from "effect/cli"
import { relative, resolve, sep } from "node:path"
import * as App from "../App.ts"
import type { Deployment, DeploymentOptions } from "../domain/Deployment.ts"
import type { Problem } from "../domain/Problem.ts"
import { format, formatPath } from "../domain/Problem.ts"
import * as SettingsFile from "../layers/settings/SettingsFile.ts"
import { adapterPathsOf, adaptersOf, alternativesOf, pathOf } from "../services/engines/EngineKinds.ts"
import { ModelFiles } from "../services/engines/ModelFiles.ts"
import type { Verdict } from "../services/models/MemoryForecast.ts"
import * as MemoryForecast from "../services/models/MemoryForecast.ts"
import { isReference } from "../services/settings/Resolution.ts"
import type { Resolved } from "../services/settings/Settings.ts"
import { Settings, SettingsError } from "../services/settings/Settings.ts"
import { warningsOf } from "../services/settings/Warnings.ts"
import { config, json } from "./Flags.ts"
import { adapterText, bytesText, printJson, table } from "./Output.ts"
import * as StartCheck from "./StartCheck.ts"

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

/** The properties of a candidate before it is loaded. */
interface Facts extends Candidate {
  /** Context window of a slot, tokens; null if it is known only after loading. */
  readonly window: number | null
  /** Context window that the model was trained with, tokens. */
  readonly trainedWindow: number | null
  readonly memoryBytes: number
}

/** Such as `models.assistant.deployments[0]`: the ID of a deployment ends in its index. */
const placeOf = ({ id, model }: Deployment): string =>
  formatPath(["models", model, "deployments", Number(id.slice(id.lastIndexOf("#") + 1))])

const candidatesOf = (deployment: Deployment): ReadonlyArray<Candidate> =>
  alternativesOf(deployment.options).map(({ field, options, path }) => ({
    place: placeOf(deployment),
    field: formatPath(field),
    source: path,
    model: deployment.model,
    options
  }))

/** The fields with the files that a candidate is loaded from, and their paths. */
const filesOf = ({ field, options, source }: Candidate): ReadonlyArray<readonly [field: string, path: string]> => [
  [field, source],
  ...adapterPathsOf(options).map(([field, path]) => [formatPath(field), path] as const)
]

/** The command that shows a model of the store. */
const inStore = (settings: Resolved, path: string): string => {
  const inside = relative(settings.store.folder, path)
  return inside.startsWith("..") || resolve(inside) === inside
    ? ""
    : `. See: troupe models show ${inside.split(sep)[0]}`
}

/** The properties of a candidate from its files, or a problem. */
const look =
  (settings: Resolved) => (candidate: Candidate): Effect.Effect<Result.Result<Facts, Problem>, never, ModelFiles> =>
    Effect.gen(function*() {
      const described = yield* (yield* ModelFiles).describe(candidate.options)
      const { totalBytes, trainedWindow = null, window = null } = described
      const facts = { ...candidate, window, trainedWindow, memoryBytes: totalBytes }
      return window !== null && trainedWindow !== null && window > trainedWindow
        ? Result.fail({
          path: `${candidate.place}.contextSize`,
          expected:
            `Expected at most ${trainedWindow} tokens, the context window that ${candidate.source} was trained with`
        })
        : Result.succeed(facts)
    }).pipe(
      Effect.catch(({ message, reason }) => {
        const files = filesOf(candidate)
        // The file of the model can be named as its adapter, too.
        const found = reason._tag === "NotAnAdapter"
          ? files.findLast(([, path]) => path === reason.path)
          : files.find(([, path]) => path === reason.path)
        const [field, source] = found ?? files[0]!
        return Effect.succeed(Result.fail({
          path: `${candidate.place}.${field}`,
          expected: `${message}${inStore(settings, source)}`
        }))
      })
    )

const missingMemory = ({ availableBytes, neededBytes }: Verdict): string =>
  `needs about ${bytesText(neededBytes)} of memory, but at most ${bytesText(availableBytes)} can be available`

/** Deployments that exceed the budget. The free memory of this machine is no limit: the service may run on another. */
const tooLarge = ({ memory }: Resolved, verdicts: ReadonlyArray<Verdict>): ReadonlyArray<Problem> =>
  memory.budgetBytes === undefined ? [] : verdicts.filter(({ fits }) => !fits).map((verdict) => ({
    path: placeOf(verdict.deployment),
    expected: `The model ${missingMemory(verdict)} (memory.budget minus pinned models). ` +
      "Use a smaller variant, fewer slots or a shorter contextSize, or raise memory.budget"
  }))

/** The properties of all model files, and their problems. */
interface Looked {
  readonly facts: ReadonlyArray<Facts>
  readonly verdicts: ReadonlyArray<Verdict>
  readonly problems: ReadonlyArray<Problem>
}

/** Checks every local deployment. */
const checkFiles = Effect.fnUntraced(function*(settings: Resolved) {
  const missing = SettingsFile.missingFiles(settings)
  const paths = new Set(missing.map(({ path }) => path))
  const deployments = settings.models.flatMap(({ deployments }) => deployments)
  const candidates = deployments.flatMap(candidatesOf).filter((candidate) =>
    filesOf(candidate).every(([field, path]) => !isReference(path) && !paths.has(`${candidate.place}.${field}`))
  )
  const looks = yield* Effect.forEach(candidates, look(settings))
  const facts = looks.flatMap((found) => Result.isSuccess(found) ? [found.success] : [])
  const failures = looks.flatMap((found) => Result.isFailure(found) ? [found.failure] : [])
  // The alternatives of a deployment share its adapters.
  const wrong = new Map(failures.map((problem) => [format(problem), problem])).values()
  const places = new Set(facts.map(({ place }) => place))
  const readable = deployments.filter((deployment) =>
    pathOf(deployment.options) === undefined || places.has(placeOf(deployment))
  )
  const verdicts = yield* MemoryForecast.forecast(settings, readable)
  return { facts, verdicts, problems: [...missing, ...wrong, ...tooLarge(settings, verdicts)] } satisfies Looked
})

const windowAsText = ({ trainedWindow, window }: Facts): string =>
  window === null ? "" : `${window}${trainedWindow === null ? "" : ` of ${trainedWindow}`} tokens`

const printFacts = ({ memory }: Resolved, { facts, verdicts }: Looked) => {
  const where = memory.budgetBytes === undefined ? "on this machine now" : "of the budget"
  const rows = facts.map((one) => {
    const verdict = verdicts.find(({ deployment }) => placeOf(deployment) === one.place)!
    const { bytes } = verdict.candidates.find(({ deployment }) => pathOf(deployment.options) === one.source)!
    const { availableBytes } = verdict
    return [
      one.model,
      windowAsText(one),
      `about ${bytesText(bytes)}: ${bytes <= availableBytes ? "fits" : "does not fit"} the ` +
      `${bytesText(availableBytes)} available ${where}`,
      [one.source, ...adaptersOf(one.options).map(adapterText)].join(" ")
    ]
  })
  return rows.length === 0 ? Effect.void : Console.log(`\n${table([["MODEL", "WINDOW", "MEMORY", "SOURCE"], ...rows])}`)
}

/** Reads the configuration as the service does. The valid part of a file with problems is checked too. */
const lookAt = Effect.fnUntraced(function*(file: string | undefined) {
  const { isEmpty, problems, settings, source, text } = yield* SettingsFile.inspect({
    file,
    engineHost: "process",
    defaultStorage: "sqlite"
  })
  const checked = settings === undefined ? undefined : yield* checkFiles(settings).pipe(
    Effect.provide(Layer.merge(App.memory, Layer.provide(App.store, Layer.succeed(Settings, settings))))
  )
  const start = yield* StartCheck.find(settings)
  const all = SettingsFile.located(text, [...problems, ...start.problems, ...(checked?.problems ?? [])])
  if (settings === undefined || checked === undefined || all.length > 0) {
    return yield* new SettingsError({ source, problems: all })
  }
  const empty = isEmpty ? [{ path: "", expected: `${source} is empty. The defaults apply` }] : []
  const found = SettingsFile.located(text, [...start.warnings, ...warningsOf(settings)])
  return { settings, checked, warnings: [...empty, ...found] }
})

export const check = Command.make(
  "check",
  { config, json },
  ({ config, json }) =>
    lookAt(Option.getOrUndefined(config)).pipe(
      Effect.matchEffect({
        onSuccess: ({ checked, settings, warnings }) => {
          const { environment, models } = settings
          const names = models.map(({ name }) => name)
          return json
            ? printJson({
              valid: true,
              environment,
              models: names,
              files: checked.facts.map(({ options: _, ...one }) => one),
              warnings
            })
            : Effect.all([
              Console.log(`The configuration is valid. Environment: ${environment}. Models: ${names.join(", ")}.`),
              printFacts(settings, checked),
              ...warnings.map((warning) => Console.error(`Warning: ${format(warning)}`))
            ], { discard: true })
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
  Command.withDescription("Check the configuration of every environment and the model files that it names")
)
