/**
 * How this process was called, so that the commands it prints can be typed as they stand: in a clone there is no `troupe`
 * on the `PATH`.
 */
import { basename, isAbsolute, join, relative } from "node:path"

const quoted = (path: string): string => /\s/.test(path) ? `"${path}"` : path

/**
 * What to type in the place of `troupe`.
 *
 * @param entry the file that Node was told to run, absolute; a link as it was named
 * @param folder the current one, absolute
 */
export const invocation = (entry: string, folder: string): string => {
  if (entry === join(folder, "src", "main.ts")) return "npm run troupe --"
  // The link of a package's own, or on Windows what such a link starts.
  if (/[/\\]node_modules[/\\]/.test(entry)) return "npx troupe"
  if (!/^main\.[jt]s$/.test(basename(entry))) return "troupe"
  const path = relative(folder, entry)
  return `node ${quoted(path.startsWith("..") || isAbsolute(path) ? entry : path)}`
}

const called = invocation(process.argv[1] ?? "", process.cwd())

const command =
  /(?<![\w/\\.-])troupe (?=serve|run|models|ps|load|unload|reload|circuits|route|decisions|policy|config|[<[-])/g

/** A text whose commands can be typed here. */
export const asCalled = (text: string, by = called): string => text.replaceAll(command, () => `${by} `)
