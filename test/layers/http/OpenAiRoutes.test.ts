/** The handlers over a fake `Inference`, without sockets and engines. */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Stream, Tracer } from "effect"
import { HopCount } from "../../../src/domain/Caller.ts"
import type { Request } from "../../../src/domain/Inference.ts"
import * as InferenceError from "../../../src/domain/InferenceError.ts"
import type { Inference } from "../../../src/services/inference/Inference.ts"
import { ending, failing, withHandler } from "../../support/Handlers.ts"

const bodies: Readonly<Record<string, object>> = {
  "chat/completions": { model: "m", messages: [{ role: "user", content: "Hello" }] },
  embeddings: { model: "m", input: "Hello" },
  rerank: { model: "m", query: "Hello", documents: ["a"] },
  classify: { model: "m", input: "Hello" },
  tokenize: { model: "m", prompt: "Hello" }
}

interface ErrorBody {
  readonly error: { readonly code: string | null; readonly param: string | null; readonly message: string }
}
const errorOf = async (response: Response) => (await response.json() as ErrorBody).error

describe.each(Object.entries(bodies))("POST /v1/%s", (path, body) => {
  it("reports a full queue with Retry-After", () =>
    withHandler(
      { inference: failing(new InferenceError.QueueFull({ deployment: "m#0", limit: 8, retryAfterMs: 2500 })) },
      async (post) => {
        const response = await post(path, body)
        assert.strictEqual(response.status, 429)
        assert.strictEqual(response.headers.get("retry-after"), "3")
        assert.strictEqual((await errorOf(response)).code, "queue_full")
      }
    ))

  it("answers a defect without its message, and logs the message", () =>
    withHandler({ inference: ending(Effect.die(new Error("secret words"))) }, async (post, seen) => {
      const response = await post(path, body)
      assert.strictEqual(response.status, 500)
      const { code, message } = await errorOf(response)
      assert.strictEqual(code, "internal_error")
      assert.notInclude(message, "secret words")
      const id = response.headers.get("x-request-id")!
      assert.match(id, /^[a-z]+-\w{22}$/)
      assert.isTrue(seen.some((one) => String(one).includes(id)))
    }))

  it("logs a failure with the ids of the request and of its decision", () => {
    const reason = new InferenceError.EngineFailed({ deployment: "m#0", detail: "Out of memory." })
    const error = new InferenceError.InferenceError({ reason, decision: "dec-a-0", attempts: [] })
    return withHandler({ inference: ending(Effect.fail(error)) }, async (post, seen) => {
      const { headers } = await post(path, body)
      const start = `${headers.get("x-request-id")} (${headers.get("x-troupe-decision")}): `
      assert.include(start, " (dec-a-0): ")
      assert.isTrue(seen.some((one) => String(one).startsWith(start)), String(seen))
    })
  })

  it("rejects requests during shutdown", () =>
    withHandler({ inference: {}, status: "stopping" }, async (post) => {
      const response = await post(path, body)
      assert.strictEqual(response.status, 503)
      assert.strictEqual((await errorOf(response)).code, "shutting_down")
    }))

  it("rejects a body that is not JSON", () =>
    withHandler({ inference: {} }, async (post) => {
      const response = await post(path, "{")
      assert.strictEqual(response.status, 400)
      assert.include((await errorOf(response)).message, "not JSON")
    }))

  it("never reveals a bearer token, neither for a failure nor for a defect", async () => {
    const token = "sk-a-secret-token"
    const failure = new InferenceError.EngineFailed({ deployment: "m#0", detail: "Out of memory." })
    for (const inference of [failing(failure), ending(Effect.die("broken"))]) {
      await withHandler({ inference }, async (post, seen) => {
        const response = await post(path, body, { authorization: `Bearer ${token}` })
        const spans = seen.filter((one) => one instanceof Tracer.NativeSpan)
        assert.isNotEmpty(spans)
        const outputs = [
          await response.text(),
          ...[...response.headers].flat(),
          ...seen.map((one) =>
            one instanceof Tracer.NativeSpan
              ? JSON.stringify([one.name, ...one.attributes, ...one.events])
              : String(one)
          )
        ]
        assert.isTrue(outputs.every((text) => !text.includes(token)))
      })
    }
  })
})

