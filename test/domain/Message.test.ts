import { assert, describe, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import * as Inference from "../../src/domain/Inference.ts"
import * as Message from "../../src/domain/Message.ts"
import * as Problem from "../../src/domain/Problem.ts"

const pixel = Buffer.from("a picture, as far as anybody here looks").toString("base64")
const image = (source: unknown) => ({ type: "image", source })
const inline = { type: "base64", mediaType: "image/png", data: pixel } as const

const decode = Schema.decodeUnknownResult(Inference.Request, { errors: "all" })
const asked = (...messages: ReadonlyArray<unknown>) => decode({ model: "m", messages })

const problemsOf = (...messages: ReadonlyArray<unknown>) => {
  const decoded = asked(...messages)
  return Result.isFailure(decoded) ? Problem.fromSchemaError(decoded.failure) : []
}

const user = (...content: ReadonlyArray<unknown>) => ({ role: "user", content })

describe("Content", () => {
  it("accepts a text, and texts and images in parts", () => {
    const url = { type: "url", url: "https://example.com/cat.png" }
    for (const content of ["Hi", [], [{ type: "text", text: "Hi" }, image(inline), { ...image(url), detail: "low" }]]) {
      assert.deepStrictEqual(problemsOf({ role: "user", content }), [])
    }
  })

  it("names the invalid image, and the valid formats", () => {
    for (
      const [source, field, expected] of [
        [{ ...inline, mediaType: "image/tiff" }, "mediaType", /image\/png/],
        [{ ...inline, data: "no base64!" }, "data", /base64/],
        [{ ...inline, data: "" }, "data", /base64/],
        [{ ...inline, data: "QUJD".repeat(Message.mostImageBytes / 3 + 1) }, "data", /at most 20971520 bytes/],
        [{ type: "url", url: "file:///etc/passwd" }, "url", /http/],
        [{ type: "url", url: "https://me:secret@example.com/a.png" }, "url", /without credentials/]
      ] as const
    ) {
      const [problem, ...others] = problemsOf(user({ type: "text", text: "Hi" }, image(source)))
      assert.deepStrictEqual(others, [])
      assert.strictEqual(problem?.path, `messages[0].content[1].source.${field}`)
      assert.match(problem?.expected ?? "", expected)
    }
  })

  it("accepts images of users and tools only, up to the limit", () => {
    const assistant = { role: "assistant", content: [image(inline)] }
    assert.strictEqual(problemsOf(user(image(inline)), assistant)[0]?.path, "messages[1].content")
    assert.deepStrictEqual(problemsOf({ role: "tool", toolCallId: "1", content: [image(inline)] }), [])
    const many = Array.from({ length: Message.mostImages }, () => image(inline))
    assert.deepStrictEqual(problemsOf(user(...many)), [])
    assert.match(problemsOf(user(...many), user(image(inline)))[0]?.expected ?? "", /at most 100 images, not 101/)
  })

  it("counts no tokens of images", () => {
    const decoded = Schema.decodeUnknownResult(Inference.TokenizeRequest)({
      model: "m",
      input: { messages: [user({ type: "text", text: "Hi" }, image(inline))] }
    })
    assert.isTrue(Result.isFailure(decoded))
  })

  it("keeps plain texts unchanged, and joins those in parts", () => {
    const plain = [{ role: "user", content: "Hi" }] as const
    assert.strictEqual(Message.texts(plain), plain)
    const parts = [{ type: "text", text: "one, " }, { type: "text", text: "two" }] as const
    assert.strictEqual(Message.texts([{ role: "user", content: parts }])[0]?.content, "one, two")
    assert.strictEqual(Message.firstImage(plain), undefined)
    const conversation = [...plain, { role: "user", content: [...parts, image(inline)] }] as ReadonlyArray<
      Message.Message
    >
    assert.strictEqual(Message.firstImage(conversation), "messages[1].content[2]")
  })

  it("keeps the thoughts of local conversations, also those of signed reasoning", () => {
    const signed = { type: "thinking", signature: "s" } as const
    const reasoning = [{ ...signed, thinking: "a" }, { type: "redacted_thinking", data: "x" } as const, {
      ...signed,
      thinking: "b"
    }]
    const answer = { role: "assistant", content: "A" } as const
    assert.deepStrictEqual(Message.texts([{ ...answer, thoughts: "t" }]), [{ ...answer, thoughts: "t" }])
    assert.deepStrictEqual(Message.texts([{ ...answer, reasoning }]), [{ ...answer, thoughts: "ab" }])
    assert.deepStrictEqual(Message.texts([{ ...answer, reasoning, thoughts: "t" }]), [{ ...answer, thoughts: "t" }])
    assert.isUndefined(Message.thoughtsOf({ reasoning: [{ type: "redacted_thinking", data: "x" }] }))
  })

  it("counts the decoded bytes of base64", () => {
    for (const length of [1, 2, 3, 4, 100]) {
      assert.strictEqual(Message.bytesOf(Buffer.alloc(length).toString("base64")), length)
    }
  })
})
