/**
 * Decodes a parsed `troupe.yaml`: the settings of one environment, or every problem of all three. Pure.
 *
 * **Details**
 *
 * The overlay under `environments` that `NODE_ENV` names is merged into the rest of the file: mappings merge, everything
 * else replaces. The overlays of the other environments are checked too.
 *
 * **Gotchas**
 *
 * `${NAME}` is the only way to write a secret. A literal that looks like a key is rejected by its path, and problems
 * never contain a value.
 */
import { Result, Schema } from "effect"
import type { DeploymentOptions } from "../../domain/Deployment.ts"
import { isRemote } from "../../domain/Deployment.ts"
import * as Problem from "../../domain/Problem.ts"
import * as Text from "../../domain/Text.ts"
import type { EngineKind } from "../engines/EngineKind.ts"
import { engineKinds } from "../engines/EngineKinds.ts"
import { languageModel } from "../engines/LanguageModelKind.ts"
import { cachedResponses } from "../routing/DecisionRecord.ts"
import { admissionProblems } from "./AdmissionSettings.ts"
import { alertProblems } from "./AlertSettings.ts"
import { cacheProblems } from "./CacheSettings.ts"
import { redundantEngine, withHint } from "./Hints.ts"
import { interpolate, isSingleReference, referencesIn, withoutQuotes } from "./Interpolation.ts"
import { keyProblems } from "./KeySettings.ts"
import type { Path, Tree } from "./Overlay.ts"
import { at, isFromOverlay, isMapping, mapLeaves, overlay, withoutParts } from "./Overlay.ts"
import { customStrategyProblems, routingProblems } from "./PolicySettings.ts"
import * as ProxySettings from "./ProxySettings.ts"
import type { ResolveContext } from "./Resolution.ts"
import { missingModels, resolve, unknownVariants, wrongShadows } from "./Resolution.ts"
import * as ResponseSettings from "./ResponseSettings.ts"
import { Source } from "./Schema.ts"
import { secrets } from "./Secrets.ts"
import type { Environment, Resolved } from "./Settings.ts"
import { environments } from "./Settings.ts"
import { isSecretUrl, problemsOf as storageProblems } from "./StorageSettings.ts"
import * as TelemetrySettings from "./TelemetrySettings.ts"

/** An engine kind can require a prefix for the names of its models, and then no other kind can use the prefix. */
const prefixProblem = (name: string, deployments: ReadonlyArray<DeploymentOptions>): string | undefined => {
  const kinds: ReadonlyArray<EngineKind> = engineKinds
  for (const { modelPrefix, name: kind } of kinds) {
    if (modelPrefix === undefined) continue
    const count = deployments.filter(({ engine }) => engine === kind).length
    const hasPrefix = name.startsWith(modelPrefix)
    if (hasPrefix && count < deployments.length) {
      return `A model whose name begins with ${modelPrefix} can have ${kind} deployments only`
    }
    if (!hasPrefix && count > 0) return `A model with a ${kind} deployment must be named ${modelPrefix}${name}`
  }
  return undefined
}

/** Replaces an invalid deployment while the rest of the file is checked. It has no files. */
const placeholder = { engine: languageModel.name, name: "(invalid)" } as const

const isPlaceholder = (options: DeploymentOptions): boolean =>
  options.engine === placeholder.engine && options.name === placeholder.name

/** Why a model may not have this name. */
const nameProblem = (name: string, deployments: ReadonlyArray<DeploymentOptions>): string | undefined => {
  if (name === "") return "The name of a model must not be empty"
  if (name === cachedResponses) {
    return `The name ${name} is reserved for cached answers in fallbacks. Choose another name`
  }
  return prefixProblem(name, deployments)
}

/** Problems of names, with the paths of the deployments that they depend on. */
const nameProblems = ({ models }: Source): ReadonlyArray<Problem.KeyedProblem> =>
  models !== undefined && Object.keys(models).length === 0
    ? [{
      path: ["models", "deployments"],
      expected: "Expected at least one model. Remove `models` to use the embedded models"
    }]
    : Object.entries(models ?? {}).flatMap(([name, { deployments }]) => {
      const expected = nameProblem(name, deployments.filter((options) => !isPlaceholder(options)))
      return expected === undefined ? [] : [{ path: ["models", name, "deployments"], expected }]
    })

const wildcardExpected =
  "Expected remote deployments whose model has one *, such as { provider: openai, model: \"*\" }: the name is a wildcard"

/** A wildcard is a prefix with `*` at its end, and its deployments say where the rest of a name goes. */
const wildcardProblem = (name: string, deployments: ReadonlyArray<DeploymentOptions>): string | undefined => {
  if (name.indexOf("*") !== name.length - 1 || name === "*") {
    return "Expected one * at the end of the name of a wildcard, after a prefix such as openai/"
  }
  return deployments.every((options) => isRemote(options) && options.model.split("*").length === 2)
    ? undefined
    : wildcardExpected
}

