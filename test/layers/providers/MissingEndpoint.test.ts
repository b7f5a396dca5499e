/** Operation × provider × refusal: whether the operation is missing, or the model or the provider is wrong. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import type { Capability } from "../../../src/domain/Capability.ts"
import type { RemoteDeployment } from "../../../src/domain/Deployment.ts"
import { classify } from "../../../src/domain/FailureClass.ts"
import type { InferenceError } from "../../../src/domain/InferenceError.ts"
import type { Engine } from "../../../src/services/engines/Engine.ts"
import { startedEngine } from "../../support/StartedEngine.ts"
import { engineAt, generation, json, served } from "./support.ts"

const model = "chat-1"

interface Operation {
  readonly provider: RemoteDeployment["provider"]
  readonly capability: Capability
  readonly ask: (engine: Engine) => Effect.Effect<unknown, InferenceError>
}

const embed = ({ embed }: Engine) => embed(["x"])
const input = { messages: [{ role: "user", content: "x" }] } as const

const completion = (engine: Engine) => Stream.runDrain(engine.generate({ ...generation, completion: {} }))

const operations: ReadonlyArray<Operation> = [
  { provider: "openai", capability: "complete", ask: completion },
  { provider: "openai", capability: "complete", ask: (engine) => completion(startedEngine(engine)) },
  { provider: "openai", capability: "embed", ask: embed },
  {
    provider: "openai",
    capability: "embed",
    ask: ({ embedNative }) => embedNative!({ dialect: "openai", body: { model: "m", input: ["x"] } })
  },
  { provider: "gemini", capability: "embed", ask: embed },
  { provider: "ollama", capability: "embed", ask: embed },
  { provider: "troupe", capability: "embed", ask: embed },
  { provider: "troupe", capability: "rerank", ask: ({ rerank }) => rerank("x", ["y"]) },
  { provider: "troupe", capability: "classify", ask: ({ classify }) => classify(["x"]) },
  { provider: "troupe", capability: "tokenize", ask: ({ tokenize }) => tokenize("x") },
  { provider: "anthropic", capability: "count", ask: ({ count }) => count!(input) }
]

const error = (message: string, more: object = {}) => JSON.stringify({ error: { message, ...more } })

const missing: ReadonlyArray<readonly [status: number, body: string]> = [
  [404, error("Not Found")],
  [404, JSON.stringify({ type: "error", error: { type: "not_found_error", message: "Not Found" } })],
  [404, JSON.stringify({ detail: "Not Found" })],
  [404, error("Invalid URL (POST /v1/embeddings)", { type: "invalid_request_error" })],
  [404, "<html><h1>404 Not Found</h1></html>"],
  [404, "404 page not found"],
  [404, ""],
  [404, error(`models/${model} is not found for API version v1beta, or is not supported for embedContent.`)],
  [403, error("You are not allowed to generate embeddings from this model")],
  [405, JSON.stringify({ detail: "Method Not Allowed" })],
  [501, error("this model does not support embeddings")]
]

const others: ReadonlyArray<readonly [status: number, body: string, tag: string]> = [
  [404, error(`The model \`${model}\` does not exist or you do not have access to it.`), "UpstreamFailed"],
  [404, error(`model: ${model}`, { type: "not_found_error" }), "UpstreamFailed"],
  [404, error(`model "${model}" not found, try pulling it first`), "UpstreamFailed"],
  [404, error("No access.", { code: "model_not_found" }), "UpstreamFailed"],
  [
    404,
    error("The API deployment for this resource does not exist.", { code: "DeploymentNotFound" }),
    "UpstreamFailed"
  ],
  [403, error("Forbidden"), "AuthenticationFailed"],
  [500, error("Not Found"), "UpstreamFailed"],
  [502, "<html>Bad gateway</html>", "UpstreamFailed"]
]

const reasonOf = Effect.fnUntraced(function*({ ask, provider }: Operation, status: number, body: string) {
  const headers = body.startsWith("{") ? json : { "content-type": "text/html" }
  const server = yield* served(() => ({ status, headers, pieces: [body] }))
  const engine = yield* engineAt(server.url, { provider, model })
  return (yield* Effect.flip(ask(engine))).reason
})

for (const operation of operations) {
  const { capability, provider } = operation
  describe(`the endpoint of ${provider} for ${capability}`, () => {
    it.effect.each(missing)("is missing if it answers %i %s", ([status, body]) =>
      Effect.gen(function*() {
        const reason = yield* reasonOf(operation, status, body)
        assert.deepInclude(reason, { _tag: "NotSupported", capability })
        assert.include(reason.message, String(status))
        assert.isFalse(classify(reason).countsAgainstCircuit)
      }))

    it.effect.each(others)("exists if it answers %i %s", ([status, body, tag]) =>
      Effect.gen(function*() {
        const reason = yield* reasonOf(operation, status, body)
        assert.strictEqual(reason._tag, tag)
        assert.isTrue(classify(reason).countsAgainstCircuit)
      }))
  })
}
