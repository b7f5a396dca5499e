/** The command line as a process: signals, exit codes, and one line for what went wrong. Importing it runs it. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Cause, Console, Effect, Exit, Layer } from "effect"
import type { HelpDoc } from "effect/cli"
import { CliConfig, CliError, CliOutput, Command, GlobalFlag } from "effect/cli"
import { readFileSync, unlinkSync } from "node:fs"
import { troupe } from "../cli.ts"
import { asCalled } from "./Invocation.ts"
import { plainConsole } from "./PlainConsole.ts"
import { leftovers } from "./Shared.ts"
import { endsAtOnce } from "./Signals.ts"

const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as {
  version: string
}

/** 128 and the number of the signal that ended us: what shells expect. */
const signalExitCodes = { SIGINT: 130, SIGTERM: 143 } as const
let interruptedWith: number | undefined
let interruptedAt: number | undefined

/** A second signal does not wait for what runs. An exit would: it ends native threads. */
const endAtOnce = (): void => {
  for (const file of leftovers) {
    try {
      unlinkSync(file)
    } catch {
      // It is gone already, or is a named pipe.
    }
  }
  process.kill(process.pid, "SIGKILL")
}

for (const [signal, code] of Object.entries(signalExitCodes)) {
  process.on(signal, () => {
    const now = performance.now()
    if (endsAtOnce(interruptedAt, now, process.env["npm_lifecycle_event"])) endAtOnce()
    interruptedWith = code
    interruptedAt ??= now
  })
}

/** How soon the service notices that npm's shell has ended, ms. */
const shellCheck = 250

// npm forwards a signal to its shell, and most shells end without passing it on.
if (process.env["npm_lifecycle_event"] === "start") {
  const shell = process.ppid
  const check = setInterval(() => {
    if (process.ppid === shell) return
    clearInterval(check)
    if (interruptedAt === undefined) process.kill(process.pid, "SIGTERM")
  }, shellCheck)
  check.unref()
}

// A reader of the output that ends early (`troupe serve | head -1`), a terminal that is gone or a full disk ends nothing:
// without a listener, each write that fails would end the process.
for (const output of [process.stdout, process.stderr]) output.on("error", () => {})

/** Help was printed already, with what was wrong if anything was. */
const errorsBesideHelp = (cause: Cause.Cause<unknown>): ReadonlyArray<unknown> | undefined => {
  const error = Cause.squash(cause)
  return error instanceof CliError.ShowHelp ? error.errors : undefined
}

/** The message of an error made for people; anything else is a defect of ours and keeps its trace. */
const report = (cause: Cause.Cause<unknown>) => {
  const error = Cause.squash(cause)
  return Console.error(
    Cause.hasFails(cause) && error instanceof Error ? `troupe: ${asCalled(error.message)}` : Cause.pretty(cause)
  )
}

/** In one line, without what the parser's own words show of its insides. */
const inOneLine = (message: string): string =>
  message.replace("Expected: Schema validation failed: ", "")
    .replace(/\s*Did you mean this\?\s*(.*)$/s, (_, names: string) =>
      `. Did you mean ${names.split(/\s+/).join(" or ")}?`)

/** With commands that can be typed here. */
const inPlace = (help: HelpDoc.HelpDoc): HelpDoc.HelpDoc => ({
  ...help,
  usage: asCalled(help.usage),
  ...(help.examples === undefined
    ? {}
    : { examples: help.examples.map((example) => ({ ...example, command: asCalled(example.command) })) })
})

/** A wrong invocation is one line, and where to read on. */
const presenter = CliOutput.layerPresenter({
  present: (output) =>
    output._tag === "InvalidInvocation"
      ? Console.error(
        `troupe: ${output.errors.map((error) => inOneLine(error.message)).join("; ")}`.replace(/[^.?]$/, "$&.") +
          ` See: ${asCalled(`${output.commandPath.join(" ")} --help`)}`
      )
      : Effect.provideService(
        CliOutput.defaultPresenter.present(
          output._tag === "Help" ? { ...output, helpDoc: inPlace(output.helpDoc) } : output
        ),
        // Help has colours, and no text but our own.
        Console.Console,
        globalThis.console
      )
})
const config = CliConfig.layer({ builtIns: [GlobalFlag.Help, GlobalFlag.Version, GlobalFlag.Completions] })

Command.run(troupe, { version }).pipe(
  Effect.tapCause((cause) =>
    Cause.hasInterruptsOnly(cause) || errorsBesideHelp(cause) !== undefined ? Effect.void : report(cause)
  ),
  Effect.provide(Layer.mergeAll(NodeServices.layer, presenter, config)),
  Effect.provideService(Console.Console, plainConsole(globalThis.console)),
  NodeRuntime.runMain({
    disableErrorReporting: true,
    teardown: (exit, onExit) => {
      if (Exit.isSuccess(exit)) return onExit(Number(process.exitCode ?? 0))
      if (Cause.hasInterruptsOnly(exit.cause)) return onExit(Number(process.exitCode ?? interruptedWith ?? 130))
      onExit(errorsBesideHelp(exit.cause)?.length === 0 ? 0 : 1)
    }
  })
)
