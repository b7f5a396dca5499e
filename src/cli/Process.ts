/** The command line as a process: signals, the end of the process and its exit code. Importing it runs it. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Channel from "../layers/processes/Channel.ts"
import * as Program from "./Program.ts"
import * as Signals from "./Signals.ts"

const exitCodeOfSignal = Signals.listen()

// Without a listener, a write that fails would end the process: `troupe serve | head -1`, a closed terminal, a full disk.
for (const output of [process.stdout, process.stderr]) output.on("error", () => {})

Program.run(process.argv.slice(2), globalThis.console).pipe(
  NodeRuntime.runMain({
    disableErrorReporting: true,
    teardown: (exit, onExit) => onExit(Program.exitCodeOf(exit, exitCodeOfSignal() ?? 130))
  })
)

if (Channel.isServiceProcess()) Channel.follow(Signals.killSelf)
