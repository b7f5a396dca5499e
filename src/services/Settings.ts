/**
 * What `troupe.yaml` says: the three environments, the defaults, and what is refused.
 *
 * **Details**
 *
 * `decode` is pure: the parsed file, the environment's name and the environment variables go in; settings or every
 * problem come out. An overlay under `environments` is laid over the rest for the environment that `NODE_ENV` names:
 * mappings merge, everything else replaces. All three are checked, whichever is chosen.
 *
 * **Gotchas**
 *
 * `${NAME}` is the only way to a secret. A literal that looks like a key is refused by its path, and no problem ever
 * prints a value.
 */
import { Context, Duration, Result, Schema } from "effect"
import type { Deployment, DeploymentOptions, Model } from "./Model.ts"
import { defaultIdleUnload } from "./Model.ts"
import type { Problem } from "./Problem.ts"
import * as Problems from "./Problem.ts"
import { Source } from "./SettingsSchema.ts"
import { interpolate, looksLikeSecret } from "./SettingsText.ts"

/** The environments there are; `NODE_ENV` chooses, and development is the default. */
export const environments = ["development", "test", "production"] as const
export type Environment = typeof environments[number]

/** Settings, every default filled in. */
export interface Resolved {
  readonly environment: Environment
  readonly server: {
    readonly host: string
    readonly port: number
    readonly shutdownGrace: Duration.Duration
    readonly maxBodyBytes: number
  }
  readonly engineHost: "process" | "thread"
  readonly logLevel: "Debug" | "Info" | "Warn" | "Error"
  readonly models: ReadonlyArray<Model>
}

export class Settings extends Context.Service<Settings, Resolved>()("troupe/services/Settings") {}

/** A configuration that cannot be used, with everything that is wrong with it. */
export class SettingsError extends Schema.TaggedError<SettingsError>()("SettingsError", {
  /** The file, or what else was read. */
  source: Schema.String,
  problems: Schema.Array(Problems.Problem)
}) {
  override get message(): string {
    return [`${this.source} cannot be used:`, ...this.problems.map((problem) => `  ${Problems.format(problem)}`)]
      .join("\n")
  }
}

/** What `decode` needs besides the file's content. */
export interface Surroundings {
  /** The value of `NODE_ENV`. */
  readonly environment: string | undefined
  /** Environment variables for `${NAME}`. */
  readonly variables: Readonly<Record<string, string | undefined>>
  /** Makes a path in the file absolute. */
  readonly resolvePath: (path: string) => string
  /** What serves `tiny-chat` when no model is configured. */
  readonly embedded: DeploymentOptions
  readonly defaultEngineHost: "process" | "thread"
}

type Json = unknown
type KeyedProblem = ReturnType<typeof Problems.keyed>[number]

const isMapping = (value: Json): value is Record<string, Json> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

/** Mappings merge, key by key; everything else replaces. */
const overlay = (base: Json, over: Json): Json => {
  if (!isMapping(base) || !isMapping(over)) return over === undefined ? base : over
  const keys = new Set([...Object.keys(base), ...Object.keys(over)])
  return Object.fromEntries([...keys].map((key) => [key, overlay(base[key], over[key])]))
}

const at = (value: Json, path: ReadonlyArray<PropertyKey>): Json =>
  path.reduce<Json>((inner, key) => (inner as Record<PropertyKey, Json> | null | undefined)?.[key], value)

const leaves = (value: Json, path: ReadonlyArray<PropertyKey> = []): Array<[ReadonlyArray<PropertyKey>, Json]> => {
  if (Array.isArray(value)) return value.flatMap((item, index) => leaves(item, [...path, index]))
  if (isMapping(value)) return Object.entries(value).flatMap(([key, item]) => leaves(item, [...path, key]))
  return [[path, value]]
}

const secrets = (file: Json): ReadonlyArray<Problem> =>
  leaves(file).filter(([path, value]) => looksLikeSecret(path.at(-1), value)).map(([path]) => ({
    path: Problems.formatPath(path),
    expected: "Expected ${NAME}, the name of an environment variable: a secret must not stand in a file"
  }))

/** Says what was meant where the schema's own words show its insides. */
const plain = (path: ReadonlyArray<PropertyKey>, expected: string): Problem =>
  expected.includes("readonly \"engine\"")
    ? { path: Problems.formatPath([...path, "engine"]), expected: "Expected \"llama\" or \"fake\"" }
    : { path: Problems.formatPath(path), expected }

const decodeSource = Schema.decodeUnknownResult(Source, { errors: "all", onExcessProperty: "error" })

/** Names that callers ask for; the fake engine says that it is one wherever it shows. */
const nameProblem = (name: string, deployments: ReadonlyArray<DeploymentOptions>): string | undefined => {
  const fakes = deployments.filter((deployment) => deployment.engine === "fake").length
  if (name === "") return "Expected a name that is not empty"
  if (name.startsWith("fake/") && fakes < deployments.length) {
    return "Expected only fake deployments under a name that begins with fake/"
  }
  return name.startsWith("fake/") || fakes === 0
    ? undefined
    : `Expected the name fake/${name}, since it has a fake deployment`
}

