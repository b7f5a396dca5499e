import { assert, describe, it } from "vitest"
import type { Deployment } from "../../src/domain/Deployment.ts"
import type { Message, SignedReasoning } from "../../src/domain/Message.ts"
import { lossOf, makerOf, marksIn, readableBy, seal, unseal, withoutIt } from "../../src/domain/SignedReasoning.ts"
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

const unknownTo = () => undefined

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
    assert.strictEqual(
      lossOf({ messages: [answer(), answer(reasoning)] }, deployment, tried, unknownTo) !== undefined,
      lost
    )
  })

  it("is taken out of a generation where its maker is not known, and its text stays", () => {
    const generation = generationOf({ messages: [{ role: "user", content: "Q" }, answer(own, unknown)] })
    const { messages } = withoutIt(generation, lossOf(generation, anthropic, [proxy], unknownTo)!)
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

describe("signed reasoning in the caller's own body", () => {
  const block = (signature: string) => ({ type: "thinking", thinking: "Hm.", signature })
  const text = { type: "text", text: "A" }
  const use = { type: "tool_use", id: "t", name: "f", input: {} }
  const result = { role: "user", content: [{ type: "tool_result", tool_use_id: "t", content: "1" }] }
  const question = { role: "user", content: "Q" }
  const makerIn = (mark: string) =>
    mark === "own" ? makerOf(anthropic.options) : mark === "foreign" ? makerOf(proxy.options) : undefined

  /** The messages and `thinking` that Anthropic is sent. */
  const sentOf = (answers: ReadonlyArray<ReadonlyArray<object>>, tried: ReadonlyArray<Deployment> = []) => {
    const messages: ReadonlyArray<{ readonly role: string; readonly content: unknown }> = [
      question,
      ...answers.flatMap((content) => [{ role: "assistant", content }, result])
    ]
    const unknownFields = messages.flatMap(({ content }, index) =>
      Array.isArray(content)
        ? content.flatMap((part, at) => part.type === "thinking" ? [{ path: ["messages", index, "content", at] }] : [])
        : []
    )
    const body = { thinking: { type: "enabled", budget_tokens: 2000 }, messages }
    const generation = generationOf({ source: { dialect: "anthropic", body, unknownFields } })
    const loss = lossOf(generation, anthropic, tried, makerIn)
    const { body: sent } = (loss === undefined ? generation : withoutIt(generation, loss)).source!
    return [(sent["messages"] as typeof messages).map(({ content }) => content), sent["thinking"] !== undefined]
  }

  it("is lost block by block: what the deployment made stays", () => {
    const first = [block("foreign"), text, use]
    const last = [block("own"), use]
    const [given, asked] = [result.content, question.content]
    assert.deepStrictEqual(sentOf([last, last]), [[asked, last, given, last, given], true])
    assert.deepStrictEqual(sentOf([first, last]), [[asked, [text, use], given, last, given], true])
    // Without thoughts before the call, it must not think.
    assert.deepStrictEqual(sentOf([last, first]), [[asked, last, given, [text, use], given], false])
    // After another host has failed, only what is known to be its own.
    assert.deepStrictEqual(sentOf([[block("new"), use], last], [proxy]), [[asked, [use], given, last, given], true])
  })

  it("takes its message with it, where that has nothing else", () => {
    assert.deepStrictEqual(sentOf([[block("foreign")], [block("own"), use]]), [
      [question.content, result.content, [block("own"), use], result.content],
      true
    ])
  })

  it("is known by its signatures and encrypted texts", () => {
    assert.deepStrictEqual(marksIn([{ signature: "s" }, { data: "d" }, { text: "Hm." }, null, { signature: "" }]), [
      "s",
      "d"
    ])
    assert.deepStrictEqual(marksIn({ type: "thinking", signature: "s" }), ["s"])
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
    assert.strictEqual(lossOf({ source }, deployment, [], unknownTo) !== undefined, lost)
  })
})
