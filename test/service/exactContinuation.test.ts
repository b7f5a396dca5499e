/** Streams that break off, over HTTP: what stand-ins say is aligned, so that the caller gets a true answer or the error. */
import { assert } from "@effect/vitest"
import { afterAll, beforeAll, describe, it } from "vitest"
import type { FaultServer, Play, Seen } from "../support/FaultServer.ts"
import { startFaultServer } from "../support/FaultServer.ts"
import type { Service } from "../support/Service.ts"
import { startService } from "../support/Service.ts"

const text = "The quick brown fox jumps over the lazy dog. 東京 is far away, 👩‍👩‍👧 says."
const sse = (data: object): string => `data: ${JSON.stringify(data)}\n\n`
const chunk = (content: string): string => sse({ choices: [{ index: 0, delta: { content }, finish_reason: null }] })
const line = (content: string, done: boolean): string =>
  `${
    JSON.stringify({
      model: "m",
      message: { role: "assistant", content },
      done,
      ...(done ? { done_reason: "stop" } : {})
    })
  }\n`

const piecesOf = (said: string, length: number): ReadonlyArray<string> =>
  Array.from(
    { length: Math.ceil(said.length / length) },
    (_, index) => said.slice(index * length, (index + 1) * length)
  )

/** The text so far in a request of OpenAI's or Ollama's dialect. */
const prefixIn = ({ body }: Seen): string =>
  (body as { readonly messages: ReadonlyArray<{ readonly role: string; readonly content: string }> }).messages
    .findLast(({ role }) => role === "assistant")?.content ?? ""

const refusal: Play = {
  status: 400,
  headers: { "content-type": "application/json" },
  pieces: ["{\"error\":{\"message\":\"No prefill\"}}"]
}

/** What stand-ins say, by name. */
const standIns: Readonly<Record<string, (seen: Seen) => string>> = {
  goesOn: (seen) => text.slice(prefixIn(seen).length),
  startsOver: () => text,
  respaces: () => text.replaceAll(" ", "\n"),
  repeats: (seen) => {
    const from = prefixIn(seen).length
    return text.slice(text.lastIndexOf(" ", Math.max(0, from - 20)) + 1)
  },
  rephrases: () => "A fast brown fox leaps over a lazy dog.",
  thinks: () => text
}

const playOf = (seen: Seen): Play => {
  const [, who = "", cut = "", length = "7"] = seen.path.split("/")
  if (who === "refuses") return refusal
  if (who === "first") {
    const pieces = [chunk(""), ...piecesOf(text.slice(0, Number(cut)), Number(length)).map(chunk)]
    return { pieces, fault: { kind: "cut", after: pieces.length } }
  }
  const pieces = piecesOf(standIns[who]!(seen), Number(length))
  if (seen.path.endsWith("/api/chat")) {
    return {
      headers: { "content-type": "application/x-ndjson" },
      pieces: [...pieces.map((piece) => line(piece, false)), line("", true)]
    }
  }
  const thoughts = who === "thinks" ? [sse({ choices: [{ index: 0, delta: { reasoning_content: "Hm" } }] })] : []
  return {
    pieces: [
      ...thoughts,
      ...pieces.map(chunk),
      sse({ choices: [{ index: 0, delta: {}, finish_reason: "stop" }] }),
      "data: [DONE]\n\n"
    ]
  }
}

/** The deployments after the first one, and whether the answer is whole. */
const chains: ReadonlyArray<
  readonly [who: ReadonlyArray<string>, provider: "openai" | "ollama", isWhole: boolean | "maybe"]
> = [
  [["startsOver"], "openai", true],
  [["startsOver"], "ollama", "maybe"],
  [["goesOn"], "ollama", true],
  [["goesOn"], "openai", "maybe"],
  [["repeats"], "openai", "maybe"],
  [["respaces"], "openai", true],
  [["rephrases"], "openai", false],
  [["refuses"], "openai", false],
  [["rephrases", "startsOver"], "openai", true],
  [["refuses", "startsOver"], "openai", true],
  [["thinks"], "openai", true]
]
const cuts = [1, 9, 10, 30, 44, 45, 49, 65, 67, 70] as const

