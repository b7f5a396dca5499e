/** `troupe launch`: prints or writes the settings with which a coding agent calls the service. */
import { Clock, Console, Effect, Option, Schema } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { FetchHttpClient, HttpClient, HttpClientRequest, HttpClientResponse } from "effect/http"
import { copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { homedir } from "node:os"
import { dirname } from "node:path"
import type { Agent, AgentSettings, FilePart, Folders, ServiceAccess } from "./AgentSettings.ts"
import { agents, defaultKeyVariable } from "./AgentSettings.ts"
import type { Target } from "./Flags.ts"
import { addressOf, CommandFailed, json, loadWithoutSecrets, optionalText, target, urlOf } from "./Flags.ts"
import * as JsonMerge from "./JsonMerge.ts"
import * as LineMerge from "./LineMerge.ts"
import { asInvoked, printJson, table } from "./Output.ts"

const failed = (message: string) => new CommandFailed({ message })

/** What the listing says of a model; services tell its window under several names. */
const ListedModel = Schema.Struct({
  id: Schema.String,
  context_window: Schema.optional(Schema.NullOr(Schema.Finite)),
  context_length: Schema.optional(Schema.NullOr(Schema.Finite)),
  max_model_len: Schema.optional(Schema.NullOr(Schema.Finite)),
  output_modalities: Schema.optional(Schema.Array(Schema.String))
})
const ModelList = Schema.Struct({ data: Schema.Array(ListedModel) })

interface Found {
  readonly model: string
  readonly window: number | undefined
  /** False for a model that is known to have other answers, such as embeddings. */
  readonly generatesText: boolean
}

interface Service {
  readonly url: string
  readonly models: ReadonlyArray<Found>
  readonly isRunning: boolean
}

const foundOf = (listed: typeof ListedModel.Type): Found => ({
  model: listed.id,
  window: listed.context_window ?? listed.context_length ?? listed.max_model_len ?? undefined,
  generatesText: listed.output_modalities?.includes("text") ?? true
})

const notTroupe = (url: string) => failed(`The server at ${url} does not list models at /v1/models. Check --url.`)

/** The models of the service that runs there; undefined if none does. */
const listModels = (url: string, variable: string) =>
  Effect.gen(function*() {
    const key = process.env[variable]
    const request = HttpClientRequest.get(`${url}/v1/models`)
    const client = yield* HttpClient.HttpClient
    const response = yield* client.execute(key ? HttpClientRequest.bearerToken(request, key) : request)
    if (response.status === 401) {
      return yield* failed(
        key
          ? `The service at ${url} rejects the key in ${variable} (401). Check it with \`troupe keys ls\`.`
          : `The service at ${url} needs a key. Create one with \`troupe keys create\` and set ${variable} to it.`
      )
    }
    const { data } = yield* HttpClientResponse.schemaBodyJson(ModelList)(response)
    return data.map(foundOf)
  }).pipe(
    Effect.catchIf(
      (error) => error._tag !== "CommandFailed",
      (error) =>
        error._tag === "HttpClientError" && error.reason._tag === "TransportError"
          ? Effect.undefined
          : Effect.fail(notTroupe(url))
    ),
    Effect.provide(FetchHttpClient.layer)
  )

/** The running service, or the one that the configuration describes. */
const serviceOf = Effect.fnUntraced(function*(at: Target, variable: string) {
  if (Option.isSome(at.url)) {
    const url = at.url.value.replace(/\/+(?:v1\/*)?$/, "")
    const models = yield* listModels(url, variable)
    if (models === undefined) return yield* failed(`No service is running at ${url}. Check --url.`)
    return { url, models, isRunning: true } satisfies Service
  }
  const settings = yield* loadWithoutSecrets(at.config)
  const { host, port } = yield* addressOf(settings.server)
  const url = urlOf(host, port)
  const models = yield* listModels(url, variable)
  if (models !== undefined) return { url, models, isRunning: true } satisfies Service
  const configured = settings.models.map(({ name }): Found => ({ model: name, window: undefined, generatesText: true }))
  return { url, models: configured, isRunning: false } satisfies Service
})

const agentOf = (name: string): Effect.Effect<Agent, CommandFailed> => {
  const found = agents.find((agent) => agent.name === name)
  if (found !== undefined) return Effect.succeed(found)
  const names = agents.map((agent) => agent.name).join(", ")
  return Effect.fail(failed(`There are no settings for "${name}". Agents: ${names}.`))
}

const namesOf = (models: ReadonlyArray<Found>): string => models.map(({ model }) => model).join(", ") || "none"

/** A model such as `openai/*` stands for every name that begins so. */
const isWildcard = ({ model }: Found): boolean => model.endsWith("*")

/** The model of that name, or the one of the wildcard that serves it. */
const named = (models: ReadonlyArray<Found>, name: string): Found | undefined => {
  const found = models.find(({ model }) => model === name)
  if (found !== undefined) return found
  const wildcard = models.find((one) => isWildcard(one) && name.startsWith(one.model.slice(0, -1)))
  return wildcard && { ...wildcard, model: name, window: undefined }
}

const isUsable = (found: Found): boolean => found.generatesText && !isWildcard(found)

/** Why no model is chosen. */
const modelProblem = ({ models, url }: Service, name: string | undefined, found: Found | undefined): string => {
  if (models.length === 0) return `The service at ${url} has no models.`
  if (found === undefined) return `The service at ${url} has no model "${name}". Available: ${namesOf(models)}.`
  if (found.generatesText) {
    return `"${found.model}" stands for every model of its provider. Name one: --model ${found.model.slice(0, -1)}NAME.`
  }
  const others = models.filter(({ generatesText }) => generatesText)
  return `The model "${found.model}" generates no text, as agents need. Models that do: ${namesOf(others)}.`
}

const modelOf = (service: Service, name: string | undefined): Effect.Effect<Found, CommandFailed> => {
  const { models } = service
  const found = name === undefined
    ? models.find(isUsable) ?? models.find(isWildcard) ?? models[0]
    : named(models, name)
  return found !== undefined && isUsable(found)
    ? Effect.succeed(found)
    : Effect.fail(failed(modelProblem(service, name, found)))
}

const folders: Folders = {
  get home() {
    return process.env["HOME"] || homedir()
  },
  variable: (name) => process.env[name] || undefined
}

const read = (path: string): string => existsSync(path) ? readFileSync(path, "utf8") : ""

const mergedText = (part: FilePart): Effect.Effect<string, CommandFailed> =>
  Effect.try({
    try: () => {
      const { defaults, format, path, values } = part
      return format === "json"
        ? JsonMerge.merge(read(path), values)
        : LineMerge.merge(format, read(path), values, defaults)
    },
    catch: (error) =>
      failed(
        `Cannot merge the settings into ${part.path}: ${(error as Error).message}. ` +
          "Add those that the command prints without --write."
      )
  })

interface Written {
  readonly path: string
  /** The file as it was before; undefined if there was none. */
  readonly backup?: string
  readonly isChanged: boolean
}

const writeFile = ({ path }: FilePart, text: string) =>
  Effect.flatMap(Clock.currentTimeMillis, (now) =>
    Effect.try({
      try: (): Written => {
        const before = read(path)
        if (before === text) return { path, isChanged: false }
        if (!existsSync(path)) {
          mkdirSync(dirname(path), { recursive: true })
          writeFileSync(path, text)
          return { path, isChanged: true }
        }
        const backup = `${path}.${new Date(now).toISOString().replaceAll(/[:.]/g, "-")}.bak`
        copyFileSync(path, backup)
        writeFileSync(path, text)
        return { path, backup, isChanged: true }
      },
      catch: (error) => failed(`Cannot write ${path}: ${(error as Error).message}.`)
    }))

/** Merges every file before the first is written: either all are or none. */
const writeFiles = Effect.fnUntraced(function*(files: ReadonlyArray<FilePart>) {
  const texts = yield* Effect.forEach(files, mergedText)
  return yield* Effect.forEach(files, (file, index) => writeFile(file, texts[index]!))
})

const writtenText = ({ backup, isChanged, path }: Written): string => {
  if (!isChanged) return `${path} has these settings already.`
  return backup === undefined ? `Wrote ${path}.` : `Wrote ${path}; the file before is ${backup}.`
}

/** What a file without other settings would contain. */
const alone = ({ defaults, format, values }: FilePart): string =>
  format === "json" ? JsonMerge.merge("", values) : LineMerge.merge(format, "", values, defaults)

/** A variable's value comes from another variable, or is quoted. */
const exportLine = ([name, value]: readonly [string, string]): string =>
  `export ${name}=${value.startsWith("$") ? `"${value}"` : `'${value.replaceAll("'", `'\\''`)}'`}`

const paragraph = (title: string, lines: ReadonlyArray<string>): ReadonlyArray<string> =>
  lines.length === 0 ? [] : [[`# ${title}`, ...lines].join("\n")]

const smallWindow = 16_384

const notesOf = (access: ServiceAccess, service: Service, settings: AgentSettings): ReadonlyArray<string> => [
  ...settings.notes,
  ...(access.window !== undefined && access.window < smallWindow
    ? [`The window of ${access.model} is ${access.window} tokens; the instructions of an agent alone take more.`]
    : []),
  ...(service.isRunning ? [] : [asInvoked(`No service is running at ${service.url}: start it with \`troupe serve\`.`)])
]

interface Output {
  readonly agent: Agent
  readonly access: ServiceAccess
  readonly settings: AgentSettings
  readonly notes: ReadonlyArray<string>
  /** Undefined without --write. */
  readonly written: ReadonlyArray<Written> | undefined
}

const outputText = ({ access, agent, notes, settings, written }: Output): string => {
  const inFiles: ReadonlyArray<string> = written === undefined ? [] : settings.variablesInFiles ?? []
  const variables = Object.entries(settings.environment).filter(([name]) => !inFiles.includes(name))
  const files = written === undefined
    ? settings.files.flatMap((file) => paragraph(file.path, [alone(file).trimEnd()]))
    : paragraph("Files", written.map(writtenText))
  return [
    `${agent.title} with ${access.model} at ${access.url}`,
    ...files,
    ...paragraph("Environment", variables.map(exportLine)),
    ...paragraph(settings.files.length === 0 ? "Commands" : "Start", settings.commands),
    ...paragraph("Notes", notes)
  ].join("\n\n")
}

const outputJson = ({ access, agent, notes, settings, written }: Output) => ({
  agent: agent.name,
  url: access.url,
  model: access.model,
  contextWindow: access.window ?? null,
  keyVariable: access.keyVariable ?? null,
  environment: settings.environment,
  files: settings.files.map((file, index) => ({
    path: file.path,
    format: file.format,
    content: alone(file),
    ...(written === undefined ? {} : { changed: written[index]!.isChanged, backup: written[index]!.backup ?? null })
  })),
  commands: settings.commands,
  notes
})

const options = {
  agent: Argument.String("agent").pipe(
    Argument.withDescription("Name of the agent (default: list the agents)"),
    Argument.optional
  ),
  model: optionalText("model", "Model that the agent uses (default: the first of the service that generates text)"),
  contextWindow: Flag.Int("context-window").pipe(
    Flag.withDescription("Context window of the model, tokens (default: as the service says, else 32768)"),
    Flag.optional
  ),
  keyVariable: Flag.String("key-variable").pipe(
    Flag.withSchema(Schema.String.check(
      Schema.isPattern(/^[A-Za-z_]\w*$/, { message: "Expected the name of an environment variable, not a key" })
    )),
    Flag.withDescription(
      `Environment variable with the key of the service (default: ${defaultKeyVariable}, if it is set)`
    ),
    Flag.optional
  ),
  write: Flag.Boolean("write").pipe(
    Flag.withDescription("Merge the settings into the agent's files; a changed file is copied before"),
    Flag.withDefault(false)
  ),
  ...target,
  json
}

const listAgents = (asJson: boolean) =>
  asJson
    ? printJson(agents.map(({ name, title }) => ({ name, title })))
    : Console.log(table([["NAME", "AGENT"], ...agents.map(({ name, title }) => [name, title])]))

export const launch = Command.make("launch", options, (input) =>
  Effect.gen(function*() {
    if (Option.isNone(input.agent)) return yield* listAgents(input.json)
    const agent = yield* agentOf(input.agent.value)
    const variable = Option.getOrElse(input.keyVariable, () => defaultKeyVariable)
    const service = yield* serviceOf(input, variable)
    const { model, window } = yield* modelOf(service, Option.getOrUndefined(input.model))
    const access: ServiceAccess = {
      url: service.url,
      model,
      window: Option.getOrUndefined(input.contextWindow) ?? window,
      keyVariable: Option.isSome(input.keyVariable) || process.env[variable] ? variable : undefined
    }
    const settings = agent.settings(access, folders)
    const written = input.write ? yield* writeFiles(settings.files) : undefined
    const output: Output = { agent, access, settings, notes: notesOf(access, service, settings), written }
    yield* input.json ? printJson(outputJson(output)) : Console.log(outputText(output))
  })).pipe(
    Command.withDescription("Print or write the settings with which a coding agent calls the service"),
    Command.withExamples([
      { command: "troupe launch", description: "List the agents" },
      { command: "troupe launch codex --model tiny-chat", description: "Print the settings of Codex" },
      { command: "troupe launch zed --write", description: "Merge the settings into Zed's" }
    ])
  )
