/** The promise API on the embedded model. */
import { assert } from "@effect/vitest"
import { afterAll, describe, it } from "vitest"
import { InferenceError, Reload, Settings, Troupe } from "../src/index.ts"
import type { Inference } from "../src/index.ts"
import { until } from "./support/Service.ts"

const troupe = Troupe.start()
afterAll(() => troupe.close())

const ask = (content: string, options: Partial<Inference.Request> = {}): Inference.Request => ({
  model: "tiny-chat",
  messages: [{ role: "user", content }],
  temperature: 0,
  ...options
})

const thrown = async (work: () => Promise<unknown>): Promise<unknown> => {
  try {
    await work()
  } catch (error) {
    return error
  }
  return assert.fail("nothing was thrown")
}

const drain = async (events: AsyncIterable<unknown>) => {
  for await (const _ of events) continue
}

describe("Troupe", () => {
  it("answers, whole and streamed, also with a history of any length and options that are undefined", async () => {
    const history: Array<Inference.Message> = [{ role: "user", content: "What color is snow?" }]
    const { text } = await troupe.generate({ model: "tiny-chat", messages: history, temperature: 0, seed: undefined })
    assert.strictEqual(text, "Snow is white.")
    let streamed = ""
    for await (const event of troupe.stream(ask("What color is snow?"))) {
      if (event.type === "text") streamed += event.text
    }
    assert.strictEqual(streamed, text)
  })

  it("opens an answer: an early failure rejects, and the route is known before the events", async () => {
    const { attempts, deployment, events } = await troupe.open(ask("What color is snow?"))
    assert.deepStrictEqual([deployment, attempts], ["tiny-chat#0", 1])
    let text = ""
    for await (const event of events) if (event.type === "text") text += event.text
    assert.strictEqual(text, "Snow is white.")
    const error = await thrown(() => troupe.open(ask("Hello!", { model: "gpt-9" })))
    assert.instanceOf(error, InferenceError.InferenceError)
    const why = new Error("changed my mind")
    const during = new AbortController()
    const opened = await troupe.open(ask("Write a story about a fox."), { signal: during.signal })
    during.abort(why)
    assert.strictEqual(await thrown(() => drain(opened.events)), why)
    const left = await troupe.open(ask("Write a story about a fox."))
    await left.events[Symbol.asyncIterator]().return?.()
    const idle = async () => (await troupe.models())[0]!.deployments[0]!.running === 0 || undefined
    assert.isTrue(await until(idle))
  })

  it("embeds, tokenizes and counts", async () => {
    const { deployment, promptTokens, vectors } = await troupe.embed({ model: "tiny-embed", inputs: ["snow", "rain"] })
    assert.strictEqual(deployment, "tiny-embed#0")
    assert.isAbove(promptTokens, 0)
    assert.strictEqual(vectors.length, 2)
    assert.closeTo(vectors[0]!.reduce((sum, one) => sum + one * one, 0), 1, 1e-3)
    const { tokens } = await troupe.tokenize({ model: "tiny-chat", input: "Snow is white." })
    assert.isAbove(tokens.length, 2)
    const messages = [{ role: "user", content: "What color is snow?" }] as const
    const counted = await troupe.count({ model: "tiny-chat", input: { messages } })
    const text: unknown = await troupe.count({ model: "tiny-chat", input: "hello" } as never).catch((error: unknown) =>
      error
    )
    assert.include((text as Error).message, "input: Expected an object such as { messages: [{")
    const conversation = await troupe.tokenize({ model: "tiny-chat", input: { messages } })
    assert.strictEqual(counted.promptTokens, conversation.tokens.length)
    const error = await thrown(() => troupe.classify({ model: "tiny-chat", inputs: ["good"] }))
    assert.instanceOf(error, InferenceError.InferenceError)
    assert.strictEqual(error.reason._tag, "InvalidRequest")
  })

  it("ranks and classifies", async () => {
    const other = Troupe.start({ config: { models: { "fake/all": { deployments: [{ engine: "fake" }] } } } })
    const { scores } = await other.rerank({ model: "fake/all", query: "snow", documents: ["rain", "snow"] })
    assert.strictEqual(scores.length, 2)
    const { classifications, deployment } = await other.classify({ model: "fake/all", inputs: ["good", "bad"] })
    await other.close()
    assert.strictEqual(classifications.length, 2)
    assert.strictEqual(deployment, "fake/all#0")
  })

  it("lists the models with what is known about them", async () => {
    await troupe.generate(ask("What color is snow?"))
    const models = await troupe.models()
    assert.deepStrictEqual(models.map(({ name }) => name), ["tiny-chat", "tiny-embed"])
    const [chat] = models[0]!.deployments
    assert.strictEqual(chat!.id, "tiny-chat#0")
    assert.strictEqual(chat!.engine, "llama")
    assert.strictEqual(chat!.state, "ready")
    assert.strictEqual(chat!.contextWindow, 512)
    assert.include(chat!.capabilities, "generate")
    assert.deepStrictEqual(chat!.price, { input: 0, output: 0 })
    assert.deepStrictEqual(JSON.parse(JSON.stringify(models)), models)
  })

  it("explains how a request would be routed", async () => {
    const { decision, plan } = await troupe.route({ model: "tiny-chat", prompt: "Hello!", route: { retries: 2 } })
    assert.deepStrictEqual(decision.candidates.map(({ deployment }) => deployment), ["tiny-chat#0"])
    assert.strictEqual(plan.retries, 2)
    assert.strictEqual((await troupe.route()).model, "tiny-chat")
    const error = await thrown(() => troupe.route({ modle: "tiny-chat" } as object))
    assert.instanceOf(error, InferenceError.InferenceError)
    assert.include(error.message, "modle")
  })

  it("throws what is wrong as an InferenceError", async () => {
    const error = await thrown(() => troupe.generate(ask("Hello!", { model: "gpt-9" })))
    assert.instanceOf(error, InferenceError.InferenceError)
    assert.strictEqual(error.reason._tag, "ModelNotFound")
    const wrong = await thrown(() => drain(troupe.stream(ask("Hello!", { temperature: 9 }))))
    assert.instanceOf(wrong, InferenceError.InferenceError)
  })

  it("throws the signal's reason when a call is aborted", async () => {
    const why = new Error("changed my mind")
    const before = AbortSignal.abort(why)
    assert.strictEqual(await thrown(() => troupe.generate(ask("Hello!"), { signal: before })), why)
    assert.strictEqual(await thrown(() => drain(troupe.stream(ask("Hello!"), { signal: before }))), why)
    const during = new AbortController()
    const story = thrown(async () => {
      for await (const _ of troupe.stream(ask("Write a story about a fox."), { signal: during.signal })) {
        during.abort(why)
      }
    })
    assert.strictEqual(await story, why)
  })

  it.each([
    [{ temprature: 0 }, "temprature: Unknown field. Did you mean temperature?"],
    [{ max_tokens: 5 }, "max_tokens: Unknown field. Did you mean maxTokens?"],
    [{ route: { retires: 1 } }, "route.retires: Unknown field. Did you mean retries?"]
  ])("refuses the misspelt option of %j by name", async (options, message) => {
    const error = await thrown(() => troupe.generate(ask("Hello!", options as object)))
    assert.instanceOf(error, InferenceError.InferenceError)
    assert.strictEqual(error.reason._tag, "InvalidRequest")
    assert.include(error.message, message)
  })

  it.each([
    [{ confg: {} }, "confg: Unknown field. Did you mean config?"],
    [{ fil: "troupe.yaml" }, "fil: Unknown field. Did you mean file?"],
    [{ services: { metric: {} } }, "services.metric: Unknown field. Did you mean metrics?"],
    [{ languageModel: {} }, "languageModel: Unknown field. Did you mean languageModels?"],
    [{ engineHost: "thraed" }, "engineHost: Expected \"process\" or \"thread\""],
    [{ file: 3 }, "file: Expected a string"],
    [{ config: null }, "config: Expected an object"],
    [{ languageModels: 3 }, "languageModels: Expected an object"],
    [{ services: null }, "services: Expected an object"],
    [{ services: { metrics: {} } }, "services.metrics: Expected a layer"],
    [null, "Expected an object"],
    ["troupe.yaml", "Expected an object"]
  ])("rejects the start options %j", async (options, message) => {
    const wrong = Troupe.start(options as Parameters<typeof Troupe.start>[0])
    const error = await thrown(() => wrong.generate(ask("Hello!")))
    await wrong.close()
    assert.instanceOf(error, Settings.SettingsError)
    assert.include(error.message, message)
  })

  it.each([
    [{ signl: AbortSignal.abort() }, "options.signl: Unknown field. Did you mean signal?"],
    [{ signal: 3 }, "options.signal: Expected an AbortSignal"],
    [null, "options: Expected an object"]
  ])("rejects the call options %j", async (options, message) => {
    const given = options as Troupe.CallOptions
    for (
      const call of [
        () => troupe.generate(ask("Hello!"), given),
        () => troupe.embed({ model: "tiny-embed", inputs: ["Hello!"] }, given),
        () => troupe.models(given),
        () => drain(troupe.stream(ask("Hello!"), given))
      ]
    ) {
      const error = await thrown(call)
      assert.instanceOf(error, InferenceError.InferenceError)
      assert.strictEqual(error.message, message)
    }
  })

  it.each([null, undefined, "Hello!", 3])("rejects %j as a request", async (request) => {
    const given = request as unknown as Inference.Request
    for (const call of [() => troupe.generate(given), () => drain(troupe.stream(given))]) {
      const error = await thrown(call)
      assert.instanceOf(error, InferenceError.InferenceError)
      assert.strictEqual(error.reason._tag, "InvalidRequest")
      assert.match(error.message, /^Expected an object/)
    }
  })

  it("names the missing element of an empty list", async () => {
    const error = (await thrown(() => troupe.generate({ model: "tiny-chat", messages: [] }))) as Error
    assert.strictEqual(error.message, "messages: Expected at least one element")
  })

  it("has a type that refuses misspelt fields of the configuration", () => {
    const start = (options: Parameters<typeof Troupe.start>[0]) => assert.isDefined(options)
    // @ts-expect-error `modells`
    start({ config: { modells: {} } })
    // @ts-expect-error `idelUnload`
    start({ config: { models: { "fake/a": { idelUnload: "1 minute", deployments: [{ engine: "fake" }] } } } })
    // @ts-expect-error `lama`
    start({ config: { models: { a: { deployments: [{ engine: "lama", file: "a.gguf" }] } } } })
    // @ts-expect-error `fastest`
    start({ config: { policies: { default: { strategy: "fastest" } } } })
    start({ config: { policies: { default: { strategy: "custom/fastest" } } } })
  })

  it("takes what a program without types adds to a request for nothing", async () => {
    const request = { ...ask("What color is snow?"), onToken: () => {} }
    const [first, second] = await Promise.all([troupe.generate(request), troupe.generate(ask("What color is snow?"))])
    assert.strictEqual(first.text, second.text)
  })

  it("says that it is closed", async () => {
    const other = Troupe.start()
    const running = thrown(() => other.generate(ask("Write a story about a fox.")))
    await other.close()
    for (const error of [await running, await thrown(() => other.generate(ask("Hello!")))]) {
      assert.instanceOf(error, Error)
      assert.match(error.message, /closed|stopped/)
    }
  })
})