const nameProblems = (source: Source): ReadonlyArray<KeyedProblem> =>
  Object.entries(source.models ?? {}).flatMap(([name, { deployments }]) => {
    const expected = nameProblem(name, deployments)
    return expected === undefined ? [] : [{ path: ["models", name], expected }]
  })

/** Whether what is wrong at `path` stands in the overlay: the value itself, or the mapping that lacks it. */
const isFromOverlay = (base: Json, over: Json, path: ReadonlyArray<PropertyKey>): boolean => {
  if (over === undefined) return false
  if (path.length === 0) return true
  const holder = path.slice(0, -1)
  return at(over, path) !== undefined || (at(over, holder) !== undefined && at(base, holder) === undefined)
}

/** Problems of one environment; one that its overlay causes is told by its place in the overlay. */
const inspect = (base: Json, over: Json, environment: Environment): [Source | undefined, ReadonlyArray<Problem>] => {
  const decoded = decodeSource(overlay(base, over))
  const source = Result.isSuccess(decoded) ? decoded.success : undefined
  const found = Result.isSuccess(decoded) ? nameProblems(decoded.success) : Problems.keyed(decoded.failure)
  return [
    source,
    found.map(({ expected, path }) =>
      plain(isFromOverlay(base, over, path) ? ["environments", environment, ...path] : path, expected)
    )
  ]
}

const modelsOf = (source: Source, surroundings: Surroundings): ReadonlyArray<Model> => {
  const models: NonNullable<Source["models"]> = source.models ??
    { "tiny-chat": { deployments: [surroundings.embedded] } }
  return Object.entries(models).map(([name, settings]): Model => {
    const toDeployment = (options: DeploymentOptions, index: number): Deployment => ({
      id: `${name}#${index}`,
      model: name,
      options: options.engine === "llama" ? { ...options, file: surroundings.resolvePath(options.file) } : options,
      idleUnload: settings.idleUnload ?? defaultIdleUnload,
      preload: settings.preload ?? true
    })
    const [first, ...others] = settings.deployments
    return {
      name,
      deployments: [toDeployment(first, 0), ...others.map((options, index) => toDeployment(options, index + 1))]
    }
  })
}

const logLevels = { debug: "Debug", info: "Info", warn: "Warn", error: "Error" } as const
const defaultLogLevel = { development: "debug", test: "warn", production: "info" } as const

const defaultServer: Resolved["server"] = {
  host: "127.0.0.1",
  port: 3000,
  shutdownGrace: Duration.seconds(30),
  maxBodyBytes: 10 * 1024 * 1024
}

const resolve = (source: Source, environment: Environment, surroundings: Surroundings): Resolved => ({
  environment,
  server: { ...defaultServer, ...source.server },
  engineHost: source.engines?.host ?? surroundings.defaultEngineHost,
  logLevel: logLevels[source.logLevel ?? defaultLogLevel[environment]],
  models: modelsOf(source, surroundings)
})

const isEnvironment = (name: string): name is Environment => environments.some((known) => known === name)

const splitFile = (file: Json): { base: Json; overlays: Json; problems: ReadonlyArray<Problem> } => {
  if (file === null || file === undefined) return { base: {}, overlays: {}, problems: [] }
  if (!isMapping(file)) return { base: {}, overlays: {}, problems: [{ path: "", expected: "Expected a mapping" }] }
  const { environments: overlays = {}, ...base } = file
  if (!isMapping(overlays)) {
    return { base, overlays: {}, problems: [{ path: "environments", expected: "Expected a mapping" }] }
  }
  const unknown = Object.keys(overlays).filter((name) => !isEnvironment(name))
  return {
    base,
    overlays,
    problems: unknown.map((name) => ({
      path: Problems.formatPath(["environments", name]),
      expected: `Expected one of ${environments.join(", ")}`
    }))
  }
}

/** Settings from a parsed file, or every problem of it. */
export const decode = (file: Json, surroundings: Surroundings): Result.Result<Resolved, ReadonlyArray<Problem>> => {
  const chosen = surroundings.environment ?? "development"
  if (!isEnvironment(chosen)) {
    return Result.fail([{ path: "NODE_ENV", expected: `Expected one of ${environments.join(", ")}, not "${chosen}"` }])
  }
  const found = splitFile(file)
  const problems = [...found.problems, ...secrets(file)]
  let source: Source | undefined
  for (const environment of environments) {
    const active = environment === chosen
    const over = at(found.overlays, [environment])
    const missing: Array<Problem> = []
    // A variable of another environment may well be missing here: its place is then not checked.
    const expand = (value: Json, prefix: ReadonlyArray<PropertyKey>) =>
      interpolate(value, surroundings.variables, (path, name) => {
        missing.push({
          path: Problems.formatPath([...prefix, ...path]),
          expected: `Expected the environment variable ${name} to be set`
        })
      })
    const [decoded, wrong] = inspect(expand(found.base, []), expand(over, ["environments", environment]), environment)
    if (active) {
      source = decoded
      problems.push(...missing)
    }
    problems.push(...(active ? wrong : wrong.filter(({ path }) => !missing.some((one) => path === one.path))))
  }
  const distinct = [...new Map(problems.map((problem) => [Problems.format(problem), problem])).values()]
  return distinct.length > 0 || source === undefined
    ? Result.fail(distinct)
    : Result.succeed(resolve(source, chosen, surroundings))
}
