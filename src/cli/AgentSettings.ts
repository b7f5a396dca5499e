/**
 * The settings with which coding agents call the service: their environment, and their configuration files.
 *
 * **Details**
 *
 * Each agent reads the key from an environment variable, so that no file contains it. A service without keys takes any
 * key; most agents refuse to start without one, and get `none`.
 */
import { join } from "node:path"

/** The service, as an agent is to call it. */
export interface ServiceAccess {
  /** Without a path, as `http://127.0.0.1:3000`. */
  readonly url: string
  readonly model: string
  /** The environment variable that holds the key; undefined if the service needs none. */
  readonly keyVariable: string | undefined
  /** Context window of the model, tokens; undefined if it is unknown. */
  readonly window: number | undefined
}

/** Where agents keep their settings. */
export interface Folders {
  readonly home: string
  /** The value of an environment variable that moves a folder. */
  readonly variable: (name: string) => string | undefined
}

export type Json = string | number | boolean | ReadonlyArray<Json> | JsonObject
export interface JsonObject {
  readonly [name: string]: Json
}

/** A part of a configuration file; what else the file has stays. */
export interface FilePart {
  readonly path: string
  readonly format: "json" | "toml" | "yaml"
  readonly values: JsonObject
  /** Values for a file without them. */
  readonly defaults?: JsonObject
}

export interface AgentSettings {
  /** By name; `$NAME` is the value of another variable. */
  readonly environment: Readonly<Record<string, string>>
  /** Variables of the environment that the files set too. */
  readonly variablesInFiles?: ReadonlyArray<string>
  readonly files: ReadonlyArray<FilePart>
  /** Commands that start the agent, or that store its settings. */
  readonly commands: ReadonlyArray<string>
  readonly notes: ReadonlyArray<string>
}

export interface Agent {
  readonly name: string
  readonly title: string
  readonly settings: (access: ServiceAccess, folders: Folders) => AgentSettings
}

/** The name of the service in an agent's settings. */
const id = "troupe"
/** Most agents take a variable of any name. Zed derives it from the provider's name. */
export const defaultKeyVariable = "TROUPE_API_KEY"
/** What agents assume of a model whose window is unknown, tokens. */
const assumedWindow = 32_768

const noKey = "none"

/** The variable of the agent, with the key of the service; nothing if it is the same variable. */
const keyIn = (name: string, { keyVariable }: ServiceAccess): Readonly<Record<string, string>> =>
  keyVariable === name ? {} : { [name]: keyVariable === undefined ? noKey : `$${keyVariable}` }

const windowOf = ({ window = assumedWindow }: ServiceAccess): number => window
/** A quarter of the window: the rest is for the prompt. */
const outputOf = (access: ServiceAccess): number => Math.floor(windowOf(access) / 4)

const claudeCode: Agent = {
  name: "claude-code",
  title: "Claude Code",
  settings: (access, { home, variable }) => {
    const { keyVariable, model, url } = access
    const folder = variable("CLAUDE_CONFIG_DIR") ?? join(home, ".claude")
    const variables = {
      ANTHROPIC_BASE_URL: url,
      ANTHROPIC_MODEL: model,
      ANTHROPIC_DEFAULT_OPUS_MODEL: model,
      ANTHROPIC_DEFAULT_SONNET_MODEL: model,
      ANTHROPIC_DEFAULT_HAIKU_MODEL: model
    }
    const token = keyIn("ANTHROPIC_AUTH_TOKEN", access)
    const written = keyVariable === undefined ? { ...variables, ...token } : variables
    return {
      environment: { ...variables, ...token },
      variablesInFiles: Object.keys(written),
      files: [{
        path: join(folder, "settings.json"),
        format: "json",
        values: { env: written }
      }],
      commands: ["claude"],
      notes: ["ANTHROPIC_API_KEY must not be set: Claude Code would send it besides the token."]
    }
  }
}

const codex: Agent = {
  name: "codex",
  title: "Codex",
  settings: ({ keyVariable, model, url, window }, { home, variable }) => ({
    environment: {},
    files: [{
      path: join(variable("CODEX_HOME") ?? join(home, ".codex"), `${id}.config.toml`),
      format: "toml",
      values: {
        model,
        model_provider: id,
        // A tool that runs at the provider.
        web_search: "disabled",
        ...(window === undefined ? {} : { model_context_window: window }),
        [`model_providers.${id}`]: {
          name: "Troupe",
          base_url: `${url}/v1`,
          wire_api: "responses",
          ...(keyVariable === undefined ? {} : { env_key: keyVariable })
        }
      }
    }],
    commands: [`codex --profile ${id}`],
    notes: ["Codex 0.134 and later read a profile from a file of its own; earlier versions do not."]
  })
}

