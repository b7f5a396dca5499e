/** The engine suite for HTTP: a real service on this machine, with tiny-chat, as the provider. */
import { Effect, Layer } from "effect"
import { afterAll } from "vitest"
import * as EnginesLayer from "../../src/layers/engines/Engines.ts"
import * as ProvidersLayer from "../../src/layers/providers/Providers.ts"
import { Engines } from "../../src/services/engines/Engine.ts"
import { Providers } from "../../src/services/engines/Providers.ts"
import { startService } from "../support/Service.ts"
import { layerStarted } from "../support/StartedEngine.ts"
import type { Subject } from "./engine.ts"
import { engineConformance } from "./engine.ts"
import { prompts } from "./tinyChat.ts"

const service = await startService()
afterAll(() => service.stop())

const engines = Layer.effect(
  Engines,
  Effect.map(Providers, (providers) => EnginesLayer.make("thread", undefined, undefined, providers))
).pipe(Layer.provide(ProvidersLayer.layer))

const shared = {
  where: "thread",
  engines,
  ...prompts
} as const

/** Runs the suite with `Engine.generate`, and with `Engine.start`. */
const bothConformance = (subject: Subject) => {
  engineConformance(subject)
  engineConformance({ ...subject, name: `${subject.name} as a receiver`, engines: layerStarted(engines) })
}

bothConformance({
  name: "another instance",
  options: {
    engine: "remote",
    provider: "troupe",
    model: "tiny-chat",
    baseUrl: `${service.url}/v1`,
    contextSize: 512,
    maxConcurrent: 4,
    abilities: ["generate", "tools", "format", "logprobs", "tokenize"]
  },
  capabilities: ["generate", "tools", "format", "logprobs", "tokenize"],
  continuesExactly: true,
  cachesPrompts: false,
  ...shared
})

bothConformance({
  name: "a host of the OpenAI dialect",
  options: {
    engine: "remote",
    provider: "openai",
    model: "tiny-chat",
    baseUrl: `${service.url}/v1/`,
    contextSize: 512,
    maxConcurrent: 4,
    abilities: ["generate", "tools", "format", "logprobs"]
  },
  capabilities: ["generate", "tools", "format", "logprobs"],
  cachesPrompts: false,
  ...shared
})

bothConformance({
  name: "another instance, whose answers are buffered,",
  options: {
    engine: "remote",
    provider: "troupe",
    model: "tiny-chat",
    baseUrl: `${service.url}/v1`,
    contextSize: 512,
    maxConcurrent: 4,
    stream: false,
    abilities: ["generate", "tools", "format", "tokenize"]
  },
  capabilities: ["generate", "tools", "format", "tokenize"],
  continuesExactly: true,
  cachesPrompts: false,
  ...shared
})

/** The schemas that Anthropic's API enforces: closed objects without lengths. */
const closed = {
  type: "json_schema",
  schema: {
    type: "object",
    properties: { city: { enum: ["Tokyo", "Paris"] }, known: { type: "boolean" } },
    required: ["city", "known"],
    additionalProperties: false
  }
} as const

for (const stream of [true, false]) {
  bothConformance({
    name: `a host of Anthropic's dialect${stream ? "" : ", whose answers are buffered,"}`,
    options: {
      engine: "remote",
      provider: "anthropic",
      model: "tiny-chat",
      baseUrl: service.url,
      contextSize: 512,
      maxConcurrent: 4,
      stream,
      abilities: ["generate", "tools", "format"]
    },
    capabilities: ["generate", "tools", "format"],
    cachesPrompts: false,
    seeded: false,
    ...shared,
    formats: [closed]
  })
}