const wildcardProblems = ({ models = {} }: Source): ReadonlyArray<Problem.KeyedProblem> =>
  Object.entries(models).filter(([name]) => name.includes("*")).flatMap(([name, { aliases, deployments }]) => {
    const expected = wildcardProblem(name, deployments.filter((options) => !isPlaceholder(options)))
    return [
      ...(expected === undefined ? [] : [{ path: ["models", name], expected }]),
      ...(aliases === undefined
        ? []
        : [{ path: ["models", name, "aliases"], expected: "Expected no aliases: the name is a wildcard" }])
    ]
  })

/** A name selects one model. */
const aliasProblems = ({ models = {} }: Source): ReadonlyArray<Problem.KeyedProblem> => {
  const owners = new Map(Object.keys(models).map((name) => [name, name]))
  return Object.entries(models).flatMap(([name, { aliases = [] }]) =>
    aliases.flatMap((alias, index) => {
      const owner = owners.get(alias)
      if (owner === undefined) owners.set(alias, name)
      return owner === undefined
        ? []
        : [{
          path: ["models", name, "aliases", index],
          expected: `Expected a name that the model ${owner} does not have`
        }]
    })
  )
}

const decodeSource = Schema.decodeUnknownResult(Source, { errors: "all", onExcessProperty: "error" })

/**
 * Decodes a tree whose references have been replaced by text. Where a value that is a single reference must not be text,
 * its text is read as a number or boolean.
 */
const decodeTree = (raw: Tree, expanded: Tree): Result.Result<Source, ReadonlyArray<Problem.KeyedProblem>> => {
  const first = Result.mapError(decodeSource(expanded), Problem.keyed)
  if (Result.isSuccess(first)) return first
  const wrong = new Set(
    first.failure.filter(({ path }) => isSingleReference(at(raw, path))).map(({ path }) => Problem.formatPath(path))
  )
  if (wrong.size === 0) return first
  const retyped = mapLeaves(
    expanded,
    (scalar, path) => wrong.has(Problem.formatPath(path)) ? withoutQuotes(scalar) : scalar
  )
  return Result.mapError(decodeSource(retyped), Problem.keyed)
}

const namesIn = (tree: Tree, section: string): ReadonlyArray<string> => {
  const found = at(tree, [section])
  return isMapping(found) ? Object.keys(found) : []
}

/** The valid part of a tree and the problems of the rest. Invalid parts are removed until the remainder is valid. */
const decodePart = (
  raw: Tree,
  expanded: Tree
): { source: Source | undefined; wrong: ReadonlyArray<Problem.KeyedProblem> } => {
  const first = decodeTree(raw, expanded)
  let left = expanded
  let decoded = first
  for (let round = 0; round < 4 && Result.isFailure(decoded); round++) {
    left = withoutParts(left, decoded.failure.map(({ path }) => path), round, placeholder)
    decoded = decodeTree(raw, left)
  }
  return {
    source: Result.isSuccess(decoded) ? decoded.success : undefined,
    wrong: Result.isFailure(first) ? first.failure : []
  }
}

/** Adds `engine: remote` to deployments that have a provider and no engine. */
const withEngines = (tree: Tree): Tree => {
  const models = at(tree, ["models"])
  if (!isMapping(tree) || !isMapping(models)) return tree
  const explicit = (deployment: Tree): Tree =>
    isMapping(deployment) && "provider" in deployment && !("engine" in deployment)
      ? { engine: "remote", ...deployment }
      : deployment
  const entries = Object.entries(models).map(([name, model]) => {
    const deployments = at(model, ["deployments"])
    return [
      name,
      isMapping(model) && Array.isArray(deployments)
        ? { ...model, deployments: deployments.map(explicit) }
        : model
    ]
  })
  return { ...tree, models: Object.fromEntries(entries) }
}

/** A problem for each deployment that has an `engine` which it must not have. */
const redundantEngines = (tree: Tree): ReadonlyArray<Problem.KeyedProblem> => {
  const models = at(tree, ["models"])
  if (!isMapping(models)) return []
  return Object.entries(models).flatMap(([name, model]) => {
    const deployments = at(model, ["deployments"])
    return Array.isArray(deployments)
      ? deployments.flatMap((deployment: Tree, index) => {
        const expected = isMapping(deployment) ? redundantEngine(deployment) : undefined
        return expected === undefined ? [] : [{ path: ["models", name, "deployments", index, "engine"], expected }]
      })
      : []
  })
}

