/**
 * Where the supervisor of a service answers `troupe deploy`: a socket file that only the service's user may open.
 *
 * **Details**
 *
 * `POST /` starts a switch and answers with its progress, a line of JSON for each step; `GET /` answers with the state, `DELETE /` returns
 * to the old generation. A caller that disconnects does not end a switch.
 */
import { Effect, Fiber, Schema } from "effect"
import type { IncomingMessage, ServerResponse } from "node:http"
import { createServer } from "node:http"
import { dirname } from "node:path"
import { text } from "node:stream/consumers"
import { listenAtSocket, makePrivateFolder } from "../layers/http/AdminListener.ts"
import type { Deployment, Next, Progress } from "../layers/processes/Deploy.ts"
import { DeployFailed } from "../layers/processes/Deploy.ts"
import { temporaryFiles } from "./Signals.ts"

/** The body of `POST /`. Without a time, a step lasts as configured. */
export const Order = Schema.Struct({ stepMs: Schema.optionalKey(Schema.Finite.check(Schema.isGreaterThan(0))) })

/** The answer to `GET /`. */
export interface State {
  readonly generation: number
  readonly isRunning: boolean
  readonly progress: Progress | undefined
}

/** A line of the answer to `POST /`. The last one has `failed` or `finished`. */
export type Line = Pick<Progress, "message" | "phase">

export interface Options {
  readonly deployment: Deployment
  /** By the configuration of now. */
  readonly next: Effect.Effect<Next, DeployFailed>
  readonly socket: string
}

const respond = (response: ServerResponse, status: number, body: object): void =>
  void response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body))

/** Runs a switch, and writes its lines. */
const deploy = Effect.fnUntraced(
  function*({ deployment, next }: Options, request: IncomingMessage, response: ServerResponse) {
    const body = yield* Effect.promise(() => text(request))
    const write = ({ message, phase }: Line) => void response.write(`${JSON.stringify({ phase, message })}\n`)
    response.writeHead(200, { "content-type": "application/x-ndjson" })
    yield* Schema.decodeUnknownEffect(Schema.fromJsonString(Order))(body).pipe(
      Effect.mapError(({ message }) => new DeployFailed({ message })),
      Effect.flatMap((order) =>
        deployment.run(Effect.map(next, ({ options, steps }) => ({ options, steps: { ...steps, ...order } })), write)
      ),
      Effect.catch(({ message }) => Effect.sync(() => write({ phase: "failed", message })))
    )
    response.end()
  }
)

/** Listens until the scope ends. */
export const listen = Effect.fnUntraced(function*(options: Options) {
  const { deployment, socket } = options
  const services = yield* Effect.context()
  const running = new Set<Fiber.Fiber<void>>()
  const handle = (request: IncomingMessage, response: ServerResponse): void => {
    switch (request.method) {
      case "POST": {
        const fiber = Effect.runForkWith(services)(deploy(options, request, response))
        running.add(fiber)
        return void fiber.addObserver(() => running.delete(fiber))
      }
      case "DELETE":
        return respond(response, deployment.abort() ? 200 : 409, {})
      default: {
        const { generation, isRunning, progress } = deployment
        return respond(response, 200, { generation, isRunning, progress } satisfies State)
      }
    }
  }
  yield* Effect.acquireRelease(
    Effect.promise(async () => {
      const server = createServer(handle)
      makePrivateFolder(dirname(socket))
      await listenAtSocket(server, socket)
      temporaryFiles.add(socket)
      return server
    }),
    (server) =>
      Effect.callback<void>((resume) => {
        server.close(() => resume(Effect.void))
        server.closeAllConnections()
      })
  )
  yield* Effect.addFinalizer(() => Effect.asVoid(Fiber.interruptAll(running)))
})
