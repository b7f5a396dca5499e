/** Gradual rollouts, A/B tests and copies of requests. */
import { useSignal } from "@preact/signals"
import type { RolloutView } from "../../layers/http/RolloutSchema.ts"
import { ago, dateTime, percent } from "../format.ts"
import { Badge, Empty, Meter, Title } from "../parts/Basics.tsx"
import { Confirm } from "../parts/Confirm.tsx"
import { attempt } from "../parts/Notices.tsx"
import { ReadOnly, readOnlyTitle } from "../parts/ReadOnly.tsx"
import { usePolled } from "../polled.ts"
import { hrefOf, route } from "../route.ts"
import { ask, session } from "../session.ts"
import { Experiments, Shadows } from "./Comparisons.tsx"
import { Evidence } from "./Evidence.tsx"
import { NewRollout } from "./NewRollout.tsx"
import type { RolloutList } from "./rolloutTypes.ts"

const questions = {
  pause: "Keep the share of the candidate until the rollout is resumed? It is still rolled back where it is worse.",
  resume: "Continue with the steps of the plan?",
  promote: "Give the candidate all requests now, whatever its step?",
  abort: "Give the candidate no more requests, and end the rollout?"
} as const
type Action = keyof typeof questions

const labels: Readonly<Record<Action, string>> = {
  pause: "Pause",
  resume: "Resume",
  promote: "Promote",
  abort: "Abort"
}

const actionsOf = ({ experiment, phase }: RolloutView): ReadonlyArray<Action> => {
  if (
    phase === "Ended" && experiment !== undefined && experiment.state !== "paused" && experiment.withheld.length > 0
  ) {
    return ["resume"]
  }
  if (phase === "Ended" || phase === "Draining") return []
  return [
    ...(phase === "Paused" ? ["resume"] as const : phase === "Stepping" ? ["pause"] as const : []),
    "promote",
    "abort"
  ]
}

const Actions = ({ done, rollout }: { readonly rollout: RolloutView; readonly done: () => void }) => (
  <div class="tools">
    {actionsOf(rollout).map((action) => (
      <Confirm
        key={action}
        label={labels[action]}
        of={`the rollout of ${rollout.model}`}
        question={rollout.phase === "Ended" ? "Let the A/B test go on with all variants?" : questions[action]}
        isDangerous={action === "abort"}
        disabled={!session.value.mayChange}
        action={async () => {
          const path = `/admin/rollouts/${encodeURIComponent(rollout.id)}/${action}`
          await attempt(() => ask(path, { method: "POST" }), `${labels[action]}: ${rollout.model}`)
          done()
        }}
      />
    ))}
  </div>
)

const Steps = ({ rollout: { phase, plan, step, weight } }: { readonly rollout: RolloutView }) => (
  <ol class="steps" aria-label="Shares of the plan">
    {plan.steps.map((share, index) => (
      <li key={share} aria-current={phase !== "Ended" && index === step ? "step" : undefined}>{percent(share)}</li>
    ))}
    <li class="now">
      <Meter label={`The candidate has ${percent(weight)} of the requests`} value={weight} of={1} />
      <span>now {percent(weight)}</span>
    </li>
  </ol>
)

const History = ({ rollout }: { readonly rollout: RolloutView }) => (
  <details>
    <summary>History ({rollout.history.length})</summary>
    <ol class="plain">
      {rollout.history.toReversed().map(({ at, weight, what }) => (
        <li key={`${at} ${what}`}>
          <span class="muted">{dateTime(at)}</span> {what} <span class="muted">({percent(weight)})</span>
        </li>
      ))}
    </ol>
  </details>
)

const Rollout = ({ done, rollout }: { readonly rollout: RolloutView; readonly done: () => void }) => {
  const { candidate, experiment, model, outcome, phase, problem, stable, startedAt, waitingFor } = rollout
  const isOpen = route.value.detail === rollout.id || phase !== "Ended"
  return (
    <section class="card">
      <div class="title">
        <h2>{model}</h2>
        <Badge text={outcome?.result ?? phase} />
        <span class="muted">started {ago(startedAt)}</span>
        <span class="space" />
        <Actions rollout={rollout} done={done} />
      </div>
      <p>
        {stable.join(", ")} → <strong>{candidate}</strong>
      </p>
      <Steps rollout={rollout} />
      <p>{outcome === undefined ? waitingFor : outcome.reason}</p>
      {experiment !== undefined && <p>A/B test: {experiment.message}</p>}
      {problem !== undefined && <p class="problem">{problem}</p>}
      {isOpen
        ? <Evidence rollout={rollout} />
        : (
          <a href={hrefOf("rollouts", rollout.id)}>
            Show the evidence<span class="visually-hidden">for {model}</span>
          </a>
        )}
      <History rollout={rollout} />
    </section>
  )
}

export const Rollouts = () => {
  const { problem, refresh, value } = usePolled<RolloutList>("/admin/rollouts", 2_000)
  const isStarting = useSignal(false)
  const isEmpty = value !== undefined && value.rollouts.length + value.experiments.length + value.shadows.length === 0
  return (
    <>
      <Title text="Rollouts">
        <button
          type="button"
          aria-expanded={isStarting.value}
          disabled={!session.value.mayChange}
          title={readOnlyTitle()}
          onClick={() => (isStarting.value = !isStarting.value)}
        >
          Start a rollout
        </button>
      </Title>
      <ReadOnly />
      {problem !== undefined && <p class="problem" role="alert">{problem}</p>}
      {isStarting.value && (
        <NewRollout
          started={() => {
            isStarting.value = false
            refresh()
          }}
        />
      )}
      {isEmpty && (
        <Empty title="No rollout yet">
          A rollout moves a model to another deployment step by step, and rolls it back where the other one is worse.
          Configure a second deployment of a model, then start one here, or set <code>rollout</code> in troupe.yaml.
        </Empty>
      )}
      {value?.rollouts.map((one) => <Rollout key={one.id} rollout={one} done={refresh} />)}
      <Experiments experiments={value?.experiments ?? []} />
      <Shadows shadows={value?.shadows ?? []} />
    </>
  )
}
