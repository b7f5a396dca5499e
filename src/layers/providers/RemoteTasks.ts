/** A provider's tasks that are not streamed: embeddings, rankings, classifications, tokens and counts. */
import type { Scope } from "effect"
import { Effect, Result } from "effect"
import type { Each, Target, Task } from "../../dialects/shared/ProviderDialect.ts"
import type * as Capability from "../../domain/Capability.ts"
import type { EngineCapability } from "../../domain/EngineProtocol.ts"
import * as InferenceError from "../../domain/InferenceError.ts"
import type { Retain } from "../../services/engines/Engine.ts"
import type { HttpExchange } from "./HttpExchange.ts"

/** Whether one wrong input can fail the batch. */
const isInputError = ({ reason }: InferenceError.InferenceError): boolean =>
  reason._tag === "InvalidRequest" || reason._tag === "ContextLengthExceeded" || reason._tag === "ContentRefused"

/** Checks the capabilities, and takes a slot. */
export type Begin = (
  needed: ReadonlyArray<EngineCapability>,
  retain: Retain | undefined
) => Effect.Effect<unknown, InferenceError.InferenceError, Scope.Scope>

/** Runs tasks once their capability is checked. */
export const makeTasks = (exchange: HttpExchange, target: Target, begin: Begin) => {
  const { deployment } = target

  const run = <Input, Output>(
    required: EngineCapability,
    task: Task<Input, Output> | undefined,
    input: Input,
    retain: Retain | undefined,
    tested: Capability.Capability = required
  ): Effect.Effect<Output, InferenceError.InferenceError> =>
    Effect.scoped(Effect.gen(function*() {
      yield* begin([required], retain)
      if (task === undefined) return yield* InferenceError.notCapable(deployment, required)
      const call = yield* Effect.fromResult(
        Result.mapError(task.request(input, target), (reason) => InferenceError.make(exchange.clean(reason)))
      )
      return yield* exchange.read(call, (body) => task.answer(body, input, target), tested)
    }))

  /** All inputs in one request; one by one if one of them is wrong. */
  const runEach = <A>(
    capability: EngineCapability,
    task: Task<ReadonlyArray<string>, Each<A>> | undefined,
    inputs: ReadonlyArray<string>,
    retain: Retain | undefined
  ): Effect.Effect<Each<A>, InferenceError.InferenceError> =>
    Effect.catchIf(
      run(capability, task, inputs, retain),
      isInputError,
      (error): Effect.Effect<Each<A>, InferenceError.InferenceError> =>
        inputs.length < 2
          ? Effect.succeed(inputs.map(() => Result.fail(error)))
          : Effect.map(
            Effect.forEach(inputs, (input) => runEach(capability, task, [input], retain)),
            (results) => results.flat()
          )
    )

  return { run, runEach }
}
