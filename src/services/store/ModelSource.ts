/**
 * Parses the source of a model and chooses its files in a repository. Pure.
 *
 * **Details**
 *
 * - `hf:org/repo[:quantization][/file]`: a repository on Hugging Face
 * - `https://host/path/model.gguf`: one file; plain http only from this machine
 * - anything else: a local path of a GGUF file or an ONNX folder
 *
 * If a repository has several quantizations and the source names none, `Q8_0` is chosen up to 1 GiB, since small models
 * lose most quality with fewer bits; otherwise the first of `preferredQuantizations` that the repository has.
 */
import { Result } from "effect"

export type Source =
  | {
    readonly type: "huggingface"
    readonly repository: string
    readonly quantization: string | undefined
    readonly file: string | undefined
  }
  | { readonly type: "url"; readonly url: string }
  | { readonly type: "path"; readonly path: string }

/** A file of a repository. */
export interface RepositoryFile {
  readonly path: string
  readonly bytes: number
  /** In hexadecimal; undefined if the repository has none. */
  readonly sha256: string | undefined
}

/** The files of one model. */
export interface Choice {
  readonly kind: "gguf" | "onnx"
  readonly name: string
  readonly files: readonly [RepositoryFile, ...Array<RepositoryFile>]
}

/** The largest `Q8_0` that is preferred to smaller quantizations, bytes. */
export const smallModelBytes = 2 ** 30

const preferredQuantizations = [
  "Q4_K_M",
  "Q5_K_M",
  "Q4_K_S",
  "Q4_0",
  "Q6_K",
  "Q8_0",
  "Q3_K_M",
  "F16",
  "BF16",
  "F32"
] as const

const huggingFace = /^hf:([\w.-]+\/[\w.-]+?)(?::([\w.-]+))?(?:\/(.+))?$/

/** Whether a host is a loopback address. */
const isLoopback = (host: string): boolean =>
  host === "localhost" || host === "[::1]" || /^127(\.\d{1,3}){3}$/.test(host)

/** The problem of a URL to read from; undefined if it is valid. */
export const urlProblem = (text: string): string | undefined => {
  const url = URL.parse(text)
  if (url === null) return "it is not a URL"
  if (url.protocol !== "https:" && url.protocol !== "http:") return "it must begin with https://"
  if (url.username !== "" || url.password !== "") return "it must not contain a user name or password"
  return url.protocol === "http:" && !isLoopback(url.hostname)
    ? "plain http is allowed for this machine only; use https://"
    : undefined
}

const isSafePath = (path: string): boolean =>
  path.split("/").every((part) => part !== "" && part !== "." && part !== "..")

/** The web page of a repository. */
const huggingFacePage =
  /^(?:https?:\/\/)?(?:huggingface\.co|hf\.co)\/([^/:]+\/[^/:]+)(:[^/]+)?(?:\/(?:tree|blob)\/[^/]+)?(\/[^?]+?)?\/?(?:\?.*)?$/

const fromHuggingFacePage = (text: string): string | undefined => {
  if (text.includes("/resolve/")) return undefined
  const [, repository, quantization = "", file = ""] = huggingFacePage.exec(text) ?? []
  return repository === undefined ? undefined : `hf:${repository}${quantization}${file}`
}

const parseKind = (text: string): Result.Result<Source, string> => {
  if (text.startsWith("hf:")) {
    const [, repository, quantization, file] = huggingFace.exec(text) ?? []
    return repository === undefined || (file !== undefined && !isSafePath(file))
      ? Result.fail("Expected hf:org/repo, hf:org/repo:quantization or hf:org/repo/file.gguf")
      : Result.succeed({ type: "huggingface", repository, quantization, file })
  }
  const page = fromHuggingFacePage(text)
  if (page !== undefined) return Result.fail(`This is a web page. To pull its model, use ${page}`)
  if (/^[a-z][a-z0-9+.-]*:\/\//i.test(text)) {
    const problem = urlProblem(text)
    return problem === undefined ? Result.succeed({ type: "url", url: text }) : Result.fail(problem)
  }
  return text === "" ? Result.fail("Expected a source") : Result.succeed({ type: "path", path: text })
}

