/** The command line as a process: signals, exit codes, and one line for an error. Importing it runs it. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Cause, Console, Effect, Exit, Layer } from "effect"
import type { HelpDoc } from "effect/cli"
import { CliConfig, CliError, CliOutput, Command, GlobalFlag } from "effect/cli"
import { readFileSync } from "node:fs"
import { troupe } from "../cli.ts"
import { asInvoked, plainConsole } from "./Output.ts"
import * as Signals from "./Signals.ts"

const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as {
  version: string
}

const exitCodeOfSignal = Signals.listen()

// Without a listener, a write that fails would end the process: `troupe serve | head -1`, a closed terminal, a full disk.
for (const output of [process.stdout, process.stderr]) output.on("error", () => {})

/** The errors of an invocation that has already been answered with help or with a message. */
const reportedErrors = (cause: Cause.Cause<unknown>): ReadonlyArray<unknown> | undefined => {
  const error = Cause.squash(cause)
  return error instanceof CliError.ShowHelp ? error.errors : undefined
}

/** The message of an error; a defect is printed with its stack trace. */
const report = (cause: Cause.Cause<unknown>) => {
  const error = Cause.squash(cause)
  return Console.error(
    Cause.hasFails(cause) && error instanceof Error ? `troupe: ${asInvoked(error.message)}` : Cause.pretty(cause)
  )
}

/** The parser's message on one line, without the names of its internals. */
const inOneLine = (message: string): string =>
  message.replace("Expected: Schema validation failed: ", "")
    .replace(/\s*Did you mean this\?\s*(.*)$/s, (_, names: string) =>
      `. Did you mean ${names.split(/\s+/).join(" or ")}?`)

/** The help with commands that can be typed in this folder. */
const asInvokedHelp = (help: HelpDoc.HelpDoc): HelpDoc.HelpDoc => ({
  ...help,
  usage: asInvoked(help.usage),
  ...(help.examples === undefined
    ? {}
    : { examples: help.examples.map((example) => ({ ...example, command: asInvoked(example.command) })) })
})

/** An invalid invocation is answered with one line that names the help to read. */
const presenter = CliOutput.layerPresenter({
  present: (output) =>
    output._tag === "InvalidInvocation"
      ? Console.error(
        `troupe: ${output.errors.map((error) => inOneLine(error.message)).join("; ")}`.replace(/[^.?]$/, "$&.") +
          ` See: ${asInvoked(`${output.commandPath.join(" ")} --help`)}`
      )
      : Effect.provideService(
        CliOutput.defaultPresenter.present(
          output._tag === "Help" ? { ...output, helpDoc: asInvokedHelp(output.helpDoc) } : output
        ),
        // Help has colours and only our own text.
        Console.Console,
        globalThis.console
      )
})
const config = CliConfig.layer({ builtIns: [GlobalFlag.Help, GlobalFlag.Version, GlobalFlag.Completions] })

Command.run(troupe, { version }).pipe(
  Effect.tapCause((cause) =>
    Cause.hasInterruptsOnly(cause) || reportedErrors(cause) !== undefined ? Effect.void : report(cause)
  ),
  Effect.provide(Layer.mergeAll(NodeServices.layer, presenter, config)),
  Effect.provideService(Console.Console, plainConsole(globalThis.console)),
  NodeRuntime.runMain({
    disableErrorReporting: true,
    teardown: (exit, onExit) => {
      if (Exit.isSuccess(exit)) return onExit(Number(process.exitCode ?? 0))
      if (Cause.hasInterruptsOnly(exit.cause)) return onExit(Number(process.exitCode ?? exitCodeOfSignal() ?? 130))
      onExit(reportedErrors(exit.cause)?.length === 0 ? 0 : 1)
    }
  })
)
