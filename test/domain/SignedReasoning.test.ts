import { assert, describe, it } from "vitest"
import type { Deployment } from "../../src/domain/Deployment.ts"
import type { Message, SignedReasoning } from "../../src/domain/Message.ts"
import { isLost, makerOf, readableBy, seal, unseal, withoutIt } from "../../src/domain/SignedReasoning.ts"
import { generationOf, targetOf } from "../support/Dialects.ts"

type Options = Parameters<typeof targetOf>[1]

const deploymentOf = (provider: Parameters<typeof targetOf>[0], options?: Options): Deployment =>
  ({ id: `m#${provider}`, model: "m", options: targetOf(provider, options).options }) as unknown as Deployment

const anthropic = deploymentOf("anthropic")
const proxy = deploymentOf("anthropic", { baseUrl: "https://proxy.example.com" })
const openAi = deploymentOf("openai")

const signed = (maker?: string): SignedReasoning => ({
  type: "thinking",
  thinking: "Hm.",
  signature: "s",
  ...(maker === undefined ? {} : { maker })
})

const answer = (...reasoning: ReadonlyArray<SignedReasoning>): Message => ({
  role: "assistant",
  content: "A",
  reasoning
})

const own = signed(makerOf(anthropic.options))
const foreign = signed(makerOf(proxy.options))
const unknown = signed()

describe("signed reasoning of a message", () => {
  it.each<readonly [string, Deployment, ReadonlyArray<SignedReasoning>]>([
    ["its maker", anthropic, [own, unknown]],
    ["another host", proxy, [foreign, unknown]],
    ["a provider of another dialect", openAi, []]
  ])("is readable by %s as far as it made it, and where the maker is not known", (_, { options }, expected) => {
    assert.deepStrictEqual(readableBy(answer(own, foreign, unknown), options), expected)
  })

  it.each<readonly [string, SignedReasoning, Deployment, ReadonlyArray<Deployment>, boolean]>([
    ["its maker", own, anthropic, [], false],
    ["its maker after another host", own, anthropic, [proxy], false],
    ["another host", own, proxy, [], true],
    ["the first host, where the maker is not known", unknown, proxy, [openAi], false],
    ["the second host, where the maker is not known", unknown, proxy, [anthropic], true],
    ["another dialect, where the maker is not known", unknown, openAi, [], true]
  ])("at %s", (_, reasoning, deployment, tried, lost) => {
    assert.strictEqual(isLost({ messages: [answer(), answer(reasoning)] }, deployment, tried), lost)
  })

  it("is taken out of a generation where its maker is not known, and its text stays", () => {
    const { messages } = withoutIt(generationOf({ messages: [{ role: "user", content: "Q" }, answer(own, unknown)] }))
    assert.deepStrictEqual(messages, [
      { role: "user", content: "Q" },
      { ...answer(own), thoughts: "Hm.Hm." }
    ])
  })

  it("has makers that differ by provider and host, and tell neither", () => {
    const makers = [anthropic, proxy, openAi].map(({ options }) => makerOf(options))
    assert.strictEqual(new Set(makers).size, 3)
    for (const maker of makers) assert.match(maker, /^[0-9a-z]{1,7}$/)
    assert.strictEqual(makerOf({ ...targetOf("anthropic").options, model: "another" }), makers[0])
  })
})

describe("an encrypted item of the Responses API", () => {
  const at = (options: Options) => deploymentOf("openai", options)
  const host = at({ baseUrl: "https://host.example.com/v1", responses: true })
  const sealed = { maker: makerOf(host.options), id: "rs_1", content: "gAAA.b==" }

  it("names its maker and keeps its id; another content is not one", () => {
    assert.deepStrictEqual(unseal(seal(sealed)), sealed)
    for (const other of ["gAAAA", "troupe.x", "", undefined, 5]) assert.isUndefined(unseal(other))
  })

  it.each<readonly [string, Deployment, string, boolean]>([
    ["its maker", host, seal(sealed), false],
    ["another host with the API", openAi, seal(sealed), true],
    ["its maker's chats", at({ baseUrl: "https://host.example.com/v1" }), seal(sealed), true],
    [
      "a deployment on this machine",
      { ...host, options: { engine: "fake" } },
      seal(sealed),
      true
    ],
    ["any host, where the caller has it from elsewhere", openAi, "gAAAA", false]
  ])("at %s", (_, deployment, encrypted_content, lost) => {
    const body = { input: ["text", null, { type: "reasoning", encrypted_content }] }
    const source = { dialect: "openai" as const, body: {}, responses: { body } }
    assert.strictEqual(isLost({ source }, deployment, []), lost)
  })
})
