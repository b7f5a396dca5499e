/** Configurations as they are decoded, for the tests of this folder. */
import { Result } from "effect"
import type { DeploymentOptions } from "../../../src/domain/Deployment.ts"
import * as Problem from "../../../src/domain/Problem.ts"
import { decode } from "../../../src/services/settings/Decode.ts"
import type { ResolveContext } from "../../../src/services/settings/Resolution.ts"
import type { Resolved } from "../../../src/services/settings/Settings.ts"

export const contextWith = (over: Partial<ResolveContext> = {}): ResolveContext => ({
  environment: "development",
  variables: {},
  resolvePath: (path) => path.startsWith("/") ? path : `/folder/${path}`,
  embedded: {
    "tiny-chat": { options: { engine: "llama", file: "/package/chat.gguf" }, preload: true },
    "tiny-embed": { options: { engine: "onnx", folder: "/package/embed" }, preload: false }
  },
  adapters: { recall: "/package/recall.gguf" },
  defaultEngineHost: "process",
  defaultStoreFolder: "/store",
  defaultStorage: "memory",
  defaultDataFolder: "/data",
  findInStore: (folder, name) => name === "stored" ? `${folder}/stored/model.gguf` : undefined,
  ...over
})

export const resolved = (file: unknown, over?: Partial<ResolveContext>): Resolved =>
  Result.getOrThrowWith(decode(file, contextWith(over)), (problems) => new Error(problems.map(Problem.format).join()))

export const problems = (file: unknown, over?: Partial<ResolveContext>): ReadonlyArray<Problem.Problem> =>
  Result.getOrThrowWith(Result.flip(decode(file, contextWith(over))), () => new Error("The file was taken."))

export const paths = (file: unknown, over?: Partial<ResolveContext>): ReadonlyArray<string> =>
  problems(file, over).map(({ path }) => path).sort()

export const llama = (file = "model.gguf"): DeploymentOptions => ({ engine: "llama", file })
export const fake: DeploymentOptions = { engine: "fake" }
