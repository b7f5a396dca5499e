/** Every deployment as it is now, under its model, with what can be done to it. */
import type { Overview } from "../../layers/http/OverviewSchema.ts"
import { bytes, count, duration, shareText, unknown } from "../format.ts"
import { figuresFor } from "../recent.ts"
import { hrefOf } from "../route.ts"
import { ask, session } from "../session.ts"
import { Badge, Meter } from "./Basics.tsx"
import { Confirm } from "./Confirm.tsx"
import { attempt } from "./Notices.tsx"
import { readOnlyTitle } from "./ReadOnly.tsx"

type Actor = Overview["deployments"][number]

/** What can be done to a deployment in the state that it has. */
const actions = {
  load: { label: "Load", done: "Loaded", isPossible: ({ state }: Actor) => state === "cold" || state === "failed" },
  unload: {
    label: "Unload",
    done: "Unloaded",
    isPossible: ({ state }: Actor) => state === "ready" || state === "loading"
  },
  pin: { label: "Pin", done: "Pinned", isPossible: ({ pinned, provider }: Actor) => !pinned && provider === undefined },
  unpin: { label: "Unpin", done: "Unpinned", isPossible: ({ pinned }: Actor) => pinned },
  drain: { label: "Drain", done: "Draining", isPossible: ({ drain }: Actor) => drain === undefined },
  resume: { label: "Resume", done: "Resumed", isPossible: ({ drain }: Actor) => drain !== undefined },
  reset: {
    label: "Close circuit",
    done: "Closed the circuit of",
    isPossible: ({ circuit }: Actor) => circuit !== undefined
  }
} as const
type Action = keyof typeof actions

/** What is said before an action that may leave requests without an answer. */
const questions: Partial<Record<Action, string>> = {
  unload: "It takes no new requests and ends those that it has; the next request of its model may load it again.",
  drain: "It gets no new requests until it is resumed, and ends those that it has."
}

const actionNames = Object.keys(actions) as ReadonlyArray<Action>

const act = (deployment: string, action: Action) => {
  const of = action === "reset" ? "circuits" : "deployments"
  const path = `/admin/${of}/${encodeURIComponent(deployment)}/${action}`
  return attempt(() => ask(path, { method: "POST" }), `${actions[action].done} ${deployment}.`)
}

const ActionButton = ({ action, actor: { deployment } }: { readonly action: Action; readonly actor: Actor }) => {
  const { label } = actions[action]
  const disabled = !session.value.mayChange
  const question = questions[action]
  return question !== undefined
    ? (
      <Confirm
        label={label}
        of={deployment}
        question={`${label} ${deployment}? ${question}`}
        disabled={disabled}
        action={() => act(deployment, action)}
      />
    )
    : (
      <button
        type="button"
        disabled={disabled}
        title={readOnlyTitle()}
        aria-label={`${label} ${deployment}`}
        onClick={() => void act(deployment, action)}
      >
        {label}
      </button>
    )
}

const Actions = ({ actor }: { readonly actor: Actor }) => (
  <div class="tools">
    {actionNames.filter((action) => actions[action].isPossible(actor)).map((action) => (
      <ActionButton key={action} action={action} actor={actor} />
    ))}
  </div>
)

const Slots = ({ actor: { deployment, limit, running, slots } }: { readonly actor: Actor }) => {
  const total = limit ?? slots
  if (total === undefined) return <>{running === 0 ? unknown : count(running)}</>
  return (
    <>
      <Meter
        label={`${deployment}: ${running} of ${total} slots in use`}
        value={running}
        of={total}
        tone={running >= total ? "warn" : "info"}
      />{" "}
      {running}/{total}
    </>
  )
}

const Queue = ({ actor: { oldestWaitMs, queued } }: { readonly actor: Actor }) => (
  <>
    {count(queued)}
    {oldestWaitMs !== undefined && <small>oldest {duration(oldestWaitMs)}</small>}
  </>
)

