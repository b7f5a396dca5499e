/**
 * Hints for problems of a configuration: the name that was probably meant, and an example of a list or mapping. Pure; a
 * hint contains no text of the file.
 */
import { likelyName, nearestName } from "../../domain/NearestName.ts"
import type { KeyedProblem } from "../../domain/Problem.ts"
import * as Problem from "../../domain/Problem.ts"
import { providers } from "../../domain/ProviderKind.ts"
import { engineKinds } from "../engines/EngineKinds.ts"
import type { Path, Tree } from "./Overlay.ts"
import { at, isMapping } from "./Overlay.ts"

const deployment = "{ engine: llama, file: models/assistant.gguf }"
const model = `{ deployments: [${deployment}] }`

/** Examples by path; `*` stands for a name or an index. */
const examples: Readonly<Record<string, string>> = {
  models: `{ assistant: ${model} }`,
  "models.*": model,
  "models.*.deployments": `[${deployment}]`,
  "models.*.deployments.*": deployment,
  "models.*.deployments.*.abilities": "[generate, embed]",
  "models.*.deployments.*.keys": "[{ key: \"${NAME}\", weight: 2 }]",
  "models.*.deployments.*.keys.*": "{ key: \"${NAME}\", weight: 2 }",
  "models.*.deployments.*.lora": "[{ path: models/adapter.gguf, scale: 0.5 }]",
  "models.*.deployments.*.price": "{ input: 0.15, output: 0.6 }",
  "models.*.deployments.*.tasks": "[code]",
  "models.*.deployments.*.variants": "[models/assistant-q4.gguf]",
  "models.*.fallbacks": "[another-model]",
  policies: "{ default: { retries: 2 } }",
  server: "{ port: 3000 }"
}

const exampleAt = (path: Path): string | undefined =>
  examples[
    path.map((key, index) => index === 0 || path[0] === "models" && index % 2 === 0 ? String(key) : "*").join(".")
  ]

const kinds: Readonly<Record<string, string>> = { "Expected an array": "a list", "Expected an object": "a mapping" }

const withExample = ({ expected, path }: KeyedProblem): string => {
  const kind = kinds[expected]
  if (kind === undefined) return expected
  const example = exampleAt(path)
  return example === undefined ? `Expected ${kind}` : `Expected ${kind}, such as ${example}`
}

/** The choices that a message lists, such as `Expected one of "a", "b"`. */
const choicesIn = (expected: string): ReadonlyArray<string> =>
  Array.from(expected.matchAll(/"([^"]+)"/g), ([, name]) => name!)

const isProvider = (name: string): boolean => providers.some((known) => known === name)

const didYouMean = (name: Tree, expected: string): string => {
  const nearest = typeof name === "string" ? likelyName(name, choicesIn(expected)) : undefined
  return nearest === undefined ? expected : `${expected}. Did you mean ${nearest}?`
}

/** Hints for a deployment without an engine, by fields that only one kind of deployment has. */
const hintByField: ReadonlyArray<readonly [field: string, hint: string]> = [
  ...engineKinds.flatMap((kind) => "path" in kind ? [[kind.path, `Did you mean engine: ${kind.name}?`] as const] : []),
  ["model", `For a remote model, set provider to one of ${providers.join(", ")}`],
  ["baseUrl", `For a remote model, set provider to one of ${providers.join(", ")}`]
]

const engineNames = engineKinds.map(({ name }) => JSON.stringify(name))

/** Users write `provider` in place of `engine: remote`. */
const expectedEngine = `Expected ${engineNames.slice(0, -1).join(", ")} or ${
  engineNames.at(-1)
}, or \`provider\` for a remote model`

/**
 * The problem of a deployment with `engine` that must not have it: `provider` is all that makes a deployment remote.
 *
 * @param deployment as the file has it
 */
export const redundantEngine = ({ engine, provider }: Record<string, Tree>): string | undefined => {
  if (engine !== undefined && provider !== undefined) return "Set either `engine` or `provider`, not both"
  return engine === "remote" ? expectedEngine : undefined
}

/** The problem of a deployment that has no `engine` and no `provider`, or an unknown engine. */
const engineProblem = (problem: KeyedProblem, deployment: Record<string, Tree>): KeyedProblem => {
  const { path } = problem
  const { engine } = deployment
  const expected = expectedEngine
  if (typeof engine === "string") {
    const provider = isProvider(engine) ? engine : undefined
    return provider === undefined
      ? { path, expected: didYouMean(engine, expected) }
      : { path, expected: `${provider} is a provider, not an engine. Use provider: ${provider} without engine` }
  }
  const misspelt = Object.keys(deployment).find((key) => nearestName(key, ["engine", "provider"]) !== undefined)
  if (misspelt !== undefined) {
    return {
      path: [...path.slice(0, -1), misspelt],
      expected: Problem.noSuchField(misspelt, ["engine", "provider"])
    }
  }
  const hint = hintByField.find(([field]) => field in deployment)?.[1]
  return { path, expected: hint === undefined ? expected : `${expected}. ${hint}` }
}

const adapting = engineKinds.flatMap((kind) => "adapters" in kind ? [`engine: ${kind.name}`] : []).join(" or ")

/** The problem of LoRA adapters of a deployment that cannot have them. */
const adapterProblem = ({ provider }: Record<string, Tree>): string =>
  `Only deployments with ${adapting} have LoRA adapters. ` + (provider === undefined
    ? "Merge the adapter into the model before it is converted"
    : "A provider applies an adapter that is served under its own name: `model`")

/** Fields of a deployment by the names that other programs have for them, without case, hyphens and underscores. */
const otherNames = {
  local: {
    ctxsize: "contextSize",
    gguf: "file",
    modelpath: "file",
    nctx: "contextSize",
    numctx: "contextSize",
    path: "file"
  },
  remote: { apibase: "baseUrl", apikey: "key", endpoint: "baseUrl", token: "key", url: "baseUrl" }
} satisfies Record<string, Readonly<Record<string, string>>>

/** The problem of a field that such a deployment does not have, with the name that Troupe has for it. */
const unknownField = (tree: Tree, problem: KeyedProblem): KeyedProblem => {
  const { path } = problem
  const place = path.slice(0, -1)
  const deployment = at(tree, place)
  if (path[0] !== "models" || path.length !== 5 || !isMapping(deployment)) return problem
  if (path[4] === "lora") return { path, expected: adapterProblem(deployment) }
  const names: Readonly<Record<string, string>> = "provider" in deployment ? otherNames.remote : otherNames.local
  const written = String(path[4]).toLowerCase().replaceAll(/[-_]/g, "")
  return Object.hasOwn(names, written) ? { path, expected: `Unknown field. Did you mean ${names[written]}?` } : problem
}

/**
 * The problem, with a hint if there is one.
 *
 * @param tree of the file, with references not replaced
 */
export const withHint = (tree: Tree, problem: KeyedProblem): KeyedProblem => {
  const { expected, path } = problem
  if (path[0] === "models" && path.length === 5 && path[4] === "engine") {
    const place = path.slice(0, -1)
    const deployment = at(tree, place)
    return isMapping(deployment)
      ? engineProblem(problem, deployment)
      : { path: place, expected: withExample({ path: place, expected: "Expected an object" }) }
  }
  if (expected === "Unknown field") return unknownField(tree, problem)
  const value = at(tree, path)
  return {
    path,
    expected: /^Expected (?:one of )?"/.test(expected)
      ? didYouMean(value, expected)
      : Problem.withLargest(withExample(problem), value)
  }
}
