/**
 * The environment variables of an engine process: those that it needs, without keys of providers or clouds.
 *
 * **Details**
 *
 * An engine process runs native code on untrusted files. It gets the variables listed here, those with a prefix of a compute
 * library, and those that `TROUPE_ENGINE_ENV` lists, separated by commas.
 */

type Environment = Readonly<Record<string, string | undefined>>

/** In capitals, since names are case-insensitive on Windows. */
const names = new Set([
  "APPDATA",
  "COMSPEC",
  "DYLD_FALLBACK_LIBRARY_PATH",
  "DYLD_LIBRARY_PATH",
  "HOME",
  "LANG",
  "LANGUAGE",
  "LD_LIBRARY_PATH",
  "LD_PRELOAD",
  "LOCALAPPDATA",
  "LOGNAME",
  "NODE_COMPILE_CACHE",
  "NODE_DISABLE_COMPILE_CACHE",
  "NODE_ENV",
  "NODE_OPTIONS",
  "NODE_PATH",
  "NODE_V8_COVERAGE",
  "NUMBER_OF_PROCESSORS",
  "PATH",
  "PATHEXT",
  "PROCESSOR_ARCHITECTURE",
  "PROGRAMDATA",
  "PROGRAMFILES",
  "PWD",
  "SYSTEMDRIVE",
  "SYSTEMROOT",
  "TEMP",
  "TMP",
  "TMPDIR",
  "TZ",
  "USER",
  "USERNAME",
  "USERPROFILE",
  "UV_THREADPOOL_SIZE",
  "WINDIR",
  "XDG_CACHE_HOME"
])

/** Of compute libraries and drivers. */
const prefixes =
  /^(?:CUDA|GGML|GOMP|GPU|HIP|HSA|KMP|LC|LLAMA|MALLOC|MESA|METAL|MKL|NODE_LLAMA_CPP|NVIDIA|OMP|ONEAPI|OPENBLAS|ORT|ROCM|ROCR|SYCL|VK|ZE)_[A-Z0-9_]*$/

/** Words that exclude a name with such a prefix: `NVIDIA_API_KEY` is a provider's key. */
const secret = /AUTH|CREDENTIAL|KEY|PASS|SECRET|TOKEN/

/** Lists further variables to pass on. */
const moreVariable = "TROUPE_ENGINE_ENV"

/** The part of this process's environment that an engine process gets. */
export const engineEnvironment = (environment: Environment): Record<string, string> => {
  const named = (environment[moreVariable] ?? "").split(",").map((name) => name.trim().toUpperCase())
  const more = new Set(named.filter((name) => name !== ""))
  const isNeeded = (name: string): boolean =>
    names.has(name) || more.has(name) || (prefixes.test(name) && !secret.test(name))
  const needed: Record<string, string> = {}
  for (const [name, value] of Object.entries(environment)) {
    if (value !== undefined && isNeeded(name.toUpperCase())) needed[name] = value
  }
  return needed
}