let upstream: FaultServer
let service: Service

const idOf = (chain: number, cut: number): string => `c${chain}-${cut}`

beforeAll(async () => {
  upstream = await startFaultServer((_, seen) => playOf(seen))
  const models = chains.flatMap(([who, provider], chain) =>
    cuts.map((cut) => [idOf(chain, cut), {
      preload: false,
      deployments: ["first", ...who].map((one, index) => ({
        provider: index === 0 ? "openai" : provider,
        model: "m",
        baseUrl: `${upstream.url}/${one}/${cut}/${1 + (cut + index) % 9}`,
        quality: 1 - index / 10
      }))
    }])
  )
  const policies = { default: { strategy: "quality", retries: 0, continue: true } }
  service = await startService(JSON.stringify({ models: Object.fromEntries(models), policies }))
}, 60_000)

afterAll(async () => {
  await service.stop()
  await upstream.close()
})

interface Chunk {
  readonly error?: { readonly code: string }
  readonly choices?: ReadonlyArray<
    { readonly delta: { readonly content?: string; readonly reasoning_content?: string } }
  >
}

const ask = async (model: string) => {
  const response = await fetch(`${service.url}/v1/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ model, stream: true, messages: [{ role: "user", content: "Hello" }] })
  })
  const body = await response.text()
  const chunks = [...body.matchAll(/^data: (\{.*)$/gm)].map(([, data]) => JSON.parse(data!) as Chunk)
  const deltas = chunks.flatMap(({ choices }) => choices ?? []).map(({ delta }) => delta)
  return {
    decision: response.headers.get("x-troupe-decision")!,
    text: deltas.map(({ content }) => content ?? "").join(""),
    hasThoughts: deltas.some(({ reasoning_content }) => reasoning_content !== undefined),
    code: chunks.find(({ error }) => error !== undefined)?.error?.code,
    isDone: body.endsWith("data: [DONE]\n\n")
  }
}

const solidOf = (text: string): string => text.replaceAll(/\s/gu, "")

describe.concurrent("a stream that breaks off", () => {
  for (const [chain, [who, provider, isWhole]] of chains.entries()) {
    for (const cut of cuts) {
      it(`after ${cut} characters is a true answer or ends with the error: ${who.join(", ")} (${provider})`, async () => {
        const found = await ask(idOf(chain, cut))
        assert.isFalse(found.hasThoughts)
        if (isWhole !== "maybe") assert.strictEqual(found.isDone, isWhole)
        if (found.isDone) {
          assert.isUndefined(found.code)
          assert.strictEqual(solidOf(found.text), solidOf(text))
          assert.isTrue(found.text.startsWith(text.slice(0, cut)))
          if (!who.includes("respaces")) assert.strictEqual(found.text, text)
        } else {
          assert.strictEqual(found.code, "upstream_failed")
          assert.strictEqual(found.text, text.slice(0, cut))
        }
      })
    }
  }
})

describe("a stand-in whose text does not follow", () => {
  it("is recorded, and does not count against its circuit", async () => {
    const chain = chains.findIndex(([who]) => who.length === 1 && who[0] === "rephrases")
    const model = idOf(chain, 30)
    const decisions: Array<string> = []
    for (let request = 0; request < 5; request++) decisions.push((await ask(model)).decision)
    const { attempts } = await (await fetch(`${service.url}/admin/decisions/${decisions[0]}`)).json() as {
      readonly attempts: ReadonlyArray<{ readonly deployment: string; readonly error?: { readonly message: string } }>
    }
    assert.strictEqual(attempts[1]?.deployment, `${model}#1`)
    assert.match(attempts[1]!.error!.message, /does not follow the interrupted answer/)
    const { circuits } = await (await fetch(`${service.url}/admin/circuits`)).json() as {
      readonly circuits: ReadonlyArray<{ readonly deployment: string; readonly phase: string }>
    }
    const phaseOf = (id: string) => circuits.find(({ deployment }) => deployment === id)?.phase
    assert.deepStrictEqual([phaseOf(`${model}#0`), phaseOf(`${model}#1`)], ["open", "closed"])
  })
})
