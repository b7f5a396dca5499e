/** The form that starts a rollout. */
import { useSignal } from "@preact/signals"
import type { Deployment } from "../../layers/http/AdminSchema.ts"
import { attempt } from "../parts/Notices.tsx"
import { usePolled } from "../polled.ts"
import { ask } from "../session.ts"

const stepsOf = (text: string): ReadonlyArray<number> =>
  text.split(/[\s,;]+/).filter((part) => part !== "").map((part) => Number(part.replace("%", "")) / 100)

export const NewRollout = ({ started }: { readonly started: () => void }) => {
  const { value } = usePolled<{ readonly deployments: ReadonlyArray<Deployment> }>("/admin/deployments", 10_000)
  const model = useSignal("")
  const all = value?.deployments ?? []
  const models = [...new Set(all.map((one) => one.model))]
  const chosen = model.value === "" ? models[0] ?? "" : model.value
  const submit = async (event: SubmitEvent) => {
    event.preventDefault()
    const form = new FormData(event.currentTarget as HTMLFormElement)
    const steps = stepsOf(form.get("steps") as string)
    const body = {
      model: chosen,
      to: (form.get("to") as string).trim(),
      ...(steps.length === 0 ? {} : { settings: { steps } })
    }
    const result = await attempt(
      () => ask("/admin/rollouts", { method: "POST", body }),
      `Started a rollout of ${chosen}.`
    )
    if (result !== undefined) started()
  }
  return (
    <form class="card fields" onSubmit={(event) => void submit(event)}>
      <h2>Start a rollout</h2>
      <label>
        Model
        <select value={chosen} onChange={(event) => (model.value = event.currentTarget.value)}>
          {models.map((name) => <option key={name}>{name}</option>)}
        </select>
      </label>
      <label>
        New version
        <input name="to" required list="rollout-deployments" spellcheck={false} aria-describedby="rollout-to-help" />
        <small id="rollout-to-help" class="muted">
          A deployment of the model, or another model of its provider, or another file
        </small>
      </label>
      <datalist id="rollout-deployments">
        {all.filter((one) => one.model === chosen).map((one) => <option key={one.deployment} value={one.deployment} />)}
      </datalist>
      <label>
        Steps, in percent
        <input name="steps" placeholder="10, 30, 70, 100" spellcheck={false} />
      </label>
      <button class="primary" type="submit">Start</button>
    </form>
  )
}
