/**
 * The parts of an application, and those that its configuration needs.
 *
 * **Details**
 *
 * A part is a layer. Optional services are looked up when the application is built. Each local engine and each strategy
 * has its own `Context.Reference`, so that an application can have several.
 */
import { Context, Effect, Layer, Option, Schema } from "effect"
import type { Deployment } from "./domain/Deployment.ts"
import { isRemote } from "./domain/Deployment.ts"
import * as Problem from "./domain/Problem.ts"
import type { Policy } from "./domain/RoutingPolicy.ts"
import type { Custom, CustomName } from "./domain/SelectionOptions.ts"
import { isPlaceholder } from "./domain/SelectionOptions.ts"
import { localEngine } from "./services/engines/Engine.ts"
import { kindOf } from "./services/engines/EngineKinds.ts"
import { LanguageModels } from "./services/engines/LanguageModelKind.ts"
import { Providers } from "./services/engines/Providers.ts"
import { CustomComparison } from "./services/inference/ShadowCopies.ts"
import * as MemberReload from "./services/processes/MemberReload.ts"
import { ProcessGroup } from "./services/processes/ProcessGroup.ts"
import * as Reload from "./services/settings/Reload.ts"
import { languageModel } from "./services/settings/Resolution.ts"
import type { Resolved } from "./services/settings/Settings.ts"
import { Settings, SettingsError } from "./services/settings/Settings.ts"

/** The configuration needs a part that the application does not have. */
export class MissingPartError extends Schema.TaggedError<MissingPartError>()("MissingPartError", {
  /** Each with the path of the setting that needs the part. */
  problems: Schema.Array(Problem.Problem)
}) {
  override get message(): string {
    return ["The configuration needs parts that this application does not have:"]
      .concat(this.problems.map((problem) => `  ${Problem.format(problem)}`))
      .join("\n")
  }
}

/** The strategy of this name, if the program provides one. */
export const customStrategy = (name: CustomName) =>
  Context.Reference<Custom | undefined>(`troupe/${name}`, { defaultValue: () => undefined })

/** The service that the application has as a part; without one, `absent`. */
export const partOr = <I, S>(part: Context.Service<I, S>, absent: S): Layer.Layer<I> =>
  Layer.effect(part, Effect.map(Effect.serviceOption(part), Option.getOrElse(() => absent)))

type Parts = Context.Context<never>

/** The missing part that a deployment needs; undefined if the application has it. */
const missingFor = (parts: Parts, { options }: Deployment): string | undefined => {
  if (isRemote(options)) return Option.isSome(Context.getOption(parts, Providers)) ? undefined : "App.providers"
  const kind = kindOf(options)
  if (kind.spec !== undefined) {
    return Context.get(parts, localEngine(kind.name)) === undefined ? `App.${kind.name}` : undefined
  }
  const provided = String(options["name"])
  return Context.get(parts, LanguageModels).has(provided)
    ? undefined
    : `LanguageModels.layer({ ${JSON.stringify(provided)}: ... })`
}

const unservedIn = (parts: Parts, { models }: Resolved): ReadonlyArray<Problem.Problem> =>
  models.flatMap(({ deployments, name }) =>
    deployments.flatMap((deployment, index) => {
      const part = missingFor(parts, deployment)
      const path = Problem.formatPath(["models", name, "deployments", index])
      return part === undefined ? [] : [{ path, expected: `Expected the part ${part}` }]
    })
  )

/** Copies that the program compares, where it does not say how. */
const uncomparedIn = (parts: Parts, { shadows = new Map() }: Resolved): ReadonlyArray<Problem.Problem> =>
  Context.get(parts, CustomComparison) !== undefined ?
    [] :
    Array.from(shadows, ([name, { compare }]) =>
      compare === "custom"
        ? [{
          path: Problem.formatPath(["models", name, "shadow", "compare"]),
          expected: "Expected exact or similarity; custom needs the part App.shadowComparison of a program"
        }]
        : []).flat()

/** The settings with the program's own strategies in the policies that name them. */
const withStrategies = (parts: Parts, settings: Resolved) => {
  const problems: Array<Problem.Problem> = []
  const complete = (path: ReadonlyArray<string>, policy: Policy): Policy => {
    const { strategy } = policy.selection
    if (!isPlaceholder(strategy)) return policy
    const provided = Context.get(parts, customStrategy(strategy.name))
    if (provided !== undefined) return { ...policy, selection: { ...policy.selection, strategy: provided } }
    problems.push({
      path: Problem.formatPath([...path, "strategy"]),
      expected: `Expected the part App.strategy({ name: "${strategy.name}", ... })`
    })
    return policy
  }
  const policies = settings.policies.map((policy) => complete(["policies", policy.name], policy))
  const models = settings.models.map((model) =>
    model.routing === undefined ? model : {
      ...model,
      routing: { ...model.routing, policy: complete(["models", model.name], model.routing.policy) }
    }
  )
  return { problems, settings: { ...settings, policies, models } }
}

/** A model for each language model whose name is not that of a configured model. */
const withLanguageModels = (parts: Parts, settings: Resolved): Resolved => {
  const names = [...Context.get(parts, LanguageModels).keys()]
  const free = names.filter((name) => settings.models.every((model) => model.name !== name))
  return free.length === 0 ? settings : { ...settings, models: [...settings.models, ...free.map(languageModel)] }
}

/** Completes settings by the parts. Fails if a part is missing. */
const complete = (parts: Parts, configured: Resolved): Effect.Effect<Resolved, MissingPartError> => {
  const given = withLanguageModels(parts, configured)
  const { problems, settings } = withStrategies(parts, given)
  const all = [...unservedIn(parts, given), ...problems, ...uncomparedIn(parts, given)]
  return all.length === 0 ? Effect.succeed(settings) : Effect.fail(new MissingPartError({ problems: all }))
}

/** The settings, completed by the parts. */
export const settings = Layer.effect(
  Settings,
  Effect.gen(function*() {
    return yield* complete(yield* Effect.context(), yield* Settings)
  })
)

/** Of the whole service, or of one of its processes. */
const reloadOf = (complete: Reload.Complete) =>
  Layer.unwrap(
    Effect.map(ProcessGroup, (member) =>
      member === undefined ? Reload.layer(complete) : MemberReload.layer(member, complete))
  )

/** Changes to other settings while the application runs, which the parts complete as at the start. */
export const reload = Layer.unwrap(
  Effect.map(Effect.context(), (parts) =>
    reloadOf((configured) =>
      Effect.mapError(
        complete(parts, configured),
        ({ problems }) => new SettingsError({ source: "the configuration", problems })
      )
    ))
)
