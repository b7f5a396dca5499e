/** What is sent with the requests of the playground. */
import type { Signal } from "@preact/signals"
import type { Options } from "../chat.ts"
import { session } from "../session.ts"

const exampleTools = JSON.stringify(
  [{
    type: "function",
    function: {
      name: "weather",
      description: "The weather of a city",
      parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] }
    }
  }],
  null,
  2
)

const efforts = ["", "none", "minimal", "low", "medium", "high"]

type Set = (name: keyof Options) => (event: { readonly currentTarget: { readonly value: string } }) => void

interface FieldsProps {
  readonly options: Options
  readonly set: Set
}

const Sampling = ({ options: { effort, maxTokens, system, temperature }, set }: FieldsProps) => (
  <>
    <label class="whole">
      System prompt
      <textarea rows={2} value={system} onInput={set("system")} />
    </label>
    <label>
      Temperature
      <input
        type="number"
        min="0"
        max="2"
        step="0.1"
        placeholder="default"
        value={temperature}
        onInput={set("temperature")}
      />
    </label>
    <label>
      Most tokens
      <input type="number" min="1" step="1" placeholder="default" value={maxTokens} onInput={set("maxTokens")} />
    </label>
    <label>
      Reasoning
      <select value={effort} onChange={set("effort")}>
        {efforts.map((one) => <option key={one} value={one}>{one === "" ? "default" : one}</option>)}
      </select>
    </label>
  </>
)

const Tools = ({ options: { tools }, set }: FieldsProps) => (
  <label class="whole">
    Tools, as JSON
    <textarea
      rows={4}
      spellcheck={false}
      class="code"
      placeholder={exampleTools}
      value={tools}
      onInput={set("tools")}
    />
  </label>
)

export const Settings = ({ options }: { readonly options: Signal<Options> }) => {
  const set: Set = (name) => (event) => {
    options.value = { ...options.peek(), [name]: event.currentTarget.value }
  }
  const { key, tools } = options.value
  return (
    <details class="card">
      <summary>Settings: system prompt, sampling, reasoning, tools</summary>
      <div class="fields">
        <Sampling options={options.value} set={set} />
        {session.value.needsKey && (
          <label>
            Another API key
            <input type="password" autocomplete="off" placeholder="the admin key" value={key} onInput={set("key")} />
          </label>
        )}
        <Tools options={options.value} set={set} />
        {tools === "" && (
          <button type="button" onClick={() => (options.value = { ...options.peek(), tools: exampleTools })}>
            Use an example tool
          </button>
        )}
      </div>
    </details>
  )
}