const opencode: Agent = {
  name: "opencode",
  title: "OpenCode",
  settings: (access, { home, variable }) => ({
    environment: {},
    files: [{
      path: join(variable("XDG_CONFIG_HOME") ?? join(home, ".config"), "opencode", "opencode.json"),
      format: "json",
      values: {
        $schema: "https://opencode.ai/config.json",
        model: `${id}/${access.model}`,
        provider: {
          [id]: {
            npm: "@ai-sdk/openai-compatible",
            name: "Troupe",
            options: {
              baseURL: `${access.url}/v1`,
              apiKey: access.keyVariable === undefined ? noKey : `{env:${access.keyVariable}}`
            },
            models: {
              [access.model]: {
                name: access.model,
                limit: { context: windowOf(access), output: outputOf(access) }
              }
            }
          }
        }
      }
    }],
    commands: ["opencode"],
    notes: []
  })
}

const aider: Agent = {
  name: "aider",
  title: "Aider",
  settings: (access, { home }) => {
    const model = `openai/${access.model}`
    return {
      environment: keyIn("OPENAI_API_KEY", access),
      files: [
        {
          path: join(home, ".aider.conf.yml"),
          format: "yaml",
          values: { "model": model, "weak-model": model, "openai-api-base": `${access.url}/v1` }
        },
        {
          path: join(home, ".aider.model.metadata.json"),
          format: "json",
          values: {
            [model]: {
              max_tokens: outputOf(access),
              max_input_tokens: windowOf(access),
              max_output_tokens: outputOf(access),
              input_cost_per_token: 0,
              output_cost_per_token: 0,
              litellm_provider: "openai",
              mode: "chat"
            }
          }
        }
      ],
      commands: ["aider"],
      notes: []
    }
  }
}

const cline: Agent = {
  name: "cline",
  title: "Cline",
  settings: ({ keyVariable, model, url }) => ({
    environment: {},
    files: [],
    commands: [
      `cline auth -p openai -b ${url}/v1 -m '${model}' -k "${keyVariable === undefined ? noKey : `$${keyVariable}`}"`,
      "cline"
    ],
    notes: [
      "Cline stores its settings, the key included, with `cline auth`; it documents no file to write.",
      `In the extension: API Provider "OpenAI Compatible", Base URL ${url}/v1, Model ID ${model}.`
    ]
  })
}

const continueDev: Agent = {
  name: "continue",
  title: "Continue",
  settings: ({ keyVariable, model, url, window }, { home, variable }) => ({
    environment: {},
    files: [{
      path: join(variable("CONTINUE_GLOBAL_DIR") ?? join(home, ".continue"), "config.yaml"),
      format: "yaml",
      defaults: { name: "Local configuration", version: "1.0.0", schema: "v1" },
      values: {
        models: [{
          name: `Troupe ${model}`,
          provider: "openai",
          model,
          apiBase: `${url}/v1`,
          apiKey: keyVariable === undefined ? noKey : `\${{ secrets.${keyVariable} }}`,
          roles: ["chat", "edit", "apply", "summarize"],
          capabilities: ["tool_use"],
          ...(window === undefined ? {} : { defaultCompletionOptions: { contextLength: window } })
        }]
      }
    }],
    commands: ["cn"],
    notes: keyVariable === undefined
      ? []
      : [
        `The extension reads ${keyVariable} from ${
          join(home, ".continue", ".env")
        }, the command line from its environment.`
      ]
  })
}

const zed: Agent = {
  name: "zed",
  title: "Zed",
  settings: (access, { home, variable }) => ({
    environment: keyIn(defaultKeyVariable, access),
    files: [{
      path: join(variable("XDG_CONFIG_HOME") ?? join(home, ".config"), "zed", "settings.json"),
      format: "json",
      values: {
        language_models: {
          openai_compatible: {
            Troupe: {
              api_url: `${access.url}/v1`,
              available_models: [{
                name: access.model,
                display_name: access.model,
                max_tokens: windowOf(access),
                max_output_tokens: outputOf(access),
                capabilities: { tools: true, images: false, parallel_tool_calls: true, prompt_cache_key: false }
              }]
            }
          }
        },
        agent: { default_model: { provider: "Troupe", model: access.model } }
      }
    }],
    commands: ["zed"],
    notes: ["Zed reads the key from its environment, or from its keychain: Agent Settings, LLM Providers, Troupe."]
  })
}

const crush: Agent = {
  name: "crush",
  title: "Crush",
  settings: (access, { home, variable }) => {
    const chosen = { provider: id, model: access.model }
    return {
      environment: {},
      files: [{
        path: join(variable("XDG_CONFIG_HOME") ?? join(home, ".config"), "crush", "crush.json"),
        format: "json",
        values: {
          $schema: "https://charm.land/crush.json",
          providers: {
            [id]: {
              name: "Troupe",
              type: "openai-compat",
              base_url: `${access.url}/v1`,
              api_key: access.keyVariable === undefined ? noKey : `$${access.keyVariable}`,
              models: [{
                id: access.model,
                name: access.model,
                context_window: windowOf(access),
                default_max_tokens: outputOf(access)
              }]
            }
          },
          models: { large: chosen, small: chosen }
        }
      }],
      commands: ["crush"],
      notes: []
    }
  }
}

/** In the order in which they are listed. */
export const agents: ReadonlyArray<Agent> = [
  claudeCode,
  codex,
  opencode,
  aider,
  cline,
  continueDev,
  zed,
  crush
]