const State = ({ actor: { circuit, drain, keys, pinned, state } }: { readonly actor: Actor }) => (
  <>
    <Badge text={state} />
    {drain !== undefined && drain !== state && (
      <>
        <Badge text={drain} tone="warn" />
      </>
    )}
    {pinned && (
      <>
        <Badge text="pinned" tone="info" />
      </>
    )}
    {circuit !== undefined && (
      <>
        <Badge text={`circuit ${circuit.phase}`} tone={circuit.phase === "open" ? "bad" : "warn"} />
      </>
    )}
    {circuit !== undefined && circuit.retryAfterMs > 0 && <small>next call in {duration(circuit.retryAfterMs)}</small>}
    {keys !== undefined && <small>{keys.waiting + keys.rejected} of {keys.total} keys wait or are rejected</small>}
  </>
)

const baseName = (path: string): string => path.split(/[\\/]/).at(-1) ?? path

const Name = ({ actor }: { readonly actor: Actor }) => {
  const { deployment, engine, lora = [], provider, scaling, variant } = actor
  const details = [
    provider ?? engine,
    ...(variant === undefined ? [] : [baseName(variant)]),
    ...lora.map(({ path, scale }) => `LoRA ${baseName(path)} × ${scale}`),
    ...(scaling === undefined ? [] : [`${scaling.replicas} of ${scaling.maxReplicas} replicas`])
  ]
  return (
    <>
      {deployment}
      <small>{details.join(" · ")}</small>
    </>
  )
}

const ActorRow = ({ actor }: { readonly actor: Actor }) => {
  const five = figuresFor(actor.figures, "5m")
  return (
    <tr>
      <th scope="row" class="leaf">
        <Name actor={actor} />
      </th>
      <td>
        <State actor={actor} />
        {actor.lastFailure !== undefined && <small class="problem">{actor.lastFailure}</small>}
      </td>
      <td class="number">
        <Slots actor={actor} />
      </td>
      <td class="number">
        <Queue actor={actor} />
      </td>
      <td class="number">{actor.memoryBytes === 0 ? unknown : bytes(actor.memoryBytes)}</td>
      <td class="number">{count(actor.restarts ?? 0)}</td>
      <td class="number">
        {actor.version === undefined ? unknown : shareText(actor.version)}
      </td>
      <td class="number">{count(five?.requests)}</td>
      <td class={five !== undefined && five.failed > 0 ? "number problem" : "number"}>{count(five?.failed)}</td>
      <td class="number">{duration(five?.firstTokenMs.p95)}</td>
      <td>
        <Actions actor={actor} />
      </td>
    </tr>
  )
}

const heads = [
  ["Deployment", false],
  ["State", false],
  ["Slots", true],
  ["Queue", true],
  ["Memory", true],
  ["Restarts", true],
  ["Share", true],
  ["Attempts, 5 min", true],
  ["Failed", true],
  ["First token, 95 %", true],
  ["Actions", false]
] as const

export const Actors = ({ deployments }: { readonly deployments: ReadonlyArray<Actor> }) => (
  <div class="scroll" tabIndex={0} role="region" aria-label="Actors">
    <table class="actors">
      <caption class="visually-hidden">Deployments by model</caption>
      <thead>
        <tr>
          {heads.map(([head, isNumber]) => (
            <th key={head} scope="col" class={isNumber ? "number" : undefined}>{head}</th>
          ))}
        </tr>
      </thead>
      {[...Map.groupBy(deployments, ({ model }) =>
        model)].map(([model, actors]) => (
          <tbody key={model}>
            <tr class="group">
              <th scope="rowgroup" colSpan={heads.length}>
                <span class="group-head">
                  <a href={hrefOf("models", model)}>{model}</a>
                </span>
              </th>
            </tr>
            {actors.map((actor) => <ActorRow key={actor.deployment} actor={actor} />)}
          </tbody>
        ))}
    </table>
  </div>
)