describe("Troupe.reload", () => {
  const fake = (name: string, reply: string) => ({ [name]: { deployments: [{ engine: "fake", reply }] as const } })

  it("changes to another configuration while calls run, or to none of it", async () => {
    const one = Troupe.start({ config: { models: { ...fake("fake/a", "first"), ...fake("fake/b", "other") } } })
    const textOf = async (model: string) => (await one.generate(ask("Hello", { model }))).text
    assert.deepStrictEqual([await textOf("fake/a"), await textOf("fake/b")], ["first", "other"])
    const running = one.generate(ask("Hello", { model: "fake/b" }))
    const report = await one.reload({ config: { models: { ...fake("fake/a", "second"), ...fake("fake/c", "new") } } })
    assert.isTrue(report.applied)
    assert.strictEqual((await running).text, "other")
    assert.deepStrictEqual([await textOf("fake/a"), await textOf("fake/c")], ["second", "new"])
    assert.instanceOf(await thrown(() => textOf("fake/b")), InferenceError.InferenceError)
    const error = await thrown(() => one.reload({ config: { models: { none: { deployments: [] } } } as never }))
    assert.instanceOf(error, Reload.ReloadError)
    assert.isAbove(error.problems.length, 0)
    assert.strictEqual(await textOf("fake/a"), "second")
    await one.close()
  })
})