const isWithin = (path: Path, place: Path): boolean => place.every((key, index) => path[index] === key)

/** Whether a path is that of a key, a header, the token of administration or the secret of the webhook of alerts. */
const isSecret = (path: Path): boolean =>
  path.at(-1) === "key" || path.at(-2) === "headers" || path.at(-1) === "token" && path.at(-2) === "admin" ||
  path.at(-1) === "secret" && path.at(-2) === "webhook"

const variablesNamed = (names: ReadonlyArray<string>): string =>
  `the environment variable${names.length === 1 ? "" : "s"} ${[...new Set(names)].join(" and ")}`

/** Names the variables that a secret comes from, never the secret. */
const invalidHeader = (scalar: Tree, problem: string): string => {
  const names = referencesIn(scalar)
  const subject = names.length === 0 ? "a value" : variablesNamed(names)
  return `Expected ${subject} to be valid in an HTTP header: ${problem}`
}

const emptyVariable = (scalar: Tree): string => `Expected ${variablesNamed(referencesIn(scalar))} not to be empty`

/** The problem with the variables that the value comes from. */
const withVariables = (raw: Tree, expanded: Tree, { expected, path }: Problem.KeyedProblem): Problem.KeyedProblem => {
  const scalar = at(raw, path)
  const names = referencesIn(scalar)
  if (names.length === 0 || expected.startsWith("Unknown field")) return { path, expected }
  return {
    path,
    expected: at(expanded, path) === ""
      ? emptyVariable(scalar)
      : `${expected}${expected.endsWith("?") ? "" : "."} The value comes from ${variablesNamed(names)}`
  }
}

/** The result for one environment. */
interface Inspected {
  readonly source: Source | undefined
  readonly wrong: ReadonlyArray<Problem.Problem>
  /** Problems of variables that are not set or whose values cannot be sent. */
  readonly missing: ReadonlyArray<Problem.Problem>
}

/** A scalar with its references replaced, and the problems of the variables that it refers to. */
interface Expanded {
  readonly value: Tree
  readonly problems: ReadonlyArray<string>
}

const expandSecret = (scalar: Tree, path: Path, text: string): Expanded => {
  if (isSecretUrl(path)) return { value: text, problems: [] }
  const value = path.at(-2) === "headers" ? Text.trimValue(text) : Text.trimKey(text)
  const problem = Text.headerProblem(value)
  return { value, problems: problem === undefined ? [] : [invalidHeader(scalar, problem)] }
}

const holdsSecret = (path: Path): boolean => isSecret(path) || isSecretUrl(path)

const expand = (scalar: Tree, path: Path, { secretsMayBeUnset = false, variables }: ResolveContext): Expanded => {
  const unset: Array<string> = []
  const text = interpolate(scalar, variables, (name) => unset.push(name))
  const problems = unset.map((name) => `Expected the environment variable ${name} to be set`)
  if (typeof text !== "string" || !holdsSecret(path)) return { value: text, problems }
  if (unset.length === 0 && text === "" && referencesIn(scalar).length > 0) problems.push(emptyVariable(scalar))
  // The reference stays in place of the secret, so that the rest of the deployment can be checked.
  if (problems.length > 0) return { value: scalar, problems: secretsMayBeUnset ? [] : problems }
  return expandSecret(scalar, path, text)
}

/** Whether a problem is that of a field, or of what is in it. */
const isOf = (field: string, path: string): boolean =>
  path.startsWith(field) && ["", ".", "["].includes(path.charAt(field.length))

/** Both without repetition: an unknown field needs no variable, and a value whose variable is not set has no other problem. */
const eachOnce = ({ missing, wrong }: Pick<Inspected, "missing" | "wrong">) => {
  const unknown = wrong.filter(({ expected }) => expected.startsWith("Unknown field")).map(({ path }) => path)
  const needed = missing.filter(({ path }) => !unknown.some((field) => isOf(field, path)))
  return { missing: needed, wrong: wrong.filter(({ path }) => !needed.some((one) => one.path === path)) }
}

