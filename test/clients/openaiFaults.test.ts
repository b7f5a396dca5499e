/** The `openai` package with a chain of deployments, most of which fail; the package's own retries are off. */
import { assert } from "@effect/vitest"
import OpenAI from "openai"
import { afterAll, beforeAll, describe, it } from "vitest"
import { modelAsked } from "../support/FaultMatrix.ts"
import type { FaultServer, Play, Seen } from "../support/FaultServer.ts"
import { startFaultServer } from "../support/FaultServer.ts"
import type { Service } from "../support/Service.ts"
import { startService } from "../support/Service.ts"
import { wires } from "../support/Wires.ts"

const { begun, pieces, text, buffered } = wires.openai
const json = { "content-type": "application/json" }
const cutAfter = (after: number): Play => ({ pieces, fault: { kind: "cut", after }, gated: after > 1 })

/** By the provider's model name. */
const plays: Readonly<Record<string, Play>> = {
  down: { status: 503, headers: json, pieces: ["{\"error\":{\"message\":\"Down for now.\"}}"] },
  limited: {
    status: 429,
    headers: { ...json, "retry-after": "3600" },
    pieces: ["{\"error\":{\"message\":\"Slow down.\"}}"]
  },
  "cut early": cutAfter(1),
  "cut late": cutAfter(2),
  html: { headers: { "content-type": "text/html" }, pieces: ["<html></html>"] },
  nothing: { pieces: [] },
  wrong: {
    status: 400,
    headers: json,
    pieces: ["{\"error\":{\"message\":\"temperature is too high.\",\"param\":\"temperature\"}}"]
  },
  well: { pieces, bytesAtATime: 5 }
}

const bufferedPieces = [buffered.slice(0, 30), buffered.slice(30, 60), buffered.slice(60)]

/** The same for a buffered answer. */
const playOf = (request: Seen): Play => {
  const play = plays[modelAsked(request)]!
  return (request.body as { readonly stream?: boolean }).stream !== true && play.pieces === pieces
    ? { ...play, headers: json, pieces: bufferedPieces }
    : play
}

const chains: Readonly<Record<string, ReadonlyArray<string>>> = {
  chain: ["limited", "down", "html", "nothing", "cut early", "well"],
  late: ["cut late", "well"],
  "all limited": ["limited"],
  "all down": ["down", "nothing"],
  wrong: ["wrong", "well"]
}

let provider: FaultServer
let service: Service
let client: OpenAI

const asked = (from: number) => provider.seen.slice(from).map(modelAsked)

beforeAll(async () => {
  provider = await startFaultServer((_, request) => playOf(request))
  const models = Object.entries(chains).map(([name, chain]) => [name, {
    preload: false,
    policy: "in-order",
    deployments: chain.map((model, index) => ({
      provider: "openai",
      model,
      baseUrl: provider.url,
      quality: 1 - index / 10
    }))
  }])
  service = await startService(JSON.stringify({
    models: Object.fromEntries(models) as object,
    policies: { "in-order": { strategy: "quality", retries: 0, candidates: 6 } }
  }))
  client = new OpenAI({ baseURL: `${service.url}/v1`, apiKey: "none", maxRetries: 0 })
})

afterAll(async () => {
  await service.stop()
  await provider.close()
})

const messages = [{ role: "user" as const, content: "Hello" }]

/** The result of a stream: its text, and its error. */
const streamed = async (model: string, onContent: () => void = () => {}) => {
  let said = ""
  try {
    for await (const { choices } of await client.chat.completions.create({ model, messages, stream: true })) {
      said += choices[0]?.delta.content ?? ""
      if (said !== "") onContent()
    }
    return { said }
  } catch (error) {
    return { said, error }
  }
}

const refused = async (answer: Promise<unknown>) => {
  const error = await answer.then(() => assert.fail("answered"), (cause: unknown) => cause)
  assert.instanceOf(error, OpenAI.APIError)
  return error
}

describe("the openai package", () => {
  it("gets no error of failed deployments before a successful one, streamed", async () => {
    const from = provider.seen.length
    assert.deepStrictEqual(await streamed("chain"), { said: text })
    assert.deepStrictEqual(asked(from), chains["chain"])
  })

  it("gets no error of failed deployments before a successful one, buffered", async () => {
    const { choices: [choice], usage } = await client.chat.completions.create({ model: "chain", messages })
    assert.strictEqual(choice?.message.content, text)
    assert.strictEqual(choice?.finish_reason, "stop")
    assert.deepInclude(usage, { prompt_tokens: 19, completion_tokens: 10 })
  })

  it("throws if a stream is cut after its first content, and gets no other deployment's text", async () => {
    const from = provider.seen.length
    const { error, said } = await streamed("late", provider.release)
    assert.strictEqual(said, begun)
    assert.instanceOf(error, OpenAI.APIError)
    assert.strictEqual((error as InstanceType<typeof OpenAI.APIError>).code, "upstream_failed")
    assert.deepStrictEqual(asked(from), ["cut late"])
  })

  it("gets a buffered answer of the next deployment if the first is cut", async () => {
    provider.release()
    const { choices: [choice] } = await client.chat.completions.create({ model: "late", messages })
    assert.strictEqual(choice?.message.content, text)
  })

  for (const stream of [false, true]) {
    const how = stream ? "streaming" : "buffered"

    it(`gets Retry-After, ${how}`, async () => {
      const error = await refused(client.chat.completions.create({ model: "all limited", messages, stream }))
      assert.instanceOf(error, OpenAI.RateLimitError)
      assert.strictEqual(error.code, "rate_limit_exceeded")
      const seconds = Number(error.headers?.get("retry-after"))
      assert.isTrue(seconds > 3000 && seconds <= 3600, `${seconds}`)
    })

    it(`gets the most specific error if all fail, ${how}`, async () => {
      const error = await refused(client.chat.completions.create({ model: "all down", messages, stream }))
      assert.instanceOf(error, OpenAI.InternalServerError)
      assert.deepInclude(error, { status: 502, code: "upstream_failed" })
    })

    it(`gets the error of an invalid request without further attempts, ${how}`, async () => {
      const from = provider.seen.length
      const error = await refused(client.chat.completions.create({ model: "wrong", messages, stream }))
      assert.instanceOf(error, OpenAI.BadRequestError)
      assert.deepInclude(error, { status: 400, param: "temperature" })
      assert.include(error.message, "too high")
      assert.deepStrictEqual(asked(from), ["wrong"])
    })
  }
})
