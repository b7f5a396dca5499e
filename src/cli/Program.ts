/** The command line as a function of its arguments: help, messages and exit codes, without signals and process exit. */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Cause, Console, Effect, Exit, Layer } from "effect"
import type { HelpDoc } from "effect/cli"
import { CliConfig, CliError, CliOutput, Command, GlobalFlag } from "effect/cli"
import { readFileSync } from "node:fs"
import { troupe } from "../cli.ts"
import { asInvoked, plainConsole } from "./Output.ts"

const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as {
  version: string
}

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

/** Flags that take any number; the others take integers. */
const anyNumber = /--(?:temperature|top-p): /

/** In one line. */
const inWords = (message: string): string =>
  inOneLine(message).replace(
    "Expected a string representing a finite number",
    anyNumber.test(message) ? "Expected a number" : "Expected a whole number"
  ).replace("Expected an integer", "Expected a whole number")

/** The flags of a command that is misspelt are unknown for that reason only. */
const withoutConsequences = (errors: ReadonlyArray<CliError.CliError>): ReadonlyArray<CliError.CliError> => {
  const unknown = errors.filter(({ _tag }) => _tag === "UnknownSubcommand")
  return unknown.length === 0 ? errors : unknown
}

/** An invalid invocation is answered with one line that names the help to read. */
const presenterTo = (console: Console.Console) =>
  CliOutput.layerPresenter({
    present: (output) =>
      output._tag === "InvalidInvocation"
        ? Console.error(
          `troupe: ${withoutConsequences(output.errors).map((error) => inWords(error.message)).join("; ")}`.replace(
            /[^.?]$/,
            "$&."
          ) +
            ` See: ${asInvoked(`${output.commandPath.join(" ")} --help`)}`
        )
        : Effect.provideService(
          CliOutput.defaultPresenter.present(
            output._tag === "Help" ? { ...output, helpDoc: asInvokedHelp(output.helpDoc) } : output
          ),
          // Help has colors, and contains only Troupe's own text.
          Console.Console,
          console
        )
  })
const config = CliConfig.layer({ builtIns: [GlobalFlag.Help, GlobalFlag.Version, GlobalFlag.Completions] })

/** Runs a command; what it prints goes to the console. */
export const run = (args: ReadonlyArray<string>, console: Console.Console) =>
  Command.runWith(troupe, { version })(args).pipe(
    Effect.tapCause((cause) =>
      Cause.hasInterruptsOnly(cause) || reportedErrors(cause) !== undefined ? Effect.void : report(cause)
    ),
    Effect.provide(Layer.mergeAll(NodeServices.layer, presenterTo(console), config)),
    Effect.provideService(Console.Console, plainConsole(console))
  )

/** The exit code of a command that was not interrupted, or else the given one. */
export const exitCodeOf = <A, E>(exit: Exit.Exit<A, E>, interrupted: number): number => {
  if (Exit.isSuccess(exit)) return Number(process.exitCode ?? 0)
  if (Cause.hasInterruptsOnly(exit.cause)) return Number(process.exitCode ?? interrupted)
  return reportedErrors(exit.cause)?.length === 0 ? 0 : 1
}
