/**
 * The front door, assembled: check, route, try, answer; measured and traced once a request.
 */
import { Effect, Layer } from "effect"
import { Inference } from "../../services/Inference.ts"
import * as Chat from "./Chat.ts"
import { makeStage } from "./Stage.ts"
import * as Tasks from "./Tasks.ts"

export const layer = Layer.effect(
  Inference,
  Effect.map(makeStage, (stage) =>
    Inference.of({
      open: Chat.open(stage),
      stream: Chat.stream(stage),
      generate: Chat.generate(stage),
      embed: Tasks.embed(stage),
      rerank: Tasks.rerank(stage),
      classify: Tasks.classifyTexts(stage),
      tokenize: Tasks.tokenize(stage),
      count: Tasks.count(stage)
    }))
)
