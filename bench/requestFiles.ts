/**
 * Process entry: prints the files under `src` that execute code for one proxied chat completion, OpenAI's dialect on both
 * sides, in a warm service.
 *
 * **Details**
 *
 * The service runs in this process against an upstream on loopback. V8's precise coverage counts the calls of every
 * function; a file is listed if one of its functions was called in each of several requests, so that background work such
 * as sampling is left out.
 *
 * `node bench/requestFiles.ts` prints the list, `--functions` adds the functions, `--check` exits with
 * 1 above the limit.
 */
import { Effect, Layer, Logger } from "effect"
import { HttpServer } from "effect/http"
import { once } from "node:events"
import { createServer } from "node:http"
import { Session } from "node:inspector/promises"
import type { AddressInfo } from "node:net"
import { parseArgs } from "node:util"
import * as App from "../src/App.ts"
import * as SettingsFile from "../src/layers/settings/SettingsFile.ts"

/** Requests before the first measured one, so that connections, caches and lazy initialization are warm. */
const warmUpRequests = 50
/** A listed file executes code in each of these. */
const measuredRequests = 5

/** `--check` fails above this number of files, so that the number does not grow. */
const limit = 40

const root = new URL("../src/", import.meta.url).href

const answer = JSON.stringify({
  id: "chatcmpl-1",
  object: "chat.completion",
  created: 1_700_000_000,
  model: "upstream-1",
  choices: [{ index: 0, message: { role: "assistant", content: "It is." }, logprobs: null, finish_reason: "stop" }],
  usage: { prompt_tokens: 12, completion_tokens: 3, total_tokens: 15 }
})

const body = JSON.stringify({
  model: "chat",
  messages: [{ role: "system", content: "Be brief." }, { role: "user", content: "Is it so?" }],
  temperature: 0
})

const startUpstream = async (): Promise<{ readonly url: string; readonly close: () => void }> => {
  const server = createServer((request, response) => {
    request.resume().once("end", () => response.setHeader("content-type", "application/json").end(answer))
  })
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`,
    close: () => server.close().closeAllConnections()
  }
}

/** The functions that were called since the last call of this, by file. */
const calledFunctions = async (session: Session): Promise<ReadonlyMap<string, ReadonlySet<string>>> => {
  const { result } = await session.post("Profiler.takePreciseCoverage")
  return new Map(
    result.filter(({ url }) => url.startsWith(root)).flatMap(({ functions, url }) => {
      const called = functions.filter(({ ranges }) => ranges[0]!.count > 0).map(({ functionName }) =>
        functionName || "(anonymous)"
      )
      return called.length === 0 ? [] : [[url.slice(root.length), new Set(called)] as const]
    })
  )
}

const ask = async (url: string): Promise<void> => {
  const response = await fetch(`${url}/v1/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: "Bearer caller" },
    body
  })
  const text = await response.text()
  if (response.status !== 200 || !text.includes("It is.")) throw new Error(`Status ${response.status}: ${text}`)
}

const measure = async (url: string): Promise<ReadonlyMap<string, ReadonlySet<string>>> => {
  for (let count = 0; count < warmUpRequests; count++) await ask(url)
  const session = new Session()
  session.connect()
  await session.post("Profiler.enable")
  await session.post("Profiler.startPreciseCoverage", { callCount: true, detailed: true })
  let common: ReadonlyMap<string, ReadonlySet<string>> | undefined
  for (let count = 0; count < measuredRequests; count++) {
    await calledFunctions(session)
    await ask(url)
    const called = await calledFunctions(session)
    common = common === undefined ? called : new Map([...common].filter(([file]) => called.has(file)))
  }
  session.disconnect()
  return common!
}

const settings = (upstream: string) =>
  SettingsFile.layer({
    config: {
      server: { port: 0, shutdownGrace: "1 second" },
      models: { chat: { deployments: [{ provider: "openai", model: "upstream-1", baseUrl: upstream, key: "none" }] } }
    }
  })

const program = Effect.gen(function*() {
  const upstream = yield* Effect.acquireRelease(Effect.promise(startUpstream), ({ close }) => Effect.sync(close))
  const service = App.service.pipe(Layer.provide(settings(upstream.url)), Layer.provide(Logger.layer([])))
  return yield* Effect.gen(function*() {
    const { address } = yield* HttpServer.HttpServer
    if (!("port" in address)) return yield* Effect.die("The service does not listen on TCP.")
    return yield* Effect.promise(() => measure(`http://127.0.0.1:${address.port}`))
  }).pipe(Effect.provide(service))
}).pipe(Effect.scoped)

const { values: { check, functions } } = parseArgs({
  options: { functions: { type: "boolean", default: false }, check: { type: "boolean", default: false } }
})
const files = await Effect.runPromise(program)
const names = [...files.keys()].toSorted()
for (const name of names) console.log(functions ? `${name}: ${[...files.get(name)!].join(", ")}` : name)
console.log(`${names.length} files`)
process.exit(check && names.length > limit ? 1 : 0)
