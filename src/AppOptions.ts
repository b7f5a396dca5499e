/** Checks of the options that a program passes to `App`, for programs without types. */
import * as Problem from "./domain/Problem.ts"
import * as SelectionOptions from "./domain/SelectionOptions.ts"
import type * as SettingsFile from "./layers/settings/SettingsFile.ts"

/** Options of `settings`. */
export const settingNames = [
  "config",
  "file",
  "engineHost",
  "secretsMayBeUnset",
  "customStrategies"
] as const satisfies ReadonlyArray<keyof SettingsFile.Options>

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

/** Checks of option values, for programs without types. */
const valueChecks: Readonly<Record<string, readonly [isValid: (value: unknown) => boolean, expected: string]>> = {
  config: [isRecord, "Expected an object"],
  file: [(value) => typeof value === "string", "Expected a string"],
  engineHost: [(value) => value === "process" || value === "thread", "Expected \"process\" or \"thread\""],
  secretsMayBeUnset: [(value) => typeof value === "boolean", "Expected a boolean"],
  customStrategies: [(value) => typeof value === "boolean", "Expected a boolean"],
  languageModels: [isRecord, "Expected an object"],
  services: [isRecord, "Expected an object"]
}

const wrongValues = (options: Readonly<Record<string, unknown>>): ReadonlyArray<Problem.Problem> =>
  Object.entries(valueChecks).flatMap(([path, [isValid, expected]]) => {
    const value = options[path]
    return value === undefined || isValid(value) ? [] : [{ path, expected }]
  })

/** Unknown names, which programs without types may misspell. */
export const unknownIn = (
  path: ReadonlyArray<string>,
  given: object,
  names: ReadonlyArray<string>
): ReadonlyArray<Problem.Problem> =>
  Object.keys(given).filter((name) => !names.includes(name)).map((name) => ({
    path: Problem.formatPath([...path, name]),
    expected: Problem.noSuchField(name, names)
  }))

/** Problems of options: unknown names and wrong values. */
export const problemsOf = (options: unknown, names: ReadonlyArray<string>): ReadonlyArray<Problem.Problem> =>
  isRecord(options)
    ? [...unknownIn([], options, names), ...wrongValues(options)]
    : [{ path: "", expected: "Expected an object, such as { file: \"troupe.yaml\" }" }]

/** Problems of a strategy of a program without types. */
export const strategyProblems = (custom: unknown): ReadonlyArray<Problem.Problem> => {
  if (!isRecord(custom)) return [{ path: "", expected: "Expected an object with `name` and `score`" }]
  const { name, score } = custom
  return [
    ...unknownIn([], custom, ["name", "score"]),
    ...(typeof name === "string" && SelectionOptions.customName.test(name)
      ? []
      : [{ path: "name", expected: "Expected a name that begins with custom/" }]),
    ...(typeof score === "function" ? [] : [{ path: "score", expected: "Expected a function" }])
  ]
}
