/**
 * Runs commands of `troupe` in this process: starting a process takes most of a second of CPU time.
 *
 * **Gotchas**
 *
 * Commands run one after another, since each changes the process's folder, variables, arguments, output and exit code.
 * Signals, standard input and the behaviour in a shell need a process: see `run` in `Service.ts`.
 */
import { Effect } from "effect"
import { Console } from "node:console"
import { tmpdir } from "node:os"
import { Writable } from "node:stream"
import * as Program from "../../src/cli/Program.ts"
import type { Finished } from "./Service.ts"
import { main } from "./Service.ts"

/** A stream that collects its output. */
const collector = () => {
  let text = ""
  const stream = new Writable({
    decodeStrings: false,
    write: (chunk: string | Uint8Array, _, done) => {
      text += typeof chunk === "string" ? chunk : Buffer.from(chunk).toString()
      done()
    }
  })
  return { stream, text: () => text }
}

/** Redirects the output of a stream until the result is called. */
const redirect = (stream: NodeJS.WriteStream, to: Writable): () => void => {
  const before = Object.getOwnPropertyDescriptor(stream, "write")
  Object.defineProperty(stream, "write", { value: to.write.bind(to), configurable: true, writable: true })
  return () => {
    if (before === undefined) Reflect.deleteProperty(stream, "write")
    else Object.defineProperty(stream, "write", before)
  }
}

interface Options {
  readonly env?: Record<string, string>
  readonly cwd?: string
}

const runAlone = async (args: ReadonlyArray<string>, { cwd = tmpdir(), env = {} }: Options): Promise<Finished> => {
  const [stdout, stderr] = [collector(), collector()]
  const { argv, env: variables, exitCode } = process
  const folder = process.cwd()
  const restore = [redirect(process.stdout, stdout.stream), redirect(process.stderr, stderr.stream)]
  process.argv = [argv[0]!, main, ...args]
  process.env = { ...variables, NODE_ENV: "test", ...env }
  process.exitCode = undefined
  process.chdir(cwd)
  try {
    const console = new Console({ stdout: stdout.stream, stderr: stderr.stream })
    const exit = await Effect.runPromiseExit(Program.run(args, console))
    return { code: Program.exitCodeOf(exit, 130), stdout: stdout.text(), stderr: stderr.text() }
  } finally {
    for (const undo of restore) undo()
    process.chdir(folder)
    Object.assign(process, { argv, env: variables, exitCode })
  }
}

let previous: Promise<unknown> = Promise.resolve()

/** Runs `troupe` with these arguments to its end. */
export const invoke = (args: ReadonlyArray<string>, options: Options = {}): Promise<Finished> => {
  const finished = previous.then(() => runAlone(args, options))
  previous = finished.catch(() => {})
  return finished
}
