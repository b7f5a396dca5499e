/** `troupe top`: the live view of a running service in the terminal. */
import { Console, Effect } from "effect"
import { Command, Flag } from "effect/cli"
import { plainText } from "../domain/Text.ts"
import type { Overview } from "../layers/http/OverviewSchema.ts"
import { withClient } from "./Client.ts"
import type { Target } from "./Flags.ts"
import { json, target } from "./Flags.ts"
import * as LiveClient from "./LiveClient.ts"
import { printJson } from "./Output.ts"
import type { Sort } from "./OverviewText.ts"
import { overviewText, screenText, sorts } from "./OverviewText.ts"

const sortNames = Object.keys(sorts) as Array<Sort>

const options = {
  once: Flag.Boolean("once").pipe(
    Flag.withDescription("Print one snapshot (default where the output is no terminal)"),
    Flag.withDefault(false)
  ),
  sort: Flag.Literals("sort", sortNames).pipe(
    Flag.withDescription(`Order of the deployments: ${sortNames.join(", ")} (default: name, as configured)`),
    Flag.withDefault("name" as const)
  ),
  ...target,
  json
}

/** What the keys have changed. */
interface Screen {
  sort: Sort
  isOver: boolean
  latest: Overview | undefined
}

/** A terminal that does not know its size has none, or 0. */
const sizeOr = (size: number, otherwise: number): number => size > 0 ? size : otherwise

const draw = ({ latest, sort }: Screen): void => {
  const columns = sizeOr(process.stdout.columns, 80)
  const rows = sizeOr(process.stdout.rows, 24)
  const text = latest === undefined ? "Waiting for the service." : screenText(latest, { columns, rows, sort })
  const lines = text.split("\n").map((line) => `${plainText(line)}\u001b[K`)
  process.stdout.write(`\u001b[H${lines.join("\r\n")}\u001b[J`)
}

const press = (screen: Screen, key: string, leave: () => void): void => {
  // Ctrl-C, Ctrl-D and Escape arrive as characters.
  if (key === "q" || key === "Q" || key === "\u0003" || key === "\u0004" || key === "\u001b") {
    screen.isOver = true
    return leave()
  }
  const sort = sortNames.find((name) => sorts[name] === key)
  if (sort === undefined) return
  screen.sort = sort
  draw(screen)
}

/** The terminal with a screen of its own and single keys, until the scope ends. */
const openScreen = (screen: Screen, leave: () => void) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const onKeys = (keys: Buffer) => press(screen, keys.toString(), leave)
      const onResize = () => draw(screen)
      process.stdout.write("\u001b[?1049h\u001b[?25l")
      process.stdout.on("resize", onResize)
      if (process.stdin.isTTY) process.stdin.setRawMode(true).resume().on("data", onKeys)
      return { onKeys, onResize }
    }),
    ({ onKeys, onResize }) =>
      Effect.sync(() => {
        process.stdout.off("resize", onResize)
        if (process.stdin.isTTY) process.stdin.off("data", onKeys).setRawMode(false).pause()
        process.stdout.write("\u001b[?25h\u001b[?1049l")
      })
  )

const follow = (to: Target, sort: Sort) =>
  Effect.scoped(Effect.gen(function*() {
    const screen: Screen = { sort, isOver: false, latest: undefined }
    let leave = () => {}
    const left = Effect.callback<void>((resume) => {
      leave = () => resume(Effect.void)
      if (screen.isOver) leave()
    })
    yield* openScreen(screen, () => leave())
    draw(screen)
    const watched = LiveClient.watch(to, "/admin/live?events=overview", (events) =>
      Effect.sync(() => {
        for (const { data, event } of events) if (event === "overview") screen.latest = data as Overview
        if (events.length > 0) draw(screen)
        return screen.isOver
      }))
    yield* Effect.raceFirst(watched, left)
  }))

export const top = Command.make("top", options, ({ json, once, sort, ...to }) => {
  if (!json && !once && process.stdout.isTTY) return follow(to, sort)
  return Effect.flatMap(
    withClient(to, (client) => client.live.overview({})),
    (overview) => json ? printJson(overview) : Console.log(overviewText(overview, sort))
  )
}).pipe(
  Command.withDescription("Watch the deployments of a running service: requests, latency, queues, memory, cost"),
  Command.withExamples([
    { command: "troupe top", description: "Full screen; q quits, and a letter sorts" },
    {
      command: "troupe top --once --sort failures",
      description: "Print it once, the deployment with most failures first"
    }
  ])
)
