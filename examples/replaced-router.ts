/** Troupe's router replaced by one of the program's: short questions go to the small deployment, and each route is printed. */
import { Console, Effect, Layer, Result } from "effect"
import type { Deployment } from "troupe"
import { App, Inference, Router } from "troupe"

/** Characters of a prompt that the small deployment is good enough for. */
const shortPrompt = 40

/** Built on Troupe's own, which still excludes deployments that cannot answer. */
const router = Layer.effect(
  Router.Router,
  Effect.map(Router.Router, (own) =>
    Router.Router.of({
      ...own,
      route: (request) =>
        Result.map(own.route(request), (route) => {
          const isShort = (request.promptLength ?? 0) <= shortPrompt
          const isPreferred = ({ id }: Deployment.Deployment) => isShort === (id === "fake/chat#0")
          const preferred = route.deployments.filter(isPreferred)
          const deployments = [...preferred, ...route.deployments.filter((one) => !preferred.includes(one))]
          console.log(`route: ${deployments.map(({ id }) => id).join(", ")}`)
          return { ...route, deployments }
        })
    }))
).pipe(Layer.provide(App.services.router))

const app = App.layer({
  config: {
    models: {
      "fake/chat": {
        deployments: [{ engine: "fake", reply: "I am small." }, { engine: "fake", reply: "I am large." }]
      }
    }
  },
  services: { router }
})

const ask = Effect.fn(function*(content: string) {
  const inference = yield* Inference.Inference
  const { text } = yield* inference.generate({
    model: "fake/chat",
    messages: [{ role: "user", content }],
    temperature: 0
  })
  yield* Console.log(text)
})

const program = Effect.andThen(ask("Hello!"), ask("Tell me at length how a bill becomes a law in Norway."))

await Effect.runPromise(Effect.provide(program, app))