describe("the request", () => {
  const asked = async (body: object, headers?: Record<string, string>): Promise<Request> => {
    let request: Request | undefined
    const inference: Partial<Inference["Service"]> = {
      generate: (one) => {
        request = one
        return Effect.succeed({
          text: "Hi",
          toolCalls: [],
          finishReason: "stop",
          usage: { promptTokens: 1, completionTokens: 1, cachedTokens: 0 },
          deployment: "m#0",
          attempts: 1,
          decision: "dec-1"
        })
      }
    }
    await withHandler({ inference }, async (post) => {
      assert.strictEqual(
        (await post("chat/completions", { ...bodies["chat/completions"], ...body }, headers)).status,
        200
      )
    })
    return request!
  }

  it("has the caller by the token, or else by the user name", async () => {
    const bearer = { authorization: "Bearer one" }
    const [anonymous, one, again, other, user] = await Promise.all([
      asked({}),
      asked({}, bearer),
      asked({ user: "me" }, bearer),
      asked({}, { authorization: "Bearer two" }),
      asked({ user: "me" })
    ])
    assert.isUndefined(anonymous.tenant)
    assert.strictEqual(one.tenant, again.tenant)
    assert.strictEqual(new Set([one.tenant, other.tenant, user.tenant]).size, 3)
  })

  it("has the priority and the time that the model stays loaded", async () => {
    const { keepAlive, priority } = await asked({ keep_alive: -1, priority: "high" })
    assert.strictEqual(priority, "high")
    assert.isFalse(Duration.isFinite(keepAlive!))
  })
})

describe("tokens", () => {
  it.each([["tokenize", {}], ["messages/count_tokens", { messages: [{ role: "user", content: "Hello" }] }]])(
    "of %s are reported with the deployment that counted them",
    (path, more) => {
      const tokens = { tokens: [7, 8], deployment: "m#1", attempts: 2, decision: "dec-1" }
      const counted = { promptTokens: 2, deployment: "m#1", attempts: 2, decision: "dec-1" }
      const inference = { tokenize: () => Effect.succeed(tokens), count: () => Effect.succeed(counted) }
      return withHandler({ inference }, async (post) => {
        const { headers, status } = await post(path, {
          ...(path === "tokenize" ? bodies["tokenize"] : { model: "m" }),
          ...more
        })
        assert.strictEqual(status, 200)
        const names = ["x-troupe-deployment", "x-troupe-attempts", "x-troupe-decision"]
        assert.deepStrictEqual(names.map((name) => headers.get(name)), ["m#1", "2", "dec-1"])
      })
    }
  )
})

describe("a stream", () => {
  it.each([["chat/completions", {}], ["messages", { max_tokens: 9 }]])(
    "of %s keeps the request's hop count to its end",
    async (path, more) => {
      const text = Effect.map(HopCount, (hops) => ({ type: "text", text: `<${hops}>`, tokens: 1 }) as const)
      const usage = { promptTokens: 1, completionTokens: 2, cachedTokens: 0 }
      const finish = { type: "finish", reason: "stop", usage } as const
      const events = Stream.fromEffectRepeat(text).pipe(Stream.take(2), Stream.concat(Stream.succeed(finish)))
      const inference: Partial<Inference["Service"]> = {
        open: () => Effect.succeed({ deployment: "m#0", attempts: 1, decision: "d", events })
      }
      await withHandler({ inference }, async (post) => {
        const body = { ...bodies["chat/completions"], ...more, stream: true }
        for (const hops of ["0", "3"]) {
          const text = await (await post(path, body, { "x-troupe-hops": hops })).text()
          assert.deepStrictEqual(text.match(/<\d>/g), [`<${hops}>`, `<${hops}>`])
        }
      })
    }
  )
})

describe("an engine's error for an invalid field", () => {
  it.each([
    ["chat/completions", "format.schema.properties.x", "response_format.json_schema.schema.properties.x"],
    ["chat/completions", "tools[0].parameters", "tools[0].function.parameters"],
    ["embeddings", "inputs[0]", "input[0]"],
    ["tokenize", "input.messages[0].content", "messages[0].content"]
  ])("%s: %s is reported as %s", (path, engines, callers) =>
    withHandler(
      { inference: failing(new InferenceError.InvalidRequest({ path: engines, detail: "Wrong" })) },
      async (post) => {
        const response = await post(path, bodies[path])
        assert.strictEqual(response.status, 400)
        assert.deepInclude(await errorOf(response), { param: callers, message: `${callers}: Wrong` })
      }
    ))
})