/** Parses a source; fails with the problem. */
export const parse = (text: string): Result.Result<Source, string> =>
  Number(splitPattern.exec(text.replace(/[?#].*$/, ""))?.[2] ?? 1) > maxParts
    ? Result.fail(`A model can have at most ${maxParts} parts`)
    : parseKind(text)

/** Limit of the files of a split model. */
const maxParts = 1000

const maxNameLength = 128

/** Whether text can be the name of a model in the store, which is also the name of its folder. */
export const isName = (name: string): boolean => /^[\w][\w.-]*$/.test(name) && name.length <= maxNameLength

const basename = (path: string): string => path.slice(path.lastIndexOf("/") + 1)

const splitPattern = /-(\d{5})-of-(\d{5})\.gguf$/i

/** The name in the store for a file or folder. */
export const nameOf = (path: string): string =>
  basename(path.replace(/\/+$/, "")).replace(splitPattern, "").replace(/\.gguf$/i, "").replaceAll(/[^\w.-]/g, "-")
    .replace(/^[.-]+/, "").slice(0, maxNameLength)

/**
 * The quantization in the name of a file, in upper case, with the prefix that tells how it was made: `UD-Q4_K_XL` (Unsloth's
 * dynamic quantizations), `I1-Q4_K_M` (with an importance matrix).
 */
const quantizationIn = (path: string): string | undefined =>
  /(?:^|[-._])((?:(?:ud|i\d)-)?(?:i?q\d\w*|tq\d_\d|mxfp4\w*|bf16|f(?:p)?(?:16|32)|u?int8|bnb4))(?=[-.]|$)/i.exec(
    basename(path).replace(splitPattern, ".gguf")
  )?.[1]?.toUpperCase()

/** Those of exactly this quantization, else those that are it with a prefix. */
const withQuantization = (
  candidates: ReadonlyArray<RepositoryFile>,
  name: string
): ReadonlyArray<RepositoryFile> => {
  const exact = candidates.filter(({ path }) => quantizationIn(path) === name)
  return exact.length > 0 ? exact : candidates.filter(({ path }) => quantizationIn(path)?.endsWith(`-${name}`) === true)
}

/** The names of all parts of a split file, by the name of one; otherwise the name itself. */
export const partsOf = (path: string): ReadonlyArray<string> => {
  const total = splitPattern.exec(path)?.[2]
  if (total === undefined) return [path]
  const stem = path.replace(splitPattern, "")
  return Array.from(
    { length: Number(total) },
    (_, index) => `${stem}-${String(index + 1).padStart(5, "0")}-of-${total}.gguf`
  )
}

const isFirstPart = (path: string): boolean => (splitPattern.exec(path)?.[1] ?? "00001") === "00001"

/** Image projectors (`mmproj`) are GGUF files beside models, but not models. */
const isProjector = (path: string): boolean => /(?:^|[-._])mmproj(?=[-._])/i.test(basename(path))

const isGguf = ({ path }: RepositoryFile): boolean => /\.gguf$/i.test(path) && !isProjector(path)

const listed = (files: ReadonlyArray<RepositoryFile>): string => files.map(({ path }) => path).join(", ")

const choiceOf = (
  kind: Choice["kind"],
  name: string,
  files: ReadonlyArray<RepositoryFile>
): Result.Result<Choice, string> => {
  const [first, ...others] = files
  return first === undefined
    ? Result.fail("The repository has no such file")
    : Result.succeed({ kind, name, files: [first, ...others] })
}

/** A file with all its parts. */
const allParts = (files: ReadonlyArray<RepositoryFile>, path: string): Result.Result<Choice, string> => {
  const parts = partsOf(path).map((part) => files.find((file) => file.path === part))
  const missing = partsOf(path).filter((_, index) => parts[index] === undefined)
  return missing.length > 0
    ? Result.fail(`The repository has no file ${missing[0]}`)
    : choiceOf("gguf", nameOf(path), parts.filter((part) => part !== undefined))
}

const bytesOf = (files: ReadonlyArray<RepositoryFile>, path: string): number =>
  partsOf(path).reduce((sum, part) => sum + (files.find((file) => file.path === part)?.bytes ?? 0), 0)

/** The candidates of the preferred quantization. */
const preferred = (
  files: ReadonlyArray<RepositoryFile>,
  candidates: ReadonlyArray<RepositoryFile>
): ReadonlyArray<RepositoryFile> => {
  const small = withQuantization(candidates, "Q8_0").filter(({ path }) => bytesOf(files, path) <= smallModelBytes)
  const others = preferredQuantizations.map((name) => withQuantization(candidates, name))
  return [small, ...others].find((found) => found.length > 0) ?? candidates
}

const chooseGguf = (
  files: ReadonlyArray<RepositoryFile>,
  candidates: ReadonlyArray<RepositoryFile>,
  quantization: string | undefined
): Result.Result<Choice, string> => {
  const found = quantization === undefined
    ? preferred(files, candidates)
    : withQuantization(candidates, quantization.toUpperCase())
  if (found.length === 1) return allParts(files, found[0]!.path)
  return Result.fail(
    found.length === 0
      ? `No file has the quantization ${quantization}. Available files: ${listed(candidates)}`
      : `Several files match. Append one of them after a slash: ${listed(found)}`
  )
}

/** Files that transformers.js reads besides the weights. */
const isOnnxCompanion = ({ path }: RepositoryFile): boolean => /^[^/]+\.(json|jinja|txt|model)$/.test(path)

const chooseOnnx = (
  repository: string,
  files: ReadonlyArray<RepositoryFile>,
  quantization: string | undefined
): Result.Result<Choice, string> => {
  const model = quantization === undefined ? "onnx/model.onnx" : `onnx/model_${quantization.toLowerCase()}.onnx`
  const weights = files.filter(({ path }) => path === model || path.startsWith(`${model}_data`))
  const available = files.filter(({ path }) => path.endsWith(".onnx"))
  return weights.some(({ path }) => path === model)
    ? choiceOf("onnx", nameOf(repository), [...weights, ...files.filter(isOnnxCompanion)])
    : Result.fail(`The repository has no file ${model}. Available files: ${listed(available)}`)
}

/** The files to pull; fails with the reason why none can be chosen. */
export const choose = (
  source: Extract<Source, { readonly type: "huggingface" }>,
  files: ReadonlyArray<RepositoryFile>
): Result.Result<Choice, string> => {
  const ggufs = files.filter(isGguf).filter(({ path }) => isFirstPart(path))
  if (source.file !== undefined) {
    return isProjector(source.file)
      ? Result.fail(`${source.file} is an image projector, not a model. Available files: ${listed(ggufs)}`)
      : allParts(files, source.file)
  }
  if (ggufs.length > 0) return chooseGguf(files, ggufs, source.quantization)
  return files.some(({ path }) => path.endsWith(".onnx"))
    ? chooseOnnx(source.repository, files, source.quantization)
    : Result.fail("The repository has neither a GGUF file nor an onnx folder")
}