/** Inspects one environment. A problem that its overlay causes has a path in the overlay. */
const inspect = (base: Tree, over: Tree, environment: Environment, context: ResolveContext): Inspected => {
  const written = overlay(base, over)
  const redundant = redundantEngines(written)
  const raw = withEngines(written)
  const place = (path: Path): Path => isFromOverlay(base, over, path) ? ["environments", environment, ...path] : path
  const missing: Array<Problem.Problem> = []
  const expanded = mapLeaves(raw, (scalar, path) => {
    const { problems, value } = expand(scalar, path, context)
    missing.push(...problems.map((expected) => ({ path: Problem.formatPath(place(path)), expected })))
    return value
  })
  const { source, wrong: undecoded } = decodePart(raw, expanded)
  const found = source === undefined ? [] : [
    // The problem is in the name, not in the deployments.
    ...nameProblems(source).map(({ expected, path }) => ({ path: place(path).slice(0, -1), expected })),
    ...[
      ...(context.customStrategies === true ? [] : customStrategyProblems(source)),
      ...storageProblems(source),
      ...ResponseSettings.problemsOf(source),
      ...keyProblems(source.keys),
      ...aliasProblems(source),
      ...wildcardProblems(source),
      // An invalid limit has lost its fields here.
      ...admissionProblems(source).filter(({ path }) => !undecoded.some((one) => isWithin(one.path, path))),
      // A rule that is invalid itself has lost its fields here.
      ...alertProblems(source).filter(({ path }) => !undecoded.some((one) => isWithin(one.path, path))),
      ...cacheProblems(source.models ?? {}, namesIn(raw, "models")),
      ...routingProblems(source, { models: namesIn(raw, "models"), policies: namesIn(raw, "policies") })
    ].map(({ expected, path }) => ({ path: place(path), expected }))
  ]
  const hinted = undecoded
    .filter(({ path }) => !redundant.some((one) => isWithin(path, one.path.slice(0, -1))))
    .map((problem) => withVariables(raw, expanded, withHint(raw, problem)))
  const wrong = [...[...redundant, ...hinted].map(({ expected, path }) => ({ path: place(path), expected })), ...found]
    .map(({ expected, path }) => ({
      path: Problem.formatPath(path),
      expected: context.customStrategies === true && path.at(-1) === "strategy" ? withCustom(expected) : expected
    }))
  return { source, ...eachOnce({ missing, wrong }) }
}

/** Strategies of an embedding program, beside the listed ones. */
const withCustom = (expected: string): string =>
  expected.replace(/^Expected one of [^.?]*"/, "$&, or custom/NAME of App.strategy")

const isEnvironment = (name: string): name is Environment => environments.some((known) => known === name)

const splitFile = (file: Tree): { base: Tree; overlays: Tree; problems: ReadonlyArray<Problem.Problem> } => {
  if (file === null || file === undefined) return { base: {}, overlays: {}, problems: [] }
  if (!isMapping(file)) return { base: {}, overlays: {}, problems: [{ path: "", expected: "Expected a mapping" }] }
  const { environments: section, ...base } = file
  const overlays = section ?? {}
  if (!isMapping(overlays)) {
    return { base, overlays: {}, problems: [{ path: "environments", expected: "Expected a mapping" }] }
  }
  const unknown = Object.keys(overlays).filter((name) => !isEnvironment(name))
  return {
    base,
    overlays,
    problems: unknown.map((name) => ({
      path: Problem.formatPath(["environments", name]),
      expected: `Expected one of ${environments.join(", ")}`
    }))
  }
}

/** Every problem of a parsed file, and the settings of its valid part. */
export interface Diagnosis {
  readonly problems: ReadonlyArray<Problem.Problem>
  readonly settings: Resolved | undefined
}

/** Finds every problem of a parsed file. */
export const diagnose = (file: Tree, context: ResolveContext): Diagnosis => {
  const chosen = context.environment || "development"
  if (!isEnvironment(chosen)) {
    const expected = `Expected one of ${environments.join(", ")}, not "${chosen}"`
    return { problems: [{ path: "NODE_ENV", expected }], settings: undefined }
  }
  const found = splitFile(file)
  const problems = [
    ...found.problems,
    ...ProxySettings.problemsOf(context.variables),
    ...TelemetrySettings.problemsOf(context.variables),
    ...(context.literalSecrets === true ? [] : secrets(file))
  ]
  let source: Source | undefined
  for (const environment of environments) {
    const over = at(found.overlays, [environment])
    const inspected = inspect(found.base, over, environment, context)
    problems.push(...inspected.wrong)
    // A variable that only another environment needs need not be set.
    if (environment === chosen) {
      problems.push(...inspected.missing)
      source = inspected.source
    }
  }
  const settings = source && resolve(source, chosen, context)
  if (settings !== undefined) {
    problems.push(...missingModels(settings.models, context), ...unknownVariants(settings), ...wrongShadows(settings))
  }
  const distinct = [...new Map(problems.map((problem) => [Problem.format(problem), problem])).values()]
  return { problems: distinct, settings }
}

/** Settings from a parsed file, or every problem of it. */
export const decode = (
  file: Tree,
  context: ResolveContext
): Result.Result<Resolved, ReadonlyArray<Problem.Problem>> => {
  const { problems, settings } = diagnose(file, context)
  return problems.length > 0 || settings === undefined ? Result.fail(problems) : Result.succeed(settings)
}
