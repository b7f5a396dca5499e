/** A provider's tasks that are not streamed: embeddings, rankings, classifications, tokens and counts. */
import type { Scope } from "effect"
import { Effect, Result } from "effect"
import type { Dialect, Each, Target, Task } from "../../dialects/shared/ProviderDialect.ts"
import type * as Capability from "../../domain/Capability.ts"
import type { EngineCapability } from "../../domain/EngineProtocol.ts"
import * as InferenceError from "../../domain/InferenceError.ts"
import type { Meter, Retain } from "../../services/engines/Engine.ts"
import { TaskMeter } from "../../services/engines/Engine.ts"
import type { HttpExchange } from "./HttpExchange.ts"

/** Whether one wrong input can fail the batch. */
const isInputError = ({ reason }: InferenceError.InferenceError): boolean =>
  reason._tag === "InvalidRequest" || reason._tag === "ContextLengthExceeded" || reason._tag === "ContentRefused"

/** Checks the capabilities, and takes a slot. */
export type Begin = (
  needed: ReadonlyArray<EngineCapability>,
  retain: Retain | undefined
) => Effect.Effect<unknown, InferenceError.InferenceError, Scope.Scope>

/** Decodes the answer of a task. One that fails costs what its provider has counted. */
const answerOf = <Input, Output>(
  usageIn: Dialect["generate"]["usageIn"],
  task: Task<Input, Output>,
  input: Input,
  target: Target,
  meter: Meter | undefined
) =>
(body: unknown) => {
  const answer = task.answer(body, input, target)
  if (meter !== undefined && Result.isFailure(answer)) {
    meter.isSent = false
    meter.reporter = { usage: () => usageIn(body) }
  }
  return answer
}

/** One input after another, up to the first failure that is not an input's: those after it have the same failure. */
const oneByOne = <A>(
  inputs: ReadonlyArray<string>,
  run: (input: string) => Effect.Effect<Each<A>, InferenceError.InferenceError>
): Effect.Effect<Each<A>> => {
  let over: Each<A> | undefined
  const runUnlessOver = (input: string): Effect.Effect<Each<A>> =>
    over === undefined
      ? Effect.match(run(input), {
        onSuccess: (results) => results,
        onFailure: (error) => over = [Result.fail(error)]
      })
      : Effect.succeed(over)
  return Effect.map(Effect.forEach(inputs, runUnlessOver), (results) => results.flat())
}

/** Runs tasks once their capability is checked. */
export const makeTasks = (
  { generate: { usageIn } }: Pick<Dialect, "generate">,
  exchange: HttpExchange,
  target: Target,
  begin: Begin
) => {
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
      const meter = yield* TaskMeter
      return yield* exchange.read(call, answerOf(usageIn, task, input, target, meter), tested, meter)
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
          : oneByOne(inputs, (input) => runEach(capability, task, [input], retain))
    )

  return { run, runEach }
}
