/** A remote engine against a provider that plays recorded answers. */
import { Cause, Effect, Exit, Redacted, Stream } from "effect"
import { readFileSync } from "node:fs"
import type { RemoteDeployment } from "../../../src/domain/Deployment.ts"
import type { Generation } from "../../../src/domain/Generation.ts"
import type { Event } from "../../../src/domain/Inference.ts"
import type { InferenceError, Reason } from "../../../src/domain/InferenceError.ts"
import type { TokenUsage, ToolCall } from "../../../src/domain/Job.ts"
import * as Providers from "../../../src/layers/providers/Providers.ts"
import type { Engine } from "../../../src/services/engines/Engine.ts"
import { deploymentOf } from "../../conformance/engine.ts"
import type { Play, Seen } from "../../support/FaultServer.ts"
import { startFaultServer } from "../../support/FaultServer.ts"
import { startedEngine } from "../../support/StartedEngine.ts"

/** One recorded conversation. */
export interface Recorded {
  readonly stream: ReadonlyArray<string>
  readonly buffered: unknown
  readonly answer: {
    readonly text: string
    readonly calls: ReadonlyArray<ToolCall>
    readonly reason: string
    readonly usage: TokenUsage
  }
}

export interface Fixture {
  readonly text: Recorded
  readonly tools: Recorded
  readonly errors: Readonly<
    Record<string, {
      readonly status: number
      readonly headers?: Readonly<Record<string, string>>
      readonly body: unknown
      readonly reason: Readonly<Record<string, unknown>>
    }>
  >
}

export const fixture = (name: string): Fixture =>
  JSON.parse(readFileSync(new URL(`../../fixtures/providers/${name}.json`, import.meta.url), "utf8")) as Fixture

export const generation: Generation = {
  messages: [{ role: "user", content: "Hello!" }],
  sampling: { temperature: 0, topP: 1, seed: 1 },
  maxTokens: undefined,
  stop: []
}

export const json = { "content-type": "application/json" }

/** A server for the test's time. */
export const served = (playOf: (index: number, request: Seen) => Play | Promise<Play>) =>
  Effect.acquireRelease(
    Effect.promise(() => startFaultServer(playOf)),
    (server) => Effect.promise(() => server.close())
  )

export const secret = "sk-a-very-secret-key"

/** An engine of that host. */
export const engineAt = Effect.fnUntraced(function*(baseUrl: string, over: Partial<RemoteDeployment> = {}) {
  const options: RemoteDeployment = {
    engine: "remote",
    provider: "openai",
    model: "gpt-4o-mini",
    baseUrl,
    key: Redacted.make(secret),
    ...over
  }
  const providers = yield* Providers.make
  return yield* providers.start(deploymentOf(options), options)
})

/** What came of a generation. */
export interface Outcome {
  readonly events: ReadonlyArray<Event>
  readonly reason: Reason | undefined
}

export const textOf = (events: ReadonlyArray<Event>): string =>
  events.map((event) => event.type === "text" ? event.text : "").join("")

/** @param onContent called at the first event */
export const outcome = (
  engine: Engine,
  asked: Generation = generation,
  onContent: () => void = () => {}
): Effect.Effect<Outcome> => {
  const events: Array<Event> = []
  const run = Stream.runForEach(engine.generate(asked), (event) =>
    Effect.sync(() => {
      if (events.push(event) === 1) onContent()
    }))
  return Effect.map(Effect.exit(run), (exit: Exit.Exit<void, InferenceError>) => ({
    events,
    reason: Exit.isFailure(exit) ? (Cause.squash(exit.cause) as InferenceError).reason : undefined
  }))
}

export type EngineAt = typeof engineAt

/** The engine's `generate`, and a `generate` over its `start`. */
export const drivers: ReadonlyArray<readonly [name: string, engineAt: EngineAt]> = [
  ["", engineAt],
  [" as a receiver", (...at) => Effect.map(engineAt(...at), startedEngine)]
]
