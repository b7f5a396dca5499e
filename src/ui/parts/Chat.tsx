/** One conversation of the playground. */
import { useEffect, useRef } from "preact/hooks"
import type { Model } from "../../dialects/openai/Models.ts"
import type { Conversation, Message, Run } from "../chat.ts"
import { count, decimal, duration, exactUsd, shortUsd } from "../format.ts"
import { hrefOf } from "../route.ts"

const speedOf = ({ completionTokens, firstTokenMs, tookMs }: Run): number | undefined => {
  if (completionTokens === undefined || tookMs === undefined) return undefined
  const ms = tookMs - (firstTokenMs ?? 0)
  return ms <= 0 ? undefined : (completionTokens / ms) * 1_000
}

/** The figures of an answer; what failed before its first token has none. */
const RunFigures = ({ run }: { readonly run: Run }) => (
  <>
    <span>first token {duration(run.firstTokenMs)}</span>
    <span>total {duration(run.tookMs)}</span>
    <span>{count(run.promptTokens)} + {count(run.completionTokens)} tokens</span>
    <span>{decimal(speedOf(run), "tokens/s")}</span>
    {run.cost?.usd !== undefined && (
      <span title={exactUsd(run.cost.usd, run.cost.unpriced)}>cost {shortUsd(run.cost.usd, run.cost.unpriced)}</span>
    )}
  </>
)

const RunLine = ({ run }: { readonly run: Run }) => (
  <p class="run muted">
    {run.deployment !== undefined && <span>{run.deployment}</span>}
    {run.attempts !== undefined && run.attempts !== "1" && <span>{run.attempts} attempts</span>}
    {run.cache !== undefined && <span>cache {run.cache}</span>}
    {run.problem !== undefined && run.firstTokenMs === undefined
      ? <span>failed after {duration(run.tookMs)}</span>
      : <RunFigures run={run} />}
    {run.finish !== undefined && run.finish !== "stop" && <span>ended by {run.finish}</span>}
    {run.decision !== undefined && <a href={hrefOf("requests", run.decision)}>Show the route</a>}
  </p>
)

const roleNames = { user: "You", assistant: "Answer", tool: "Tool result" } as const

const Bubble = ({ message: { calls, images, reasoning, role, run, text } }: { readonly message: Message }) => (
  <li class={`message ${role}`}>
    <strong class="role">{roleNames[role]}</strong>
    {images.map((url, index) => <img key={url} src={url} alt={`Image ${index + 1} of the message`} />)}
    {reasoning !== "" && (
      <details class="reasoning" open={text === ""}>
        <summary>Reasoning</summary>
        <p class="text">{reasoning}</p>
      </details>
    )}
    {text !== "" && <p class="text">{text}</p>}
    {calls.map((call) => <pre key={call.id} class="call">{call.name}({call.arguments})</pre>)}
    {run?.problem !== undefined && <p class="problem" role="alert">{run.problem}</p>}
    {run !== undefined && <RunLine run={run} />}
  </li>
)

/** Keeps the end in view while an answer arrives. */
const useEnd = (messages: ReadonlyArray<Message>) => {
  const frame = useRef<HTMLDivElement>(null)
  useEffect(() => {
    const element = frame.current!
    if (element.scrollHeight - element.scrollTop - element.clientHeight < 200) element.scrollTop = element.scrollHeight
  }, [messages])
  return frame
}

const ModelChoice = ({ conversation: { model }, models, name }: ChatProps) => (
  <label class="model">
    <span>Model{name === "" ? "" : `, ${name}`}</span>
    <select value={model.value} onChange={(event) => (model.value = event.currentTarget.value)}>
      {models.map(({ id, state }) => <option key={id} value={id}>{id} ({state})</option>)}
    </select>
  </label>
)

interface ChatProps {
  readonly conversation: Conversation
  readonly models: ReadonlyArray<Model>
  /** `left` or `right`; empty where there is one. */
  readonly name: string
}

export const Chat = (props: ChatProps) => {
  const { conversation: { messages, stopping }, name } = props
  const frame = useEnd(messages.value)
  return (
    <section class="chat" aria-label={name === "" ? "Conversation" : `Conversation, ${name}`}>
      <ModelChoice {...props} />
      <div
        class="messages"
        ref={frame}
        tabIndex={0}
        role="log"
        aria-label="Messages"
        aria-busy={stopping.value !== undefined}
      >
        {messages.value.length === 0
          ? <p class="muted">Send a message to see the answer, its route and its timings.</p>
          : <ol>{messages.value.map((message, index) => <Bubble key={index} message={message} />)}</ol>}
      </div>
    </section>
  )
}
